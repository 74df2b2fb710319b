// The contract of the port `DeviceRegistry`, over every implementation: DynamoDB on each engine there is here, and the model.
import { randomUUID } from 'node:crypto'
import { PutItemCommand } from '@aws-sdk/client-dynamodb'
import { DynamoDBDocumentClient, GetCommand, PutCommand } from '@aws-sdk/lib-dynamodb'
import t, { type Test } from 'tap'
import { ensureDeviceTable } from '../../src/adapters/device-table.ts'
import { DynamoDbDeviceRegistry } from '../../src/adapters/dynamodb-device-registry.ts'
import { DynamoDbUnfinishedDevices } from '../../src/adapters/dynamodb-unfinished-devices.ts'
import { type Device, HISTORY_LIMIT } from '../../src/vending/device.ts'
import type { DeviceRegistry } from '../../src/vending/device-registry.ts'
import { ENGINES, clientOf } from '../fixtures/engines.ts'
import { ModelRegistry } from '../fixtures/model-registry.ts'
import { unfinishedContract } from './unfinished-contract.ts'
import { NEW, LATER, NOW, certificate, claim, fence, issuedDevice, must, registered, request } from './devices.ts'

await t.test('model', async t => {
  const registry = new ModelRegistry()
  await contract(t, registry)
  await unfinishedContract(t, registry, registry)
})

for (const engine of ENGINES) {
  await t.test(engine.name, async t => {
    const { url, close } = await engine.start()
    const client = clientOf(url)
    const table = `contract-${randomUUID()}`
    t.teardown(async () => { client.destroy(); await close() })
    await ensureDeviceTable(client, table)
    await t.resolves(ensureDeviceTable(client, table), 'a table that is there is left alone')
    const documents = DynamoDBDocumentClient.from(client)
    const registry = new DynamoDbDeviceRegistry(documents, table)
    await contract(t, registry)
    await unfinishedContract(t, registry, new DynamoDbUnfinishedDevices(documents, table))

    const put = (item: Record<string, { S: string } | { N: string }>) =>
      client.send(new PutItemCommand({ TableName: table, Item: item }))
    const row = async (serialNumber: string) =>
      (await documents.send(new GetCommand({ TableName: table, Key: { serialNumber } }))).Item ?? {}

    await t.test('a row of the old services is a registered device, and its plain token goes at the first use', async t => {
      const serialNumber = randomUUID()
      await put({ serialNumber: { S: serialNumber }, deviceToken: { S: '1234567890' } })
      t.match(await registry.find(serialNumber), { state: 'REGISTERED', legacyToken: '1234567890' })
      t.notOk((await registry.claim(request(serialNumber, { registrationToken: 'wrong' }))).applied, 'a wrong token')
      t.ok((await registry.claim(request(serialNumber, { registrationToken: '1234567890' }))).applied)
      const { deviceToken, tokenHash } = await row(serialNumber)
      t.equal(deviceToken, undefined)
      t.equal(tokenHash, 'hash')
    })

    await t.test('rows that the old services vended count as vended', async t => {
      const vended = { certinfo: { S: 'arn:aws:iot:…' }, applyState: { N: '-1' } } as const
      for (const [name, value] of [...Object.entries(vended), ['applyState', { S: '-1' }]] as const) {
        const serialNumber = randomUUID()
        await put({ serialNumber: { S: serialNumber }, deviceToken: { S: 'plain' }, [name]: value })
        t.match(await registry.find(serialNumber), { state: 'ACTIVE', certificate: undefined }, name)
        t.notOk((await registry.claim(request(serialNumber, { registrationToken: 'plain' }))).applied)
      }
      const serialNumber = randomUUID()
      await put({ serialNumber: { S: serialNumber }, deviceToken: { S: 'plain' }, certinfo: { S: '' }, applyState: { N: '0' } })
      t.ok((await registry.claim(request(serialNumber, { registrationToken: 'plain' }))).applied, 'empty marks do not count')
    })

    await t.test('a row of the old services is at revision 0 until it is changed', async t => {
      const serialNumber = randomUUID()
      await put({ serialNumber: { S: serialNumber }, deviceToken: { S: 'plain' } })
      const device = await registry.find(serialNumber)
      if (device?.revision !== 0) return t.fail('it is there, at revision 0')
      const wish = { operation: 'disable', operationId: randomUUID(), actor: 'ada', reason: 'why' } as const
      const at = { now: NOW, requestId: 'r', expiresAt: LATER, revision: 0 }
      t.equal(must(await registry.intend(device, wish, at)).revision, 1)
      t.notOk((await registry.intend(device, wish, at)).applied)
    })

    await t.test('a row without a token is never claimed', async t => {
      for (const item of [{}, { deviceToken: { N: '42' } }, { deviceToken: { S: '' } }]) {
        const serialNumber = randomUUID()
        await put({ serialNumber: { S: serialNumber }, ...item })
        t.notOk((await registry.claim(request(serialNumber, { registrationToken: '42' }))).applied)
      }
    })

    await t.test('claim: a row of the old services is one of the default product', async t => {
      const serialNumber = randomUUID()
      await put({ serialNumber: { S: serialNumber }, deviceToken: { S: 'plain' } })
      const plain = { registrationToken: 'plain' }
      t.notOk((await registry.claim(request(serialNumber, { ...plain, refusingProducts: ['sensor', 'default'] }))).applied)
      t.match(await registry.find(serialNumber), { legacyToken: 'plain', revision: 0 }, 'and nothing was written')
      t.ok((await registry.claim(request(serialNumber, { ...plain, refusingProducts: ['sensor'] }))).applied)
    })

    await t.test('a certificate recorded before products had templates is for the thing of its serial number', async t => {
      const issued = await issuedDevice(registry)
      const { thingName, ...rest } = await row(issued.serialNumber)
      t.equal(thingName, 'thing-c1')
      await documents.send(new PutCommand({ TableName: table, Item: rest }))
      t.equal((await registry.find(issued.serialNumber))?.certificate?.thingName, issued.serialNumber)
    })

    await t.test('only unfinished rows are in the sparse index', async t => {
      const device = await registered(registry)
      t.notOk('unfinished' in await row(device.serialNumber))
      const claimed = must(await registry.claim(request(device.serialNumber)))
      t.ok('unfinished' in await row(device.serialNumber))
      const issued = must(await registry.record(fence(claimed), certificate('c1')))
      must(await registry.commit(fence(issued)))
      const { unfinished, claimExpiresAt, tokenSpentAt } = await row(device.serialNumber)
      t.same([unfinished, claimExpiresAt, tokenSpentAt], [undefined, undefined, NOW])
    })

    await t.test('a row is listed under its product and state, whoever put it', async t => {
      const serialNumber = randomUUID()
      await put({ serialNumber: { S: serialNumber }, deviceToken: { S: 'plain' } })
      const claimed = must(await registry.claim(request(serialNumber, { registrationToken: 'plain' })))
      t.match(await row(serialNumber), { product: 'default', listing: `ISSUING#${serialNumber}` })
      must(await registry.record(fence(claimed), certificate('c1')))
      t.equal((await row(serialNumber)).listing, `ISSUED#${serialNumber}`)
      const { serialNumber: other } = must(await registry.register({ ...NEW, serialNumber: randomUUID(), product: 'sensor' }, { now: NOW, requestId: 'r' }))
      t.match(await row(other), { product: 'sensor', listing: `REGISTERED#${other}` })
      t.match(must(await registry.claim(request(other))), { product: 'sensor', state: 'ISSUING' })
    })
  })
}

async function contract (t: Test, registry: DeviceRegistry): Promise<void> {
  await t.test('register: once', async t => {
    const device = await registered(registry)
    const again = await registry.register({ ...NEW, serialNumber: device.serialNumber, tokenHash: 'other' }, { now: NOW, requestId: 'r' })
    t.notOk(again.applied)
    t.match(await registry.find(device.serialNumber), { state: 'REGISTERED', tokenHash: 'hash', history: [{ event: 'registered' }] })
    t.equal(await registry.find(randomUUID()), undefined)
  })

  await t.test('every change that applies makes a new revision', async t => {
    const device = await registered(registry)
    const claimed = must(await registry.claim(request(device.serialNumber)))
    t.notOk((await registry.claim(request(device.serialNumber, { claimId: 'b' }))).applied)
    const issued = must(await registry.record(fence(claimed), certificate('c1')))
    t.same([device, claimed, issued].map(({ revision }) => revision), [1, 2, 3])
    t.equal((await registry.find(device.serialNumber))?.revision, 3)
  })

  await t.test('claim: one of many at once, and the losers see the winner', async t => {
    const { serialNumber } = await registered(registry)
    const results = await Promise.all(Array.from({ length: 20 }, (_, n) => registry.claim(request(serialNumber, { claimId: `claim-${n}` }))))
    const winners = results.filter(result => result.applied)
    t.equal(winners.length, 1)
    for (const { device } of results) t.equal(device?.claim?.claimId, winners[0]?.device?.claim?.claimId)
  })

  await t.test('claim: not with another token, an expired one, or for an unknown device', async t => {
    const { serialNumber } = await registered(registry)
    t.match(await registry.claim(request(serialNumber, { tokenHash: 'wrong' })), { applied: false, device: { state: 'REGISTERED' } })
    t.match(await registry.claim(request(randomUUID())), { applied: false, device: undefined })
    const expired = await registered(registry, NOW)
    t.match(await registry.claim(request(expired.serialNumber)), { applied: false, device: { state: 'REGISTERED', tokenExpiresAt: NOW } })
    t.equal((await registry.claim(request(expired.serialNumber, { now: NOW - 1 }))).applied, true, 'a moment before it expires')
  })

  await t.test('claim: taken over once it has expired, by any key while the token is fresh', async t => {
    const { serialNumber } = await registered(registry)
    must(await registry.claim(request(serialNumber)))
    t.notOk((await registry.claim(request(serialNumber, { claimId: 'b', now: NOW + 29_999 }))).applied, 'still held')
    t.match(await registry.claim(request(serialNumber, { claimId: 'b', now: NOW + 30_000, publicKeyFingerprint: 'other' })), { applied: true, device: { claim: { claimId: 'b' } } })
  })

  await t.test('claim: a token that expired meanwhile finishes the vend of its key and way, and no other', async t => {
    const { serialNumber } = await registered(registry, NOW + 1_000)
    must(await registry.claim(request(serialNumber)))
    t.notOk((await registry.claim(request(serialNumber, { now: LATER, publicKeyFingerprint: 'other' }))).applied, 'another key')
    t.notOk((await registry.claim(request(serialNumber, { now: LATER, way: 'keys', publicKeyFingerprint: undefined }))).applied, 'another way')
    t.ok((await registry.claim(request(serialNumber, { now: LATER }))).applied)
    const keys = await registered(registry, NOW + 1_000)
    must(await registry.claim(request(keys.serialNumber, { way: 'keys', publicKeyFingerprint: undefined })))
    t.ok((await registry.claim(request(keys.serialNumber, { now: LATER, way: 'keys', publicKeyFingerprint: undefined }))).applied)
  })

  await t.test('claim: not for a device of a product that refuses, in no state in which it could be', async t => {
    const others = Array.from({ length: 98 }, (_, n) => `other-${n}`)
    for (const product of ['default', 'sensor']) {
      const { serialNumber } = must(await registry.register({ ...NEW, serialNumber: randomUUID(), product }, { now: NOW, requestId: 'r' }))
      const refused = (changes = {}) => registry.claim(request(serialNumber, { refusingProducts: [...others, product], ...changes }))
      t.match(await refused(), { applied: false, device: { product, state: 'REGISTERED', revision: 1 } }, product)
      must(await registry.claim(request(serialNumber, { refusingProducts: others })))
      t.match(await refused({ now: LATER }), { applied: false, device: { state: 'ISSUING', revision: 2 } }, 'nor once a claim has expired')
      t.ok((await registry.claim(request(serialNumber, { refusingProducts: others, now: LATER }))).applied)
    }
  })

  await t.test('record and commit: only under the claim, once', async t => {
    const { serialNumber } = await registered(registry)
    const claimed = must(await registry.claim(request(serialNumber)))
    t.notOk((await registry.commit(fence(claimed))).applied, 'nothing to commit yet')
    t.notOk((await registry.record(fence(claimed, 'stranger'), certificate('c0'))).applied, 'not under another claim')
    const issued = must(await registry.record(fence(claimed), certificate('c1')))
    t.match(issued, { state: 'ISSUED', certificate: certificate('c1') })
    t.match(await registry.record(fence(claimed), certificate('c2')), { applied: false, device: { certificate: { certificateId: 'c1' } } })
    t.notOk((await registry.commit(fence(issued, 'stranger'))).applied)
    const active = must(await registry.commit(fence(issued)))
    t.match(active, { state: 'ACTIVE', claim: undefined, committedAt: NOW, certificate: certificate('c1') })
    t.same(active.history.map(entry => entry.event), ['registered', 'claimed', 'issued', 'activated'])
    t.match(await registry.commit(fence(issued)), { applied: false, device: { state: 'ACTIVE' } })
    t.notOk((await registry.claim(request(serialNumber, { now: LATER }))).applied, 'the token is spent')
  })

  await t.test('release: the next claim need not wait; a stranger cannot', async t => {
    const { serialNumber } = await registered(registry)
    const claimed = must(await registry.claim(request(serialNumber)))
    t.notOk((await registry.release(fence(claimed, 'stranger'), false)).applied)
    must(await registry.release(fence(claimed), false))
    t.ok((await registry.claim(request(serialNumber, { claimId: 'b', now: NOW + 1 }))).applied)
    t.notOk((await registry.record(fence(claimed), certificate('c1'))).applied, 'who gave it back no longer has it')
  })

  await t.test('resume: once the claim has expired, by one', async t => {
    const issued = await issuedDevice(registry)
    t.notOk((await registry.resume(issued, claim('b', NOW))).applied, 'still held')
    const results = await Promise.all(['b', 'c', 'd'].map(claimId => registry.resume(issued, claim(claimId, LATER))))
    t.equal(results.filter(result => result.applied).length, 1)
    t.match(await registry.find(issued.serialNumber), { state: 'ISSUED', certificate: { certificateId: 'c1' } })
  })

  await t.test('supersede: the certificate never handed out is kept for retiring', async t => {
    const issued = await issuedDevice(registry)
    const wish = { way: 'csr', publicKeyFingerprint: 'other' } as const
    t.notOk((await registry.supersede(issued, { ...claim('b', NOW), ...wish })).applied, 'still held')
    const again = must(await registry.supersede(issued, { ...claim('b', LATER), ...wish }))
    t.match(again, { state: 'ISSUING', certificate: undefined, retiring: ['c1'], claim: { claimId: 'b' } })
    t.notOk((await registry.supersede(issued, { ...claim('c', LATER), ...wish })).applied)
    const reissued = must(await registry.record(fence(again, 'b'), certificate('c2')))
    t.match(must(await registry.commit(fence(reissued, 'b'))), { state: 'ACTIVE', retiring: ['c1'], certificate: { certificateId: 'c2' } })
  })

  await t.test('revend: the certificate in use is kept for retiring; by one, with the token, and only as it was seen', async t => {
    const issued = await issuedDevice(registry)
    t.notOk((await registry.revend(issued, request(issued.serialNumber, { claimId: 'b', now: LATER }))).applied, 'not ACTIVE yet')
    const active = must(await registry.commit(fence(issued)))
    const again = (changes: Parameters<typeof request>[1]) => registry.revend(active, request(active.serialNumber, { publicKeyFingerprint: 'other', ...changes }))
    t.notOk((await again({ tokenHash: 'wrong' })).applied, 'another token')
    const results = await Promise.all(['b', 'c', 'd'].map(claimId => again({ claimId })))
    const [winner] = results.filter(result => result.applied)
    t.match(winner, { device: { state: 'ISSUING', certificate: undefined, committedAt: undefined, retiring: ['c1'] } })
    t.equal(results.filter(result => result.applied).length, 1)
    t.match(winner?.device?.history.at(-1), { event: 'revended', certificateId: 'c1' })
    const { claimId = '' } = winner?.device?.claim ?? {}
    const reissued = must(await registry.record(fence(winner?.device as Device, claimId), certificate('c2')))
    t.match(must(await registry.commit(fence(reissued, claimId))), { state: 'ACTIVE', retiring: ['c1'], suspicion: undefined, certificate: certificate('c2') })
    t.notOk((await again({ claimId: 'e' })).applied, 'the certificate seen is not the device\'s any more')
  })

  await t.test('revend: with a key to be made', async t => {
    const active = must(await registry.commit(fence(await issuedDevice(registry))))
    const wish = request(active.serialNumber, { claimId: 'b', way: 'keys', publicKeyFingerprint: undefined })
    t.match(must(await registry.revend(active, wish)), { state: 'ISSUING', certificate: undefined, retiring: ['c1'], suspicion: { keys: ['generated'] } })
  })

  await t.test('revend: not with an expired token, not while an operator wishes for something', async t => {
    const { serialNumber } = await registered(registry, NOW + 1_000)
    const claimed = must(await registry.claim(request(serialNumber)))
    const active = must(await registry.commit(fence(must(await registry.record(fence(claimed), certificate('c1'))))))
    t.notOk((await registry.revend(active, request(serialNumber, { claimId: 'b', now: LATER }))).applied)
    const wish = { operation: 'revoke', operationId: randomUUID(), actor: 'ada', reason: 'why' } as const
    must(await registry.intend(active, wish, { expiresAt: LATER }))
    t.notOk((await registry.revend(active, request(serialNumber, { claimId: 'b' }))).applied)
  })

  await t.test('the history is bounded', async t => {
    const { serialNumber } = await registered(registry)
    let device = must(await registry.claim(request(serialNumber)))
    for (let n = 0; n < HISTORY_LIMIT + 5; n++) {
      device = must(await registry.release(fence(device), false))
      device = must(await registry.claim(request(serialNumber, { now: NOW + 1 })))
    }
    t.equal(must(await registry.record(fence(device), certificate('c1'))).history.length, HISTORY_LIMIT)
  })
}
