// The judgement as the app has it: authorities in the local AWS IoT Core, a real HTTP server with CRLs, metrics and the log.
import { once } from 'node:events'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Writable } from 'node:stream'
import { IoTClient, RegisterCACertificateCommand, UpdateCACertificateCommand } from '@aws-sdk/client-iot'
import { pino } from 'pino'
import t from 'tap'
import { CrlFilesAndUrls } from '../../src/adapters/crl-source.ts'
import { IotAuthorities } from '../../src/adapters/iot-authorities.ts'
import { readConfig } from '../../src/config.ts'
import { startLocal } from '../../src/local/start.ts'
import { observedAuthorities } from '../../src/observed/authorities.ts'
import type { Parts } from '../../src/observed/parts.ts'
import { createMetrics } from '../../src/plugins/metrics.ts'
import { readCertificates } from '../../src/x509/strict-certificate.ts'
import { ModelAuthoritySettings } from '../fixtures/model-authorities.ts'
import { until } from '../fixtures/until.ts'
import { CustomerCa } from '../local/ca-rig.ts'
import { timeOf } from '../x509/handmade-certificate.ts'
import { crlDer, crlPem, entry } from '../x509/handmade-crl.ts'

const CLIENT = { region: 'us-east-1', credentials: { accessKeyId: 'test', secretAccessKey: 'test' } }
const aws = await startLocal({
  host: '127.0.0.1', iotPort: 0, mqttPort: 0, dynamodbPort: 0, dynamodbUrl: 'http://127.0.0.1:1', dir: '', policyName: 'policy', log: pino({ level: 'silent' })
})
const iot = new IoTClient({ ...CLIENT, endpoint: aws.iotUrl })
const crls = new Map<string, Buffer>()
const server = createServer(({ url = '' }, response) => {
  const list = crls.get(url)
  if (list) response.writeHead(200, { etag: '"1"' }).end(list)
  else response.writeHead(404).end()
}).listen(0, '127.0.0.1')
await once(server, 'listening')
const host = `127.0.0.1:${(server.address() as AddressInfo).port}`
const dir = mkdtempSync(join(tmpdir(), 'crls-'))
t.teardown(async () => { rmSync(dir, { recursive: true }); iot.destroy(); server.closeAllConnections(); server.close(); await aws.close() })

const HOUR = 3_600_000
const now = Date.now()
const never = new AbortController().signal
const by = { requestId: 'request-1', actor: 'ada', role: 'operator' }
const metrics = createMetrics({ version: 'test', node: 'test' })
const lines: string[] = []
const log = pino({ level: 'warn' }, new Writable({ write (chunk, _encoding, done) { lines.push(String(chunk)); done() } }))
const parts: Partial<Parts> = {
  config: readConfig({ CRL_DIR: dir }),
  log,
  metrics,
  audit: () => {},
  authorities: new IotAuthorities(iot),
  authoritySettings: new ModelAuthoritySettings(),
  crlSource: new CrlFilesAndUrls({ dir, timeoutMs: 10_000, maxBytes: 100_000 }),
  products: new Map()
}
const { trust, authorities } = observedAuthorities(parts as Parts)

const ca = new CustomerCa()
const [{ subjectDer: subject } = t.fail('there is a certificate') as never] = readCertificates(ca.cert)
const [device, other] = ['/CN=sn-1', '/CN=sn-2'].flatMap(name => readCertificates(ca.sign(name).cert))
if (!device || !other) throw new Error('there are two certificates')
const request = { certificate: device }
const list = (more: object = {}) => ({ thisUpdate: timeOf(now - HOUR), nextUpdate: timeOf(now + HOUR), ...more })
const revoked = () => [entry(device.serialNumber.replace(/^(?=[89A-F])/, '00'))]
const failed = (code: string, reason?: string) => ({ name: 'CvmError', code, ...reason && { reason } })

async function value (name: string, labels: Record<string, string> = {}): Promise<number | undefined> {
  const { values = [] } = await metrics.register.getSingleMetric(name)?.get() ?? {}
  const has = (own: Record<string, unknown>) => Object.entries(labels).every(([label, wanted]) => own[label] === wanted)
  return values.find(sample => has(sample.labels as Record<string, unknown>))?.value
}

await t.test('a CA that was registered past us fails closed until its CRL is set', async t => {
  const wish = { caCertificate: ca.cert, certificateMode: 'SNI_ONLY', setAsActive: true } as const
  const { certificateId: id = '' } = await iot.send(new RegisterCACertificateCommand(wish))
  await t.rejects(trust(request, never), failed('crl-unavailable', 'crl-not-set'))
  await authorities.change(id, { crls: [`http://${host}/a.crl?key=hidden`] }, by)
  await t.rejects(trust(request, never), failed('crl-unavailable', 'crl-http-status'))
  t.equal(await value('cvm_crl_unavailable_total', { then: 'refuse' }), 2)
  t.equal(await value('cvm_crl_fetches_total', { result: 'crl-http-status' }), 1)
  t.match(lines.join(''), new RegExp(`"result":"crl-http-status","where":"${host}"`))
  t.notMatch(lines.join(''), /hidden/)
  t.equal(await value('cvm_crl_next_update_timestamp_seconds'), undefined, 'nothing is said of what is not there')

  crls.set('/b.crl', crlDer({ key: ca.key, subject }, list({ entries: revoked() })))
  await authorities.change(id, { crls: [`http://${host}/b.crl`] }, by)
  await t.rejects(trust(request, never), failed('certificate-revoked'))
  const trusted = await trust({ certificate: other }, never)
  t.match(trusted, { authority: { caCertificateId: id, crls: [`http://${host}/b.crl`] }, isDirect: true })
  t.equal(await value('cvm_crl_next_update_timestamp_seconds'), Math.floor((now + HOUR) / 1000))

  writeFileSync(join(dir, 'factory.crl'), crlPem({ key: ca.key, subject }, list()))
  await authorities.change(id, { crls: ['factory.crl'] }, by)
  await t.resolves(trust(request, never), 'a file')
  await authorities.change(id, { crls: [], whenCrlUnavailable: 'accept' }, by)
  await t.resolves(trust(request, never))
  t.equal(await value('cvm_crl_unavailable_total', { then: 'accept' }), 1)

  await authorities.change(id, { status: 'INACTIVE' }, by)
  await t.rejects(trust(request, never), failed('authority-not-active'), 'what is changed here is noticed at once')
})

await t.test('what is changed past us is noticed within seconds', async t => {
  const { items: [authority] } = await authorities.list({ limit: 1 })
  await iot.send(new UpdateCACertificateCommand({ certificateId: authority?.caCertificateId, newStatus: 'ACTIVE' }))
  t.ok(await until(() => trust(request, never).then(() => true, () => false)))
})
