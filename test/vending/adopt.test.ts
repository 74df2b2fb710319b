import t from 'tap'
import { CvmError } from '../../src/errors.ts'
import type { Operation } from '../fixtures/model-control-plane.ts'
import { CLAIM_LIFETIME_MS, LAST_LOOK_MS, type Rig, SERIAL, makeRig } from '../fixtures/vend-rig.ts'

const AFTER = CLAIM_LIFETIME_MS + 2_001
const story = async ({ registry }: Rig) => (await registry.find(SERIAL))?.history.map(({ event }) => event)

await t.test('a certificate that was made elsewhere becomes the device\'s, once', async t => {
  const rig = await makeRig()
  const { certificateId } = rig.foreign[0]
  const adopted = await rig.adopt(0)
  t.match(adopted, { outcome: 'adopted', certificate: { ...rig.foreign[0], caCertificatePem: undefined, way: 'registered', thingName: SERIAL } })
  t.notOk('caCertificatePem' in adopted.certificate)
  t.same(rig.controlPlane.active(), [certificateId])
  t.ok(rig.controlPlane.bound.has(certificateId))
  t.same(rig.steps, ['claim', 'hold', 'key', 'issue', 'record', 'bind', 'commit'].map(step => [step, true]))
  t.match(await rig.registry.find(SERIAL), { state: 'ACTIVE', suspicion: undefined, lastClaimExpiresAt: undefined })
  t.same(await story(rig), ['registered', 'claimed', 'adopted', 'activated'])

  const calls = rig.controlPlane.calls.length
  t.same(await rig.adopt(0), { ...adopted, outcome: 'replayed' })
  t.equal(rig.controlPlane.calls.length, calls, 'a replay asks AWS IoT nothing')
  rig.clock.now += AFTER
  t.same((await rig.reconcile()).actions, [])
})

await t.test('what a device has or is being given is not displaced', async t => {
  const rig = await makeRig(undefined, { reVendGraceMs: 3_600_000 })
  await rig.adopt(0)
  await t.rejects(rig.adopt(1), { code: 'already-vended' })
  await t.rejects(rig.vend(), { code: 'already-vended' }, 'not by its token either, also within the grace')
  await rig.operate('disable')
  await t.rejects(rig.adopt(0), { code: 'device-disabled' })
  await rig.operate('enable')
  await rig.operate('revoke')
  await t.rejects(rig.adopt(0), { code: 'device-revoked' })
  await rig.operate('decommission')
  await t.rejects(rig.adopt(0), { code: 'device-decommissioned' })

  const vended = await makeRig()
  await vended.vend()
  await t.rejects(vended.adopt(0), { code: 'already-vended' })

  for (const way of ['vend', 'adopt'] as const) {
    const cut = await makeRig()
    await dieAt(cut, 'before', 'bind', () => cut[way](0 as never))
    const isHeld = { code: 'vend-in-progress' }
    await t.rejects(cut.adopt(1), isHeld, `${way}: held`)
    cut.clock.now += AFTER
    await t.rejects(cut.adopt(1), isHeld, `${way}: recorded`)
    if (way === 'adopt') await t.rejects(cut.vend(), isHeld, 'not by its token either')
    await cut.reconcile()
    await t.rejects(cut.adopt(1), { code: 'already-vended' }, `${way}: finished`)
  }
})

await t.test('a reset ends it for good: AWS IoT keeps it, REVOKED', async t => {
  const rig = await makeRig()
  await rig.adopt(0)
  await rig.operate('reset')
  await t.rejects(rig.adopt(0), { code: 'vend-in-progress' }, 'while it is being ended')
  t.equal((await rig.adopt(1)).outcome, 'adopted')
  t.same(rig.controlPlane.active(), [rig.foreign[1].certificateId])
  await rig.operate('reset')
  rig.clock.now += AFTER
  await rig.reconcile()
  t.match(await rig.registry.find(SERIAL), { state: 'REGISTERED', retiring: [] })
  t.same([...rig.controlPlane.statuses.values()], ['REVOKED', 'REVOKED'])
  t.equal(rig.controlPlane.bound.size, 0)
  await t.rejects(rig.adopt(0), { code: 'certificate-revoked' })
  t.match(await rig.registry.find(SERIAL), { certificate: undefined, suspicion: undefined })
  t.equal((await rig.vend()).outcome, 'vended', 'and nothing is in the way of another')
})

await t.test('whatever a crash cuts off is finished by the same request, or by reconcile', async t => {
  for (const operation of ['registerCertificate', 'bind', 'activate'] as const) {
    for (const moment of ['before', 'after'] as const) {
      for (const cure of ['request', 'reconcile'] as const) {
        const rig = await makeRig()
        await dieAt(rig, moment, operation, () => rig.adopt(0))
        rig.clock.now += AFTER
        if (cure === 'reconcile') await rig.reconcile()
        t.match(await rig.adopt(0), { certificate: { certificateId: rig.foreign[0].certificateId } }, `${moment} ${operation}, ${cure}`)
        t.same(rig.controlPlane.active(), [rig.foreign[0].certificateId])
        rig.clock.now += AFTER
        await rig.reconcile()
        rig.clock.now += LAST_LOOK_MS
        await rig.reconcile()
        t.same(rig.controlPlane.active(), [rig.foreign[0].certificateId])
        t.match(await rig.registry.find(SERIAL), { state: 'ACTIVE', suspicion: undefined, lastClaimExpiresAt: undefined })
      }
    }
  }
})

await t.test('what was registered and never recorded is nobody\'s, and goes; what somebody else registered stays', async t => {
  const rig = await makeRig()
  await dieAt(rig, 'after', 'registerCertificate', () => rig.adopt(0))
  rig.clock.now += AFTER
  t.match((await rig.reconcile()).actions.map(({ step }) => step), ['free-expired-claim', 'delete-orphan'])
  t.equal(rig.controlPlane.statuses.size, 0)

  const terraform = await makeRig()
  await terraform.controlPlane.registerCertificate(terraform.foreign[0].certificatePem)
  terraform.clock.now += AFTER
  await dieAt(terraform, 'after', 'registerCertificate', () => terraform.adopt(0))
  terraform.clock.now += AFTER
  await terraform.reconcile()
  t.same([...terraform.controlPlane.statuses.values()], ['INACTIVE'])
})

await t.test('reconcile does not delete what another attempt has found', async t => {
  const rig = await makeRig()
  await dieAt(rig, 'after', 'registerCertificate', () => rig.adopt(0))
  rig.clock.now += AFTER
  // Reconcile has seen that nobody holds the device; then an attempt begins.
  const { find } = rig.registry
  let again: Promise<unknown> | undefined
  rig.registry.find = async serialNumber => {
    const found = await find.call(rig.registry, serialNumber)
    again ??= rig.adopt(0).catch((cause: unknown) => cause)
    await again
    return found
  }
  await rig.reconcile()
  rig.registry.find = find
  t.match(await again, { code: 'vend-in-progress' }, 'which waits')
  t.equal((await rig.adopt(0)).outcome, 'adopted')
  t.same(rig.controlPlane.active(), [rig.foreign[0].certificateId])
})

await t.test('one that AWS IoT has already: in any state but those that end it', async t => {
  for (const status of ['INACTIVE', 'ACTIVE', 'PENDING_ACTIVATION'] as const) {
    const rig = await makeRig()
    await rig.controlPlane.registerCertificate(rig.foreign[0].certificatePem)
    rig.controlPlane.statuses.set(rig.foreign[0].certificateId, status)
    t.equal((await rig.adopt(0)).outcome, 'adopted', status)
    t.same(rig.controlPlane.active(), [rig.foreign[0].certificateId])
  }
  const rig = await makeRig()
  await rig.controlPlane.registerCertificate(rig.foreign[0].certificatePem)
  await rig.controlPlane.revoke(rig.foreign[0].certificateId)
  await t.rejects(rig.adopt(0), { code: 'certificate-revoked' })
  rig.controlPlane.statuses.set(rig.foreign[0].certificateId, 'PENDING_TRANSFER' as never)
  await t.rejects(rig.adopt(0), { code: 'certificate-in-use' })
  t.match(await rig.registry.find(SERIAL), { state: 'ISSUING', suspicion: undefined }, 'nothing was made')
  t.equal((await rig.vend()).outcome, 'vended')
})

await t.test('one that is ACTIVE elsewhere is the device\'s only once its old one is REVOKED', async t => {
  const rig = await makeRig(undefined, { reVendGraceMs: 3_600_000 })
  const { certificate: old } = await rig.vend()
  // Another key, and its vend dies: the old one is still ACTIVE.
  await dieAt(rig, 'before', 'createCertificateFromCsr', () => rig.vend({ certificateSigningRequest: rig.csrs[1] }))
  rig.clock.now += AFTER
  await rig.controlPlane.registerCertificate(rig.foreign[0].certificatePem)
  await rig.controlPlane.activate(rig.foreign[0].certificateId)
  t.equal(rig.controlPlane.active().length, 2)
  const { record } = rig.registry
  let before: string | undefined
  rig.registry.record = async (...args) => {
    before = rig.controlPlane.statuses.get(old.certificateId)
    return record.apply(rig.registry, args)
  }
  await rig.adopt(0)
  t.equal(before, 'REVOKED')
})

await t.test('two devices do not get one certificate', async t => {
  const rig = await makeRig()
  const other = { serialNumber: 'sn-2', product: 'default', tokenHash: undefined, tokenExpiresAt: undefined }
  await rig.registry.register(other, { now: rig.clock.now, requestId: 'r' })
  await rig.adopt(0)
  await t.rejects(rig.adopt(0, 'registered', 'sn-2'), { code: 'certificate-in-use' })
  t.match(await rig.registry.find('sn-2'), { certificate: undefined, suspicion: undefined })
  await rig.operate('reset')
  await t.rejects(rig.adopt(0, 'registered', 'sn-2'), { code: 'certificate-in-use' }, 'while it is being ended')
  rig.clock.now += AFTER
  await rig.reconcile()
  await t.rejects(rig.adopt(0, 'registered', 'sn-2'), { code: 'key-in-use' }, 'its key was the other device\'s')
})

await t.test('a certificate that never became one device\'s may become another one\'s, once no worker can record it any more', async t => {
  const rig = await makeRig()
  const other = { serialNumber: 'sn-2', product: 'default', tokenHash: undefined, tokenExpiresAt: undefined }
  await rig.registry.register(other, { now: rig.clock.now, requestId: 'r' })
  await dieAt(rig, 'before', 'registerCertificate', () => rig.adopt(1))
  const isHeld = { code: 'vend-in-progress' }
  await t.rejects(rig.adopt(1, 'registered', 'sn-2'), isHeld)
  rig.clock.now += CLAIM_LIFETIME_MS + 1
  await t.rejects(rig.adopt(1, 'registered', 'sn-2'), isHeld, 'by a clock that is behind it might still be')
  rig.clock.now += AFTER
  t.equal((await rig.adopt(1, 'registered', 'sn-2')).outcome, 'adopted')
  await t.rejects(rig.adopt(1), { code: 'certificate-in-use' })
})

await t.test('who is overtaken deletes nothing', async t => {
  const rig = await makeRig()
  const { record } = rig.registry
  rig.registry.record = async (...args) => {
    rig.registry.record = record
    rig.clock.now += AFTER
    await rig.adopt(0)
    return record.apply(rig.registry, args)
  }
  await t.rejects(rig.adopt(0), { code: 'deadline-exceeded' })
  t.same(rig.controlPlane.active(), [rig.foreign[0].certificateId])
  t.match(await rig.registry.find(SERIAL), { state: 'ACTIVE', claim: undefined })
  t.notOk(rig.controlPlane.calls.includes('deleteUnbound'))

  const lost = await makeRig()
  const before = lost.registry.record
  lost.registry.record = async (...args) => {
    lost.registry.record = before
    await lost.operate('revoke')
    return before.apply(lost.registry, args)
  }
  await t.rejects(lost.adopt(0), { code: 'device-revoked' })
  t.notOk(lost.controlPlane.calls.includes('deleteUnbound'))
})

await t.test('a device that nobody has registered is none', async t => {
  const rig = await makeRig()
  await t.rejects(rig.adopt(0, 'registered', 'sn-9'), { code: 'device-not-found' })
  t.same(rig.controlPlane.calls, [])
})

/** A process that dies at a call: nothing after it happens, not even giving back claim and hold. */
async function dieAt (rig: Rig, moment: 'before' | 'after', operation: Operation, work: () => Promise<unknown>): Promise<void> {
  rig.controlPlane[moment] = current => { if (current === operation) throw new CvmError('aws-iot-unavailable') }
  const { registry, certificateHolds } = rig
  const [giveBack, letGo] = [registry.release, certificateHolds.release]
  registry.release = certificateHolds.release = async () => { throw new CvmError('registry-unavailable') }
  await work().catch(() => {})
  rig.controlPlane.before = rig.controlPlane.after = () => {}
  registry.release = giveBack
  certificateHolds.release = letGo
}
