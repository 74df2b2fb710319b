import { readFile, stat } from 'node:fs/promises'
import { homedir } from 'node:os'
import { dirname, join, resolve } from 'node:path'
import { type Command, Option } from 'commander'
import { isThisMachine } from './client.ts'
import type { Service } from './client.ts'
import { readSecret } from './device-folder.ts'
import { EXIT, Failure, codeOf, messageOf } from './failure.ts'
import { textOf } from './file-kind.ts'
import { findService, localFolder } from './local-mode.ts'

/** How to reach the service, as far as the command line says. */
export interface ConnectionOptions { url?: string, ca?: string, keyFile?: string }

interface Settings { url?: string, ca?: string, keyFile?: string }

const MEMBERS = ['url', 'ca', 'keyFile'] as const

const HELP = `
Where the service is, and the key, come from the first of these that says so:
  1. the options --url, --ca, --key-file
  2. the environment: CVM_URL, CVM_CA, CVM_API_KEY (the key itself) or CVM_KEY_FILE
  3. the file ~/.config/cvm/config.json (or the one that CVM_CONFIG names):
     {"url": "https://cvm.example", "ca": "root-ca.pem", "keyFile": "operator.key"}; paths start at its folder
  4. the local mode's folder, .cvm, for a service on this machine
The key is an API key (cvm_...) or an OIDC access token; it is never an option, because every user of the machine can read a command line.`

/** Adds the options that say where the service is and with which key to ask it. */
export function withConnection (command: Command): Command {
  return withAddress(command).option('--key-file <file>', 'file with the API key or OIDC token').addHelpText('after', HELP)
}

/** Adds the options that say where the service is. */
export function withAddress (command: Command): Command {
  return command
    .addOption(new Option('--url <url>', 'the service (default: the local one, https://localhost:8443)').env('CVM_URL'))
    .addOption(new Option('--ca <file>', 'PEM with the authorities that sign the service\'s certificate').env('CVM_CA'))
}

/** The service for those who need no key. Throws a `Failure`. */
export async function findAddress (options: ConnectionOptions): Promise<Service> {
  const { url, ca } = { ...await readSettings(), ...options }
  return await findService(url, ca, note)
}

/** The service and the key to ask it with; of the local mode's keys, the one for this role. Throws a `Failure`. */
export async function connect (options: ConnectionOptions, role: 'operator' | 'line' = 'operator'): Promise<Service> {
  const settings = await readSettings()
  const { url, ca } = { ...settings, ...options }
  const service = await findService(url, ca, note)
  const apiKey = (await keyFrom(options, settings, service.url, role)).trim()
  if (apiKey === '') throw new Failure(EXIT.usage, 'the API key is missing', { remedy: 'Give --key-file, or set CVM_API_KEY' })
  if (!/^[\x21-\x7e]+$/.test(apiKey)) throw new Failure(EXIT.usage, 'the API key is not one word of ASCII characters', { remedy: 'Check the key\'s file' })
  return { ...service, apiKey }
}

async function keyFrom (options: ConnectionOptions, settings: Settings, url: URL, role: string): Promise<string> {
  const given = options.keyFile ?? (process.env['CVM_API_KEY'] ? undefined : process.env['CVM_KEY_FILE'] || settings.keyFile)
  if (given !== undefined) {
    await warnWhenOpen(given)
    return await readSecret(given, 'the API key')
  }
  if (process.env['CVM_API_KEY']) return process.env['CVM_API_KEY']
  // The local key is nobody else's business.
  return isThisMachine(url) ? await readFile(join(localFolder(), `${role}.key`), 'utf8').catch(() => '') : ''
}

/** The configuration file, or nothing when there is none and none was named. */
async function readSettings (): Promise<Settings> {
  const named = process.env['CVM_CONFIG']
  const folder = home()
  const configs = process.env['XDG_CONFIG_HOME'] || (folder && join(folder, '.config'))
  const file = named || (configs && join(configs, 'cvm', 'config.json'))
  if (!file) return {}
  const text = await readFile(file).then(textOf, (error: unknown) => {
    if (!named && ['ENOENT', 'ENOTDIR'].includes(codeOf(error))) return undefined
    throw unusable(file, `cannot be read: ${messageOf(error)}`)
  })
  if (text === undefined) return {}
  const { url, ca, keyFile } = settingsOf(text, file)
  if (keyFile !== undefined) await warnWhenOpen(file)
  return { ...url && { url }, ...ca && { ca: pathOf(ca, file) }, ...keyFile && { keyFile: pathOf(keyFile, file) } }
}

function settingsOf (text: string, file: string): Settings {
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch {
    throw unusable(file, 'is not valid JSON')
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw unusable(file, 'is not a JSON object')
  const unknown = Object.keys(value).filter(name => !(MEMBERS as readonly string[]).includes(name))
  if (unknown.length > 0) throw unusable(file, `has members that are not known: ${unknown.join(', ')}`)
  const wrong = Object.entries(value).filter(([, member]) => typeof member !== 'string' || member === '').map(([name]) => name)
  if (wrong.length > 0) throw unusable(file, `must have text in ${wrong.join(', ')}`)
  return value
}

function pathOf (path: string, file: string): string {
  if (!path.startsWith('~/')) return resolve(dirname(file), path)
  const folder = home()
  if (folder === undefined) throw unusable(file, `names ${path}, and this user has no home: set HOME`)
  return join(folder, path.slice(2))
}

/** The home of this user, if it has one: a user of a container may be in no list of users. */
function home (): string | undefined {
  try {
    return homedir()
  } catch {
    return undefined
  }
}

async function warnWhenOpen (file: string): Promise<void> {
  const facts = await stat(file).catch(() => undefined)
  if (process.platform === 'win32' || !facts?.isFile() || (facts.mode & 0o077) === 0) return
  note(`warning: ${file} can be read by other users; chmod 600 ${file}`)
}

function unusable (file: string, what: string): Failure {
  return new Failure(EXIT.usage, `the configuration file ${file} ${what}`, { remedy: `It holds ${MEMBERS.join(', ')}, each optional: cvm operator --help` })
}

function note (line: string): void {
  process.stderr.write(`${line}\n`)
}
