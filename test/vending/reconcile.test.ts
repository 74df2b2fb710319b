import t from 'tap'
import { CvmError } from '../../src/errors.ts'
import { LONGEST_CALL_MS } from '../../src/vending/control-plane.ts'
import { noFindings } from '../../src/vending/drift-findings.ts'
import { dieAt, steps } from '../fixtures/dying-worker.ts'
import { CLAIM_LIFETIME_MS, LAST_LOOK_MS, type Rig, SERIAL, makeRig } from '../fixtures/vend-rig.ts'

const AFTER = CLAIM_LIFETIME_MS + 2_001
const AT_REST = { actions: [], backlog: 0, drift: 0, findings: noFindings(), quarantined: 0, pendingSince: [], complete: true }

await t.test('nothing to do: nothing is done, and little is asked', async t => {
  const rig = await makeRig()
  await rig.vend()
  rig.clock.now += AFTER
  const before = rig.controlPlane.calls.length
  t.same(await rig.reconcile(), AT_REST)
  t.same(rig.controlPlane.calls.slice(before), ['listRecent'])
})

await t.test('what holds a claim is left alone', async t => {
  const rig = await makeRig()
  await dieAt(rig, 'vend', 'before', 'bind')
  t.same((await rig.reconcile()).actions, [])
  t.match(await rig.registry.find(SERIAL), { state: 'ISSUED' })
})

await t.test('ISSUED from a CSR is finished, and the device gets it as a replay', async t => {
  for (const operation of ['bind', 'activate'] as const) {
    for (const moment of ['before', 'after'] as const) {
      const rig = await makeRig()
      await dieAt(rig, 'vend', moment, operation)
      rig.clock.now += AFTER
      t.same(steps(await rig.reconcile()), ['finish-issued done'], `died ${moment} ${operation}`)
      t.equal(rig.controlPlane.active().length, 1)
      t.equal((await rig.vend()).outcome, 'replayed')
    }
  }
})

await t.test('ISSUED with a generated key is undone, because its private key died with the process', async t => {
  const rig = await makeRig()
  await dieAt(rig, 'vendKeys', 'after', 'activate')
  t.equal(rig.controlPlane.active().length, 1)
  rig.clock.now += AFTER
  t.same(steps(await rig.reconcile()), ['abandon-issued done', 'dispose-retired done'])
  t.equal(rig.controlPlane.statuses.size, 0)
  t.match(await rig.registry.find(SERIAL), { state: 'REGISTERED', retiring: [] })
  t.ok((await rig.vendKeys()).keyPair)
})

await t.test('an expired claim is freed, and what it may have made is found by its key', async t => {
  const rig = await makeRig()
  await dieAt(rig, 'vend', 'after', 'createCertificateFromCsr')
  t.equal(rig.controlPlane.statuses.size, 1)
  rig.clock.now += AFTER
  t.same(steps(await rig.reconcile({ dryRun: true })), ['free-expired-claim would', 'delete-orphan would'], 'a dry run says so')
  t.equal(rig.controlPlane.statuses.size, 1, 'and does nothing')
  t.same(steps(await rig.reconcile()), ['free-expired-claim done', 'delete-orphan done'])
  t.equal(rig.controlPlane.statuses.size, 0)
  t.match(await rig.registry.find(SERIAL), { state: 'REGISTERED', suspicion: { since: Number } }, 'AWS IoT may yet finish what was given up')
  rig.clock.now += 2 * AFTER
  t.same(await rig.reconcile(), AT_REST)
  t.match(await rig.registry.find(SERIAL), { suspicion: { since: Number } })
  const before = rig.controlPlane.calls.length
  t.same(await rig.reconcile(), AT_REST)
  t.same(rig.controlPlane.calls.slice(before), ['listRecent'], 'it is not looked for in between')
  rig.clock.now += LAST_LOOK_MS
  await rig.reconcile()
  t.match(await rig.registry.find(SERIAL), { state: 'REGISTERED', suspicion: undefined })
  t.same((await rig.reconcile()).actions, [])
})

await t.test('an orphan is found also when the device has its certificate by then', async t => {
  for (const way of ['vend', 'vendKeys'] as const) {
    const rig = await makeRig()
    await dieAt(rig, way, 'after', way === 'vend' ? 'createCertificateFromCsr' : 'createKeysAndCertificate')
    rig.clock.now += CLAIM_LIFETIME_MS
    const { certificate } = await rig[way]()
    t.equal(rig.controlPlane.statuses.size, 2)
    rig.clock.now += AFTER
    t.same(steps(await rig.reconcile()), ['delete-orphan done'], way)
    t.same([...rig.controlPlane.statuses], [[certificate.certificateId, 'ACTIVE']])
    rig.clock.now += LAST_LOOK_MS
    await rig.reconcile()
    t.match(await rig.registry.find(SERIAL), { state: 'ACTIVE', suspicion: undefined, lastClaimExpiresAt: undefined })
  }
})

await t.test('a certificate that AWS IoT made after its call was given up is found too', async t => {
  for (const [way, late] of [['vend', 1], ['vend', LONGEST_CALL_MS], ['vendKeys', LONGEST_CALL_MS]] as const) {
    const operation = way === 'vend' ? 'createCertificateFromCsr' : 'createKeysAndCertificate'
    const rig = await makeRig()
    await dieAt(rig, way, 'before', operation)
    rig.clock.now += AFTER
    await rig.reconcile()
    rig.clock.now += Math.max(1, late - AFTER)
    await rig.reconcile()
    await rig.controlPlane[operation](rig.csrs[0] as never)
    rig.clock.now += late === 1 ? 2 * AFTER : LAST_LOOK_MS - late
    t.same(steps(await rig.reconcile()), ['delete-orphan done'], `${way}, ${late} ms late`)
    t.equal(rig.controlPlane.statuses.size, 0)
  }
})

await t.test('certificates of others are left alone', async t => {
  const rig = await makeRig()
  const foreign = await rig.controlPlane.createCertificateFromCsr(rig.csrs[1])
  await rig.controlPlane.createKeysAndCertificate()
  rig.clock.now += AFTER
  await dieAt(rig, 'vend', 'after', 'createCertificateFromCsr')
  rig.clock.now += AFTER
  t.same(steps(await rig.reconcile()), ['free-expired-claim done', 'delete-orphan done'])
  t.ok(rig.controlPlane.statuses.has(foreign.certificateId))
  t.equal(rig.controlPlane.statuses.size, 2)
})

await t.test('a generated certificate that a live worker may still record is not judged yet', async t => {
  const rig = await makeRig()
  await dieAt(rig, 'vendKeys', 'after', 'createKeysAndCertificate')
  rig.clock.now += AFTER
  const young = await rig.controlPlane.createKeysAndCertificate()
  await rig.reconcile()
  t.ok(rig.controlPlane.statuses.has(young.certificateId), 'made a moment ago, for whomever')
  t.equal(rig.controlPlane.statuses.size, 1, 'the old one is gone')
})

await t.test('a generated certificate too young to be judged is not forgotten', async t => {
  for (const [what, madeLate, passing] of [['while reconcile looks, it comes of age', 0, 10], ['AWS IoT dates it after the claim', 1_000, 0]] as const) {
    const rig = await makeRig()
    // The call is given up, and so is the claim, at once; AWS IoT makes the certificate all the same.
    rig.controlPlane.before = operation => { if (operation === 'createKeysAndCertificate') throw new CvmError('aws-iot-unavailable') }
    await rig.vendKeys().catch(() => {})
    rig.controlPlane.before = () => {}
    rig.clock.now += madeLate
    const orphan = await rig.controlPlane.createKeysAndCertificate()
    await rig.controlPlane.createCertificateFromCsr(rig.csrs[1])
    rig.clock.now += AFTER - 1
    let looks = 0
    rig.controlPlane.after = operation => { if (operation === 'describe' && ++looks === 2) rig.clock.now += passing }
    await rig.reconcile()
    t.ok(rig.controlPlane.statuses.has(orphan.certificateId), `${what}: too young`)
    rig.clock.now += 2 * AFTER
    await rig.reconcile()
    t.notOk(rig.controlPlane.statuses.has(orphan.certificateId), `${what}: found later`)
  }
})

await t.test('a REVOKED device comes to rest also where its certificate was deleted by hand', async t => {
  const rig = await makeRig()
  const { certificate } = await rig.vend()
  await rig.operate('revoke')
  rig.controlPlane.statuses.delete(certificate.certificateId)
  rig.clock.now += AFTER
  t.same(await rig.reconcile(), AT_REST)
  t.match(await rig.registry.find(SERIAL), { state: 'REVOKED', lastClaimExpiresAt: undefined })
})

await t.test('what AWS IoT says is REVOKED is REVOKED, and what is gone is started anew', async t => {
  const revoked = await makeRig()
  await dieAt(revoked, 'vend', 'before', 'activate')
  const issued = await revoked.registry.find(SERIAL)
  await revoked.controlPlane.revoke(issued?.certificate?.certificateId ?? '')
  revoked.clock.now += AFTER
  t.same(steps(await revoked.reconcile()), ['mark-revoked done'])
  t.match(await revoked.registry.find(SERIAL), { state: 'REVOKED' })

  const gone = await makeRig()
  await dieAt(gone, 'vend', 'before', 'bind')
  gone.controlPlane.statuses.clear()
  gone.clock.now += AFTER
  t.same(steps(await gone.reconcile()), ['abandon-issued done', 'dispose-retired done'])
  t.equal((await gone.vend()).outcome, 'vended')
})

await t.test('drift between registry and AWS IoT is counted until it ends; a revocation is carried over where the product says so', async t => {
  const rig = await makeRig(undefined, { repair: 'registry' })
  const { certificate } = await rig.vend()
  rig.clock.now += AFTER
  const product = rig.products.get('default')
  if (!product) throw new Error('no default product')
  rig.products.set('default', { ...product, repair: 'report' })
  await rig.controlPlane.deactivate(certificate.certificateId)
  t.match(await rig.reconcile({ dryRun: true }), { drift: 1, actions: [{ step: 'report-drift', serialNumber: SERIAL }] })
  t.same(await rig.findings.of(SERIAL), [], 'a dry run keeps nothing')
  t.match(await rig.reconcile(), { drift: 1, actions: [{ step: 'report-drift', serialNumber: SERIAL }] })
  t.match(await rig.reconcile(), { drift: 1, actions: [] }, 'it stays')
  rig.products.set('default', product)
  await rig.controlPlane.revoke(certificate.certificateId)
  t.match(await rig.reconcile(), { drift: 0, actions: [{ step: 'report-drift' }, { step: 'repair-drift', outcome: 'done', detail: 'revoke-device' }] })
  t.match(await rig.registry.find(SERIAL), { state: 'REVOKED' })
  t.match(await rig.reconcile(), { drift: 0, actions: [] })
})

await t.test('a certificate that was replaced is ended, and tried again while AWS IoT is still detaching it', async t => {
  const rig = await makeRig()
  await dieAt(rig, 'vend', 'after', 'activate')
  rig.clock.now += AFTER
  const { certificate } = await rig.vend({ certificateSigningRequest: rig.csrs[1] })
  t.same(rig.controlPlane.active(), [certificate.certificateId])
  rig.clock.now += AFTER
  const { dispose } = rig.controlPlane
  rig.controlPlane.dispose = async () => false
  t.same(steps(await rig.reconcile()), ['dispose-retired later'])
  rig.controlPlane.dispose = dispose
  t.same(steps(await rig.reconcile()), ['dispose-retired done'])
  t.same([...rig.controlPlane.statuses], [[certificate.certificateId, 'ACTIVE']])
  t.equal((await rig.reconcile()).backlog, 0)
})

await t.test('a device that fails is reported and does not keep the others waiting', async t => {
  const rig = await makeRig()
  await dieAt(rig, 'vend', 'before', 'bind')
  rig.clock.now += AFTER
  rig.controlPlane.before = operation => { if (operation === 'activate') throw new CvmError('aws-iot-throttled') }
  t.match(await rig.reconcile(), { backlog: 1, actions: [{ step: 'finish-issued', outcome: 'failed', detail: 'aws-iot-throttled' }] })
  rig.controlPlane.before = () => {}
  rig.clock.now += AFTER
  t.same(steps(await rig.reconcile()), ['finish-issued done'])
})

/** Devices whose replaced certificate cannot be ended, due before all others. */
async function failingDevices (rig: Rig, count: number): Promise<void> {
  for (let n = 0; n < count; n++) {
    const serialNumber = `failing-${n}`
    await rig.registry.register({ serialNumber, product: 'default', tokenHash: 'hash', tokenExpiresAt: undefined }, { now: rig.clock.now, requestId: 'r' })
    rig.registry.change(serialNumber, () => true, row => ({ ...row, retiring: ['stuck'], unfinished: true, lastClaimExpiresAt: rig.clock.now + n }))
  }
  const { dispose } = rig.controlPlane
  rig.controlPlane.dispose = async (certificateId, signal) => {
    if (certificateId === 'stuck') throw new CvmError('aws-iot-refused')
    return dispose.call(rig.controlPlane, certificateId, signal)
  }
}

await t.test('devices that fail go to the end: a run that they fill is followed by one that serves the others', async t => {
  const rig = await makeRig()
  await dieAt(rig, 'vend', 'before', 'bind')
  rig.limits.batch = 3
  await failingDevices(rig, 3)
  rig.clock.now += AFTER
  t.same(steps(await rig.reconcile()), ['dispose-retired failed', 'dispose-retired failed', 'dispose-retired failed'])
  t.same(steps(await rig.reconcile()), ['finish-issued done'], 'those that failed wait')
  t.equal(rig.controlPlane.active().length, 1)
  t.same((await rig.reconcile()).actions, [], 'still')
  rig.clock.now += 30_000
  t.equal((await rig.reconcile()).actions.length, 3, 'and are tried again after their wait')
  rig.clock.now += 30_000
  t.same((await rig.reconcile()).actions, [], 'which doubles')
  rig.clock.now += 30_000
  t.equal((await rig.reconcile()).actions.length, 3)
})

await t.test('an operator\'s wish that was cut off comes before everything else, once its own request is over', async t => {
  const rig = await makeRig()
  const { certificate } = await rig.vend()
  rig.limits.batch = 3
  await failingDevices(rig, 3)
  rig.clock.now += AFTER
  rig.controlPlane.before = operation => { if (operation === 'revoke') throw new CvmError('aws-iot-unavailable') }
  await t.rejects(rig.operate('revoke'))
  rig.controlPlane.before = () => {}
  t.notOk(steps(await rig.reconcile({ dryRun: true })).includes('finish-operation would'), 'its request may be at it still')
  rig.clock.now += AFTER
  t.ok(steps(await rig.reconcile()).includes('finish-operation done'))
  t.equal(rig.controlPlane.statuses.get(certificate.certificateId), 'REVOKED')
})

await t.test('independent devices are tended side by side, by at most 16 workers', async t => {
  const rig = await makeRig()
  await failingDevices(rig, 40)
  let busy = 0
  let most = 0
  rig.controlPlane.dispose = async () => {
    most = Math.max(most, ++busy)
    await new Promise(resolve => setImmediate(resolve))
    busy--
    return true
  }
  rig.clock.now += AFTER
  t.equal((await rig.reconcile()).actions.filter(({ step, outcome }) => step === 'dispose-retired' && outcome === 'done').length, 40)
  t.ok(most >= 8 && most <= 16, `${most} at once`)
})
