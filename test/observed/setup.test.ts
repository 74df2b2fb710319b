// The set-up in AWS over the production app: what is missing is found, told and healed without a restart; what AWS does
// not say stops nothing.
import { CreateTableCommand, DeleteTableCommand, UpdateTimeToLiveCommand } from '@aws-sdk/client-dynamodb'
import { CreatePolicyCommand, DeletePolicyCommand, GetPolicyCommand } from '@aws-sdk/client-iot'
import t, { type Test } from 'tap'
import { deviceTable, ensureDeviceTable } from '../../src/adapters/device-table.ts'
import { SetupError } from '../../src/observed/setup.ts'
import { BEST_ENGINE, clientOf } from '../fixtures/engines.ts'
import { awsError, startFaultyProxy } from '../fixtures/faulty-proxy.ts'
import { total } from '../fixtures/scrape.ts'
import { type TestService, startService } from '../fixtures/service.ts'
import { until } from '../fixtures/until.ts'
import { newDevice, vend } from '../fixtures/vending.ts'

const engine = await BEST_ENGINE.start()
const dynamodb = clientOf(engine.url)
t.teardown(async () => {
  dynamodb.destroy()
  await engine.close()
})
type Table = ReturnType<typeof deviceTable>
const OFTEN = { SETUP_CHECK_INTERVAL_MS: '50', AWS_ENDPOINT_URL_DYNAMODB: engine.url, AWS_CALL_TIMEOUT_MS: '3000' }

async function start (t: Test, settings: Record<string, string> = {}): Promise<TestService> {
  const service = await startService({ ...OFTEN, ...settings })
  t.teardown(() => service.close())
  return service
}

const ready = async ({ app }: TestService) => (await app.ops.inject('/readyz')).json() as { status: string, missing?: string[] }
const health = async ({ app }: TestService) => (await app.ops.inject('/healthz')).json() as { status: string, dependencies: Record<string, string>, missing?: string[], unchecked?: string[] }
const up = (service: TestService, dependency: string) => total(service, 'cvm_dependency_up', { dependency })
const faults = (service: TestService, part: string) => total(service, 'cvm_setup_faults', { part })

async function remake (t: Test, tableName: string, change: (table: Table) => Table): Promise<void> {
  await dynamodb.send(new DeleteTableCommand({ TableName: tableName }))
  t.ok(await until(() => dynamodb.send(new CreateTableCommand(change(deviceTable(tableName)))).then(() => true, ({ name }: Error) => {
    if (name !== 'ResourceInUseException') throw new Error(name)
    return false
  })), 'the table is made anew')
}

const withoutIndex = (name: string) => (table: Table) => {
  const GlobalSecondaryIndexes = (table.GlobalSecondaryIndexes ?? []).filter(({ IndexName }) => IndexName !== name)
  const keys = [...table.KeySchema ?? [], ...GlobalSecondaryIndexes.flatMap(({ KeySchema = [] }) => KeySchema)]
  const used = keys.map(({ AttributeName }) => AttributeName)
  const AttributeDefinitions = (table.AttributeDefinitions ?? []).filter(({ AttributeName }) => used.includes(AttributeName))
  return { ...table, GlobalSecondaryIndexes, AttributeDefinitions }
}

await t.test('a table that is deleted and made again', async t => {
  const service = await start(t)
  const { DEVICE_TABLE } = service.config
  await service.app.setup.start()
  t.strictSame(service.app.setup.report, { faults: [], unchecked: [] })
  t.strictSame([await ready(service), (await health(service)).status, await faults(service, 'table')], [{ status: 'ready' }, 'healthy', 0])

  await dynamodb.send(new DeleteTableCommand({ TableName: DEVICE_TABLE }))
  const gone = async () => (await ready(service)).missing?.find(text => text.includes('does not exist'))
  t.ok(await until(async () => await gone() !== undefined), 'not ready')
  const text = await gone() ?? ''
  t.equal((await ready(service)).status, 'misconfigured')
  for (const part of [DEVICE_TABLE, 'us-east-1', 'does not exist', 'infra/registry.tf', 'aws_dynamodb_table.devices', 'DEVICE_TABLE']) t.match(text, part)
  t.strictSame([await up(service, 'dynamodb'), await faults(service, 'table')], [0, 1])
  await health(service)
  t.equal(await up(service, 'dynamodb'), 0, 'the gauge agrees with /readyz, though DynamoDB answers')
  t.match(service.logs(), `missing in AWS: ${text}`)
  t.equal((await service.app.ops.inject('/livez')).statusCode, 200, 'liveness is about the process alone')

  await ensureDeviceTable(dynamodb, DEVICE_TABLE)
  t.ok(await until(async () => (await ready(service)).status === 'ready'), 'ready again without a restart')
  t.strictSame([await up(service, 'dynamodb'), await faults(service, 'table')], [1, 0])
  t.match(service.logs(), `no longer so: ${text}`)
  t.equal((await vend(service, await newDevice(service))).statusCode, 201)
})

await t.test('an index that is missing: vends go on, the start refuses', async t => {
  const service = await start(t)
  const { DEVICE_TABLE } = service.config
  await service.app.setup.start()
  await remake(t, DEVICE_TABLE, withoutIndex('unfinished'))
  t.ok(await until(async () => (await ready(service)).status === 'misconfigured'), 'not ready')
  t.equal((await vend(service, await newDevice(service))).statusCode, 201, 'a vend needs no index')
  t.equal(await up(service, 'dynamodb'), 0, 'nor does an answer of DynamoDB say that all is well')
  t.equal(await faults(service, 'index'), 1)
  const [text = ''] = (await health(service)).missing ?? []
  for (const part of ['index unfinished', DEVICE_TABLE, 'unfinished (HASH, S) and claimExpiresAt (RANGE, N)', 'KEYS_ONLY', 'infra/registry.tf']) t.match(text, part)
  t.match(await health(service), { status: 'degraded', dependencies: { dynamodb: 'down' } })

  const next = await start(t, { DEVICE_TABLE, CREATE_TABLES: 'false' })
  const refusal = await next.app.setup.start().then(() => undefined, (cause: unknown) => cause)
  t.ok(refusal instanceof SetupError && refusal.message.includes(text), 'the next task does not start, and says why')
})

await t.test('a table with another key', async t => {
  const service = await start(t)
  await remake(t, service.config.DEVICE_TABLE, table => ({
    TableName: table.TableName, BillingMode: 'PAY_PER_REQUEST', KeySchema: [{ AttributeName: 'id', KeyType: 'HASH' }], AttributeDefinitions: [{ AttributeName: 'id', AttributeType: 'S' }]
  }))
  const refusal = await service.app.setup.start().then(() => undefined, (cause: unknown) => cause)
  t.ok(refusal instanceof SetupError)
  t.match((refusal as Error).message, /has the key id \(HASH, S\), and must have serialNumber \(HASH, S\): .*infra\/registry\.tf/)
})

await t.test('a policy that is deleted: a clear error, other work goes on, healed once it is back', async t => {
  const service = await start(t)
  const policyName = service.config.IOT_POLICY_NAME
  await service.app.setup.start()
  const { policyDocument } = await service.iot.send(new GetPolicyCommand({ policyName }))
  await service.iot.send(new DeletePolicyCommand({ policyName }))
  t.ok(await until(async () => (await health(service)).missing !== undefined), 'found')
  const [text = ''] = (await health(service)).missing ?? []
  for (const part of [policyName, 'product default', 'infra/iot.tf', 'IOT_POLICY_NAME']) t.match(text, part)
  t.match([await health(service), await ready(service), await faults(service, 'policy')], [{ status: 'degraded' }, { status: 'ready' }, 1], 'not out of the balancer: other products may be served')
  await service.iot.send(new CreatePolicyCommand({ policyName, policyDocument }))
  t.ok(await until(async () => await faults(service, 'policy') === 0), 'healed')
  t.match(service.logs(), `no longer so: ${text}`)
})

await t.test('a role that may not look: the service starts, names the actions once and serves', async t => {
  const [iot, dynamo] = [await startFaultyProxy(t), await startFaultyProxy(t)]
  dynamo.forwardTo(engine.url)
  const service = await start(t, { AWS_ENDPOINT_URL_IOT: iot.url, AWS_ENDPOINT_URL_DYNAMODB: dynamo.url, RATE_LIMIT_STORE: 'dynamodb', RATE_LIMIT_TABLE: 'rate-limits-of-an-older-role' })
  iot.forwardTo(service.aws.iotUrl)
  iot.fail(operation => operation.startsWith('GET /policies/') ? awsError('AccessDeniedException', 403) : undefined)
  dynamo.fail(operation => operation.startsWith('Describe') ? awsError('AccessDeniedException', 400) : undefined)
  await service.app.setup.start()
  const { unchecked = [] } = await health(service)
  for (const action of ['dynamodb:DescribeTable', 'dynamodb:DescribeTimeToLive', 'iot:GetPolicy']) {
    const [text = ''] = unchecked.filter(text => text.includes(`denies ${action}`))
    t.match(text, 'infra/access.tf', action)
    t.equal(service.logs().split(text).length - 1, 1, 'logged once')
  }
  t.match([await ready(service), await health(service)], [{ status: 'ready' }, { status: 'healthy' }])
  t.equal((await vend(service, await newDevice(service))).statusCode, 201)
})

await t.test('an AWS that cannot be asked: the service starts, says so, and asks again', async t => {
  const dynamo = await startFaultyProxy(t)
  dynamo.fail(() => 'reset')
  const service = await start(t, { AWS_ENDPOINT_URL_DYNAMODB: dynamo.url, CREATE_TABLES: 'false', DEVICE_TABLE: 'of-nobody' })
  await service.app.setup.start()
  t.match(service.logs(), /not looked at: the table of-nobody in us-east-1: AWS does not answer dynamodb:DescribeTable/)
  t.equal((await ready(service)).status, 'ready', 'what is unknown keeps no task from being ready')
  dynamo.forwardTo(engine.url)
  dynamo.fail()
  t.ok(await until(async () => (await ready(service)).status === 'misconfigured'), 'once DynamoDB answers, its word counts')
  dynamo.fail(() => 'reset')
  t.ok(await until(async () => (await health(service)).unchecked !== undefined))
  t.equal((await ready(service)).status, 'misconfigured', 'and stays, until it says otherwise')
})

await t.test('the TTL of the shared limits', { skip: BEST_ENGINE.name === 'dynalite' ? 'dynalite has no TTL; DynamoDB Local is not there' : false }, async t => {
  const RATE_LIMIT_TABLE = `limits-of-${Date.now()}`
  const service = await start(t, { RATE_LIMIT_STORE: 'dynamodb', RATE_LIMIT_TABLE })
  await service.app.setup.start()
  t.strictSame(service.app.setup.report.faults, [])
  await dynamodb.send(new UpdateTimeToLiveCommand({ TableName: RATE_LIMIT_TABLE, TimeToLiveSpecification: { AttributeName: 'expire', Enabled: false } }))
  t.ok(await until(async () => await faults(service, 'ttl') === 1), 'found')
  t.match(await health(service), { status: 'degraded', missing: [/TTL of the table limits-of-.* update-time-to-live/] })
  t.equal((await ready(service)).status, 'ready', 'limits work without it')
})
