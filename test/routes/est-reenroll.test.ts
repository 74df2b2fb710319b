// Re-enrolment by EST: the certificate that is shown in TLS says who asks, whatever anybody writes into requests and headers.
import { request as httpRequest } from 'node:http'
import { request as httpsRequest } from 'node:https'
import { mkdtempSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { DescribeCertificateCommand } from '@aws-sdk/client-iot'
import t, { type Test } from 'tap'
import { awsError, startFaultyProxy } from '../fixtures/faulty-proxy.ts'
import { type TestService, startService } from '../fixtures/service.ts'
import { vend } from '../fixtures/vending.ts'
import { P256, opensslCsr } from '../local/rig.ts'

const file = join(mkdtempSync(join(tmpdir(), 'products-')), 'products.json')
writeFileSync(file, '[{"name":"meter"},{"name":"other"}]')
const SETTINGS = { PRODUCTS_FILE: file, RATE_LIMIT_ADDRESS_MAX: '100000', RATE_LIMIT_SERIAL_MAX: '1000', MAX_EVENT_LOOP_DELAY_MS: '600000' }
const HEADER = 'x-amzn-mtls-clientcert'

interface Answer { status: number, body: string }
interface Held { key: string, cert: string }
interface Device extends Held { serialNumber: string, certificateId: string }

const iot = await startFaultyProxy(t)
const service = await startService({ ...SETTINGS, AWS_ENDPOINT_URL_IOT: iot.url }, { tls: true })
t.teardown(() => service.close())
iot.forwardTo(service.aws.iotUrl)
const { port } = new URL(await service.app.service.listen({ host: '127.0.0.1', port: 0 }))

/** With a client certificate, or without one. */
function post (path: string, csrPem: string, held: Held | undefined, headers: Record<string, string> = {}): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const options = { host: '127.0.0.1', port, path: `/.well-known/est/${path}`, method: 'POST', ca: service.aws.rootCaPem, servername: 'localhost', agent: false }
    const request = httpsRequest({ ...options, ...held, headers: { 'content-type': 'application/pkcs10', ...headers } }, response => {
      text(response).then(body => resolve({ status: response.statusCode ?? 0, body }), reject)
    })
    request.on('error', reject).end(bodyOf(csrPem))
  })
}

async function vended (of: TestService, product = 'meter'): Promise<Device> {
  const device = await of.register({ product })
  const { key, csr } = opensslCsr(P256, `/CN=${device.serialNumber}`)
  const { certificatePem, certificateId } = (await vend(of, { ...device, certificateSigningRequest: csr })).json()
  return { serialNumber: device.serialNumber, key, cert: certificatePem, certificateId }
}

const next = (serialNumber: string) => opensslCsr(P256, `/CN=${serialNumber}`)
const status = async (certificateId: string) =>
  (await service.iot.send(new DescribeCertificateCommand({ certificateId }))).certificateDescription?.status
const activeOf = async (serialNumber: string) => (await service.app.registry.find(serialNumber))?.certificate
const refused = (t: Test, answer: Answer, code: string, expected: number) => {
  t.equal(answer.status, expected, code)
  t.match(answer.body, new RegExp(`\\(${code}[^)]*\\)\\n$`))
}

await t.test('the present certificate renews itself, at once; its key gets the same again for a while', async t => {
  const device = await vended(service)
  const { key, csr } = next(device.serialNumber)
  const answer = await post('simplereenroll', csr, device)
  t.equal(answer.status, 200, answer.body)
  const now = await activeOf(device.serialNumber)
  t.match([await status(device.certificateId), await status(now?.certificateId ?? '')], ['REVOKED', 'ACTIVE'])
  t.equal((await post('simplereenroll', csr, device)).body, answer.body, 'the same again, whose answer was lost')
  refused(t, await post('simplereenroll', next(device.serialNumber).csr, device), 'device-not-authorized', 401)

  const renewed = { key, cert: now?.certificatePem ?? '' }
  const nameless = opensslCsr(P256, '/O=none').csr
  t.equal((await post('meter/simplereenroll', nameless, renewed)).status, 200, 'by the new one, under its label, without a name')
  t.equal(await status(now?.certificateId ?? ''), 'REVOKED')
  t.ok(service.logs().includes('"event":"certificate-renewed"'))
})

await t.test('simpleenroll by the present certificate does the same; a token goes before it', async t => {
  const device = await vended(service)
  t.equal((await post('simpleenroll', next(device.serialNumber).csr, device)).status, 200)
  t.not((await activeOf(device.serialNumber))?.certificateId, device.certificateId)
  const basic = { authorization: `Basic ${Buffer.from(`${device.serialNumber}:wrong`).toString('base64')}` }
  refused(t, await post('simpleenroll', next(device.serialNumber).csr, device, basic), 'device-not-authorized', 401)
})

await t.test('who shows nothing, or what is no device\'s, is refused whatever names are written', async t => {
  const [victim, attacker] = [await vended(service), await vended(service, 'other')]
  const { csr } = next(victim.serialNumber)
  const made = opensslCsr(P256, `/CN=${victim.serialNumber}`)
  refused(t, await post('simplereenroll', csr, undefined), 'client-certificate-required', 403)
  refused(t, await post('simplereenroll', csr, { key: made.key, cert: made.foreign }), 'device-not-authorized', 401)
  refused(t, await post('simplereenroll', csr, attacker), 'csr-rejected', 400)
  refused(t, await post('meter/simplereenroll', next(attacker.serialNumber).csr, attacker), 'product-mismatch', 403)
  refused(t, await post('simplereenroll', csr, undefined, { [HEADER]: encodeURIComponent(victim.cert) }), 'client-certificate-required', 403)
  const own = await post('simplereenroll', next(attacker.serialNumber).csr, attacker, { [HEADER]: encodeURIComponent(victim.cert) })
  t.equal(own.status, 200, 'beside a forged header its own certificate counts')
  t.equal((await activeOf(victim.serialNumber))?.certificateId, victim.certificateId, 'and keeps what it has')
})

await t.test('pending while AWS throttles', async t => {
  const device = await vended(service)
  const { csr } = next(device.serialNumber)
  iot.fail(operation => operation === 'CreateCertificateFromCsr' ? awsError('ThrottlingException', 400) : undefined)
  t.equal((await post('simplereenroll', csr, device)).status, 202)
  iot.fail()
  t.equal(await status(device.certificateId), 'ACTIVE', 'the present one goes on working (G5)')
  t.equal((await post('simplereenroll', csr, device)).status, 200)
})

await t.test('behind a balancer: its header counts, on its own connections alone, and only once', async t => {
  for (const [settings, works] of [
    [{ ALB_MTLS: 'passthrough', TRUST_PROXY_CIDRS: '127.0.0.0/8' }, true], [{ ALB_MTLS: 'passthrough', TRUST_PROXY_CIDRS: '10.0.0.0/8' }, false],
    [{ TRUST_PROXY_CIDRS: '127.0.0.0/8' }, false]
  ] as const) {
    const behind = await startService({ ...SETTINGS, ...settings })
    t.teardown(() => behind.close())
    const device = await vended(behind)
    const url = `${await behind.app.service.listen({ host: '127.0.0.1', port: 0 })}/.well-known/est/simplereenroll`
    const send = (...values: string[]): Promise<Answer> => new Promise((resolve, reject) => {
      const request = httpRequest(url, { method: 'POST', headers: { 'content-type': 'application/pkcs10', [HEADER]: values } }, response => {
        text(response).then(body => resolve({ status: response.statusCode ?? 0, body }), reject)
      })
      request.on('error', reject).end(bodyOf(next(device.serialNumber).csr))
    })
    const shown = encodeURIComponent(`${device.cert}${service.aws.rootCaPem}`).replaceAll('%2B', '+')
    if (works) {
      for (const wrong of ['x', '%', encodeURIComponent('-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n')]) refused(t, await send(wrong), 'client-certificate-required', 403)
      refused(t, await send(shown, shown), 'client-certificate-required', 403)
      refused(t, await send(`${shown}, ${shown}`), 'client-certificate-required', 403)
      t.equal((await send(shown)).status, 200)
    } else refused(t, await send(shown), 'client-certificate-required', 403)
  }
})

/** A request in base64 without its PEM lines, as EST clients send it. */
function bodyOf (csrPem: string): string {
  return csrPem.replace(/-----[A-Z ]+-----\n/g, '')
}
