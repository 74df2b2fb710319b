// What each mode of a product's `repair` does about each difference: every cell of the README's table, and what must never happen.
import t from 'tap'
import { CvmError } from '../../src/errors.ts'
import { REPAIRS, type Remedy, remedyOf } from '../../src/vending/drift-repair.ts'
import { FINDING_KINDS } from '../../src/vending/drift-findings.ts'
import { REPAIR_MODES } from '../../src/vending/product.ts'
import { type Rig, SERIAL, makeRig } from '../fixtures/vend-rig.ts'

type Mode = typeof REPAIR_MODES[number]
type Status = 'ACTIVE' | 'INACTIVE' | 'REVOKED'

const STRANGER = 'ab'.repeat(32)
const FORMER = 'cd'.repeat(32)

interface World { rig: Rig, certificateId: string }

/** A device that was vended, and then disabled or revoked by an operator; long ago. */
async function world (repair: Mode, operation?: 'disable' | 'revoke'): Promise<World> {
  const rig = await makeRig(undefined, { repair })
  const { certificate: { certificateId } } = await rig.vend()
  if (operation) await rig.operate(operation)
  // What reconcile does by itself after an operator's wish is over.
  for (let n = 0; n < 3; n++) {
    rig.clock.now += 24 * 3_600_000
    await rig.reconcile()
  }
  return { rig, certificateId }
}

/** One look, as the sweep and reconcile do; what was noted. */
async function look ({ rig }: World): Promise<string[]> {
  rig.clock.now += 60_000
  const { actions } = await rig.reconcile()
  return actions.map(({ step, outcome, detail = '' }) => `${step} ${outcome}${step === 'repair-drift' ? ` ${detail}` : ''}`)
}

async function state ({ rig, certificateId }: World): Promise<[string | undefined, Status | 'none']> {
  return [(await rig.registry.find(SERIAL))?.state, rig.controlPlane.statuses.get(certificateId) as Status ?? 'none']
}

/** From a device's state and its certificate's status, to the same in each mode; where that stays as it is, the finding stays too. */
const STATUSES: ReadonlyArray<readonly [operation: 'disable' | 'revoke' | undefined, aws: Status | 'none', Record<Mode, readonly [string, Status | 'none']>]> = [
  [undefined, 'INACTIVE', { report: ['ACTIVE', 'INACTIVE'], registry: ['DISABLED', 'INACTIVE'], aws: ['ACTIVE', 'ACTIVE'] }],
  [undefined, 'REVOKED', { report: ['ACTIVE', 'REVOKED'], registry: ['REVOKED', 'REVOKED'], aws: ['ACTIVE', 'REVOKED'] }],
  [undefined, 'none', { report: ['ACTIVE', 'none'], registry: ['REVOKED', 'none'], aws: ['ACTIVE', 'none'] }],
  ['disable', 'ACTIVE', { report: ['DISABLED', 'ACTIVE'], registry: ['DISABLED', 'ACTIVE'], aws: ['DISABLED', 'INACTIVE'] }],
  ['disable', 'REVOKED', { report: ['DISABLED', 'REVOKED'], registry: ['REVOKED', 'REVOKED'], aws: ['DISABLED', 'REVOKED'] }],
  ['disable', 'none', { report: ['DISABLED', 'none'], registry: ['REVOKED', 'none'], aws: ['DISABLED', 'none'] }],
  ['revoke', 'ACTIVE', { report: ['REVOKED', 'ACTIVE'], registry: ['REVOKED', 'ACTIVE'], aws: ['REVOKED', 'REVOKED'] }],
  ['revoke', 'INACTIVE', { report: ['REVOKED', 'INACTIVE'], registry: ['REVOKED', 'INACTIVE'], aws: ['REVOKED', 'REVOKED'] }]
]

for (const mode of REPAIR_MODES) {
  await t.test(`statuses, repair: ${mode}`, async t => {
    for (const [operation, aws, expected] of STATUSES) {
      const here = await world(mode, operation)
      const { rig, certificateId } = here
      const [before] = await state(here)
      const what = `${before}, AWS IoT says ${aws}`
      // The certificate is not new to reconcile: it is the sweep that finds it, and reconcile that looks again.
      await rig.findings.report({ serialNumber: SERIAL, kind: aws === 'none' ? 'certificate-missing' : 'status-differs', product: 'default', certificateId, registry: before ?? '', aws: aws === 'none' ? 'that there is no such certificate' : aws }, 0)
      if (aws === 'none') rig.controlPlane.statuses.delete(certificateId)
      else rig.controlPlane.statuses.set(certificateId, aws)
      rig.controlPlane.listRecent = async () => ({ certificates: [], complete: true })
      const noted = await look(here)
      const [after] = [await state(here)]
      t.same(after, expected[mode], what)
      const isRepaired = JSON.stringify(after) !== JSON.stringify([before, aws])
      t.equal(noted.some(line => line.startsWith('repair-drift done')), isRepaired, what)
      t.equal((await rig.findings.of(SERIAL)).length, isRepaired ? 0 : 1, what)
      t.same((await look(here)).filter(line => line.startsWith('report-drift')), [], `${what}: nothing new afterwards`)
    }
  })

  await t.test(`thing and policy, repair: ${mode}`, async t => {
    const here = await world(mode)
    const { rig, certificateId } = here
    rig.controlPlane.policies.clear()
    rig.controlPlane.bound.clear()
    rig.controlPlane.listRecent = async () => ({ certificates: [{ certificateId, status: 'INACTIVE', createdAt: 0 }], complete: true })
    await look(here)
    const isRepaired = mode === 'aws'
    t.equal(rig.controlPlane.bound.has(certificateId), isRepaired)
    t.same(rig.controlPlane.policies.get(certificateId) ?? [], isRepaired ? ['policy'] : [])
    t.same((await rig.findings.of(SERIAL)).map(({ kind }) => kind).sort(), isRepaired ? [] : ['policy-detached', 'thing-detached'])
  })

  await t.test(`another ACTIVE certificate, repair: ${mode}`, async t => {
    const here = await world(mode)
    const { rig, certificateId } = here
    const { controlPlane } = rig
    await rig.renew()
    const next = (await rig.registry.find(SERIAL))?.renewal?.certificate?.certificateId ?? ''
    rig.clock.now += 60_000
    rig.registry.change(SERIAL, () => true, row => ({ ...row, history: [{ at: 0, event: 'renewed', requestId: 'r', certificateId: FORMER }, ...row.history] }))
    for (const other of [FORMER, STRANGER, next]) {
      controlPlane.statuses.set(other, 'ACTIVE')
      controlPlane.bound.add(other)
    }
    controlPlane.listRecent = async () => ({ certificates: [{ certificateId, status: 'INACTIVE', createdAt: 0 }], complete: true })
    await look(here)
    const expected = mode === 'aws' ? ['REVOKED', 'ACTIVE', 'INACTIVE'] : ['ACTIVE', 'ACTIVE', 'ACTIVE']
    t.same([FORMER, STRANGER, next].map(id => controlPlane.statuses.get(id)), expected)
    t.match(await rig.findings.of(SERIAL), [{ kind: 'other-certificate-active' }], 'the stranger is the operator\'s')
    controlPlane.statuses.set(STRANGER, 'INACTIVE')
    await look(here)
    t.equal((await rig.findings.of(SERIAL)).length, mode === 'aws' ? 0 : 1)
    if (mode === 'aws') t.equal((await rig.confirm()).certificate.certificateId, next, 'and the renewal can be confirmed')
  })
}

await t.test('every kind of finding has a rule, and no rule makes a REVOKED certificate anything else', async t => {
  t.same(new Set(REPAIRS.map(({ kind }) => kind)), new Set(FINDING_KINDS))
  const device = (await (await world('aws')).rig.registry.find(SERIAL))!
  for (const state of ['ACTIVE', 'DISABLED'] as const) {
    const difference = { serialNumber: SERIAL, kind: 'status-differs', product: 'default', registry: state, aws: 'REVOKED' } as const
    t.equal(remedyOf(difference, { ...device, state }, { repair: 'aws' }), undefined as Remedy | undefined)
  }
})

await t.test('G1: beside another ACTIVE certificate nothing becomes ACTIVE', async t => {
  const here = await world('aws')
  const { rig, certificateId } = here
  rig.controlPlane.statuses.set(STRANGER, 'ACTIVE')
  rig.controlPlane.bound.add(STRANGER)
  rig.controlPlane.statuses.set(certificateId, 'INACTIVE')
  rig.controlPlane.listRecent = async () => ({ certificates: [{ certificateId, status: 'INACTIVE', createdAt: 0 }], complete: true })
  t.ok((await look(here)).includes('repair-drift later sync-certificate'))
  t.same(await state(here), ['ACTIVE', 'INACTIVE'])
  rig.controlPlane.statuses.set(STRANGER, 'INACTIVE')
  t.ok((await look(here)).includes('repair-drift done sync-certificate'))
  t.same(await state(here), ['ACTIVE', 'ACTIVE'])
})

await t.test('an operator who comes while AWS IoT is being set has the last word', async t => {
  for (const [operation, status] of [['disable', 'INACTIVE'], ['revoke', 'REVOKED']] as const) {
    const here = await world('aws')
    const { rig, certificateId } = here
    rig.controlPlane.statuses.set(certificateId, 'INACTIVE')
    rig.controlPlane.listRecent = async () => ({ certificates: [{ certificateId, status: 'INACTIVE', createdAt: 0 }], complete: true })
    rig.controlPlane.before = async operationOfAws => {
      if (operationOfAws !== 'activate') return
      rig.controlPlane.before = () => {}
      await rig.operate(operation)
    }
    await look(here)
    t.equal(rig.controlPlane.statuses.get(certificateId), status, operation)
  }
})

await t.test('a repair that fails leaves the finding, and is tried again; an accepted finding is not repaired', async t => {
  const here = await world('aws')
  const { rig, certificateId } = here
  rig.controlPlane.statuses.set(certificateId, 'INACTIVE')
  rig.controlPlane.listRecent = async () => ({ certificates: [{ certificateId, status: 'INACTIVE', createdAt: 0 }], complete: true })
  rig.controlPlane.before = operation => { if (operation === 'activate') throw new CvmError('aws-iot-refused') }
  t.ok((await look(here)).includes('repair-drift failed sync-certificate: aws-iot-refused'))
  t.same(await state(here), ['ACTIVE', 'INACTIVE'])
  rig.controlPlane.before = () => {}
  const [finding] = await rig.findings.of(SERIAL)
  t.ok(finding && await rig.findings.accept(finding, { at: 1, actor: 'ada', reason: 'paused' }))
  t.same(await look(here), [])
  t.same(await state(here), ['ACTIVE', 'INACTIVE'])
  await rig.findings.end(SERIAL, 'status-differs')
  t.ok((await look(here)).includes('repair-drift done sync-certificate'))
})
