// The tools of a stranger: openssl, curl, mosquitto. Each runs as a process, and is believed.
import { execFile } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import type { IncomingHttpHeaders } from 'node:http'
import { join } from 'node:path'
import type { Test } from 'tap'
import { openssl } from '../fixtures/openssl.ts'
import { wholeOnly } from '../fixtures/whole-only.ts'
import type { Device } from './service-process.ts'

export interface Ended { readonly code: number, readonly stdout: string, readonly stderr: string }

/** Where and with which environment a tool runs; the test's own unless given. */
interface Surroundings { readonly timeout?: number, readonly cwd?: string, readonly env?: NodeJS.ProcessEnv }

/** Runs a tool to its end, whatever that is; 127 when the machine does not have it. */
export function tool (file: string, args: readonly string[], input = '', { timeout = 300_000, ...surroundings }: Surroundings = {}): Promise<Ended> {
  return new Promise(resolve => {
    const child = execFile(file, [...args], { ...surroundings, timeout, maxBuffer: 1 << 26 }, (error, stdout, stderr) => {
      const code = error === null ? 0 : error.code === 'ENOENT' ? 127 : Number(error.code ?? -1)
      resolve({ code, stdout, stderr })
    })
    child.stdin?.on('error', () => {}).end(input)
  })
}

export interface HttpAnswer { readonly status: number, readonly headers: IncomingHttpHeaders, readonly text: string }

export interface Problem { readonly code: string, readonly status: number, readonly reason?: string, readonly requestId: string }

interface CurlRequest { readonly ca?: string, readonly body?: string, readonly method?: string, readonly headers?: Record<string, string> }

/** One request by curl; `body` goes through standard input, because everybody can read a command line. */
export async function curl (url: string, { ca, body, method, headers = {} }: CurlRequest = {}): Promise<HttpAnswer> {
  const args = ['--silent', '--show-error', '--include', '--noproxy', '*', '--max-time', '120', '--url', url,
    ...ca === undefined ? [] : ['--cacert', ca],
    ...method === undefined ? [] : ['--request', method],
    ...body === undefined ? [] : ['--data-binary', '@-'],
    ...Object.entries({ ...body !== undefined && { 'content-type': 'application/json' }, ...headers }).flatMap(([name, value]) => ['--header', `${name}: ${value}`])]
  const { code, stdout, stderr } = await tool('curl', args, body)
  if (code !== 0) throw new Error(`curl ${url} ended with ${code}: ${stderr}`)
  const end = stdout.indexOf('\r\n\r\n')
  const [first = '', ...lines] = stdout.slice(0, end).split('\r\n')
  const named = lines.map(line => [line.slice(0, line.indexOf(':')).toLowerCase(), line.slice(line.indexOf(':') + 1).trim()])
  return { status: Number(first.split(' ')[1]), headers: Object.fromEntries(named), text: stdout.slice(end + 4) }
}

export const vendBody = (device: Device, certificateSigningRequest: string) => JSON.stringify({ ...device, certificateSigningRequest })

export interface Vended {
  readonly serialNumber: string
  readonly thingName: string
  readonly certificateId: string
  readonly certificateArn: string
  readonly certificatePem: string
  readonly rootCaPem: string
  readonly endpoint: string
  readonly notAfter: string
  readonly renewAfter: string
  readonly keyPair?: { readonly publicKey: string, readonly privateKey: string }
}

const KEYS = {
  'P-256': ['ec', '-pkeyopt', 'ec_paramgen_curve:P-256'],
  'P-384': ['ec', '-pkeyopt', 'ec_paramgen_curve:P-384'],
  'RSA-2048': ['rsa:2048']
} as const

export type KeyKind = keyof typeof KEYS
export const KEY_KINDS = Object.keys(KEYS) as KeyKind[]

/** A fresh key and its CSR by one openssl command, as in the README. */
export async function keyAndCsr (dir: string, serialNumber: string, kind: KeyKind = 'P-256', name = 'device'): Promise<{ keyFile: string, csr: string }> {
  const [keyFile, csrFile] = [join(dir, `${name}.key`), join(dir, `${name}.csr`)]
  const { ok, stderr } = await openssl(['req', '-new', '-newkey', ...KEYS[kind], '-nodes', '-keyout', keyFile, '-out', csrFile, '-subj', `/CN=${serialNumber}`])
  if (!ok) throw new Error(`openssl req failed: ${stderr}`)
  return { keyFile, csr: readFileSync(csrFile, 'utf8') }
}

/** The public key in PEM of a certificate, or of a private key in a file. */
export async function publicKeyOf (source: { certificate: string } | { keyFile: string }): Promise<string> {
  const { ok, stdout, stderr } = 'certificate' in source
    ? await openssl(['x509', '-noout', '-pubkey'], source.certificate)
    : await openssl(['pkey', '-in', source.keyFile, '-pubout'])
  if (!ok) throw new Error(`openssl cannot read it: ${stderr}`)
  return stdout
}

/** The files a device keeps, as `mosquitto_pub` wants them. */
export interface DeviceFiles { readonly caFile: string, readonly endpoint: string, readonly certFile?: string, readonly keyFile?: string }

/** Writes what was vended next to its key. */
export function storeVended (dir: string, vended: Vended, keyFile: string): Required<DeviceFiles> {
  const [certFile, caFile] = [join(dir, 'device.crt'), join(dir, 'iot-root.pem')]
  writeFileSync(certFile, vended.certificatePem)
  writeFileSync(caFile, vended.rootCaPem)
  return { certFile, caFile, keyFile, endpoint: vended.endpoint }
}

/** What mosquitto's clients say when the broker ends the connection; which of these depends on how far they had come. */
export const CUT_OFF = /The connection was (refused|lost)\.|Broken pipe|Connection reset by peer/

/** Runs a client of mosquitto's against the broker that the device was told; 3.1.1, which is what firmware speaks. */
export async function mosquitto (client: 'mosquitto_pub' | 'mosquitto_rr', files: DeviceFiles, args: readonly string[]): Promise<Ended> {
  const { caFile, endpoint, certFile, keyFile } = files
  const [host = '', port = '8883'] = endpoint.split(':')
  return await tool(client, ['-V', 'mqttv311', '-h', host, '-p', port, '--cafile', caFile,
    ...certFile && keyFile ? ['--cert', certFile, '--key', keyFile] : [], ...args], '', { timeout: 120_000 })
}

/** Whether mosquitto's clients are here; when not, says what is left out and why. */
export async function hasMosquitto (t: Test): Promise<boolean> {
  return await hasTool(t, ['mosquitto_pub', '--help'], 'Debian: mosquitto-clients', 'MQTT with the vended files by clients of others')
}

/** Whether this run is whole; when not, says what is left out and why. */
export function isWholeRun (t: Test, untested: string): boolean {
  if (wholeOnly) t.pass(untested, { skip: wholeOnly })
  return !wholeOnly
}

/** Whether a tool is here, asked by running it; when not, says what is left out and why, also where the reporter is terse. */
export async function hasTool (t: Test, [file, ...args]: [string, ...string[]], source: string, untested: string): Promise<boolean> {
  const { code } = await tool(file, args)
  // mosquitto's clients end with 1 after their help.
  if (code !== 127 && (code === 0 || args[0] === '--help')) return true
  const reason = `not tested, because ${[file, ...args].join(' ')} cannot be run here (${source}): ${untested}`
  console.error(reason)
  t.pass(reason, { skip: reason })
  return false
}
