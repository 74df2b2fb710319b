// What a look into the catalog costs, in request units as DynamoDB counts them: the same with few devices in the table as with many.
import { randomUUID } from 'node:crypto'
import { ScanCommand } from '@aws-sdk/client-dynamodb'
import { DynamoDBDocumentClient } from '@aws-sdk/lib-dynamodb'
import t from 'tap'
import { ensureDeviceTable } from '../../src/adapters/device-table.ts'
import { DynamoDbDeviceCatalog } from '../../src/adapters/dynamodb-device-catalog.ts'
import type { DeviceCatalog } from '../../src/vending/device-catalog.ts'
import { ENGINES, clientOf } from '../fixtures/engines.ts'
import { PRODUCTS, fill, idOf, meter, serialOf } from '../fixtures/many-devices.ts'
import { isWhole, proofSize } from '../fixtures/proof-size.ts'

const SMALL = 1_000
/** dynalite is single-threaded, and slower the more it holds. */
const LARGE = isWhole ? { 'DynamoDB Local': 50_000, dynalite: 5_000 } : { 'DynamoDB Local': 3_000, dynalite: 3_000 }

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
