// Just-in-time registration: a rule of the local AWS IoT Core, its destination confirmed by this service, and devices' connections.
import { randomUUID } from 'node:crypto'
import {
  CreateTopicRuleCommand, DescribeCertificateCommand, GetTopicRuleDestinationCommand, ListTopicRuleDestinationsCommand,
  UpdateCertificateCommand, UpdateTopicRuleDestinationCommand
} from '@aws-sdk/client-iot'
import t from 'tap'
import { API_KEYS, ask } from '../fixtures/api-keys.ts'
import { startFaultyProxy } from '../fixtures/faulty-proxy.ts'
import { gate } from '../fixtures/gate.ts'
import { isProblem } from '../fixtures/problems.ts'
import { total } from '../fixtures/scrape.ts'
import { auditedBy, startService } from '../fixtures/service.ts'
import { until } from '../fixtures/until.ts'
import { CustomerCa, type Leaf } from '../local/ca-rig.ts'
import { connect } from '../local/rig.ts'

const SECRET = 'a-secret-that-nobody-else-knows-0001'
const ACCOUNT = '000000000000'
const service = await startService({ API_KEYS, JITR_SECRET: SECRET, RATE_LIMIT_ADDRESS_MAX: '60' })
t.teardown(() => service.close())
const address = await service.app.service.listen({ host: '127.0.0.1', port: 0 })

const URL = '/v1/jitr/events'
const post = (payload: object, headers: Record<string, string> = { 'x-jitr-secret': SECRET }) =>
  service.app.service.inject({ method: 'POST', url: URL, payload, headers })
const statusOf = async (certificateId: string) => {
  const { certificateDescription } = await service.iot.send(new DescribeCertificateCommand({ certificateId }))
  return certificateDescription?.status
}
const attempt = async ({ key, chain }: Leaf, clientId: string) => {
  const client = await connect(service.aws, { clientId, key, cert: chain })
  await client.endAsync()
}
const audited = (requestId: string) => auditedBy(service, requestId)

const ca = new CustomerCa('/CN=Factory')
const caCertificateId = await ca.register(service.iot)
await ask(service, 'PATCH', `/v1/authorities/${caCertificateId}`, { whenCrlUnavailable: 'accept' })

const destination = async () => (await service.iot.send(new ListTopicRuleDestinationsCommand({}))).destinationSummaries?.[0]

await t.test('the destination of a rule is confirmed, by its token alone', async t => {
  await service.iot.send(new CreateTopicRuleCommand({
    ruleName: 'jitr',
    topicRulePayload: {
      sql: "SELECT * FROM '$aws/events/certificates/registered/#'",
      actions: [{ http: { url: `${address}${URL}`, confirmationUrl: `${address}${URL}`, headers: [{ key: 'X-Jitr-Secret', value: SECRET }] } }]
    }
  }))
  t.ok(await until(async () => (await destination())?.status === 'ENABLED'), 'ENABLED')
  const arn = (await destination())?.arn ?? ''
  t.ok(service.logs().includes('"event":"destination-confirmed","outcome":"done"'))
  t.notOk(service.logs().includes('confirmationToken'), 'no token is logged')

  const challenge = (changes: object) => post({ messageType: 'DestinationConfirmation', arn, confirmationToken: 'stale', enableUrl: 'http://127.0.0.1:1/', ...changes }, {})
  isProblem(t, await challenge({}), 'confirmation-rejected')
  isProblem(t, await challenge({ arn: arn.replace(ACCOUNT, '111122223333') }), 'other-account')
  isProblem(t, await challenge({ arn: arn.replace('us-east-1', 'eu-west-1') }), 'other-account')
  await service.iot.send(new UpdateTopicRuleDestinationCommand({ arn, status: 'DISABLED' }))
  isProblem(t, await challenge({ confirmationToken: 'guess' }), 'confirmation-rejected')
  const still = (await service.iot.send(new GetTopicRuleDestinationCommand({ arn }))).topicRuleDestination?.status
  t.equal(still, 'DISABLED', 'a guess enables nothing')
  await service.iot.send(new UpdateTopicRuleDestinationCommand({ arn, status: 'ENABLED' }))
})

await t.test('a device\'s first connection fails, the event arrives, and the next one connects', async t => {
  const { serialNumber } = await service.register()
  const leaf = ca.sign(`/CN=${serialNumber}`)
  await t.rejects(attempt(leaf, serialNumber))
  t.ok(await until(async () => await statusOf(leaf.id) === 'ACTIVE'), 'activated')
  t.ok(await until(async () => attempt(leaf, serialNumber).then(() => true, () => false)), 'connects')
  t.match((await ask(service, 'GET', `/v1/devices/${serialNumber}`)).json(), { state: 'ACTIVE', certificateId: leaf.id, way: 'jitr', caCertificateId })
  t.ok(await total(service, 'cvm_adoptions_total', { way: 'jitr', outcome: 'adopted' }) >= 1)
})

await t.test('one of nobody\'s becomes INACTIVE, and stays so', async t => {
  const leaf = ca.sign(`/CN=sn-${randomUUID()}`)
  await t.rejects(attempt(leaf, 'any'))
  t.ok(await until(async () => await statusOf(leaf.id) === 'INACTIVE'))
  await t.rejects(attempt(leaf, 'any'))
  const event = { certificateId: leaf.id, caCertificateId, awsAccountId: ACCOUNT, timestamp: 1, certificateStatus: 'PENDING_ACTIVATION' }
  // The first event may still be in work when AWS IoT shows its effect.
  const again = async () => await post({ ...event, certificateRegistrationTimestamp: null })
  t.ok(await until(async () => (await again()).statusCode === 200))
  t.match((await again()).json(), { outcome: 'ignored', certificateId: leaf.id, reason: 'INACTIVE' })
  t.ok(service.logs().includes('"event":"adoption-refused"'))
})

await t.test('events are taken with nulls and with more than is known; what is wrong is refused', async t => {
  const { serialNumber } = await service.register()
  const leaf = ca.sign(`/CN=${serialNumber}`)
  const arn = (await destination())?.arn ?? ''
  await service.iot.send(new UpdateTopicRuleDestinationCommand({ arn, status: 'DISABLED' }))
  await t.rejects(attempt(leaf, serialNumber))
  t.equal(await statusOf(leaf.id), 'PENDING_ACTIVATION')
  const event = { certificateId: leaf.id, caCertificateId, awsAccountId: ACCOUNT }
  isProblem(t, await post(event, { 'x-request-id': 'secretless-1' }), 'event-not-authentic')
  t.match(audited('secretless-1'), [{ event: 'access-refused', outcome: 'refused', code: 'event-not-authentic', route: URL }])
  isProblem(t, await post(event, { 'x-jitr-secret': 'wrong' }), 'event-not-authentic')
  isProblem(t, await post({ ...event, awsAccountId: '111122223333' }), 'other-account')
  isProblem(t, await post({ ...event, caCertificateId: '0'.repeat(64) }), 'invalid-request', { detail: /caCertificateId/ })
  for (const body of [{}, { ...event, certificateId: 'x' }, { ...event, certificateId: null }]) isProblem(t, await post(body), 'invalid-request')
  t.equal(await statusOf(leaf.id), 'PENDING_ACTIVATION', 'nothing was decided')

  const nulls = { caCertificateId: null, awsAccountId: null, timestamp: null, certificateStatus: null }
  const lenient = await post({ certificateId: leaf.id, ...nulls, novel: { a: 1 } })
  t.match([lenient.statusCode, lenient.json()], [200, { outcome: 'activated', certificateId: leaf.id }])
  t.notOk(service.logs().includes(SECRET), 'the secret is not logged')
  await service.iot.send(new UpdateCertificateCommand({ certificateId: leaf.id, newStatus: 'INACTIVE' }))
  t.match((await post(event)).json(), { outcome: 'ignored', reason: 'INACTIVE' }, 'one that was disabled on purpose')
  t.equal(await statusOf(leaf.id), 'INACTIVE')
  await service.iot.send(new UpdateTopicRuleDestinationCommand({ arn, status: 'ENABLED' }))
})

await t.test('a fleet\'s events are not limited by their address; strangers are', async t => {
  const codes = new Set<number>()
  for (let n = 0; n < 70; n++) codes.add((await post({ certificateId: '1'.repeat(64) })).statusCode)
  t.same([...codes], [200])
  const strangers = new Set<number>()
  for (let n = 0; n < 70; n++) strangers.add((await post({ certificateId: '1'.repeat(64) }, { 'x-jitr-secret': `${n}` })).statusCode)
  t.same([...strangers], [401, 429])
})

await t.test('AWS IoT has its answer in time while it does not answer itself; the certificate waits, and is counted', async t => {
  const proxy = await startFaultyProxy(t)
  const slow = await startService({ API_KEYS, JITR_SECRET: SECRET, AWS_ENDPOINT_URL_IOT: proxy.url })
  t.teardown(() => slow.close())
  proxy.forwardTo(slow.aws.iotUrl)
  const hold = gate()
  t.teardown(() => hold.open())
  proxy.fail(operation => operation.startsWith('GET /certificates/') ? hold.passed : undefined)
  const payload = { certificateId: '2'.repeat(64) }
  const answer = await slow.app.service.inject({ method: 'POST', url: URL, payload, headers: { 'x-jitr-secret': SECRET } })
  t.match([answer.statusCode, answer.json()], [202, { outcome: 'later', reason: 'deadline-exceeded' }])
  hold.open()
  proxy.fail()
  const report = (await ask(slow, 'POST', '/v1/reconcile', { dryRun: true })).json()
  t.match(report, { pendingActivation: 1 })
})

await t.test('nobody takes events where there is no secret', async t => {
  const without = await startService({ API_KEYS })
  t.teardown(() => without.close())
  t.equal((await without.app.service.inject({ method: 'POST', url: URL, payload: {} })).statusCode, 404)
})
