// Random requests to the production app: never a 5xx, never a hang, always a certificate or a problem of the table.
// FUZZ_RUNS and FUZZ_SEED repeat or deepen a run.
import { text } from 'node:stream/consumers'
import fc from 'fast-check'
import type { InjectOptions } from 'fastify'
import t, { type Test } from 'tap'
import { isAnyProblem } from '../fixtures/problems.ts'
import { isWhole } from '../fixtures/proof-size.ts'
import { total } from '../fixtures/scrape.ts'
import { startService } from '../fixtures/service.ts'
import { until } from '../fixtures/until.ts'
import { CERTIFICATES, KEYS, certificateIdOf, newDevice, newKey } from '../fixtures/vending.ts'
import { listen, open, rawPost } from '../fixtures/wire.ts'
import { derOf, pemOf, requestInfo, sealed } from '../x509/handmade.ts'
import { addresses, bodyAround, edited, edits, headers, methods, wild } from './arbitraries.ts'

const seed = Number(process.env['FUZZ_SEED'] ?? Date.now() % 0x7fffffff)
const runs = Number(process.env['FUZZ_RUNS'] ?? (isWhole ? 1_000 : 60))
const HANG_MS = 120_000
const FEW = Math.ceil(runs / 4)
t.setTimeout(600_000)

const UNLIMITED = { RATE_LIMIT_ADDRESS_MAX: '10000000', RATE_LIMIT_SERIAL_MAX: '10000000', MAX_EVENT_LOOP_DELAY_MS: '60000' }
const service = await startService({ ...UNLIMITED, TRUST_PROXY_CIDRS: '127.0.0.0/8' })
t.teardown(() => service.close())
const port = await listen(service)
const devices = await Promise.all(Array.from({ length: 20 }, () => newDevice(service)))
const key = newKey()
const counts = new Map<string, number>()

const device = fc.constantFrom(...devices)
const serialNumber = fc.oneof(device.map(({ serialNumber }) => serialNumber), fc.stringMatching(/^[a-zA-Z0-9:_-]{1,128}$/))
const wrongToken = fc.string({ minLength: 1, maxLength: 256 })
const registrationToken = fc.oneof(device.map(({ registrationToken }) => registrationToken), wrongToken)
const json = { 'content-type': 'application/json' }
const post = (url: string, payload: unknown, headers: Record<string, string> = json): InjectOptions =>
  ({ method: 'POST', url, headers, payload: Buffer.isBuffer(payload) ? payload : JSON.stringify(payload) })

/** A CSR that is right, edited in the open, edited inside, or edited and signed again. */
const deviceWithCsr = fc.tuple(device, edits, fc.constantFrom('right', 'pem', 'der', 'signed')).map(([device, edits, where]) => {
  const { certificateSigningRequest: csr } = device
  const certificateSigningRequest = where === 'right'
    ? csr
    : where === 'pem'
      ? edited(Buffer.from(csr), edits).toString('latin1')
      : pemOf(where === 'der' ? edited(derOf(csr), edits) : sealed(edited(requestInfo(key), edits), key))
  return { ...device, certificateSigningRequest }
})
const csr = deviceWithCsr.map(({ certificateSigningRequest }) => certificateSigningRequest)

await t.test('bodies around the schema', t => fuzz(t, fc.oneof(
  bodyAround({ serialNumber, registrationToken, certificateSigningRequest: csr }).map(body => post(CERTIFICATES, body)),
  bodyAround({ serialNumber, registrationToken: wrongToken }).map(body => post(KEYS, body))
), 2 * runs))

await t.test('CSRs of a device with the right token', t => fuzz(t, deviceWithCsr.map(body => post(CERTIFICATES, body)), 2 * runs))

await t.test('edited JSON', t => fuzz(t, fc.tuple(device, edits).map(([device, edits]) =>
  post(CERTIFICATES, edited(Buffer.from(JSON.stringify(device)), edits)))))

await t.test('any body', t => fuzz(t, fc.oneof(wild.map(value => post(KEYS, value)), fc.uint8Array().map(bytes => post(KEYS, Buffer.from(bytes))))))

await t.test('any headers', t => fuzz(t, fc.tuple(device, headers).map(([device, headers]) =>
  post(CERTIFICATES, device, headers as Record<string, string>))))

await t.test('any address and method', t => fuzz(t, fc.record({ method: methods, url: addresses, payload: fc.constant('{}'), headers: fc.constant(json) })))

await t.test('edited bytes on the wire, and then nothing more', async t => {
  const request = fc.tuple(device, edits).map(([device, edits]) => edited(rawPost(CERTIFICATES, json, JSON.stringify(device)), edits))
  await check(t, request, FEW, async bytes => {
    const socket = open(port)
    socket.on('error', () => {}).end(bytes)
    const answers = (await within(text(socket), 'no end of the connection')).split(/(?=HTTP\/1\.1 \d{3} )/)
    for (const answer of answers.filter(Boolean)) {
      const [head = '', body = ''] = answer.split(/\r\n\r\n(.*)/s)
      judge(Number(head.split(' ')[1]), /^content-type: (.*)$/im.exec(head)?.[1]?.trim(), /^HTTP\/1\.1 405/.test(head) && body === '' ? undefined : body)
    }
  })
})

await t.test('afterwards all is as ever', async t => {
  t.ok(await until(async () => await total(service, 'cvm_http_requests_in_flight') === 0))
  t.equal(await total(service, 'cvm_vends_total', { outcome: 'failed' }), 0)
  t.notMatch(service.logs(), '"level":50', 'nothing failed inside')
  const device = await newDevice(service)
  t.equal((await service.app.service.inject(post(CERTIFICATES, device))).statusCode, 201)
  t.notMatch(service.logs(), devices[0]!.registrationToken, 'no token is logged')
})

function fuzz (t: Test, requests: fc.Arbitrary<InjectOptions>, numRuns = runs): Promise<void> {
  return check(t, requests, numRuns, async request => {
    const { statusCode, headers, body } = await within(service.app.service.inject(request), 'no answer')
    judge(statusCode, headers['content-type'], request.method === 'HEAD' ? undefined : body)
  })
}

async function check<T> (t: Test, arbitrary: fc.Arbitrary<T>, numRuns: number, run: (input: T) => Promise<void>): Promise<void> {
  counts.clear()
  const start = Date.now()
  await fc.assert(fc.asyncProperty(arbitrary, run), { seed, numRuns, endOnFailure: true })
  t.comment(`fuzz: ${numRuns} requests in ${Date.now() - start} ms, seed ${seed}: ${[...counts].sort().map(([what, times]) => `${what} ${times}`).join(', ')}`)
  t.pass(`${numRuns} requests`)
}

/** Throws unless the answer is a certificate or a problem below 500. */
function judge (statusCode: number, mediaType: unknown, body: string | undefined): void {
  const isProblem = body === undefined || isAnyProblem(statusCode, mediaType, body)
  if (statusCode >= 500 || (statusCode >= 300 && !isProblem)) throw new Error(`answered ${statusCode} ${String(mediaType)}: ${body}`)
  // Throws for what is no certificate.
  if (statusCode < 300) certificateIdOf(String(mediaType).startsWith('application/json') ? JSON.parse(body ?? '').certificatePem : body)
  const what = statusCode < 300 || body === undefined ? `${statusCode}` : JSON.parse(body).code
  counts.set(what, (counts.get(what) ?? 0) + 1)
}

async function within<T> (work: Promise<T>, otherwise: string): Promise<T> {
  let timer: NodeJS.Timeout | undefined
  const hang = new Promise<never>((_resolve, reject) => { timer = setTimeout(() => reject(new Error(`${otherwise} in ${HANG_MS} ms`)), HANG_MS) })
  return Promise.race([work, hang]).finally(() => clearTimeout(timer))
}
