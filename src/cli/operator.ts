import { randomBytes } from 'node:crypto'
import { Command, InvalidArgumentError } from 'commander'
import { authorityCommand } from './authority.ts'
import { postUntilAnswered } from './back-off.ts'
import { readSecret } from './device-folder.ts'
import { EXIT, Failure, printable } from './failure.ts'
import { audit, certificate, list, show } from './look-up.ts'
import { migrate } from './migrate.ts'
import { upTo } from './numbers.ts'
import { registerCertificate } from './register-certificate.ts'
import { connect, withConnection } from './settings.ts'
import type { ConnectionOptions } from './settings.ts'
import { shadow } from './shadow.ts'
import { facts } from './table.ts'

interface OperateOptions extends ConnectionOptions { reason: string, keyCompromised?: boolean, ifMatch?: string, json?: boolean }

interface RegisterOptions extends ConnectionOptions { product?: string, tokenFile?: string, expires?: string, json?: boolean }

interface Action { step: string, outcome: string, serialNumber?: string, certificateId?: string, detail?: string }

const OPERATIONS = {
  reset: 'revoke the certificate and give a new registration token, which is printed once',
  revoke: 'revoke the certificate for good; a reset lets the device start anew',
  disable: 'pause the device: its certificate becomes INACTIVE',
  enable: 'end the pause',
  decommission: 'revoke the certificate and refuse the device for ever'
}

const PATIENCE = { timeoutMs: 120_000 }
const JSON_LINES = 'print JSON lines: one object for each'
const AS_IT_IS = 'print the service\'s answer as it is'

/** `cvm operator …`: what operators and auditors ask of the service. Its actions throw `Failure`. */
export function operatorCommand (): Command {
  const command = new Command('operator').description('look after devices (needs a key with the role operator; to look, auditor is enough)')
  withConnection(command.command('list'))
    .description('devices, in the order of their states and serial numbers')
    .option('--state <state>', 'only those in this state, such as ACTIVE')
    .option('--product <product>', 'only those of this product')
    .option('--limit <n>', 'at most so many', upTo(9_999_999), 100)
    .option('--all', 'all of them')
    .option('--quarantined', 'instead, those whose records cannot be read, and what is wrong with each')
    .option('--drifted', 'instead, those about which AWS IoT and the registry differ, and in what')
    .option('--accepted', 'with --drifted: those whose difference an operator has accepted')
    .option('--json', JSON_LINES)
    .action(list)
  withConnection(command.command('show <serial>'))
    .description('a device, its certificate and everything that happened to it')
    .option('--json', `${AS_IT_IS}, with the device's revision`)
    .action(show)
  withConnection(command.command('audit <serial>'))
    .description('the device\'s story: what happened when, by whom, in which request, why')
    .option('--json', JSON_LINES)
    .action(audit)
  withConnection(command.command('certificate <id>'))
    .description('a certificate of this service by its AWS IoT id, and the device it belongs to')
    .option('--json', AS_IT_IS)
    .action(certificate)
  withConnection(command.command('register <serial>'))
    .description('let a device in; its registration token is printed once (many devices: cvm devices import)')
    .option('--product <product>', 'product of the device (default: the service\'s default product)')
    .option('--token-file <file>', 'file with the registration token to give it (default: a new one of 256 bits)')
    .option('--expires <time>', 'when the token ends, as 2030-01-31 or 2030-01-31T12:00:00Z', time)
    .option('--json', 'print the service\'s answer, with the token where it was made here')
    .action(register)
  withConnection(command.command('register-certificate <serial> <file>'))
    .description('make a certificate that was made elsewhere (PEM; CA certificates after it) the one of a registered device')
    .option('--json', AS_IT_IS)
    .action(registerCertificate)
  for (const [operation, what] of Object.entries(OPERATIONS)) {
    const one = withConnection(command.command(`${operation} <serial>`)).description(what)
      .requiredOption('--reason <text>', 'why; kept in the history')
    if (operation === 'revoke') one.option('--key-compromised', 'the key is known to others: no device gets a certificate for it again')
    one.option('--if-match <revision>', 'only if the device has not changed since `cvm operator show` told this revision', revision)
      .option('--json', AS_IT_IS)
      .action((serial: string, options: OperateOptions) => operate(operation, serial, options))
  }
  withConnection(command.command('accept-drift <serial>'))
    .description('accept how AWS IoT differs about a device, until that changes')
    .option('--kind <kind>', 'only this finding, such as status-differs (default: all of the device\'s)')
    .requiredOption('--reason <text>', 'why; kept with the finding')
    .option('--json', AS_IT_IS)
    .action(acceptDrift)
  withConnection(command.command('shadow <serial>'))
    .description('the device\'s shadow, or with --set what is wanted of the device from now on')
    .option('--name <name>', 'a named shadow (default: the classic one)')
    .option('--set <file>', 'JSON object to merge into what is wanted, - for standard input; members that are null go')
    .option('--if-version <version>', 'only if the shadow is at this version, 0 if there is none', upTo(Number.MAX_SAFE_INTEGER, 0))
    .action(shadow)
  withConnection(command.command('migrate'))
    .description('take over the devices in an earlier service\'s table; turn that service off first')
    .option('--dry-run', 'say what would be done, and do nothing')
    .option('--table <name>', 'another table than the service\'s own: its rows are copied, and it is only read')
    .option('--cursor <cursor>', 'where an interrupted run said to go on; without it, all from the start, which skips what is done')
    .option('--json', JSON_LINES)
    .action(migrate)
  withConnection(command.command('reconcile'))
    .description('finish or undo what crashes left, now; the service does so by itself every interval')
    .option('--dry-run', 'say what would be done, and do nothing')
    .option('--sweep', 'also compare the whole fleet with AWS IoT, which the service does once a day')
    .option('--json', AS_IT_IS)
    .action(reconcile)
  command.addCommand(authorityCommand())
  return command
}

/** The token is made here: sent again after a lost answer it is recognised, where one made by the service would be lost for good. */
async function register (serial: string, options: RegisterOptions): Promise<void> {
  const { product, tokenFile, expires } = options
  const made = tokenFile === undefined ? randomBytes(32).toString('base64url') : undefined
  const registrationToken = made ?? await readSecret(tokenFile as string, 'the registration token')
  const device = { serialNumber: serial, ...product && { product }, registrationToken, ...expires && { tokenExpiresAt: expires } }
  const { body, status } = await postUntilAnswered(await connect(options), 'v1/devices', device, PATIENCE).catch(explainUnknown)
  if (options.json) return print(JSON.stringify(made === undefined ? body : { ...body, registrationToken: made }, null, 2))
  print(`${serial} is ${printable(String(body.state))}${status === 200 && made === undefined ? ', as it was before' : ''}`)
  process.stdout.write(facts([['product', body.product], ['token valid until', body.tokenExpiresAt], ['registration token', made]]))
}

async function operate (operation: string, serial: string, options: OperateOptions): Promise<void> {
  const path = `v1/devices/${encodeURIComponent(serial)}/${operation}`
  const condition: Record<string, string> = options.ifMatch === undefined ? {} : { 'if-match': `"${options.ifMatch}"` }
  const { reason, keyCompromised } = options
  const message = { reason, ...keyCompromised && { keyCompromised } }
  const { body } = await postUntilAnswered(await connect(options), path, message, PATIENCE, condition)
  if (options.json) return print(JSON.stringify(body, null, 2))
  print(`${serial} is ${printable(String(body.state))}`)
  if (body.registrationToken !== undefined) print(`registration token  ${printable(String(body.registrationToken))}`)
}

async function acceptDrift (serial: string, options: ConnectionOptions & { kind?: string, reason: string, json?: boolean }): Promise<void> {
  const { kind, reason } = options
  const path = `v1/devices/${encodeURIComponent(serial)}/accept-drift`
  const { body } = await postUntilAnswered(await connect(options), path, { ...kind !== undefined && { kind }, reason }, PATIENCE)
  if (options.json) return print(JSON.stringify(body, null, 2))
  for (const { kind, registry, awsIot } of body.drift as Record<string, unknown>[]) {
    print(printable(`accepted: ${String(kind)}: the registry says ${String(registry)}, AWS IoT says ${String(awsIot)}`))
  }
}

async function reconcile (options: ConnectionOptions & { dryRun?: boolean, sweep?: boolean, json?: boolean }): Promise<void> {
  if (options.dryRun && options.sweep) throw new Failure(EXIT.usage, '--sweep goes without --dry-run: it keeps what it finds')
  const wish = { dryRun: options.dryRun === true, ...options.sweep && { sweep: true } }
  const { body } = await postUntilAnswered(await connect(options), 'v1/reconcile', wish, PATIENCE)
  if (options.json) return print(JSON.stringify(body, null, 2))
  const actions = body.actions as Action[]
  for (const { step, outcome, serialNumber = '', certificateId = '', detail = '' } of actions) {
    print(printable([outcome.padEnd(6), step.padEnd(20), serialNumber, certificateId, detail].filter(Boolean).join('  ')))
  }
  const done = options.dryRun ? `${actions.length} to do` : `${actions.filter(({ outcome }) => outcome === 'done').length} done`
  const quarantined = Number(body.quarantined ?? 0) > 0 ? `, ${String(body.quarantined)} cannot be read (cvm operator list --quarantined)` : ''
  print(`${done}, ${String(body.backlog)} waiting, ${String(body.drift)} differ from AWS IoT${Number(body.drift) > 0 ? ' (cvm operator list --drifted)' : ''}${quarantined}${body.complete ? '' : '; not all was looked at'}`)
}

function explainUnknown (error: unknown): never {
  if (!(error instanceof Failure) || error.exitCode !== EXIT.later) throw error
  const remedy = 'The device may be registered all the same: look with `cvm operator show`; if it is, `cvm operator reset` gives it a new token'
  throw new Failure(error.exitCode, error.message, { ...error.problem, remedy }, error)
}

function revision (value: string): string {
  const digits = /^"?(\d{1,15})"?$/.exec(value)?.[1]
  if (digits === undefined) throw new InvalidArgumentError('It must be a number, as `cvm operator show` tells it.')
  return digits
}

function time (value: string): string {
  if (!/^\d{4}-\d\d-\d\d/.test(value) || Number.isNaN(Date.parse(value))) throw new InvalidArgumentError('It must be a date or a time as 2030-01-31T12:00:00Z.')
  return new Date(value).toISOString()
}

function print (line: string): void {
  process.stdout.write(`${line}\n`)
}
