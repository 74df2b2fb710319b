// The contract of the port `OldDevices` on every engine: which rows are old, page by page, and that writes lose against whoever was there.
import { randomUUID } from 'node:crypto'
import { type AttributeValue, CreateTableCommand, GetItemCommand, PutItemCommand } from '@aws-sdk/client-dynamodb'
import { DynamoDBDocumentClient } from '@aws-sdk/lib-dynamodb'
import t from 'tap'
import { ensureDeviceTable } from '../../src/adapters/device-table.ts'
import { DynamoDbDeviceCatalog } from '../../src/adapters/dynamodb-device-catalog.ts'
import { DynamoDbDeviceRegistry } from '../../src/adapters/dynamodb-device-registry.ts'
import { DynamoDbOldDevices } from '../../src/adapters/dynamodb-old-devices.ts'
import { DynamoDbUnfinishedDevices } from '../../src/adapters/dynamodb-unfinished-devices.ts'
import type { OldRow } from '../../src/vending/old-devices.ts'
import { ENGINES, clientOf } from '../fixtures/engines.ts'
import { LATER, NEW, NOW, certificate, must, request } from './devices.ts'

const AUTHOR = { now: NOW, requestId: 'request-1', actor: 'ada' }
const REGISTERED = { state: 'REGISTERED', tokenHash: 'hash', certificate: undefined } as const
const ACTIVE = { state: 'ACTIVE', tokenHash: 'hash', certificate: { ...certificate('c1'), way: 'keys' } } as const
const ARN = `arn:aws:iot:us-east-1:1:cert/${'a'.repeat(64)}`

for (const engine of ENGINES) {
  await t.test(engine.name, async t => {
    const { url, close } = await engine.start()
    const client = clientOf(url)
    const documents = DynamoDBDocumentClient.from(client)
    t.teardown(async () => { client.destroy(); await close() })
    const fresh = async () => {
      const table = `old-${randomUUID()}`
      await ensureDeviceTable(client, table)
      return { table, old: new DynamoDbOldDevices(documents, table), registry: new DynamoDbDeviceRegistry(documents, table) }
    }
    const put = (table: string, Item: Record<string, AttributeValue>) => client.send(new PutItemCommand({ TableName: table, Item }))
    const rowOf = async (TableName: string, serialNumber: string) =>
      (await client.send(new GetItemCommand({ TableName, Key: { serialNumber: { S: serialNumber } }, ConsistentRead: true }))).Item ?? {}
    const only = async (old: DynamoDbOldDevices, serialNumber: string) =>
      (await old.page({ limit: 100 })).rows.find(({ device }) => device.serialNumber === serialNumber) as OldRow

    await t.test('pages: every old row once, whatever the size, and no other', async t => {
      const { table, old, registry } = await fresh()
      const serials = Array.from({ length: 23 }, (_, n) => `sn-${n}`)
      for (const serialNumber of serials) await put(table, { serialNumber: { S: serialNumber }, deviceToken: { S: 'plain' } })
      await registry.register({ ...NEW, serialNumber: 'ours' }, { now: NOW, requestId: 'r' })
      await new DynamoDbUnfinishedDevices(documents, table).lease('reconcile', 'a', NOW, LATER)
      await put(table, { serialNumber: { S: `authority#${'a'.repeat(64)}` }, revision: { N: '1' } })
      await put(table, { serialNumber: { S: `#certificate/${'a'.repeat(64)}` }, holdId: { S: 'h' } })
      await put(table, { serialNumber: { S: `#key/${'a'.repeat(64)}` }, holder: { S: 'sn' }, takenAt: { N: '1' } })
      for (const limit of [1, 7, 23, 200]) {
        const seen: string[] = []
        let cursor: string | undefined
        do {
          const page = await old.page({ limit, cursor })
          t.ok(page.rows.length <= limit)
          seen.push(...page.rows.map(({ device }) => device.serialNumber))
          cursor = page.nextCursor
        } while (cursor !== undefined)
        t.strictSame(seen.sort(), [...serials].sort(), `by ${limit}`)
      }
      const { rows } = await old.page({ limit: 23 })
      const after = await old.page({ limit: 200, cursor: rows[9]?.cursor })
      t.strictSame(after.rows.map(({ device }) => device.serialNumber), rows.slice(10).map(({ device }) => device.serialNumber), 'on from any row')
    })

    await t.test('what a row says', async t => {
      const { table, old } = await fresh()
      await put(table, { serialNumber: { S: 'a' }, deviceToken: { S: 'plain' }, certinfo: { S: ARN }, tokenExpiresAt: { N: '1' }, product: { S: 'sensor' } })
      await put(table, { serialNumber: { S: 'b' }, deviceToken: { N: '42' }, applyState: { S: '-1' } })
      t.match((await only(old, 'a')).device, { state: 'ACTIVE', legacyToken: 'plain', legacyCertificateId: 'a'.repeat(64), tokenExpiresAt: 1, product: 'sensor' })
      t.match((await only(old, 'b')).device, { state: 'ACTIVE', legacyToken: undefined, legacyCertificateId: undefined, product: 'default' })
    })

    await t.test('a row becomes a device: listed, found by its certificate, without its plain token', async t => {
      const { table, old, registry } = await fresh()
      await put(table, { serialNumber: { S: 'a' }, deviceToken: { S: 'plain' }, certinfo: { S: ARN }, applyState: { N: '-1' }, note: { S: 'kept' } })
      await put(table, { serialNumber: { S: 'b' }, deviceToken: { S: 'plain' } })
      t.match(await old.takeOver(await only(old, 'a'), ACTIVE, AUTHOR), { applied: true, device: { state: 'ACTIVE', isLegacy: false, certificate: ACTIVE.certificate } })
      t.match(await old.takeOver(await only(old, 'b'), REGISTERED, AUTHOR), { applied: true, device: { state: 'REGISTERED', tokenHash: 'hash', revision: 1 } })
      const row = await rowOf(table, 'a')
      for (const mark of ['deviceToken', 'certinfo', 'applyState']) t.notOk(mark in row, mark)
      t.match(row, { note: { S: 'kept' }, committedAt: { N: String(NOW) } })
      t.strictSame((await registry.find('a'))?.history, [{ at: NOW, event: 'migrated', requestId: 'request-1', actor: 'ada', certificateId: 'c1' }])
      const catalog = new DynamoDbDeviceCatalog(documents, table, ['default'])
      t.match((await catalog.list({ limit: 10 })).devices, [{ serialNumber: 'a', state: 'ACTIVE', certificateId: 'c1' }, { serialNumber: 'b' }])
      t.match(await catalog.findByCertificate('c1'), { serialNumber: 'a' })
      t.strictSame((await old.page({ limit: 10 })).rows, [], 'nothing is left')
      must(await registry.claim(request('b')))
    })

    await t.test('a write loses against whoever came between', async t => {
      const { table, old, registry } = await fresh()
      const between: Record<string, () => Promise<unknown>> = {
        'a vend': async () => must(await registry.claim(request('a', { registrationToken: 'plain' }))),
        'an operator': async () => {
          const wish = { operation: 'revoke', operationId: 'o', actor: 'ada', reason: 'why' } as const
          must(await registry.intend((await registry.find('a'))!, wish, { expiresAt: LATER }))
        },
        'another token': () => put(table, { serialNumber: { S: 'a' }, deviceToken: { S: 'other' } }),
        'a token taken away': () => put(table, { serialNumber: { S: 'a' } }),
        'a vend of the old service': () => put(table, { serialNumber: { S: 'a' }, deviceToken: { S: 'plain' }, certinfo: { S: ARN } }),
        'the same migration': async () => must(await old.takeOver(await only(old, 'a'), REGISTERED, AUTHOR))
      }
      for (const [who, act] of Object.entries(between)) {
        await put(table, { serialNumber: { S: 'a' }, deviceToken: { S: 'plain' } })
        const seen = await only(old, 'a')
        await act()
        const before = await rowOf(table, 'a')
        t.match(await old.takeOver(seen, REGISTERED, AUTHOR), { applied: false, device: { serialNumber: 'a' } }, who)
        t.strictSame(await rowOf(table, 'a'), before, `${who}: and changes nothing`)
      }
    })

    await t.test('another table is copied from, and only read', async t => {
      const { table, old, registry } = await fresh()
      const theirs = `their-${randomUUID()}`
      const key = { AttributeDefinitions: [{ AttributeName: 'serialNumber', AttributeType: 'S' }], KeySchema: [{ AttributeName: 'serialNumber', KeyType: 'HASH' }] } as const
      await client.send(new CreateTableCommand({ TableName: theirs, BillingMode: 'PAY_PER_REQUEST', ...key } as never))
      // Attributes that have a meaning here had none there.
      const item = { serialNumber: { S: 'a' }, deviceToken: { S: 'plain' }, state: { S: 'Bavaria' }, product: { S: 'toaster' }, tokenExpiresAt: { N: '1' } }
      await put(theirs, item)
      const { rows: [row] } = await old.page({ table: theirs, limit: 10 })
      t.match(row?.device, { state: 'REGISTERED', product: 'default', tokenExpiresAt: undefined })
      t.match(await old.takeOver(row!, REGISTERED, AUTHOR, theirs), { applied: true, device: { state: 'REGISTERED', product: 'default' } })
      t.match(await old.takeOver(row!, REGISTERED, AUTHOR, theirs), { applied: false }, 'once')
      must(await registry.claim(request('a')))
      t.strictSame(await rowOf(theirs, 'a'), item)
      t.notMatch(JSON.stringify(await rowOf(table, 'a')), 'plain')
    })

    await t.test('tables and cursors that cannot be used', async t => {
      const { table, old } = await fresh()
      await put(table, { serialNumber: { S: 'a' } })
      await put(table, { serialNumber: { S: 'b' } })
      const { nextCursor = '' } = await old.page({ limit: 1 })
      const invalid = { code: 'invalid-request' }
      await t.rejects(old.page({ table: 'no-such-table', limit: 1 }), { ...invalid, message: /no-such-table: there is no such table/ })
      await t.rejects(old.page({ table: 'another', cursor: nextCursor, limit: 1 }), { ...invalid, message: /cursor/ })
      for (const cursor of ['x', `${nextCursor}x`, Buffer.from('[1,2]').toString('base64url'), Buffer.from('null').toString('base64url')]) {
        await t.rejects(old.page({ cursor, limit: 1 }), { ...invalid, message: /cursor/ }, cursor)
      }
      const other = `other-${randomUUID()}`
      const key = { AttributeDefinitions: [{ AttributeName: 'id', AttributeType: 'S' }], KeySchema: [{ AttributeName: 'id', KeyType: 'HASH' }] } as const
      await client.send(new CreateTableCommand({ TableName: other, BillingMode: 'PAY_PER_REQUEST', ...key } as never))
      await put(other, { id: { S: 'a' } })
      await t.rejects(old.page({ table: other, limit: 1 }), { ...invalid, message: /another key/ })
    })
  })
}

await t.test('a table that does not answer is said to be unavailable', async t => {
  const client = clientOf('http://127.0.0.1:9')
  t.teardown(() => client.destroy())
  await t.rejects(new DynamoDbOldDevices(DynamoDBDocumentClient.from(client), 'none').page({ limit: 1 }), { code: 'registry-unavailable' })
})
