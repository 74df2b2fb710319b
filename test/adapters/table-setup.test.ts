// What DynamoDB says of a table, and what the service makes of it. The states that no local DynamoDB shows are told by a stand-in.
import type { DynamoDBClient, TableDescription, TimeToLiveDescription } from '@aws-sdk/client-dynamodb'
import t from 'tap'
import { deviceTable } from '../../src/adapters/device-table.ts'
import { rateLimitTable } from '../../src/adapters/dynamodb-rate-store.ts'
import { type WantedTable, tableChecks } from '../../src/adapters/table-setup.ts'

const DEVICES: WantedTable = { wanted: deviceTable('devices'), setting: 'DEVICE_TABLE', resource: 'aws_dynamodb_table.devices', isNeeded: true, without: 'nothing can be vended' }
const LIMITS: WantedTable = { wanted: rateLimitTable('limits'), setting: 'RATE_LIMIT_TABLE', resource: 'aws_dynamodb_table.rate_limits', isNeeded: false, without: 'replicas count alone', ttl: 'expire' }

interface Told { table?: TableDescription, ttl?: TimeToLiveDescription, error?: string, ttlError?: string }

/** The table as it should be, as DynamoDB tells it. */
function described (table: WantedTable): TableDescription {
  const { TableName, KeySchema, AttributeDefinitions, GlobalSecondaryIndexes = [] } = table.wanted
  const indexes = GlobalSecondaryIndexes.map(({ IndexName, KeySchema, Projection }) => ({ IndexName, KeySchema, Projection, IndexStatus: 'ACTIVE' as const }))
  return { TableName, KeySchema, AttributeDefinitions, GlobalSecondaryIndexes: indexes, TableStatus: 'ACTIVE' }
}

async function look (table: WantedTable, { table: Table = described(table), ttl, error, ttlError = error }: Told) {
  const send = async ({ constructor: { name } }: object) => {
    const failure = name === 'DescribeTableCommand' ? error : ttlError
    if (failure !== undefined) throw Object.assign(new Error(failure), { name: failure })
    return name === 'DescribeTableCommand' ? { Table } : { TimeToLiveDescription: ttl }
  }
  const checks = tableChecks({ send } as unknown as DynamoDBClient, table, 'eu-central-1')
  return (await Promise.all(checks.map(({ look }) => look(AbortSignal.timeout(60_000))))).flat()
}

const devices = described(DEVICES)
const changed = (name: string, change: object): TableDescription => ({
  ...devices,
  GlobalSecondaryIndexes: (devices.GlobalSecondaryIndexes ?? []).map(index => index.IndexName === name ? { ...index, ...change } : index)
})

await t.test('what is as wanted, or more than that, is no fault', async t => {
  const other = { IndexName: 'of-somebody', KeySchema: [], Projection: { ProjectionType: 'ALL' as const } }
  const fine: Record<string, TableDescription> = {
    'as wanted': devices,
    'being changed': { ...devices, TableStatus: 'UPDATING' },
    'another index besides': { ...devices, GlobalSecondaryIndexes: [...devices.GlobalSecondaryIndexes ?? [], other] },
    'a wider projection': changed('product', { Projection: { ProjectionType: 'ALL' } }),
    'more attributes': changed('product', { Projection: { ProjectionType: 'INCLUDE', NonKeyAttributes: ['notAfter', 'more', 'certificateId'] } }),
    'attributes where only keys are needed': changed('unfinished', { Projection: { ProjectionType: 'INCLUDE', NonKeyAttributes: ['x'] } })
  }
  for (const [what, table] of Object.entries(fine)) t.strictSame(await look(DEVICES, { table }), [], what)
})

await t.test('what is missing for certain is fatal, and the text names it', async t => {
  const cases: ReadonlyArray<readonly [string, Told, string, RegExp]> = [
    ['no table', { error: 'ResourceNotFoundException' }, 'table', /^The table devices in eu-central-1 does not exist: nothing can be vended\. Apply infra\/registry\.tf \(aws_dynamodb_table\.devices\)/],
    ['deleted now', { table: { ...devices, TableStatus: 'DELETING' } }, 'table', /is DELETING/],
    ['no key of KMS', { table: { ...devices, TableStatus: 'INACCESSIBLE_ENCRYPTION_CREDENTIALS' } }, 'table', /is INACCESSIBLE_ENCRYPTION_CREDENTIALS/],
    ['another type of key', { table: { ...devices, AttributeDefinitions: [{ AttributeName: 'serialNumber', AttributeType: 'N' }] } }, 'key', /has the key serialNumber \(HASH, N\), and must have serialNumber \(HASH, S\)/],
    ['a sort key', { table: { ...devices, KeySchema: [...devices.KeySchema ?? [], { AttributeName: 'product', KeyType: 'RANGE' }] } }, 'key', /serialNumber \(HASH, S\) and product \(RANGE, S\)/],
    ['no index', { table: { ...devices, GlobalSecondaryIndexes: devices.GlobalSecondaryIndexes?.slice(1) } }, 'index', /^The index unfinished of the table devices in eu-central-1 does not exist\. It needs the key unfinished \(HASH, S\) and claimExpiresAt \(RANGE, N\) and the projection KEYS_ONLY\. Apply infra\/registry\.tf/],
    ['an index that is deleted now', { table: changed('certificate', { IndexStatus: 'DELETING' }) }, 'index', /certificate of the table devices in eu-central-1 is being deleted/],
    ['an index with another key', { table: changed('certificate', { KeySchema: [{ AttributeName: 'serialNumber', KeyType: 'HASH' }] }) }, 'index', /has the key serialNumber \(HASH, S\).* must have the key certificateId \(HASH, S\)/],
    ['an index with too little', { table: changed('product', { Projection: { ProjectionType: 'INCLUDE', NonKeyAttributes: ['notAfter'] } }) }, 'index', /INCLUDE notAfter, and must have .* INCLUDE certificateId notAfter/]
  ]
  for (const [what, told, part, text] of cases) t.match(await look(DEVICES, told), [{ part, dependency: 'dynamodb', isFatal: true, text }], what)
})

await t.test('what will be well by itself is not fatal', async t => {
  t.match(await look(DEVICES, { table: { ...devices, TableStatus: 'CREATING' } }), [{ part: 'table', isFatal: false, text: /still being created/ }])
  t.match(await look(DEVICES, { table: changed('product', { IndexStatus: 'CREATING' }) }), [{ part: 'index', isFatal: false, text: /still being built/ }])
})

await t.test('the shared limits are never fatal: each replica counts for itself without them', async t => {
  const on = { TimeToLiveStatus: 'ENABLED', AttributeName: 'expire' } as const
  t.strictSame(await look(LIMITS, { ttl: on }), [])
  t.strictSame(await look(LIMITS, { ttl: { ...on, TimeToLiveStatus: 'ENABLING' } }), [])
  t.match(await look(LIMITS, { ttl: { TimeToLiveStatus: 'DISABLED' } }), [{ part: 'ttl', isFatal: false, text: /is off, .*aws dynamodb update-time-to-live --table-name limits/ }])
  t.match(await look(LIMITS, { ttl: { ...on, AttributeName: 'other' } }), [{ part: 'ttl', isFatal: false, text: /by the attribute other, and must be by expire/ }])
  t.match(await look(LIMITS, { error: 'ResourceNotFoundException' }), [{ part: 'table', isFatal: false, text: /^The table limits .*replicas count alone/ }], 'said once')
})

await t.test('what AWS does not say is no fault', async t => {
  for (const error of ['AccessDeniedException', 'ThrottlingException', 'TimeoutError', 'UnknownOperationException']) await t.rejects(look(DEVICES, { error }), { name: error })
  await t.rejects(look(LIMITS, { ttlError: 'AccessDeniedException' }), { name: 'AccessDeniedException' })
  t.strictSame(await look(LIMITS, { ttlError: 'UnknownOperationException' }), [], 'dynalite has no TTL')
})
