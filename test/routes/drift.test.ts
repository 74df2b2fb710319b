// Changes past the service, well after the vend, in the production app: found, listed, kept, accepted or repaired.
import { randomUUID } from 'node:crypto'
import { writeFileSync } from 'node:fs'
import {
  AttachThingPrincipalCommand, CreateKeysAndCertificateCommand, DeleteCertificateCommand, DeleteThingCommand, DescribeCertificateCommand,
  DetachPolicyCommand, DetachThingPrincipalCommand, ListAttachedPoliciesCommand, ListThingPrincipalsCommand, UpdateCertificateCommand
} from '@aws-sdk/client-iot'
import { DynamoDBDocumentClient } from '@aws-sdk/lib-dynamodb'
import t, { type Test } from 'tap'
import { DynamoDbDriftFindings } from '../../src/adapters/dynamodb-drift-findings.ts'
import { API_KEYS, ask } from '../fixtures/api-keys.ts'
import { ENGINES, clientOf } from '../fixtures/engines.ts'
import { total } from '../fixtures/scrape.ts'
import { type TestService, startService } from '../fixtures/service.ts'
import { until } from '../fixtures/until.ts'
import { newDevice, vend } from '../fixtures/vending.ts'

const PRODUCTS_FILE = `${t.testdir({})}/products.json`
writeFileSync(PRODUCTS_FILE, JSON.stringify([{ name: 'follows', repair: 'registry' }, { name: 'restores', repair: 'aws' }]))
const engine = await ENGINES[0]!.start()
const settings = { API_KEYS, PRODUCTS_FILE, DEVICE_TABLE: `devices-${randomUUID()}`, AWS_ENDPOINT_URL_DYNAMODB: engine.url }
const service = await startService(settings)
const client = clientOf(engine.url)
t.teardown(async () => { client.destroy(); await service.close(); await engine.close() })

interface Finding { serialNumber: string, kind: string, registry: string, awsIot: string, accepted?: object }
interface Swept { drift: number, actions: object[], sweep: { complete: boolean } }
interface Vended { serialNumber: string, certificateId: string, certificateArn: string }

/** A whole pass, now. */
async function sweep (t: Test, on: TestService = service): Promise<Swept> {
  const answer = await ask(on, 'POST', '/v1/reconcile', { sweep: true })
  t.equal(answer.statusCode, 200, answer.body)
  return answer.json() as Swept
}

async function vended (product: string): Promise<Vended> {
  return (await vend(service, await newDevice(service, { product }))).json() as Vended
}

async function listed (query = ''): Promise<Finding[]> {
  return (await ask(service, 'GET', `/v1/drifted-devices${query}`, undefined, { as: 'auditor' })).json().devices as Finding[]
}

async function statusOf (certificateId: string): Promise<string | undefined> {
  return (await service.iot.send(new DescribeCertificateCommand({ certificateId }))).certificateDescription?.status
}

function set (certificateId: string, newStatus: 'ACTIVE' | 'INACTIVE' | 'REVOKED') {
  return service.iot.send(new UpdateCertificateCommand({ certificateId, newStatus }))
}

/** A second certificate on the device's thing, ACTIVE, by a hand in the console. */
async function addOther (thingName: string): Promise<string> {
  const { certificateArn = '', certificateId = '' } = await service.iot.send(new CreateKeysAndCertificateCommand({ setAsActive: true }))
  await service.iot.send(new AttachThingPrincipalCommand({ thingName, principal: certificateArn }))
  return certificateId
}

/** Each change past the service, its kind, what is found, and how it is put right by hand where that is possible. */
const CHANGES: ReadonlyArray<readonly [kind: string, awsIot: RegExp, change: (device: Vended) => Promise<unknown>]> = [
  ['status-differs', /^INACTIVE$/, ({ certificateId }) => set(certificateId, 'INACTIVE')],
  ['status-differs', /^REVOKED$/, ({ certificateId }) => set(certificateId, 'REVOKED')],
  ['policy-detached', /has not the policy/, ({ certificateArn }) =>
    service.iot.send(new DetachPolicyCommand({ policyName: service.config.IOT_POLICY_NAME, target: certificateArn }))],
  ['thing-detached', /the thing is gone/, async ({ serialNumber, certificateArn }) => {
    await service.iot.send(new DetachThingPrincipalCommand({ thingName: serialNumber, principal: certificateArn }))
    await service.iot.send(new DeleteThingCommand({ thingName: serialNumber }))
  }],
  ['certificate-missing', /no such certificate/, async ({ serialNumber, certificateArn, certificateId }) => {
    await set(certificateId, 'INACTIVE')
    await service.iot.send(new DetachThingPrincipalCommand({ thingName: serialNumber, principal: certificateArn }))
    await service.iot.send(new DetachPolicyCommand({ policyName: service.config.IOT_POLICY_NAME, target: certificateArn }))
    await service.iot.send(new DeleteCertificateCommand({ certificateId }))
  }],
  ['other-certificate-active', /also has [0-9a-f]{64}, ACTIVE/, ({ serialNumber }) => addOther(serialNumber)]
]

await t.test('each change past the service is found within some passes, listed, shown, kept, accepted', async t => {
  const devices = await Promise.all(CHANGES.map(() => vended('default')))
  t.same(await listed(), [])
  for (const [n, [, , change]] of CHANGES.entries()) await change(devices[n] as Vended)
  const count = CHANGES.length
  t.ok(await until(async () => (await sweep(t)).drift === count))
  t.match(await sweep(t), { drift: count, actions: [], sweep: { complete: true } }, 'told once, and kept')
  for (const [n, [kind, awsIot]] of CHANGES.entries()) {
    const { serialNumber } = devices[n] as Vended
    t.match((await listed()).filter(finding => finding.serialNumber === serialNumber), [{ kind, awsIot }])
    t.match((await ask(service, 'GET', `/v1/devices/${serialNumber}`)).json(), { state: 'ACTIVE', drift: [{ kind }] }, 'nothing is changed')
  }
  t.equal(await total(service, 'cvm_drift'), count)
  t.equal(await total(service, 'cvm_drift_findings', { kind: 'status-differs' }), 2)
  t.ok(await total(service, 'cvm_drift_last_pass_timestamp_seconds') > 0)
  t.ok(await total(service, 'cvm_drift_certificates_total') >= count)
  const page = (await ask(service, 'GET', '/v1/drifted-devices?limit=4')).json()
  t.equal(page.devices.length, 4)
  t.equal((await listed(`?cursor=${page.nextCursor}`)).length, count - 4)
  t.equal((await ask(service, 'GET', '/v1/drifted-devices?cursor=bm9uc2Vuc2U')).json().code, 'invalid-request')
  t.equal((await ask(service, 'POST', '/v1/reconcile', { sweep: true, dryRun: true })).json().code, 'invalid-request')

  const accept = (serialNumber: string, body: object) => ask(service, 'POST', `/v1/devices/${serialNumber}/accept-drift`, body)
  const [paused] = devices as [Vended]
  t.match((await accept(paused.serialNumber, { kind: 'policy-detached', reason: 'why' })).json(), { status: 404, code: 'drift-not-found' })
  t.match((await accept(paused.serialNumber, { reason: 'paused by the customer' })).json(), { drift: [{ kind: 'status-differs', accepted: { actor: 'operator-1' } }] })
  t.equal(await total(service, 'cvm_drift'), count - 1)
  t.match(await sweep(t), { drift: count - 1, actions: [] })
  t.match(await listed('?accepted=true'), [{ serialNumber: paused.serialNumber, accepted: { reason: 'paused by the customer' } }])
  t.match(service.logs(), /"event":"drift-accepted","outcome":"done".*"actor":"operator-1".*"reason":"paused by the customer"/)
  await set(paused.certificateId, 'REVOKED')
  t.match(await sweep(t), { drift: count }, 'what changes comes back')

  for (const { serialNumber } of devices) await accept(serialNumber, { reason: 'known' })
  t.equal(await total(service, 'cvm_drift'), 0)
})

await t.test('the sweep goes on in another process, which knows the findings', async t => {
  const device = await vended('default')
  await set(device.certificateId, 'INACTIVE')
  t.ok(await until(async () => (await sweep(t)).drift === 1))
  const positions = new DynamoDbDriftFindings(DynamoDBDocumentClient.from(client), settings.DEVICE_TABLE)
  const before = await positions.position()
  const next = await startService({ ...settings, AWS_ENDPOINT_URL_IOT: service.aws.iotUrl })
  t.teardown(() => next.close())
  t.match(await sweep(t, next), { drift: 1, actions: [] })
  t.equal(await total(next, 'cvm_drift'), 1)
  t.match(await positions.position(), { phase: 'rest', pass: (before?.pass ?? 0) + 1, previousStartedAt: before?.startedAt })
  await set(device.certificateId, 'ACTIVE')
  t.match((await ask(service, 'POST', '/v1/reconcile', {})).json(), { drift: 0 }, 'put right by hand')
  t.equal(await total(service, 'cvm_drift'), 0)
})

await t.test('repair: registry follows what is final and pauses what was paused', async t => {
  const devices = await Promise.all(CHANGES.map(() => vended('follows')))
  for (const [n, [, , change]] of CHANGES.entries()) await change(devices[n] as Vended)
  const [paused, revoked, , , deleted] = devices as [Vended, Vended, Vended, Vended, Vended]
  // Three kinds have no remedy in the registry.
  t.ok(await until(async () => (await sweep(t)).drift === 3 && (await stateOf(deleted)) === 'REVOKED' && (await stateOf(paused)) === 'DISABLED'))
  t.same((await listed()).map(({ kind }) => kind).sort(), ['other-certificate-active', 'policy-detached', 'thing-detached'])
  t.equal(await stateOf(revoked), 'REVOKED')
  t.match((await ask(service, 'GET', `/v1/devices/${paused.serialNumber}`)).json().history.at(-1), { event: 'disabled', reason: 'AWS IoT says INACTIVE' })
  t.match(service.logs(), /"event":"drift-repaired","outcome":"done".*"reason":"disable-device"/)
  await ask(service, 'POST', `/v1/devices/${paused.serialNumber}/enable`, { reason: 'test' })
  t.equal(await statusOf(paused.certificateId), 'ACTIVE')
  for (const { serialNumber } of devices) await ask(service, 'POST', `/v1/devices/${serialNumber}/accept-drift`, { reason: 'known' })
})

await t.test('repair: aws sets AWS IoT to what the registry says, never a REVOKED certificate, never what is another\'s', async t => {
  const devices = await Promise.all(CHANGES.map(() => vended('restores')))
  for (const [n, [, , change]] of CHANGES.entries()) await change(devices[n] as Vended)
  const [paused, revoked, unruled, homeless, deleted, doubled] = devices as [Vended, Vended, Vended, Vended, Vended, Vended]
  t.ok(await until(async () => (await sweep(t)).drift === 3 && (await statusOf(paused.certificateId)) === 'ACTIVE' && (await hasPolicy(unruled)) && (await hasThing(homeless))))
  const open = (await listed()).map(({ serialNumber, kind }) => ({ serialNumber, kind }))
  const expected = [[revoked, 'status-differs'], [deleted, 'certificate-missing'], [doubled, 'other-certificate-active']] as const
  t.same(new Set(open), new Set(expected.map(([{ serialNumber }, kind]) => ({ serialNumber, kind }))))
  t.equal(await statusOf(revoked.certificateId), 'REVOKED')
  t.equal(await stateOf(revoked), 'ACTIVE')
  const other = (await service.iot.send(new ListThingPrincipalsCommand({ thingName: doubled.serialNumber }))).principals ?? []
  const statuses = await Promise.all(other.map(principal => statusOf(principal.split('/')[1] ?? '')))
  t.same(statuses, ['ACTIVE', 'ACTIVE'], 'a certificate that never was the device\'s is left alone')
  // Beside another ACTIVE certificate nothing is made ACTIVE again.
  await set(doubled.certificateId, 'INACTIVE')
  t.ok(await until(async () => (await sweep(t)).drift === 4))
  t.equal(await statusOf(doubled.certificateId), 'INACTIVE')

  const disabled = await vended('restores')
  await ask(service, 'POST', `/v1/devices/${disabled.serialNumber}/disable`, { reason: 'test' })
  await set(disabled.certificateId, 'ACTIVE')
  t.ok(await until(async () => (await sweep(t)).drift === 4 && (await statusOf(disabled.certificateId)) === 'INACTIVE'))
})

async function stateOf ({ serialNumber }: Vended): Promise<string> {
  return (await ask(service, 'GET', `/v1/devices/${serialNumber}`)).json().state as string
}

async function hasPolicy ({ certificateArn }: Vended): Promise<boolean> {
  return ((await service.iot.send(new ListAttachedPoliciesCommand({ target: certificateArn }))).policies ?? []).length > 0
}

async function hasThing ({ serialNumber, certificateArn }: Vended): Promise<boolean> {
  const found = await service.iot.send(new ListThingPrincipalsCommand({ thingName: serialNumber })).catch(() => ({ principals: [] }))
  return (found.principals ?? []).includes(certificateArn)
}
