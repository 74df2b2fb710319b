// The contract of the port `KeyOwners`, over DynamoDB on each engine there is here, and the model.
import { randomBytes, randomUUID } from 'node:crypto'
import { DynamoDBDocumentClient, ScanCommand } from '@aws-sdk/lib-dynamodb'
import t, { type Test } from 'tap'
import { ensureDeviceTable } from '../../src/adapters/device-table.ts'
import { DynamoDbKeyOwners } from '../../src/adapters/dynamodb-key-owners.ts'
import type { KeyOwners, OwnedKey } from '../../src/vending/key-owners.ts'
import { ENGINES, clientOf } from '../fixtures/engines.ts'
import { ModelKeyOwners } from '../fixtures/model-key-owners.ts'

await t.test('model', t => contract(t, new ModelKeyOwners()))

for (const engine of ENGINES) {
  await t.test(engine.name, async t => {
    const { url, close } = await engine.start()
    const client = clientOf(url)
    const table = `key-owners-${randomUUID()}`
    t.teardown(async () => { client.destroy(); await close() })
    await ensureDeviceTable(client, table)
    const documents = DynamoDBDocumentClient.from(client)
    await contract(t, new DynamoDbKeyOwners(documents, table))
    for (const IndexName of ['unfinished', 'certificate', 'product']) {
      t.equal((await documents.send(new ScanCommand({ TableName: table, IndexName }))).Count, 0, `not in the index ${IndexName}`)
    }
    const nowhere = new DynamoDbKeyOwners(documents, 'nowhere')
    for (const call of [() => nowhere.take('k', 'a', 1), () => nowhere.find('k'), () => nowhere.block('k', 'a', 1)] as (() => Promise<unknown>)[]) {
      await t.rejects(call(), { code: 'registry-unavailable' })
    }
  })
}

function newKey (): string {
  return randomBytes(32).toString('hex')
}

async function contract (t: Test, owners: KeyOwners): Promise<void> {
  await t.test('of many devices that ask for a key one gets it, for good', async t => {
    const key = newKey()
    t.equal(await owners.find(key), undefined)
    const takings = await Promise.all(['a', 'b', 'c', 'd'].map(serialNumber => owners.take(key, serialNumber, 10)))
    t.equal(takings.filter(({ taken }) => taken).length, 1)
    const owned = await owners.find(key) as OwnedKey
    t.match(owned, { takenAt: 10, isCompromised: false })
    t.same(await owners.take(key, owned.serialNumber, 20), { taken: true }, 'its owner may ask again')
    t.same(await owners.take(key, 'e', 30), { taken: false, key: { ...owned, takenAt: 20 } })
    t.same(await owners.take(newKey(), 'e', 30), { taken: true }, 'another key')
  })

  await t.test('an abandoned key is given on once, exactly as it was seen', async t => {
    const key = newKey()
    await owners.take(key, 'a', 10)
    const seen = await owners.find(key) as OwnedKey
    await owners.take(key, 'a', 20)
    t.match(await owners.take(key, 'b', 30, seen), { taken: false }, 'not once its owner has asked again')
    const now = await owners.find(key) as OwnedKey
    const takings = await Promise.all(['b', 'c'].map(serialNumber => owners.take(key, serialNumber, 30, now)))
    t.equal(takings.filter(({ taken }) => taken).length, 1)
    t.match(await owners.take(key, 'a', 40), { taken: false })
    t.match(await owners.take(newKey(), 'a', 40, now), { taken: true }, 'nor does it matter for a free one')
  })

  await t.test('a compromised key is no device\'s any more', async t => {
    const [key, unknown] = [newKey(), newKey()]
    await owners.take(key, 'a', 10)
    await Promise.all([owners.block(key, 'a', 20), owners.block(key, 'b', 30), owners.block(unknown, 'b', 30)])
    t.same(await owners.find(key), { serialNumber: 'a', takenAt: 10, isCompromised: true })
    t.same(await owners.take(key, 'a', 40), { taken: false, key: { serialNumber: 'a', takenAt: 10, isCompromised: true } }, 'also not its owner\'s')
    t.match(await owners.take(key, 'b', 40, await owners.find(key) as OwnedKey), { taken: false, key: { isCompromised: true } })
    t.match(await owners.take(unknown, 'b', 40), { taken: false, key: { serialNumber: 'b', isCompromised: true } })
  })
}
