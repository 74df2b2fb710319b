// The contract of the port `AuthoritySettingsStore`, over DynamoDB on each engine there is here, and the model.
import { randomBytes, randomUUID } from 'node:crypto'
import { DynamoDBDocumentClient, PutCommand, QueryCommand } from '@aws-sdk/lib-dynamodb'
import t, { type Test } from 'tap'
import { CERTIFICATE_INDEX, PRODUCT_INDEX, UNFINISHED_INDEX, ensureDeviceTable } from '../../src/adapters/device-table.ts'
import { DynamoDbAuthoritySettings } from '../../src/adapters/dynamodb-authority-settings.ts'
import { type AuthoritySettings, DEFAULT_SETTINGS } from '../../src/vending/authority.ts'
import type { AuthoritySettingsStore } from '../../src/vending/authority-registry.ts'
import { ENGINES, clientOf } from '../fixtures/engines.ts'
import { ModelAuthoritySettings } from '../fixtures/model-authorities.ts'

const SETTINGS: AuthoritySettings = {
  intermediatesPem: 'pem', crls: ['http://pki.example/a.crl', 'b.crl'], whenCrlUnavailable: 'accept', products: ['meter']
}

await t.test('model', t => contract(t, new ModelAuthoritySettings()))

for (const engine of ENGINES) {
  await t.test(engine.name, async t => {
    const { url, close } = await engine.start()
    const client = clientOf(url)
    const table = `authorities-${randomUUID()}`
    t.teardown(async () => { client.destroy(); await close() })
    await ensureDeviceTable(client, table)
    const documents = DynamoDBDocumentClient.from(client)
    const store = new DynamoDbAuthoritySettings(documents, table)
    await contract(t, store)

    await t.test('its rows are in no index of devices', async t => {
      for (const [index, key, value] of [[UNFINISHED_INDEX, 'unfinished', 'unfinished'], [CERTIFICATE_INDEX, 'certificateId', 'x'], [PRODUCT_INDEX, 'product', 'meter']] as const) {
        const { Count } = await documents.send(new QueryCommand({
          TableName: table, IndexName: index, KeyConditionExpression: `${key} = :value`, ExpressionAttributeValues: { ':value': value }
        }))
        t.equal(Count, 0, index)
      }
    })

    await t.test('what it does not know fails closed', async t => {
      const id = newId()
      await documents.send(new PutCommand({ TableName: table, Item: { serialNumber: `authority#${id}`, revision: 1, whenCrlUnavailable: 'perhaps' } }))
      t.equal((await found(store, id)).whenCrlUnavailable, 'refuse')
    })
  })
}

async function contract (t: Test, store: AuthoritySettingsStore): Promise<void> {
  await t.test('the defaults where nobody has set any: nothing is taken without a CRL', async t => {
    t.same(await found(store, newId()), { ...DEFAULT_SETTINGS, revision: 0 })
    t.equal(DEFAULT_SETTINGS.whenCrlUnavailable, 'refuse')
    t.equal((await store.find([])).size, 0)
  })

  await t.test('what is put is found, and what is left out is gone', async t => {
    const [id, other] = [newId(), newId()]
    t.same(await store.put(id, SETTINGS, 0), { applied: true, settings: { ...SETTINGS, revision: 1 } })
    t.same(await store.put(id, DEFAULT_SETTINGS, 1), { applied: true, settings: { ...DEFAULT_SETTINGS, revision: 2 } })
    const nothing = { ...SETTINGS, crls: [], products: [] }
    t.same(await store.put(other, nothing, 0), { applied: true, settings: { ...nothing, revision: 1 } })
    t.same(await store.find([id, other]), new Map([[id, { ...DEFAULT_SETTINGS, revision: 2 }], [other, { ...nothing, revision: 1 }]]))
  })

  await t.test('of writes at one revision one applies; the others are told what stands there', async t => {
    const id = newId()
    const results = await Promise.all(Array.from({ length: 8 }, (_, n) => store.put(id, { ...SETTINGS, crls: [`${n}.crl`] }, 0)))
    t.equal(results.filter(({ applied }) => applied).length, 1)
    const stands = await found(store, id)
    for (const { settings } of results) t.same(settings, stands)
    t.notOk((await store.put(id, SETTINGS, 0)).applied, 'an old revision')
    t.notOk((await store.put(id, SETTINGS, 7)).applied, 'one that never was')
    t.notOk((await store.put(newId(), SETTINGS, 1)).applied, 'of settings that nobody has set')
  })

  await t.test('a reset leaves the defaults, and no revision comes twice', async t => {
    const id = newId()
    await store.put(id, SETTINGS, 0)
    await store.reset(id)
    t.same(await found(store, id), { ...DEFAULT_SETTINGS, revision: 2 })
    t.notOk((await store.put(id, SETTINGS, 1)).applied)
    t.ok((await store.put(id, SETTINGS, 2)).applied)
    await t.resolves(store.reset(newId()), 'of nothing')
  })
}

async function found (store: AuthoritySettingsStore, id: string) {
  return (await store.find([id])).get(id) ?? t.fail('each id is found') as never
}

function newId (): string {
  return randomBytes(32).toString('hex')
}
