// What a look into the catalog costs, in request units as DynamoDB counts them: the same with few devices in the table as with many.
import { randomUUID } from 'node:crypto'
import { type AttributeValue, BatchWriteItemCommand, type DynamoDBClient, ScanCommand, type WriteRequest } from '@aws-sdk/client-dynamodb'
import { DynamoDBDocumentClient } from '@aws-sdk/lib-dynamodb'
import t from 'tap'
import { ensureDeviceTable } from '../../src/adapters/device-table.ts'
import { DynamoDbDeviceCatalog } from '../../src/adapters/dynamodb-device-catalog.ts'
import type { DeviceCatalog } from '../../src/vending/device-catalog.ts'
import { ENGINES, clientOf } from '../fixtures/engines.ts'
import { isWhole, proofSize } from '../fixtures/proof-size.ts'

const PRODUCTS = ['default', 'sensor']
const SMALL = 1_000
/** dynalite is single-threaded, and slower the more it holds. */
const LARGE = isWhole ? { 'DynamoDB Local': 50_000, dynalite: 5_000 } : { 'DynamoDB Local': 3_000, dynalite: 3_000 }
const BATCH = 25
const AT_ONCE = 8

for (const engine of ENGINES) {
  await t.test(`${engine.name} (${isWhole ? proofSize : 'few devices'})`, async t => {
    const { url, close } = await engine.start()
    const client = clientOf(url)
    t.teardown(async () => { client.destroy(); await close() })
    const spent = meter(client)
    const large = LARGE[engine.name as keyof typeof LARGE]
    const costs: Record<string, number>[] = []
    for (const size of [SMALL, large]) {
      const table = `cost-${randomUUID()}`
      await ensureDeviceTable(client, table)
      const start = performance.now()
      await fill(client, table, size)
      t.comment(`${engine.name}: ${size} devices put in ${Math.round(performance.now() - start)} ms`)
      const looks = await costsOf(new DynamoDbDeviceCatalog(DynamoDBDocumentClient.from(client), table, PRODUCTS), spent, size)
      const before = spent()
      await client.send(new ScanCommand({ TableName: table }))
      costs.push({ ...looks, scan: spent() - before })
    }
    const [few, many] = costs
    t.comment(`${engine.name}: request units with ${SMALL} and with ${large} devices`, few, many)
    const { scan: scanFew = 0, ...looksAtFew } = few ?? {}
    const { scan: scanMany = 0, ...looksAtMany } = many ?? {}
    t.ok(scanMany > scanFew, 'a scan would cost more: the meter tells')
    // These engines count nothing for an answer without devices.
    for (const [look, units] of Object.entries(looksAtFew)) t.ok(units > 0 || look === 'nothing', `${look} is counted`)
    t.same(looksAtMany, looksAtFew)
  })
}
if (ENGINES.length === 1) t.comment('no DynamoDB Local here: its count was left out')

/** The request units of each look. */
async function costsOf (catalog: DeviceCatalog, spent: () => number, size: number): Promise<Record<string, number>> {
  const costs: Record<string, number> = {}
  const measure = async <T>(look: string, work: () => Promise<T>): Promise<T> => {
    const before = spent()
    const result = await work()
    costs[look] = spent() - before
    return result
  }
  const first = await measure('first page', () => catalog.list({ limit: 100 }))
  t.equal(first.devices.length, 100)
  await measure('second page', () => catalog.list({ limit: 100, cursor: first.nextCursor ?? '' }))
  await measure('largest page', () => catalog.list({ limit: 500 }))
  await measure('by product', () => catalog.list({ product: 'sensor', limit: 100 }))
  await measure('by state', () => catalog.list({ state: 'ACTIVE', limit: 100 }))
  await measure('by product and state', () => catalog.list({ product: 'sensor', state: 'ACTIVE', limit: 100 }))
  await measure('nothing', () => catalog.list({ state: 'REVOKED', limit: 100 }))
  const found = await measure('lookup', () => catalog.findByCertificate(idOf(size - 1)))
  t.equal(found?.serialNumber, serialOf(size - 1))
  return costs
}

/** Counts the request units of every call of a client from now on. */
function meter (client: DynamoDBClient): () => number {
  let units = 0
  client.middlewareStack.add(next => async args => {
    const { output, response } = await next({ ...args, input: { ...args.input, ReturnConsumedCapacity: 'TOTAL' } as typeof args.input })
    const { ConsumedCapacity: consumed } = output as { ConsumedCapacity?: { CapacityUnits?: number } }
    if (!Array.isArray(consumed)) units += consumed?.CapacityUnits ?? 0
    return { output, response }
  }, { step: 'initialize' })
  return () => units
}

/** Vended devices of one size, every fourth of the second product: enough of the first for the largest page. */
async function fill (client: DynamoDBClient, table: string, size: number): Promise<void> {
  const batches = Array.from({ length: Math.ceil(size / BATCH) }, (_, n) => n * BATCH)
  const worker = async (): Promise<void> => {
    for (let from = batches.pop(); from !== undefined; from = batches.pop()) {
      const rows = Array.from({ length: Math.min(BATCH, size - from) }, (_, n): WriteRequest => ({ PutRequest: { Item: row(from + n) } }))
      const { UnprocessedItems } = await client.send(new BatchWriteItemCommand({ RequestItems: { [table]: rows } }))
      if (Object.keys(UnprocessedItems ?? {}).length > 0) throw new Error('the engine left items out')
    }
  }
  await Promise.all(Array.from({ length: AT_ONCE }, worker))
}

function row (n: number): Record<string, AttributeValue> {
  const serialNumber = serialOf(n)
  const texts = {
    serialNumber,
    state: 'ACTIVE',
    product: PRODUCTS[n % 4 === 0 ? 1 : 0] ?? '',
    listing: `ACTIVE#${serialNumber}`,
    certificateId: idOf(n),
    certificateArn: 'arn',
    certificatePem: 'pem',
    publicKeyFingerprint: 'key',
    way: 'csr'
  }
  const numbers = { revision: '4', issuedAt: '1700000000000', notAfter: '2524607999000' }
  return {
    ...Object.fromEntries(Object.entries(texts).map(([name, S]) => [name, { S }])),
    ...Object.fromEntries(Object.entries(numbers).map(([name, N]) => [name, { N }]))
  }
}

function serialOf (n: number): string {
  return `sn-${String(n).padStart(7, '0')}`
}

function idOf (n: number): string {
  return String(n).padStart(64, '0')
}
