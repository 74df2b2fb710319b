// The contract of the port `UnfinishedDevices`, for every implementation; and how vending keeps its list.
import { randomUUID } from 'node:crypto'
import type { Test } from 'tap'
import type { Turn } from '../../src/vending/deferrals.ts'
import { type Device, GENERATED_KEY } from '../../src/vending/device.ts'
import type { DeviceRegistry } from '../../src/vending/device-registry.ts'
import type { UnfinishedDevices } from '../../src/vending/unfinished-devices.ts'
import { LATER, NOW, certificate, claim, fence, issuedDevice, must, registered, request } from './devices.ts'

const AUTHOR = { now: LATER, requestId: 'reconcile' }
const BATCH = 500

export async function unfinishedContract (t: Test, registry: DeviceRegistry, devices: UnfinishedDevices): Promise<void> {
  const isListed = async ({ serialNumber }: Device, now = LATER) =>
    (await devices.list(now, BATCH)).some(device => device.serialNumber === serialNumber)

  await t.test('a device is listed from the end of its claim until it is at rest', async t => {
    const device = await registered(registry)
    t.notOk(await isListed(device))
    const claimed = must(await registry.claim(request(device.serialNumber)))
    t.notOk(await isListed(device, NOW + 29_999), 'held')
    t.ok(await isListed(device, NOW + 30_000))
    t.ok(await devices.count(NOW + 30_000, BATCH) > 0)
    const issued = must(await registry.record(fence(claimed), certificate('c1')))
    t.ok(await isListed(device))
    must(await registry.commit(fence(issued)))
    t.notOk(await isListed(device))
  })

  await t.test('list: those that have failed come after all others, or not yet', async t => {
    const ids = new Set<string>()
    for (let n = 0; n < 3; n++) {
      const device = await registered(registry)
      must(await registry.claim(request(device.serialNumber)))
      ids.add(device.serialNumber)
    }
    const own = async (limit: number, turnOf?: (serialNumber: string) => Turn) =>
      (await devices.list(LATER, limit, turnOf)).map(({ serialNumber }) => serialNumber).filter(id => ids.has(id))
    const [first = '', second = '', third = ''] = await own(BATCH)
    t.same(await own(BATCH, id => id === first ? 'last' : 'first'), [second, third, first])
    t.same(await own(BATCH, id => id === first ? 'not-yet' : 'first'), [second, third])
    t.same(await own(1, id => id === third ? 'first' : 'last'), [third], 'also behind more of them than one page holds')
    t.same(await own(1, id => id === third ? 'first' : 'not-yet'), [third])
  })

  await t.test('suspicion: begins with the first claim and ends with its record', async t => {
    const { serialNumber } = await registered(registry)
    const claimed = must(await registry.claim(request(serialNumber)))
    t.match(claimed.suspicion, { claimId: 'a', since: NOW, keys: ['key'] })
    t.equal(must(await registry.record(fence(claimed), certificate('c1'))).suspicion, undefined)
  })

  await t.test('suspicion: what an earlier attempt left outlives a later success, which stays listed', async t => {
    const { serialNumber } = await registered(registry)
    must(await registry.claim(request(serialNumber, { way: 'keys', publicKeyFingerprint: undefined })))
    const second = must(await registry.claim(request(serialNumber, { claimId: 'b', now: LATER })))
    t.match(second.suspicion, { claimId: 'a', since: NOW })
    t.same([...second.suspicion?.keys ?? []].sort(), [GENERATED_KEY, 'key'])
    const issued = must(await registry.record({ ...fence(second, 'b'), now: LATER }, certificate('c2')))
    const active = must(await registry.commit(fence(issued, 'b')))
    t.match(active, { state: 'ACTIVE', suspicion: { claimId: 'a' } })
    t.ok(await isListed(active, LATER + 30_000))
    t.notOk((await devices.settle(active, LATER)).applied, 'something is left to do')
    const cleared = must(await devices.clearSuspicion(active))
    t.notOk((await devices.clearSuspicion(active)).applied, 'once')
    must(await devices.settle(cleared, LATER))
    t.notOk(await isListed(active, LATER + 30_000))
  })

  await t.test('suspicion: ends with a release that knows that nothing was made, and not before a new attempt', async t => {
    const { serialNumber } = await registered(registry)
    const claimed = must(await registry.claim(request(serialNumber)))
    t.ok(must(await registry.release(fence(claimed), false)).suspicion)
    const again = must(await registry.claim(request(serialNumber, { claimId: 'b', now: NOW + 1 })))
    t.ok(must(await registry.release(fence(again, 'b'), true)).suspicion, 'the first attempt is still in doubt')
    const seen = must(await registry.claim(request(serialNumber, { claimId: 'c', now: NOW + 1 })))
    t.notOk((await devices.clearSuspicion(again)).applied, 'another attempt has begun')
    t.ok((await devices.clearSuspicion(seen)).applied)
    const sure = must(await registry.claim(request((await registered(registry)).serialNumber)))
    t.equal(must(await registry.release(fence(sure), true)).suspicion, undefined)
  })

  await t.test('suspicion: lasts from the first attempt to the end of the last one\'s claim', async t => {
    const { serialNumber } = await registered(registry)
    t.match(must(await registry.claim(request(serialNumber))).suspicion, { since: NOW, until: NOW + 30_000 })
    t.match(must(await registry.claim(request(serialNumber, { claimId: 'b', now: LATER }))).suspicion, { claimId: 'a', since: NOW, until: LATER + 30_000 })
  })

  await t.test('postpone: not listed until then, for the device as it was seen, and never while it is vended', async t => {
    const { serialNumber } = await registered(registry)
    const claimed = must(await registry.claim(request(serialNumber)))
    t.notOk((await devices.postpone(claimed, LATER * 2)).applied, 'a claim is not made longer')
    const freed = must(await devices.free(claimed, AUTHOR))
    const postponed = must(await devices.postpone(freed, LATER + 10))
    t.notOk(await isListed(postponed, LATER + 9))
    t.ok(await isListed(postponed, LATER + 10))
    t.notOk((await devices.postpone(freed, LATER + 20)).applied)
    t.match(postponed.suspicion, { until: NOW + 30_000 })
    const wish = { operation: 'disable', operationId: randomUUID(), actor: 'ada', reason: 'why' } as const
    t.ok(await isListed(must(await registry.intend(postponed, wish, { expiresAt: LATER })), NOW), 'an operator\'s wish comes first')
  })

  await t.test('a search for orphans is remembered until it is over', async t => {
    const search = { startedAt: NOW, since: NOW - 1, serialNumbers: ['sn-1'], marker: 'bWFya2Vy', isJudged: true }
    await devices.keepOrphanSearch(search)
    t.same(await devices.orphanSearch(), search)
    await devices.keepOrphanSearch(undefined)
    t.equal(await devices.orphanSearch(), undefined)
    await devices.keepOrphanSearch(undefined)
  })

  await t.test('record: not once the claim has expired', async t => {
    const { serialNumber } = await registered(registry)
    const claimed = must(await registry.claim(request(serialNumber)))
    t.notOk((await registry.record({ ...fence(claimed), now: NOW + 30_000 }, certificate('c1'))).applied)
  })

  await t.test('free: an expired claim, once, and the holder cannot record any more', async t => {
    const { serialNumber } = await registered(registry)
    const claimed = must(await registry.claim(request(serialNumber)))
    t.notOk((await devices.free(claimed, { ...AUTHOR, now: NOW })).applied, 'still held')
    t.match(must(await devices.free(claimed, AUTHOR)), { state: 'REGISTERED', claim: undefined, suspicion: { claimId: 'a' } })
    t.notOk((await devices.free(claimed, AUTHOR)).applied)
    t.notOk((await registry.record(fence(claimed), certificate('c1'))).applied)
    const retaken = must(await registry.claim(request(serialNumber, { claimId: 'b' })))
    t.notOk((await devices.free(claimed, { ...AUTHOR, now: LATER * 2 })).applied, 'not a claim that was not seen')
    t.equal(retaken.state, 'ISSUING')
  })

  await t.test('abandon: the certificate joins those to be ended', async t => {
    const issued = await issuedDevice(registry)
    t.notOk((await devices.abandon(issued, { ...AUTHOR, now: NOW })).applied, 'still held')
    const abandoned = must(await devices.abandon(issued, AUTHOR))
    t.match(abandoned, { state: 'REGISTERED', certificate: undefined, retiring: ['c1'] })
    t.notOk((await registry.commit(fence(issued))).applied)
    const disposed = must(await devices.disposed(abandoned, 'c1', AUTHOR))
    t.same(disposed.retiring, [])
    t.notOk((await devices.disposed(abandoned, 'c1', AUTHOR)).applied, 'once')
    must(await devices.settle(disposed, LATER))
    t.ok((await registry.claim(request(issued.serialNumber, { claimId: 'b' }))).applied, 'and the device can be vended')
  })

  await t.test('abandon: not after another worker resumed', async t => {
    const issued = await issuedDevice(registry)
    must(await registry.resume(issued, claim('b', LATER)))
    t.notOk((await devices.abandon(issued, AUTHOR)).applied)
  })

  await t.test('revoked: what has the certificate seen', async t => {
    const certificateId = randomUUID()
    const { serialNumber } = await registered(registry)
    const claimed = must(await registry.claim(request(serialNumber)))
    const issued = must(await registry.record(fence(claimed), certificate(certificateId)))
    const active = must(await registry.commit(fence(issued)))
    t.equal(must(await devices.revoked(active, AUTHOR)).state, 'REVOKED')
    t.notOk((await devices.revoked(active, AUTHOR)).applied)
  })

  await t.test('an operator\'s wish: written down, fulfilled once, and only for the device as it was seen', async t => {
    const issued = await issuedDevice(registry)
    const wish = (operation: 'disable' | 'enable' | 'reset') => ({ operation, operationId: randomUUID(), actor: 'ada', reason: 'why' })
    const at = { now: NOW, requestId: 'r', expiresAt: LATER }
    const first = must(await registry.intend(issued, wish('disable'), at))
    t.match(first, { state: 'ISSUED', pending: { operation: 'disable', actor: 'ada' } })
    t.notOk((await registry.commit(fence(first))).applied, 'no commit while a wish is pending')
    const second = must(await registry.intend(issued, wish('disable'), at))
    const change = { to: 'DISABLED', event: 'disabled', retiresCertificate: false, stateBefore: 'ISSUED' } as const
    t.notOk((await registry.fulfil(first, change, at)).applied, 'a later wish replaces an earlier one')
    const disabled = must(await registry.fulfil(second, change, at))
    t.match(disabled, { state: 'DISABLED', pending: undefined, claim: undefined, stateBefore: 'ISSUED', certificate: { certificateId: 'c1' } })
    t.notOk((await registry.fulfil(second, change, at)).applied, 'once')

    const wished = must(await registry.intend(disabled, wish('enable'), at))
    const enabled = must(await registry.fulfil(wished, { to: 'ISSUED', event: 'enabled', retiresCertificate: false }, at))
    t.match(enabled, { state: 'ISSUED', stateBefore: undefined, claim: undefined })
    const resumed = must(await registry.resume(enabled, claim('b', LATER)))
    const active = must(await registry.commit(fence(resumed, 'b')))
    t.match(active.history.find(({ event }) => event === 'disabled'), { certificateId: 'c1' })

    const reset = must(await registry.intend(active, wish('reset'), at))
    const anew = { to: 'REGISTERED', event: 'reset', retiresCertificate: true, tokenHash: 'new hash' } as const
    t.match(must(await registry.fulfil(reset, anew, at)), { state: 'REGISTERED', tokenHash: 'new hash', certificate: undefined, retiring: ['c1'] })
    t.notOk((await registry.claim(request(issued.serialNumber, { claimId: 'c', now: LATER }))).applied, 'the old token')
    t.ok((await registry.claim(request(issued.serialNumber, { claimId: 'c', now: LATER, tokenHash: 'new hash' }))).applied)
  })

  await t.test('a look that is owed: kept through every later write, listed when it is due, and taken away by the comparison alone', async t => {
    const wish = (operation: 'disable' | 'enable') => ({ operation, operationId: randomUUID(), actor: 'ada', reason: 'why' })
    const at = { now: NOW, requestId: 'r', expiresAt: LATER }
    const due = LATER + 60_000
    const issued = await issuedDevice(registry)
    const change = { to: 'DISABLED', event: 'disabled', retiresCertificate: false, stateBefore: 'ISSUED' } as const
    const disabled = must(await registry.fulfil(must(await registry.intend(issued, wish('disable'), at)), { ...change, recheckAt: due }, at))
    t.match(disabled, { state: 'DISABLED', recheckAt: due })
    t.ok(await isListed(disabled), 'as what an operator\'s request leaves always is')
    const rested = must(await devices.settle(disabled, due - 1))
    t.match(rested, { recheckAt: due }, 'compared too early')
    t.notOk(await isListed(rested, due - 1))
    t.ok(await isListed(rested, due))
    t.notOk((await devices.settle({ ...disabled, recheckAt: due - 1 }, due)).applied, 'another wish was fulfilled since')

    const wished = must(await registry.intend(disabled, wish('enable'), at))
    const enabled = must(await registry.fulfil(wished, { to: 'ISSUED', event: 'enabled', retiresCertificate: false, recheckAt: due + 1 }, at))
    t.ok(await isListed(enabled), 'what is ISSUED may be taken over at once')
    const resumed = must(await registry.resume(enabled, claim('b', LATER)))
    const active = must(await registry.commit(fence(resumed, 'b')))
    t.match(active, { state: 'ACTIVE', recheckAt: due + 1 })
    t.notOk(await isListed(active, due))
    t.ok(await isListed(active, due + 1))

    const settled = must(await devices.settle(active, due + 1))
    t.equal(settled.recheckAt, undefined)
    t.notOk(await isListed(settled, due + 1))
  })

  await t.test('an operator\'s wish may insist on the revision seen', async t => {
    const device = await registered(registry)
    const wish = () => ({ operation: 'disable', operationId: randomUUID(), actor: 'ada', reason: 'why' } as const)
    const at = { now: NOW, requestId: 'r', expiresAt: LATER }
    t.match(await registry.intend(device, wish(), { ...at, revision: 0 }), { applied: false, device: { revision: 1, pending: undefined } })
    t.notOk((await registry.intend(device, wish(), { ...at, revision: 2 })).applied)
    t.equal(must(await registry.intend(device, wish(), { ...at, revision: 1 })).revision, 2)
    t.notOk((await registry.intend(device, wish(), { ...at, revision: 1 })).applied, 'once')
    const unknown = { ...device, serialNumber: randomUUID() }
    t.match(await registry.intend(unknown, wish(), { ...at, revision: 0 }), { applied: false, device: undefined })
  })

  await t.test('lease: one owner until it expires', async t => {
    const name = randomUUID()
    t.ok(await devices.lease(name, 'a', NOW, NOW + 10))
    t.notOk(await devices.lease(name, 'b', NOW + 9, NOW + 20))
    t.ok(await devices.lease(name, 'a', NOW + 9, NOW + 15), 'renewed')
    t.ok(await devices.lease(name, 'b', NOW + 15, NOW + 20))
    const taken = await Promise.all(['c', 'd', 'e'].map(owner => devices.lease(name, owner, NOW + 20, NOW + 30)))
    t.equal(taken.filter(Boolean).length, 1)
  })
}
