// The contract of the port `Renewals`, over DynamoDB on each engine there is here, and the model.
import { randomUUID } from 'node:crypto'
import { DynamoDBDocumentClient } from '@aws-sdk/lib-dynamodb'
import t, { type Test } from 'tap'
import { ensureDeviceTable } from '../../src/adapters/device-table.ts'
import { DynamoDbDeviceRegistry } from '../../src/adapters/dynamodb-device-registry.ts'
import { DynamoDbRenewals } from '../../src/adapters/dynamodb-renewals.ts'
import { DynamoDbUnfinishedDevices } from '../../src/adapters/dynamodb-unfinished-devices.ts'
import type { Device } from '../../src/vending/device.ts'
import type { DeviceRegistry } from '../../src/vending/device-registry.ts'
import type { RenewalClaim, Renewals } from '../../src/vending/renewals.ts'
import type { UnfinishedDevices } from '../../src/vending/unfinished-devices.ts'
import { ENGINES, clientOf } from '../fixtures/engines.ts'
import { ModelRegistry } from '../fixtures/model-registry.ts'
import { LATER, NOW, certificate, fence, issuedDevice, must } from './devices.ts'

const AUTHOR = { now: NOW + 1_000, requestId: 'renewal' }
const CONFIRM_BEFORE = NOW + 3_600_000

interface Ports { registry: DeviceRegistry, devices: UnfinishedDevices, renewals: Renewals }

await t.test('model', t => {
  const registry = new ModelRegistry()
  return contract(t, { registry, devices: registry, renewals: registry.renewals })
})

for (const engine of ENGINES) {
  await t.test(engine.name, async t => {
    const { url, close } = await engine.start()
    const client = clientOf(url)
    const table = `renewals-${randomUUID()}`
    t.teardown(async () => { client.destroy(); await close() })
    await ensureDeviceTable(client, table)
    const args = [DynamoDBDocumentClient.from(client), table] as const
    await contract(t, {
      registry: new DynamoDbDeviceRegistry(...args),
      devices: new DynamoDbUnfinishedDevices(...args),
      renewals: new DynamoDbRenewals(...args)
    })
  })
}

function claim (claimId: string, changes: Partial<RenewalClaim> = {}): RenewalClaim {
  const { now = NOW } = changes
  const proof = { nonce: `nonce-${claimId}`, expiresAt: now + 600_000 }
  return { claimId, claimExpiresAt: now + 30_000, publicKeyFingerprint: `key-${claimId}`, proof, requestId: 'r', ...changes, now }
}

async function contract (t: Test, { registry, devices, renewals }: Ports): Promise<void> {
  const active = async (): Promise<Device> => must(await registry.commit(fence(await issuedDevice(registry))))
  const begun = async (claimId = 'x'): Promise<Device> => must(await renewals.begin(await active(), claim(claimId)))
  const issued = async (): Promise<Device> => must(await renewals.record(await begun(), certificate('c2'), CONFIRM_BEFORE, AUTHOR))
  const WISH = { operation: 'revoke', operationId: 'o', actor: 'ada', reason: 'test' } as const
  const wish = (device: Device) => registry.intend(device, WISH, { expiresAt: LATER })
  const isListed = async ({ serialNumber }: Device, now: number) =>
    (await devices.list(now, 500)).some(device => device.serialNumber === serialNumber)

  await t.test('from asking to the swap, and the certificate before is to be ended', async t => {
    const asking = await begun()
    t.match(asking, { state: 'ACTIVE', renewal: { phase: 'issuing', claimId: 'x', publicKeyFingerprint: 'key-x', nonce: 'nonce-x' } })
    t.match(asking, { suspicion: { claimId: 'x', keys: ['key-x'] }, usedProofs: [{ nonce: 'nonce-x' }], certificate: { certificateId: 'c1' } })
    t.ok(await isListed(asking, NOW + 30_000), 'from the end of the claim')
    const waiting = must(await renewals.record(asking, certificate('c2'), CONFIRM_BEFORE, AUTHOR))
    t.match(waiting, { renewal: { phase: 'issued', expiresAt: CONFIRM_BEFORE, certificate: { certificateId: 'c2' } }, suspicion: undefined })
    t.notOk(await isListed(waiting, CONFIRM_BEFORE - 1), 'it waits for its device')
    t.ok(await isListed(waiting, CONFIRM_BEFORE))
    const swapping = must(await renewals.swap(waiting, NOW + 60_000, AUTHOR))
    t.match(swapping, { renewal: { phase: 'swapping' }, certificate: { certificateId: 'c1' } })
    t.ok(await isListed(swapping, NOW + 60_000))
    const done = must(await renewals.commit(swapping, false, AUTHOR))
    t.match(done, { state: 'ACTIVE', certificate: { certificateId: 'c2' }, renewedFrom: 'c1', renewedAt: AUTHOR.now, retiring: ['c1'], renewal: undefined })
    t.same(done.history.map(({ event }) => event).slice(-3), ['renewal-issued', 'renewal-confirmed', 'renewed'])
    t.match(await registry.find(done.serialNumber), { certificate: { certificateId: 'c2' }, usedProofs: [{ nonce: 'nonce-x' }] })
  })

  await t.test('a renewal that waits is listed when a look is owed, and goes on waiting after it', async t => {
    const due = LATER + 1_000
    const fulfilled = async (device: Device, operation: 'disable' | 'enable', change: { to: 'DISABLED' | 'ACTIVE', stateBefore?: 'ACTIVE' }) => {
      const wished = must(await registry.intend(device, { ...WISH, operation, operationId: operation }, { expiresAt: LATER }))
      return must(await registry.fulfil(wished, { ...change, retiresCertificate: false, recheckAt: due }, AUTHOR))
    }
    const enabled = await fulfilled(await fulfilled(await active(), 'disable', { to: 'DISABLED', stateBefore: 'ACTIVE' }), 'enable', { to: 'ACTIVE' })
    const waiting = must(await renewals.record(must(await renewals.begin(enabled, claim('x'))), certificate('c2'), CONFIRM_BEFORE, AUTHOR))
    t.notOk(await isListed(waiting, due - 1))
    t.ok(await isListed(waiting, due))
    const looked = must(await devices.settle(waiting, due))
    t.match(looked, { recheckAt: undefined, renewal: { phase: 'issued' } })
    t.notOk(await isListed(looked, CONFIRM_BEFORE - 1))
    t.ok(await isListed(looked, CONFIRM_BEFORE))
  })

  await t.test('of many who ask at once one does, and the others see whose it is', async t => {
    const device = await active()
    const results = await Promise.all(['a', 'b', 'c', 'd'].map(claimId => renewals.begin(device, claim(claimId))))
    t.equal(results.filter(({ applied }) => applied).length, 1)
    const [winner] = new Set(results.map(({ device }) => device?.renewal?.claimId))
    for (const { device } of results) t.equal(device?.renewal?.claimId, winner)
    const seen = must(results.find(({ applied }) => applied) as never)
    const next = must(await renewals.begin(seen, claim('e', { now: LATER })))
    t.notOk((await renewals.record(seen, certificate('c2'), CONFIRM_BEFORE, AUTHOR)).applied, 'who was overtaken records nothing')
    t.notOk((await renewals.release(seen, true, AUTHOR)).applied)
    t.match(await registry.find(next.serialNumber), { renewal: { claimId: 'e' } })
  })

  await t.test('not for a device that is not ACTIVE, and not against an operator\'s wish', async t => {
    const waiting = await issued()
    const wished = must(await wish(waiting))
    t.notOk((await renewals.begin(wished, claim('y'))).applied)
    t.notOk((await renewals.swap(waiting, LATER, AUTHOR)).applied)
    const recorded = await begun('z')
    await wish(recorded)
    t.notOk((await renewals.record(recorded, certificate('c2'), CONFIRM_BEFORE, AUTHOR)).applied)
    t.notOk((await renewals.begin(await issuedDevice(registry), claim('y'))).applied)

    const swapping = must(await renewals.swap(await issued(), LATER, AUTHOR))
    await wish(swapping)
    t.notOk((await renewals.commit(swapping, false, AUTHOR)).applied)
    t.match(must(await renewals.commit(swapping, true, AUTHOR)), { certificate: { certificateId: 'c2' }, pending: { operation: 'revoke' } }, 'but a swap is finished')
  })

  await t.test('a claim that has expired records nothing', async t => {
    const asking = await begun()
    t.notOk((await renewals.record(asking, certificate('c2'), CONFIRM_BEFORE, { ...AUTHOR, now: NOW + 30_000 })).applied)
  })

  await t.test('a release ends it at once; its suspicion only where nothing can have been made; its proof may be used again', async t => {
    for (const certainlyNothing of [true, false]) {
      const released = must(await renewals.release(await begun(), certainlyNothing, AUTHOR))
      t.match(released, { state: 'ACTIVE', renewal: undefined, usedProofs: [], suspicion: certainlyNothing ? undefined : { claimId: 'x' } })
      t.ok(await isListed(released, AUTHOR.now), 'for reconcile to look at')
    }
  })

  await t.test('one that is given up, or replaced, is to be ended; never one that is being swapped', async t => {
    const abandoned = must(await renewals.abandon(await issued(), AUTHOR))
    t.match(abandoned, { renewal: undefined, retiring: ['c2'], certificate: { certificateId: 'c1' } })
    t.match(abandoned.history.at(-1), { event: 'renewal-abandoned', certificateId: 'c2' })
    t.ok(await isListed(abandoned, AUTHOR.now + 1), 'due at once')
    const replaced = must(await renewals.begin(await issued(), claim('y')))
    t.match(replaced, { renewal: { phase: 'issuing', claimId: 'y' }, retiring: ['c2'] })
    const swapping = must(await renewals.swap(await issued(), LATER, AUTHOR))
    t.notOk((await renewals.abandon(swapping, AUTHOR)).applied)
    t.match(must(await renewals.swap(swapping, LATER + 1, AUTHOR)), { renewal: { phase: 'swapping' } }, 'anybody may go on with it')
    t.equal(swapping.history.filter(({ event }) => event === 'renewal-confirmed').length, 1)
  })

  await t.test('proofs whose time is over are forgotten', async t => {
    const device = must(await renewals.release(await issued().then(async waiting => must(await renewals.begin(waiting, claim('y', { now: LATER })))), true, AUTHOR))
    t.same(device.usedProofs.map(({ nonce }) => nonce), ['nonce-x'])
    const later = must(await renewals.begin(device, claim('z', { now: NOW + 700_000 })))
    t.same(later.usedProofs.map(({ nonce }) => nonce), ['nonce-z'])
  })
}
