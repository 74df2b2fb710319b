// Changes past the service, well after the vend, in the production app: found, listed, kept, accepted or repaired.
import { randomUUID } from 'node:crypto'
import { writeFileSync } from 'node:fs'
import {
  AttachPolicyCommand, AttachThingPrincipalCommand, CreateKeysAndCertificateCommand, DeleteCertificateCommand, DeleteThingCommand,
  DescribeCertificateCommand,
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

t.setTimeout(900_000)

const PRODUCTS_FILE = `${t.testdir({})}/products.json`
writeFileSync(PRODUCTS_FILE, JSON.stringify([{ name: 'follows', repair: 'registry' }, { name: 'restores', repair: 'aws' }]))
const engine = await ENGINES[0]!.start()
const settings = { API_KEYS, PRODUCTS_FILE, DEVICE_TABLE: `devices-${randomUUID()}`, AWS_ENDPOINT_URL_DYNAMODB: engine.url }
const service = await startService(settings)
const client = clientOf(engine.url)
t.teardown(async () => { client.destroy(); await service.close(); await engine.close() })

interface Finding { serialNumber: string, kind: string, registry: string, awsIot: string, accepted?: object }
interface Swept { drift: number, actions: object[], sweep: { complete: boolean } }
type Six = [Vended, Vended, Vended, Vended, Vended, Vended]
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

const count = CHANGES.length
/** Those that wait for an operator: all of `report`, three kinds without a remedy in either other mode. */
const OPEN = count + 3 + 3

const [reported, followed, restored] = await Promise.all(['default', 'follows', 'restores'].map(async product => {
  const devices = await Promise.all(CHANGES.map(() => vended(product)))
  for (const [n, [, , change]] of CHANGES.entries()) await change(devices[n] as Vended)
  return devices as Six
})) as [Six, Six, Six]

await t.test('each change past the service is found within some passes, listed, shown and kept', async t => {
  t.ok(await until(async () => (await sweep(t)).drift === OPEN && await isRepaired()))
  t.match(await sweep(t), { drift: OPEN, actions: [], sweep: { complete: true } }, 'told once, and kept')
  const findings = await listed()
  for (const [n, [kind, awsIot]] of CHANGES.entries()) {
    const { serialNumber } = reported[n] as Vended
    t.match(findings.filter(finding => finding.serialNumber === serialNumber), [{ kind, awsIot }])
    t.match((await ask(service, 'GET', `/v1/devices/${serialNumber}`)).json(), { state: 'ACTIVE', drift: [{ kind }] }, 'nothing is changed')
  }
  t.equal(await total(service, 'cvm_drift'), OPEN)
  t.equal(await total(service, 'cvm_drift_findings', { kind: 'status-differs' }), 3)
  t.ok(await total(service, 'cvm_drift_last_pass_timestamp_seconds') > 0)
  t.ok(await total(service, 'cvm_drift_certificates_total') >= OPEN)
  const page = (await ask(service, 'GET', '/v1/drifted-devices?limit=4')).json()
  t.equal(page.devices.length, 4)
  t.equal((await listed(`?cursor=${page.nextCursor}`)).length, OPEN - 4)
  t.equal((await ask(service, 'GET', '/v1/drifted-devices?cursor=bm9uc2Vuc2U')).json().code, 'invalid-request')
  t.equal((await ask(service, 'POST', '/v1/reconcile', { sweep: true, dryRun: true })).json().code, 'invalid-request')
})

await t.test('repair: registry follows what is final and pauses what was paused', async t => {
  const [paused, revoked, unruled, homeless, deleted, doubled] = followed
  t.same(serialsOf(await openOf(followed)), serialsOf([unruled, homeless, doubled]))
  t.same(await Promise.all([paused, revoked, deleted].map(stateOf)), ['DISABLED', 'REVOKED', 'REVOKED'])
  const { history } = (await ask(service, 'GET', `/v1/devices/${paused.serialNumber}`)).json()
  t.match(history.at(-1), { event: 'disabled', actor: 'reconcile', reason: 'AWS IoT says INACTIVE' })
  t.match(service.logs(), /"event":"drift-repaired","outcome":"done".*"reason":"disable-device"/)
  await ask(service, 'POST', `/v1/devices/${paused.serialNumber}/enable`, { reason: 'test' })
  t.equal(await statusOf(paused.certificateId), 'ACTIVE')
})

await t.test('repair: aws sets AWS IoT to what the registry says, never a REVOKED certificate, never what is another\'s', async t => {
  const [paused, revoked, unruled, homeless, deleted, doubled] = restored
  t.same(serialsOf(await openOf(restored)), serialsOf([revoked, deleted, doubled]))
  t.equal(await statusOf(paused.certificateId), 'ACTIVE')
  t.ok(await hasPolicy(unruled))
  t.ok(await hasThing(homeless))
  t.equal(await statusOf(revoked.certificateId), 'REVOKED')
  t.same(await Promise.all(restored.map(stateOf)), restored.map(() => 'ACTIVE'))
  const { principals = [] } = await service.iot.send(new ListThingPrincipalsCommand({ thingName: doubled.serialNumber }))
  const statuses = await Promise.all(principals.map(principal => statusOf(principal.split('/')[1] ?? '')))
  t.same(statuses, ['ACTIVE', 'ACTIVE'], 'a certificate that never was the device\'s is left alone')
})

await t.test('an accepted finding is open no more, and comes back when it changes', async t => {
  const accept = (serialNumber: string, body: object) => ask(service, 'POST', `/v1/devices/${serialNumber}/accept-drift`, body)
  const [paused] = reported
  t.match((await accept(paused.serialNumber, { kind: 'policy-detached', reason: 'why' })).json(), { status: 404, code: 'drift-not-found' })
  const { drift } = (await accept(paused.serialNumber, { reason: 'paused by the customer' })).json()
  t.match(drift, [{ kind: 'status-differs', accepted: { actor: 'operator-1' } }])
  t.equal(await total(service, 'cvm_drift'), OPEN - 1)
  t.match(await sweep(t), { drift: OPEN - 1, actions: [] })
  t.match(await listed('?accepted=true'), [{ serialNumber: paused.serialNumber, accepted: { reason: 'paused by the customer' } }])
  t.match(service.logs(), /"event":"drift-accepted","outcome":"done".*"actor":"operator-1".*"reason":"paused by the customer"/)
  await set(paused.certificateId, 'REVOKED')
  t.match(await sweep(t), { drift: OPEN }, 'what changes comes back')
})

await t.test('the sweep goes on in another process, which knows the findings; what is put right by hand ends', async t => {
  const positions = new DynamoDbDriftFindings(DynamoDBDocumentClient.from(client), settings.DEVICE_TABLE)
  const before = await positions.position()
  const next = await startService({ ...settings, AWS_ENDPOINT_URL_IOT: service.aws.iotUrl })
  t.teardown(() => next.close())
  t.match(await sweep(t, next), { drift: OPEN, actions: [] })
  t.equal(await total(next, 'cvm_drift'), OPEN)
  t.match(await positions.position(), { phase: 'rest', pass: (before?.pass ?? 0) + 1, previousStartedAt: before?.startedAt })
  const [, , unruled] = reported
  await service.iot.send(new AttachPolicyCommand({ policyName: service.config.IOT_POLICY_NAME, target: unruled.certificateArn }))
  t.match((await ask(service, 'POST', '/v1/reconcile', {})).json(), { drift: OPEN - 1 })
  t.equal(await total(service, 'cvm_drift'), OPEN - 1)
})

function serialsOf (devices: readonly { serialNumber: string }[]): Set<string> {
  return new Set(devices.map(({ serialNumber }) => serialNumber))
}

async function openOf (devices: readonly Vended[]): Promise<Finding[]> {
  return (await listed()).filter(({ serialNumber }) => devices.some(device => device.serialNumber === serialNumber))
}

/** The last of what `registry` and `aws` repair. */
async function isRepaired (): Promise<boolean> {
  const [open, others] = [await openOf(followed), await openOf(restored)]
  return open.length === 3 && others.length === 3
}

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
