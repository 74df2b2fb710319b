import { Command, InvalidArgumentError, Option } from 'commander'
import { certificates, list, show } from './authority-look-up.ts'
import { register } from './authority-register.ts'
import { type SettingOptions, settingsOf, told, withSettings } from './authority-settings.ts'
import { untilAnswered } from './back-off.ts'
import type { Call } from './client.ts'
import { EXIT, Failure, printable } from './failure.ts'
import { upTo } from './numbers.ts'
import { type ConnectionOptions, connect, withConnection } from './settings.ts'

interface SetOptions extends ConnectionOptions, SettingOptions {
  autoRegistration?: string
  ifMatch?: string
  json?: boolean
  crls?: boolean
  allProducts?: boolean
}

const PATIENCE = { timeoutMs: 120_000 }
const AS_IT_IS = 'print the service\'s answer as it is'

const HELP = `
Anyone who can register CAs decides whose certificates the account trusts. A CA takes no device before its CRL is set, or --without-crl
accept says that there need not be one; and none while it is INACTIVE.

To show that the CA is yours, its key signs the registration code of the account here, on this machine; the key is sent nowhere. Where the
key is elsewhere (an HSM, a machine off the network), have it sign a certificate whose common name is what \`code\` prints, and give that
with --verification.`

/** `cvm operator authority …`: the CAs whose certificates are taken. Its actions throw `Failure`. */
export function authorityCommand (): Command {
  const command = new Command('authority').description('look after the CAs whose certificates are taken').addHelpText('after', HELP)
  withConnection(command.command('list')).description('all of them, newest first')
    .option('--json', 'print JSON lines: one object for each').action(list)
  withConnection(command.command('show <id>')).description('an authority and its settings')
    .option('--json', `${AS_IT_IS}, with the revision of the settings`).action(show)
  withConnection(command.command('certificates <id>')).description('the certificates that AWS IoT registered as its own, the last one first')
    .option('--limit <n>', 'at most so many', upTo(9_999_999), 100)
    .option('--all', 'all of them')
    .option('--json', 'print JSON lines: one object for each').action(certificates)
  withConnection(command.command('code')).description('the registration code of the account').action(code)
  withSettings(withConnection(command.command('register <ca-file>')))
    .description('register a CA by its certificate (PEM)')
    .option('--ca-key <file>', 'the CA\'s private key, which signs the registration code here')
    .option('--passphrase-file <file>', 'file with the passphrase of that key (default: it is asked for)')
    .option('--verification <file>', 'a verification certificate that was made elsewhere, in place of --ca-key')
    .addOption(new Option('--mode <mode>', 'sni-only: the key is not shown, and devices must send SNI').choices(['default', 'sni-only']).default('default'))
    .option('--active', 'take devices at once (default: INACTIVE)')
    .option('--auto-registration', 'let AWS IoT register its unknown certificates at their first connection (JITR)')
    .option('--json', AS_IT_IS)
    .action(register)
  withSettings(withConnection(command.command('set <id>')))
    .description('change the settings that are given; the others stay')
    .option('--no-crls', 'take its CRLs away')
    .option('--all-products', 'any product')
    .option('--no-intermediates', 'take its intermediates away')
    .addOption(new Option('--auto-registration <on|off>', 'whether AWS IoT registers its unknown certificates (JITR)').choices(['on', 'off']))
    .option('--if-match <revision>', 'only if the settings have not changed since `show` told this revision', revision)
    .option('--json', AS_IT_IS)
    .action(set)
  for (const [name, status, what] of [['activate', 'ACTIVE', 'take new devices of it'], ['deactivate', 'INACTIVE', 'take no new devices of it; those it has go on working']] as const) {
    withConnection(command.command(`${name} <id>`)).description(what).option('--json', AS_IT_IS)
      .action((id: string, options: SetOptions) => change(id, { status }, options))
  }
  withConnection(command.command('delete <id>')).description('delete an INACTIVE authority')
    .option('--force', 'also one whose certificates are not all REVOKED: they go on working')
    .action(remove)
  return command
}

async function set (id: string, options: SetOptions): Promise<void> {
  const wish = {
    ...await settingsOf(options),
    ...options.crls === false && { crls: [] },
    ...options.allProducts && { products: null },
    ...options.intermediates === false && { intermediatesPem: null },
    ...options.autoRegistration && { autoRegistration: options.autoRegistration === 'on' }
  }
  if (Object.keys(wish).length === 0) throw new Failure(EXIT.usage, 'nothing to set', { remedy: 'See `cvm operator authority set --help`' })
  await change(id, wish, options)
}

async function change (id: string, wish: Record<string, unknown>, options: SetOptions): Promise<void> {
  const condition = options.ifMatch === undefined ? {} : { 'if-match': `"${options.ifMatch}"` }
  const call: Call = { path: pathOf(id), method: 'PATCH', body: Buffer.from(JSON.stringify(wish)), headers: condition }
  const { body } = await untilAnswered(await connect(options), call, PATIENCE)
  process.stdout.write(options.json ? `${JSON.stringify(body, null, 2)}\n` : told(id, body))
}

async function code (options: ConnectionOptions): Promise<void> {
  const { body } = await untilAnswered(await connect(options), { path: 'v1/authorities/registration-code' }, PATIENCE)
  process.stdout.write(`${printable(String(body.registrationCode))}\n`)
}

async function remove (id: string, options: ConnectionOptions & { force?: boolean }): Promise<void> {
  const path = `${pathOf(id)}${options.force ? '?force=true' : ''}`
  await untilAnswered(await connect(options), { path, method: 'DELETE' }, PATIENCE)
  process.stdout.write(`${printable(id)} is deleted\n`)
}

function pathOf (id: string): string {
  return `v1/authorities/${encodeURIComponent(id)}`
}

function revision (value: string): string {
  const digits = /^"?(\d{1,15})"?$/.exec(value)?.[1]
  if (digits === undefined) throw new InvalidArgumentError('It must be a number, as `cvm operator authority show` tells it.')
  return digits
}
