// An HTTP server on this machine that vends for lines as the service does, remembers what it vended, and goes wrong where it is told to.
import 'reflect-metadata'
import { createHash } from 'node:crypto'
import { createServer } from 'node:http'
import { text } from 'node:stream/consumers'
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { Pkcs10CertificateRequest, X509CertificateGenerator } from '@peculiar/x509'
import type { X509Certificate } from '@peculiar/x509'
import type { Test } from 'tap'
import { makeCsr, makeKey, signingKeys } from '../../src/x509/request.ts'

interface Message { serialNumber: string, registrationToken: string, certificateSigningRequest?: string, product?: string }
type Said = Record<string, unknown>

/** What goes wrong. `post` counts from 1; `line` is the place in its post, from 1. */
export interface Faults {
  /** The answer to the whole post instead of lines. */
  before?: (post: number) => { status: number, code: string, headers?: Record<string, string> } | undefined
  /** A line's answer before the device is vended; `cut` ends the connection there, `silence` lets it hang. */
  line?: (message: Message, post: number, line: number) => Said | 'cut' | 'silence' | undefined
  /** Called after the device is vended and before its answer is written. */
  vended?: (message: Message, post: number, line: number) => 'cut' | undefined
  /** No summary at the end. */
  withoutEnd?: (post: number) => boolean
}

export interface BatchService {
  readonly url: URL
  /** What was sent, post by post. */
  readonly posts: Message[][]
  readonly paths: string[]
  /** The certificate of each device, by serial number. */
  readonly vended: Map<string, Said>
  faults: Faults
}

export async function batchService (t: Test, faults: Faults = {}): Promise<BatchService> {
  const issue = await authority()
  const posts: Message[][] = []
  const paths: string[] = []
  const service = { posts, paths, vended: new Map<string, Said>(), faults }
  const keysOf = new Map<string, string>()

  async function resultOf (message: Message): Promise<Said> {
    const { serialNumber, certificateSigningRequest } = message
    const known = service.vended.get(serialNumber)
    const made = certificateSigningRequest === undefined ? await makeKey('ec') : undefined
    const csr = certificateSigningRequest ?? await makeCsr(made!, serialNumber)
    const key = new Pkcs10CertificateRequest(csr).publicKey.toString('pem')
    const refused = (code: string) => ({ status: 'refused', code, detail: `It is, sorry, ${code}`, remedy: 'Reset it.' })
    if (known !== undefined && made !== undefined) return refused('key-not-recoverable')
    if (known !== undefined) return keysOf.get(serialNumber) === key ? { ...known, status: 'replayed' } : refused('already-vended')
    const certificate = await issue(csr)
    const certificateId = createHash('sha256').update(Buffer.from(certificate.rawData)).digest('hex')
    const facts = { thingName: `thing-${serialNumber}`, notAfter: '2049-12-31T23:59:59.000Z', renewAfter: '2027-10-02T08:00:00.000Z' }
    const said = { ...facts, certificateId, certificateArn: `arn:aws:iot:eu-central-1:1:cert/${certificateId}`, certificatePem: certificate.toString('pem') }
    service.vended.set(serialNumber, said)
    keysOf.set(serialNumber, key)
    const privateKey = made?.export({ type: 'pkcs8', format: 'pem' })
    return { ...said, status: 'vended', ...privateKey !== undefined && { keyPair: { publicKey: key, privateKey } } }
  }

  async function handle (request: IncomingMessage, response: ServerResponse): Promise<void> {
    const messages = (await text(request)).trimEnd().split('\n').map(line => JSON.parse(line) as Message)
    posts.push(messages)
    paths.push(`${request.method} ${request.url}`)
    const post = posts.length
    const { before, line, vended, withoutEnd } = service.faults
    const refusal = before?.(post)
    if (refusal !== undefined) {
      const { status, code, headers } = refusal
      response.writeHead(status, { 'content-type': 'application/problem+json', ...headers })
      response.end(JSON.stringify({ status, title: `Title of ${code}`, code }))
      return
    }
    response.writeHead(200, { 'content-type': 'application/x-ndjson' })
    response.flushHeaders()
    const write = (said: Said) => new Promise<void>(resolve => response.write(`${JSON.stringify(said)}\n`, () => resolve()))
    const isDry = request.url?.endsWith('?dryRun=true')
    for (const [index, message] of messages.entries()) {
      const wrong = line?.(message, post, index + 1)
      if (wrong === 'silence') return
      if (wrong === 'cut') { response.destroy(); return }
      if (wrong?.error === true) { response.end(`${JSON.stringify({ line: index + 1, ...wrong })}\n`); return }
      const known = service.vended.has(message.serialNumber)
      const said = wrong ?? (isDry ? { status: known ? 'would-replay' : 'would-vend' } : await resultOf(message))
      if (vended?.(message, post, index + 1) === 'cut') { response.destroy(); return }
      await write({ line: index + 1, serialNumber: message.serialNumber, ...said })
    }
    if (withoutEnd?.(post)) { response.destroy(); return }
    response.end(`${JSON.stringify({ summary: true, lines: messages.length, ...isDry ? {} : { rootCaPem: issue.rootCaPem, endpoint: 'localhost:8883' } })}\n`)
  }

  const server = createServer((request, response) => { handle(request, response).catch(error => response.destroy(error)) })
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
  t.teardown(() => new Promise(resolve => {
    server.close(resolve)
    server.closeAllConnections()
  }))
  return Object.assign(service, { url: new URL(`http://localhost:${(server.address() as AddressInfo).port}/`) })
}

async function authority () {
  const { signingAlgorithm, keys } = await signingKeys(await makeKey('ec'))
  const dates = { notBefore: new Date(Date.now() - 1000), notAfter: new Date('2049-12-31T23:59:59Z') }
  const root = await X509CertificateGenerator.createSelfSigned({ name: 'CN=root', ...dates, signingAlgorithm, keys })
  const issue = async (csr: string): Promise<X509Certificate> => {
    const request = new Pkcs10CertificateRequest(csr)
    return await X509CertificateGenerator.create({
      subject: request.subject, issuer: root.subject, ...dates, signingAlgorithm, publicKey: request.publicKey, signingKey: keys.privateKey
    })
  }
  return Object.assign(issue, { rootCaPem: root.toString('pem') })
}
