// The adapter to AWS IoT's CA certificates, over the wire to the local AWS IoT Core, which keeps AWS's rules.
import { X509Certificate } from 'node:crypto'
import { IoTClient, RegisterCertificateCommand } from '@aws-sdk/client-iot'
import { pino } from 'pino'
import t from 'tap'
import { IotAuthorities } from '../../src/adapters/iot-authorities.ts'
import { startLocal } from '../../src/local/start.ts'
import type { NewCaCertificate } from '../../src/vending/authority-registry.ts'
import { CustomerCa } from '../local/ca-rig.ts'

const aws = await startLocal({
  host: '127.0.0.1', iotPort: 0, mqttPort: 0, dynamodbPort: 0, dynamodbUrl: 'http://127.0.0.1:1', dir: '', policyName: 'policy', log: pino({ level: 'silent' })
})
const CLIENT = { region: 'us-east-1', credentials: { accessKeyId: 'test', secretAccessKey: 'test' } }
const client = new IoTClient({ ...CLIENT, endpoint: aws.iotUrl })
t.teardown(async () => { client.destroy(); await aws.close() })
const authorities = new IotAuthorities(client)
const never = new AbortController().signal
const failed = (code: string, detail?: RegExp) => ({ name: 'CvmError', code, ...(detail && { message: detail }) })
const NOWHERE = '0'.repeat(64)

function idOf (pem: string): string {
  return new X509Certificate(pem).fingerprint256.replaceAll(':', '').toLowerCase()
}

function sniOnly (ca: CustomerCa): NewCaCertificate {
  return { caCertificatePem: ca.cert, mode: 'SNI_ONLY', status: 'ACTIVE', autoRegistration: false }
}

const ca = new CustomerCa()
const id = idOf(ca.cert)

await t.test('registers a CA whose key was shown, once', async t => {
  const code = await authorities.registrationCode(never)
  t.equal(await authorities.registrationCode(never), code, 'the code stays')
  const wish: NewCaCertificate = { caCertificatePem: ca.cert, mode: 'DEFAULT', status: 'INACTIVE', autoRegistration: true }
  const verification = (subject: string, by = ca) => ({ ...wish, verificationCertificatePem: by.sign(subject).cert })
  await t.rejects(authorities.register(verification('/CN=wrong'), never), failed('authority-rejected', /registration code/))
  await t.rejects(authorities.register(verification(`/CN=${code}`, new CustomerCa()), never), failed('authority-rejected'))
  await t.rejects(authorities.register(wish, never), failed('authority-rejected'), 'without one')
  t.equal(await authorities.describe(id, never), undefined)
  t.equal(await authorities.register(verification(`/CN=${code}`), never), true)
  t.equal(await authorities.register(verification(`/CN=${code}`), never), false, 'it is there')
  t.match(await authorities.describe(id, never), {
    caCertificateId: id, caCertificateArn: new RegExp(`:cacert/${id}$`), caCertificatePem: ca.cert, status: 'INACTIVE', autoRegistration: true, mode: 'DEFAULT'
  })
  const { createdAt, notAfter } = await authorities.describe(id, never) ?? t.fail('it is there') as never
  t.ok(Math.abs(createdAt - Date.now()) < 60_000)
  t.equal(notAfter, Date.parse(new X509Certificate(ca.cert).validTo))
})

await t.test('changes what is given, and nothing else', async t => {
  t.equal(await authorities.update(id, { status: 'ACTIVE' }, never), true)
  t.match(await authorities.describe(id, never), { status: 'ACTIVE', autoRegistration: true })
  t.equal(await authorities.update(id, { autoRegistration: false }, never), true)
  t.match(await authorities.describe(id, never), { status: 'ACTIVE', autoRegistration: false })
  t.equal(await authorities.update(NOWHERE, { status: 'ACTIVE' }, never), false)
})

await t.test('lists authorities and their certificates, page by page, newest first', async t => {
  const other = new CustomerCa('/CN=Other')
  await authorities.register(sniOnly(other), never)
  const first = await authorities.list({ limit: 1 }, never)
  t.match(first, { items: [{ caCertificateId: idOf(other.cert), status: 'ACTIVE' }], nextCursor: /^[A-Za-z0-9_-]+$/ })
  t.same(await authorities.list({ limit: 1, cursor: first.nextCursor ?? '' }, never), { items: [{ caCertificateId: id, status: 'ACTIVE' }] })
  await t.rejects(authorities.list({ limit: 1, cursor: '_w' }, never), failed('invalid-request', /cursor/))

  const [one, two] = [ca.sign('/CN=one'), ca.sign('/CN=two')]
  for (const { cert } of [one, two]) await client.send(new RegisterCertificateCommand({ certificatePem: cert, caCertificatePem: ca.cert }))
  const page = await authorities.certificatesOf(id, { limit: 1 }, never)
  t.match(page.items, [{ certificateId: two.id, certificateArn: new RegExp(two.id), status: 'INACTIVE' }])
  t.match(await authorities.certificatesOf(id, { limit: 1, cursor: page.nextCursor ?? '' }, never), { items: [{ certificateId: one.id }], nextCursor: undefined })
  t.same(await authorities.certificatesOf(NOWHERE, { limit: 25 }, never), { items: [] })
})

await t.test('of one subject ten, and no more', async t => {
  for (let n = 0; n < 10; n++) t.equal(await authorities.register(sniOnly(new CustomerCa('/CN=Same')), never), true)
  await t.rejects(authorities.register(sniOnly(new CustomerCa('/CN=Same')), never), failed('authority-limit-exceeded'))
})

await t.test('deletes what is INACTIVE', async t => {
  await t.rejects(authorities.delete(id, never), failed('authority-active'))
  await authorities.update(id, { status: 'INACTIVE' }, never)
  await authorities.delete(id, never)
  t.equal(await authorities.describe(id, never), undefined)
  await t.resolves(authorities.delete(id, never), 'one that is gone counts as deleted')
})

await t.test('failures are said as those of every call', async t => {
  await t.rejects(authorities.registrationCode(AbortSignal.abort()), failed('deadline-exceeded'))
  const away = new IoTClient({ ...CLIENT, endpoint: 'http://127.0.0.1:1', maxAttempts: 1 })
  t.teardown(() => away.destroy())
  const nobody = new IotAuthorities(away)
  for (const call of [nobody.describe(id, never), nobody.list({ limit: 1 }, never), nobody.register(sniOnly(ca), never)]) {
    await t.rejects(call as Promise<unknown>, failed('aws-iot-unavailable'))
  }
})
