// The contracts of the ports `Adoptions` and `CertificateHolds`, over DynamoDB on each engine there is here, and the models.
import { randomBytes, randomUUID } from 'node:crypto'
import { DynamoDBDocumentClient } from '@aws-sdk/lib-dynamodb'
import t, { type Test } from 'tap'
import { ensureDeviceTable } from '../../src/adapters/device-table.ts'
import { DynamoDbAdoptions } from '../../src/adapters/dynamodb-adoptions.ts'
import { DynamoDbCertificateHolds } from '../../src/adapters/dynamodb-certificate-holds.ts'
import { DynamoDbDeviceRegistry } from '../../src/adapters/dynamodb-device-registry.ts'
import { DynamoDbUnfinishedDevices } from '../../src/adapters/dynamodb-unfinished-devices.ts'
import type { AdoptionClaim, Adoptions } from '../../src/vending/adoptions.ts'
import type { CertificateHolds, Hold } from '../../src/vending/certificate-holds.ts'
import type { DeviceRegistry } from '../../src/vending/device-registry.ts'
import type { UnfinishedDevices } from '../../src/vending/unfinished-devices.ts'
import { ENGINES, clientOf } from '../fixtures/engines.ts'
import { ModelAdoptions, ModelCertificateHolds } from '../fixtures/model-adoptions.ts'
import { ModelRegistry } from '../fixtures/model-registry.ts'
import { LATER, NOW, certificate, claim, fence, issuedDevice, must, registered, request } from './devices.ts'

interface Ports { registry: DeviceRegistry, devices: UnfinishedDevices, adoptions: Adoptions, holds: CertificateHolds }

await t.test('model', t => {
  const registry = new ModelRegistry()
  return contract(t, { registry, devices: registry, adoptions: new ModelAdoptions(registry), holds: new ModelCertificateHolds() })
})

for (const engine of ENGINES) {
  await t.test(engine.name, async t => {
    const { url, close } = await engine.start()
    const client = clientOf(url)
    const table = `adoptions-${randomUUID()}`
    t.teardown(async () => { client.destroy(); await close() })
    await ensureDeviceTable(client, table)
    const documents = DynamoDBDocumentClient.from(client)
    await contract(t, {
      registry: new DynamoDbDeviceRegistry(documents, table),
      devices: new DynamoDbUnfinishedDevices(documents, table),
      adoptions: new DynamoDbAdoptions(documents, table),
      holds: new DynamoDbCertificateHolds(documents, table)
    })
  })
}

function adoption (serialNumber: string, changes: Partial<AdoptionClaim> = {}): AdoptionClaim {
  return { serialNumber, certificateId: 'c9', publicKeyFingerprint: 'key', way: 'registered', refusingProducts: [], ...claim('a', NOW), ...changes }
}

function hold (certificateId: string, changes: Partial<Hold> = {}): Hold {
  return { certificateId, holdId: 'h', now: NOW, expiresAt: NOW + 30_000, ...changes }
}

async function contract (t: Test, { registry, devices, adoptions, holds }: Ports): Promise<void> {
  await t.test('a claim for a certificate that is brought asks for no token, and suspects what it asks AWS IoT for', async t => {
    const { serialNumber } = await registered(registry, NOW - 1)
    const claimed = must(await adoptions.claim(adoption(serialNumber)))
    t.match(claimed, { state: 'ISSUING', claim: { claimId: 'a', claimExpiresAt: NOW + 30_000 }, suspicion: { claimId: 'a', since: NOW, keys: ['key'] } })
    t.match(claimed.history.at(-1), { event: 'claimed', at: NOW })
    t.match(must(await registry.record(fence(claimed), { ...certificate('c9'), way: 'registered' })), { state: 'ISSUED', suspicion: undefined })
    const seen = await registered(registry)
    t.match(must(await adoptions.claim(adoption(seen.serialNumber, { way: 'jitr' }))), { state: 'ISSUING', suspicion: undefined })
  })

  await t.test('it does not apply to a device that is held, has a certificate, or is not there', async t => {
    const held = await registered(registry)
    await registry.claim(request(held.serialNumber))
    const refused = await adoptions.claim(adoption(held.serialNumber, { claimId: 'b' }))
    t.match(refused, { applied: false, device: { claim: { claimId: 'a' } } })
    t.ok((await adoptions.claim(adoption(held.serialNumber, { ...claim('b', LATER) }))).applied, 'once the claim has expired')
    const issued = await issuedDevice(registry)
    t.match(await adoptions.claim(adoption(issued.serialNumber, claim('b', LATER))), { applied: false, device: { state: 'ISSUED' } })
    t.same(await adoptions.claim(adoption(randomUUID())), { applied: false, device: undefined })
    t.equal(await registry.find('nobody'), undefined, 'and makes none')
  })

  await t.test('nor of a product that refuses it, nor while this very certificate is being ended', async t => {
    const device = await registered(registry)
    t.notOk((await adoptions.claim(adoption(device.serialNumber, { refusingProducts: ['default'] }))).applied)
    t.ok((await adoptions.claim(adoption(device.serialNumber, { refusingProducts: ['other'] }))).applied)

    const issued = await issuedDevice(registry)
    const superseded = must(await registry.supersede(issued, { ...claim('b', LATER), way: 'csr', publicKeyFingerprint: 'other' }))
    t.same(superseded.retiring, ['c1'])
    const free = must(await devices.free(superseded, { now: LATER + 60_000, requestId: 'r' }))
    const late = claim('c', LATER + 60_000)
    t.notOk((await adoptions.claim(adoption(free.serialNumber, { certificateId: 'c1', ...late }))).applied)
    t.ok((await adoptions.claim(adoption(free.serialNumber, { certificateId: 'c2', ...late }))).applied)
  })

  await t.test('a line of history is added to the device exactly as seen', async t => {
    const device = await registered(registry)
    const entry = { at: NOW, event: 'refused', requestId: 'r', certificateId: 'c9', reason: 'expired' } as const
    const told = must(await adoptions.tell(device, entry))
    t.match(told, { state: 'REGISTERED', history: [{}, entry] })
    t.notOk((await adoptions.tell(device, entry)).applied, 'it has changed since')
  })

  await t.test('of many who want a certificate one gets it, and goes on with it', async t => {
    const id = newId()
    const takings = await Promise.all(Array.from({ length: 8 }, (_, n) => holds.take(hold(id, { holdId: `h${n}` }), {})))
    t.equal(takings.filter(({ taken }) => taken).length, 1)
    t.match(takings.find(({ taken }) => !taken), { taken: false, isHeld: true, serialNumber: undefined })
    const holdId = `h${takings.findIndex(({ taken }) => taken)}`
    t.same(await holds.take(hold(id, { holdId, now: NOW + 1 }), { serialNumber: 'sn-1' }), { taken: true }, 'its own, for a device now')
    t.match(await holds.take(hold(id, { holdId: 'x', now: NOW + 30_001, expiresAt: LATER }), {}), { taken: true }, 'anybody\'s once it has expired')
  })

  await t.test('a certificate of one device is not another\'s, unless it is taken over from that one', async t => {
    const id = newId()
    await holds.take(hold(id), { serialNumber: 'sn-1' })
    await holds.release(hold(id), true)
    const other = hold(id, { holdId: 'i', now: NOW + 1 })
    t.same(await holds.take(other, { serialNumber: 'sn-2' }), { taken: false, isHeld: false, serialNumber: 'sn-1' })
    t.same(await holds.take(other, { serialNumber: 'sn-2', insteadOf: 'sn-3' }), { taken: false, isHeld: false, serialNumber: 'sn-1' })
    t.same(await holds.take(other, { serialNumber: 'sn-2', insteadOf: 'sn-1' }), { taken: true })
    t.match(await holds.take(hold(id, { holdId: 'j', now: NOW + 40_000, expiresAt: LATER }), { serialNumber: 'sn-1' }), { taken: false, isHeld: false, serialNumber: 'sn-2' })
    await holds.release(hold(id, { holdId: 'nobody\'s' }), true)
    t.match(await holds.take(hold(id, { holdId: 'k', now: NOW + 2 }), {}), { taken: false, isHeld: true }, 'only one\'s own is given back')
  })

  await t.test('one that waits is in the list from the end of its hold until it is decided', async t => {
    const id = newId()
    const waits = async (now: number) => (await holds.list(now, 100)).filter(({ certificateId }) => certificateId === id)
    await holds.take(hold(id), { isPending: true })
    t.same(await waits(NOW + 29_999), [])
    t.same(await waits(NOW + 30_000), [{ certificateId: id, seenAt: NOW }])
    await holds.release(hold(id, { now: NOW + 10 }), false)
    t.same(await waits(NOW + 10), [{ certificateId: id, seenAt: NOW }])
    await holds.take(hold(id, { holdId: 'i', now: NOW + 20, expiresAt: NOW + 50 }), { isPending: true })
    t.same(await waits(NOW + 20), [])
    await holds.release(hold(id, { holdId: 'i', now: NOW + 40 }), true)
    t.same(await waits(Number.MAX_SAFE_INTEGER), [])
    const [unfinished] = (await devices.list(Number.MAX_SAFE_INTEGER, 100)).filter(({ serialNumber }) => serialNumber.includes(id))
    t.equal(unfinished, undefined, 'it is no device')
  })
}

function newId (): string {
  return randomBytes(32).toString('hex')
}
