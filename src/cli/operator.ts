import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { Command, Option } from 'commander'
import { postUntilAnswered, untilAnswered } from './back-off.ts'
import type { Service } from './client.ts'
import { readText } from './device-folder.ts'
import { EXIT, Failure, printable } from './failure.ts'
import { LOCAL_FOLDER, findService } from './local-mode.ts'

interface ConnectionOptions { url?: string, ca?: string, keyFile?: string, json?: boolean }

interface Action { step: string, outcome: string, serialNumber?: string, certificateId?: string, detail?: string }

const OPERATIONS = {
  reset: 'revoke the certificate and give a new registration token, which is printed once',
  revoke: 'revoke the certificate for good; a reset lets the device start anew',
  disable: 'pause the device: its certificate becomes INACTIVE',
  enable: 'end the pause',
  decommission: 'revoke the certificate and refuse the device for ever'
}

const PATIENCE = { timeoutMs: 120_000 }

/** `cvm operator …`: what operators ask of the service. Its actions throw `Failure`. */
export function operatorCommand (): Command {
  const command = new Command('operator').description('look after devices (needs an API key with the role operator)')
  withConnection(command.command('show <serial>'))
    .description('a device, its certificate and everything that happened to it')
    .action(show)
  withConnection(command.command('reconcile'))
    .description('finish or undo what crashes left, now; the service does so by itself every interval')
    .option('--dry-run', 'say what would be done, and do nothing')
    .action(reconcile)
  for (const [operation, what] of Object.entries(OPERATIONS)) {
    withConnection(command.command(`${operation} <serial>`)).description(what)
      .requiredOption('--reason <text>', 'why; kept in the history')
      .action((serial: string, options: ConnectionOptions & { reason: string }) => operate(operation, serial, options))
  }
  return command
}

function withConnection (command: Command): Command {
  return command
    .addOption(new Option('--url <url>', 'the service (default: the local one, https://localhost:8443)').env('CVM_URL'))
    .option('--ca <file>', 'PEM with the authorities that sign the service\'s certificate')
    .option('--key-file <file>', 'file with the API key (or set CVM_API_KEY; local mode: .cvm/operator.key, found by itself)')
    .option('--json', 'print the service\'s answer as it is')
}

async function show (serial: string, options: ConnectionOptions): Promise<void> {
  const path = `v1/devices/${encodeURIComponent(serial)}`
  const { body } = await untilAnswered(await connect(options), { path }, PATIENCE)
  if (options.json) return print(JSON.stringify(body, null, 2))
  const { history, retiring, ...facts } = body
  for (const [name, value] of Object.entries(facts)) print(`${name.padEnd(16)}${printable(String(value))}`)
  if (Array.isArray(retiring) && retiring.length > 0) print(`${'being ended'.padEnd(16)}${retiring.join(' ')}`)
  print('')
  for (const { at, event, requestId, certificateId, actor, reason } of history as Record<string, string>[]) {
    const more = [certificateId && `certificate ${certificateId}`, actor && `by ${actor}`, reason && `because: ${reason}`]
    print(printable([at, event?.padEnd(14), `request ${requestId}`, ...more.filter(Boolean)].join('  ')))
  }
}

async function operate (operation: string, serial: string, options: ConnectionOptions & { reason: string }): Promise<void> {
  const path = `v1/devices/${encodeURIComponent(serial)}/${operation}`
  const { body } = await postUntilAnswered(await connect(options), path, { reason: options.reason }, PATIENCE)
  if (options.json) return print(JSON.stringify(body, null, 2))
  print(`${serial} is ${printable(String(body.state))}`)
  if (body.registrationToken !== undefined) print(`registration token  ${printable(String(body.registrationToken))}`)
}

async function reconcile (options: ConnectionOptions & { dryRun?: boolean }): Promise<void> {
  const { body } = await postUntilAnswered(await connect(options), 'v1/reconcile', { dryRun: options.dryRun === true }, PATIENCE)
  if (options.json) return print(JSON.stringify(body, null, 2))
  const actions = body.actions as Action[]
  for (const { step, outcome, serialNumber = '', certificateId = '', detail = '' } of actions) {
    print(printable([outcome.padEnd(6), step.padEnd(20), serialNumber, certificateId, detail].filter(Boolean).join('  ')))
  }
  const done = options.dryRun ? `${actions.length} to do` : `${actions.filter(({ outcome }) => outcome === 'done').length} done`
  print(`${done}, ${String(body.backlog)} waiting, ${String(body.drift)} differ from AWS IoT${body.complete ? '' : '; not all was looked at'}`)
}

async function connect (options: ConnectionOptions): Promise<Service> {
  const service = await findService(options.url, options.ca, line => process.stderr.write(`${line}\n`))
  const apiKey = (await keyFrom(options.keyFile)).trim()
  if (apiKey === '') throw new Failure(EXIT.usage, 'the API key is missing', { remedy: 'Give --key-file, or set CVM_API_KEY' })
  return { ...service, apiKey }
}

/** Never an option of its own: every user of the machine can read a command line. */
async function keyFrom (file: string | undefined): Promise<string> {
  if (file !== undefined) return await readText(file)
  return process.env['CVM_API_KEY'] ?? await readFile(join(LOCAL_FOLDER, 'operator.key'), 'utf8').catch(() => '')
}

function print (line: string): void {
  process.stdout.write(`${line}\n`)
}
