// The built service as production runs it, with an AWS that answers as told, and clients for it.
import { execFileSync } from 'node:child_process'
import { randomBytes, randomUUID } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { Pool } from 'undici'
import { SERVER, folder, forked, spawned } from './children.ts'

/** Nothing of the service's own that holds requests back. */
export const OPEN = {
  RATE_LIMIT_ADDRESS_MAX: '1000000000', RATE_LIMIT_SERIAL_MAX: '1000000000', MAX_EVENT_LOOP_DELAY_MS: '600000', RECONCILE_INTERVAL_MS: '600000', AWS_IOT_QUOTA_FACTOR: '0'
}

export interface Material { readonly folder: string, readonly csr: string, readonly certificatePem: string }

/** A CA of P-256, a CSR by openssl that names the device or nobody, and its certificate. */
export function material (keyArgs: readonly string[] = ['ec', '-pkeyopt', 'ec_paramgen_curve:P-256'], subject = '/'): Material {
  const made = folder()
  const openssl = (...args: string[]) => execFileSync('openssl', args, { cwd: made, stdio: 'pipe' })
  openssl('req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-keyout', 'ca.key', '-out', 'ca.pem', '-subj', '/CN=bench')
  openssl('req', '-new', '-newkey', ...keyArgs, '-nodes', '-keyout', 'device.key', '-out', 'device.csr', '-subj', subject)
  openssl('x509', '-req', '-in', 'device.csr', '-CA', 'ca.pem', '-CAkey', 'ca.key', '-days', '365', '-out', 'device.pem')
  const text = (name: string) => readFileSync(join(made, name), 'utf8')
  return { folder: made, csr: text('device.csr'), certificatePem: text('device.pem') }
}

/** As processes of their own; each call to AWS takes `delayMs`. */
export async function startOnAnswers (delayMs: number, env: Record<string, string> = {}) {
  const { folder, csr, certificatePem } = material()
  const aws = await forked<string>('aws-answers.ts', [String(delayMs), certificatePem])
  const service = await startServer({
    ...OPEN,
    IOT_ENDPOINT: 'bench.iot.us-east-1.amazonaws.com',
    ROOT_CA_FILE: join(folder, 'ca.pem'),
    AWS_ENDPOINT_URL_IOT: aws.first,
    AWS_ENDPOINT_URL_DYNAMODB: aws.first,
    CREATE_TABLES: 'false',
    ...env
  })
  return { aws, service, csr, bodyOf: () => vendBody(`sn-${randomUUID()}`, csr), async stop () { await service.stop(); await aws.stop() } }
}

export async function startServer (env: Record<string, string>, args: readonly string[] = []) {
  const settings = {
    NODE_ENV: 'production',
    HOST: '127.0.0.1',
    PORT: '0',
    OPS_PORT: '0',
    AWS_REGION: 'us-east-1',
    AWS_ACCESS_KEY_ID: 'bench',
    AWS_SECRET_ACCESS_KEY: 'bench',
    TOKEN_PEPPER: randomBytes(32).toString('base64'),
    ...env
  }
  const find = (output: string) => /\{.*"msg":"listening"\}/.exec(output)?.[0]
  const child = await spawned(process.execPath, [...args, SERVER], { env: settings }, find)
  const { serviceUrl } = JSON.parse(child.found) as { serviceUrl: string }
  return { ...child, url: serviceUrl.replace('localhost', '127.0.0.1') }
}

export function vendBody (serialNumber: string, certificateSigningRequest: string, registrationToken = 'bench-0123456789-abcdefgh'): string {
  return JSON.stringify({ serialNumber, registrationToken, certificateSigningRequest })
}

/** Posts over connections that it keeps; the status and how long the answer took. */
export function clientOf (url: string, connections: number, path = '/v1/certificates') {
  const pool = new Pool(url, { connections, keepAliveTimeout: 60_000 })
  return {
    async post (body: string, headers: Record<string, string> = {}) {
      const began = performance.now()
      const answer = await pool.request({ method: 'POST', path, body, headers: { 'content-type': 'application/json', ...headers } })
      const text = await answer.body.text()
      return { status: answer.statusCode, text, ms: performance.now() - began }
    },
    close: () => pool.destroy()
  }
}

/** Throws for any other status: a measurement of something else would be none. */
export function mustBe (status: number, answer: { status: number, text: string }): void {
  if (answer.status !== status) throw new Error(`${answer.status} instead of ${status}: ${answer.text}`)
}
