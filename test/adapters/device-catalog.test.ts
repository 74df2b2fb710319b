// The contract of the port `DeviceCatalog`, over every implementation; and what is in its index.
import { randomUUID } from 'node:crypto'
import { PutItemCommand } from '@aws-sdk/client-dynamodb'
import { DynamoDBDocumentClient } from '@aws-sdk/lib-dynamodb'
import t from 'tap'
import { ensureDeviceTable } from '../../src/adapters/device-table.ts'
import { DynamoDbDeviceCatalog } from '../../src/adapters/dynamodb-device-catalog.ts'
import { DynamoDbDeviceRegistry } from '../../src/adapters/dynamodb-device-registry.ts'
import { DynamoDbUnfinishedDevices } from '../../src/adapters/dynamodb-unfinished-devices.ts'
import { ENGINES, clientOf } from '../fixtures/engines.ts'
import { ModelRegistry } from '../fixtures/model-registry.ts'
import { PRODUCTS, certificateContract, listContract } from './catalog-contract.ts'
import { LATER, NOW, must, request } from './devices.ts'

await t.test('model', async t => {
  const registry = new ModelRegistry()
  await certificateContract(t, registry, registry)
})

for (const engine of ENGINES) {
  await t.test(engine.name, async t => {
    const { url, close } = await engine.start()
    const client = clientOf(url)
    const documents = DynamoDBDocumentClient.from(client)
    t.teardown(async () => { client.destroy(); await close() })
    const fresh = async () => {
      const table = `catalog-${randomUUID()}`
      await ensureDeviceTable(client, table)
      const catalog = new DynamoDbDeviceCatalog(documents, table, PRODUCTS)
      return { table, catalog, registry: new DynamoDbDeviceRegistry(documents, table) }
    }
    const { registry, catalog, table } = await fresh()
    await listContract(t, registry, catalog)
    await certificateContract(t, registry, catalog)

    await t.test('leases are never listed; rows of the old services once they are used', async t => {
      const devices = new DynamoDbUnfinishedDevices(documents, table)
      await devices.lease('reconcile', 'a', NOW, LATER)
      const serialNumber = `legacy-${randomUUID()}`
      await client.send(new PutItemCommand({ TableName: table, Item: { serialNumber: { S: serialNumber }, deviceToken: { S: 'plain' } } }))
      const listed = async () => (await catalog.list({ limit: 500 })).devices.filter(device => /legacy|lease/.test(device.serialNumber))
      t.same(await listed(), [])
      must(await registry.claim(request(serialNumber, { registrationToken: 'plain' })))
      t.same(await listed(), [{ serialNumber, product: 'default', state: 'ISSUING' }])
    })
  })
}

await t.test('a table that does not answer is said to be unavailable', async t => {
  const client = clientOf('http://127.0.0.1:9')
  t.teardown(() => client.destroy())
  const catalog = new DynamoDbDeviceCatalog(DynamoDBDocumentClient.from(client), 'none', PRODUCTS)
  await t.rejects(catalog.list({ limit: 1 }), { code: 'registry-unavailable' })
  await t.rejects(catalog.findByCertificate('c1'), { code: 'registry-unavailable' })
})
