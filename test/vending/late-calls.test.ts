// Calls that AWS IoT carries out after they were given up, when an operator has changed the device since.
import t from 'tap'
import { CvmError } from '../../src/errors.ts'
import { LONGEST_CALL_MS } from '../../src/vending/control-plane.ts'
import { noFindings } from '../../src/vending/drift-findings.ts'
import type { Operation } from '../fixtures/model-control-plane.ts'
import { CLAIM_LIFETIME_MS, CONFIRM_WITHIN_MS, type Rig, SERIAL, makeRig } from '../fixtures/vend-rig.ts'

const AFTER = CLAIM_LIFETIME_MS + 2_001
/** When no call from before an operator's wish can take effect any more. */
const DUE = CLAIM_LIFETIME_MS + LONGEST_CALL_MS + 2_001
const steps = (report: { actions: { step: string, outcome: string }[] }) => report.actions.map(({ step, outcome }) => `${step} ${outcome}`)

/** AWS IoT does not answer calls of this kind; what they asked for can be done later. */
async function givingUp (rig: Rig, operation: Operation, work: () => Promise<unknown>): Promise<void> {
  rig.controlPlane.before = current => { if (current === operation) throw new CvmError('aws-iot-unavailable') }
  await t.rejects(work())
  rig.controlPlane.before = () => {}
}

const statusOf = async ({ controlPlane, registry }: Rig) =>
  controlPlane.statuses.get((await registry.find(SERIAL))?.certificate?.certificateId ?? '')

await t.test('an activation that is carried out after a disable is undone when no other can follow', async t => {
  const rig = await makeRig()
  await givingUp(rig, 'activate', () => rig.vend())
  await rig.operate('disable')
  const { certificate } = await rig.registry.find(SERIAL) ?? {}
  const { certificateId = '' } = certificate ?? {}
  rig.clock.now += AFTER
  const nothing = { actions: [], backlog: 0, drift: 0, findings: noFindings(), quarantined: 0, pendingSince: [], complete: true }
  t.same(await rig.reconcile(), nothing, 'nothing is due yet')
  rig.clock.now += LONGEST_CALL_MS - AFTER
  await rig.controlPlane.activate(certificateId)
  rig.clock.now += AFTER
  t.match(await rig.reconcile({ dryRun: true }), { actions: [{ step: 'undo-late-call', outcome: 'would', serialNumber: SERIAL, certificateId }] })
  t.same(steps(await rig.reconcile()), ['undo-late-call done'])
  t.equal(await statusOf(rig), 'INACTIVE')
  t.match(await rig.registry.find(SERIAL), { state: 'DISABLED', recheckAt: undefined, lastClaimExpiresAt: undefined })
  const before = rig.controlPlane.calls.length
  await rig.reconcile()
  t.same(rig.controlPlane.calls.slice(before), ['listRecent'], 'the device is at rest')
})

await t.test('a deactivation that is carried out after an enable is undone, also where the device was vended or renewed since', async t => {
  for (const since of ['nothing', 'vend', 'renew'] as const) {
    const rig = await makeRig(undefined, { renewAfterMs: 1 })
    if (since === 'vend') await givingUp(rig, 'activate', () => rig.vend())
    else await rig.vend()
    await givingUp(rig, 'deactivate', () => rig.operate('disable'))
    rig.clock.now += AFTER
    await rig.reconcile()
    t.match(await rig.registry.find(SERIAL), { state: 'DISABLED' })
    await rig.operate('enable')
    if (since !== 'nothing') await rig[since]()
    const { certificate } = await rig.registry.find(SERIAL) ?? {}
    await rig.controlPlane.deactivate(certificate?.certificateId ?? '')
    rig.clock.now += DUE
    t.ok(steps(await rig.reconcile()).includes('undo-late-call done'), since)
    t.equal(await statusOf(rig), 'ACTIVE')
    t.match(await rig.registry.find(SERIAL), { state: 'ACTIVE', recheckAt: undefined })
    if (since !== 'renew') continue
    t.match(await rig.registry.find(SERIAL), { renewal: { phase: 'issued' } }, 'the renewal goes on waiting')
    rig.clock.now += CONFIRM_WITHIN_MS
    await rig.reconcile()
    t.match(await rig.registry.find(SERIAL), { renewal: undefined, lastClaimExpiresAt: undefined })
  }
})

await t.test('a revocation that is carried out after a disable or an enable is final, and the registry says so', async t => {
  for (const isEnabled of [false, true]) {
    const rig = await makeRig()
    const { certificate } = await rig.vend()
    await givingUp(rig, 'revoke', () => rig.operate('revoke'))
    await rig.operate('disable')
    if (isEnabled) await rig.operate('enable')
    await rig.controlPlane.revoke(certificate.certificateId)
    rig.clock.now += DUE
    t.ok(steps(await rig.reconcile()).includes('mark-revoked done'))
    t.match(await rig.registry.find(SERIAL), { state: 'REVOKED' })
    rig.clock.now += AFTER
    await rig.reconcile()
    t.match(await rig.registry.find(SERIAL), { state: 'REVOKED', recheckAt: undefined, lastClaimExpiresAt: undefined })
  }
})

await t.test('what an operator ends is REVOKED in AWS IoT before the registry says so: no look is owed', async t => {
  for (const operation of ['revoke', 'reset', 'decommission'] as const) {
    const rig = await makeRig()
    const { certificate } = await rig.vend()
    await rig.operate('disable')
    await rig.operate(operation)
    t.match(await rig.registry.find(SERIAL), { recheckAt: undefined })
    t.equal(rig.controlPlane.statuses.get(certificate.certificateId), 'REVOKED')
    await t.rejects(rig.controlPlane.activate(certificate.certificateId), { name: 'CertificateStateConflict' })
  }
})

await t.test('a look that fails stays owed', async t => {
  const rig = await makeRig()
  const { certificate } = await rig.vend()
  await rig.operate('disable')
  await rig.controlPlane.activate(certificate.certificateId)
  rig.clock.now += DUE
  for (const operation of ['describe', 'deactivate'] as const) {
    rig.controlPlane.before = current => { if (current === operation) throw new CvmError('aws-iot-unavailable') }
    t.match(await rig.reconcile(), { backlog: 1 }, operation)
    rig.controlPlane.before = () => {}
    rig.clock.now += 900_000
  }
  t.ok(steps(await rig.reconcile()).includes('undo-late-call done'))
  t.equal(await statusOf(rig), 'INACTIVE')
})

await t.test('the certificate that an earlier service vended is looked at too, and never ended by it', async t => {
  const rig = await makeRig()
  const { certificateId } = await rig.controlPlane.createCertificateFromCsr(rig.csrs[1])
  await rig.controlPlane.activate(certificateId)
  rig.registry.change(SERIAL, () => true, row => ({ ...row, state: 'ACTIVE', legacyCertificateId: certificateId }))
  await rig.operate('disable')
  t.equal(rig.controlPlane.statuses.get(certificateId), 'INACTIVE')
  await rig.controlPlane.activate(certificateId)
  rig.clock.now += DUE
  t.same(steps(await rig.reconcile()), ['undo-late-call done'])
  t.equal(rig.controlPlane.statuses.get(certificateId), 'INACTIVE')
  await rig.operate('enable')
  await rig.controlPlane.revoke(certificateId)
  rig.clock.now += DUE
  await rig.reconcile()
  t.match(await rig.registry.find(SERIAL), { state: 'ACTIVE', recheckAt: undefined, lastClaimExpiresAt: undefined })
})
