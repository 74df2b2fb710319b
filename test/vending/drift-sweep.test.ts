// The sweep for drift over models: what it finds, what it keeps, and how it goes on.
import t, { type Test } from 'tap'
import { CvmError } from '../../src/errors.ts'
import type { ListedDevice } from '../../src/vending/device-catalog.ts'
import type { SweepPosition } from '../../src/vending/drift-findings.ts'
import { SAMPLE_PASSES, type SweepRun, sweep } from '../../src/vending/drift-sweep.ts'
import { pause } from '../../src/vending/operate.ts'
import type { Product } from '../../src/vending/product.ts'
import type { ReconcileAction } from '../../src/vending/reconcile-run.ts'
import { SeenCertificates } from '../../src/vending/seen-certificates.ts'
import { type Rig, SERIAL, makeRig } from '../fixtures/vend-rig.ts'

const DAY_MS = 24 * 3_600_000
const STRANGER = 'ab'.repeat(32)

/** One replica's sweep over a rig. */
function replica (rig: Rig, changes: Partial<SweepRun> = {}) {
  const { registry, controlPlane, findings, products, clock } = rig
  const devicesPerPage = { size: 250 }
  const run: SweepRun = {
    request: { requestId: 'sweep', dryRun: false },
    actions: [],
    devices: registry,
    catalog: {
      findByCertificate: id => registry.findByCertificate(id),
      async list ({ cursor = '0' }) {
        const end = Number(cursor) + devicesPerPage.size
        const all = registry.all().map(({ serialNumber, product, state, certificate }): ListedDevice =>
          ({ serialNumber, product, state, ...certificate && { certificateId: certificate.certificateId } }))
        return { devices: all.slice(Number(cursor), end), ...(end < all.length && { nextCursor: String(end) }) }
      }
    },
    findings,
    products,
    controlPlane,
    disable: (device, requestId) => pause(device, requestId, {
      registry, renewals: registry.renewals, keyOwners: rig.keyOwners, controlPlane, now: () => clock.now, deadline, claimLifetimeMs: 30_000, newOperationId: () => 'pause'
    }),
    now: () => clock.now,
    deadline,
    intervalMs: DAY_MS,
    seen: new SeenCertificates(),
    stuck: { revision: -1, tries: 0 },
    onLooked () {},
    ...changes
  }
  return {
    run,
    devicesPerPage,
    /** Goes on for `pages`; a pass that is due begins. */
    step: (pages = 100) => sweep(run, pages),
    /** One more pass, a day later, and what it noted. */
    async pass (): Promise<string[]> {
      clock.now += DAY_MS
      run.actions = []
      await sweep(run, 100)
      return run.actions.map(({ step, outcome, detail }: ReconcileAction) => `${step} ${outcome}: ${detail}`)
    }
  }
}

function deadline (): AbortSignal {
  return new AbortController().signal
}

/** A rig with a vended device, long ago. */
async function vended (changes: Partial<Product> = {}) {
  const rig = await makeRig(undefined, changes)
  const { certificate: { certificateId } } = await rig.vend()
  rig.clock.now += 60_000
  return { rig, certificateId, ...replica(rig) }
}

/** Passes until the device is in the sample. */
async function passes ({ pass }: { pass: () => Promise<string[]> }): Promise<string[]> {
  const noted: string[] = []
  for (let n = 0; n < SAMPLE_PASSES; n++) noted.push(...await pass())
  return noted
}

await t.test('a fleet that agrees has no findings, and certificates of no device are left alone', async t => {
  const world = await vended()
  world.rig.controlPlane.statuses.set(STRANGER, 'ACTIVE')
  t.same(await passes(world), [])
  t.match(await world.rig.findings.position(), { pass: SAMPLE_PASSES, phase: 'rest', looked: 2, durationMs: 0 })
  t.equal(world.rig.controlPlane.statuses.get(STRANGER), 'ACTIVE')
})

await t.test('a status that was changed past the service is found in the next pass, and stays until it is put right', async t => {
  const { rig, certificateId, pass } = await vended()
  t.same(await pass(), [])
  for (const status of ['INACTIVE', 'REVOKED', 'PENDING_TRANSFER' as 'INACTIVE']) {
    rig.controlPlane.statuses.set(certificateId, status as 'INACTIVE')
    t.same(await pass(), [`report-drift later: the registry says ACTIVE, AWS IoT says ${status}`])
    t.same(await pass(), [], 'told once')
    t.match(await rig.findings.of(SERIAL), [{ kind: 'status-differs', certificateId, registry: 'ACTIVE', aws: status }])
    t.match(await rig.reconcile(), { drift: 1, actions: [] }, 'and stays')
    t.match(await rig.registry.find(SERIAL), { state: 'ACTIVE' }, 'nothing is changed')
  }
  rig.controlPlane.statuses.set(certificateId, 'ACTIVE')
  t.match(await rig.reconcile(), { drift: 0, actions: [] }, 'reconcile looks at open findings again')
})

await t.test('what operators did is compared too', async t => {
  for (const [operation, state, status] of [['disable', 'DISABLED', 'INACTIVE'], ['revoke', 'REVOKED', 'REVOKED']] as const) {
    const { rig, certificateId, pass } = await vended()
    await rig.operate(operation)
    t.equal(rig.controlPlane.statuses.get(certificateId), status)
    t.same(await pass(), [])
    rig.controlPlane.statuses.set(certificateId, 'ACTIVE')
    t.same(await pass(), [`report-drift later: the registry says ${state}, AWS IoT says ACTIVE`])
  }
})

await t.test('a certificate that AWS IoT has no more is found in the next pass', async t => {
  const { rig, certificateId, pass } = await vended()
  rig.controlPlane.statuses.delete(certificateId)
  t.same(await pass(), ['report-drift later: the registry says ACTIVE, AWS IoT says that there is no such certificate'])
  t.match(await rig.findings.of(SERIAL), [{ kind: 'certificate-missing', certificateId }])
  t.match(await rig.findings.count(), { 'certificate-missing': 1, 'status-differs': 0 })
})

await t.test('thing, policy and other certificates are looked at within so many passes', async t => {
  const { rig, certificateId, ...world } = await vended()
  rig.controlPlane.policies.set(certificateId, ['another'])
  t.same(await passes(world), ['report-drift later: the registry says policy policy, AWS IoT says that the certificate has not the policy'])
  rig.controlPlane.policies.set(certificateId, ['another', 'policy'])
  rig.controlPlane.bound.delete(certificateId)
  t.match(await rig.reconcile(), { drift: 1, findings: { 'policy-detached': 0, 'thing-detached': 1 } }, 'one look at a finding sees all of the device')
  rig.controlPlane.bound.add(certificateId)
  t.match(await rig.reconcile(), { drift: 0 })
  rig.controlPlane.statuses.set(STRANGER, 'ACTIVE')
  rig.controlPlane.bound.add(STRANGER)
  t.match(await passes(world), [/also has abab.*, ACTIVE$/])
  t.match(await rig.findings.of(SERIAL), [{ kind: 'other-certificate-active', certificateId: STRANGER }])
  rig.controlPlane.statuses.set(STRANGER, 'INACTIVE')
  t.match(await rig.reconcile(), { drift: 0 })
})

await t.test('each device is in the sample once in so many passes', async t => {
  const { rig, pass } = await vended()
  for (let n = 0; n < 20; n++) await rig.register(`other-${n}`)
  rig.controlPlane.calls.length = 0
  for (let n = 0; n < SAMPLE_PASSES; n++) await pass()
  t.equal(rig.controlPlane.calls.filter(call => call === 'certificatesOf').length, 21)
})

await t.test('a certificate that was made since the pass before is looked at closely', async t => {
  for (let pass = 1; pass <= SAMPLE_PASSES; pass++) {
    const rig = await makeRig()
    const { step } = replica(rig)
    await step()
    await rig.vend()
    rig.controlPlane.policies.clear()
    rig.clock.now += DAY_MS
    await step()
    t.match(await rig.findings.count(), { 'policy-detached': 1 })
  }
})

await t.test('a device that something is being done to is left to a later pass', async t => {
  const { rig, certificateId, pass } = await vended()
  rig.controlPlane.statuses.set(certificateId, 'INACTIVE')
  rig.controlPlane.before = async operation => {
    // Between the look at the row and the answer of AWS IoT an operator comes.
    if (operation !== 'describe') return
    rig.controlPlane.before = () => {}
    await rig.operate('disable')
  }
  t.same(await pass(), [])
  t.same(await rig.findings.of(SERIAL), [])
})

await t.test('the position outlives the replica, and of two replicas one moves it', async t => {
  const { rig, certificateId } = await vended()
  for (let n = 0; n < 5; n++) rig.controlPlane.statuses.set(`${n}`.repeat(64), 'ACTIVE')
  rig.controlPlane.pageSize = 2
  const [first, second] = [replica(rig), replica(rig)]
  t.match(await first.step(2), { pass: 1, phase: 'certificates', looked: 4 })
  const marker = (await rig.findings.position())?.cursor
  t.ok(marker)
  const [a, b] = await Promise.all([second.step(1), replica(rig).step(1)])
  t.match([a, b].map(({ looked }) => looked), [6, 6], 'once')
  // The certificates were listed by another replica: AWS IoT is asked.
  rig.controlPlane.calls.length = 0
  t.match(await second.step(), { phase: 'rest', pass: 1, looked: 6 })
  t.ok(rig.controlPlane.calls.includes('describe'))
  rig.controlPlane.calls.length = 0
  t.match(await second.step(), { pass: 1 }, 'the next pass begins an interval after the last began')
  t.same(rig.controlPlane.calls, [])
  rig.clock.now += DAY_MS
  rig.controlPlane.statuses.set(certificateId, 'INACTIVE')
  t.match(await second.step(1), { pass: 2, phase: 'certificates', previousStartedAt: rig.clock.now - DAY_MS })
  t.match(await rig.findings.count(), { 'status-differs': 1 }, 'a finding does not wait for the end of its pass')
})

await t.test('one can be asked for before its time', async t => {
  const { run, step } = await vended()
  await step()
  t.match(await sweep(run, 100, true), { pass: 2, phase: 'rest' })
})

await t.test('where AWS IoT does not answer, the same page is tried again; a device that fails for itself is passed over', async t => {
  const { rig, certificateId, run, step } = await vended()
  rig.controlPlane.statuses.set(certificateId, 'INACTIVE')
  const codes: ('aws-iot-throttled' | 'aws-iot-unavailable' | 'aws-iot-refused')[] = [
    'aws-iot-throttled', 'aws-iot-throttled', 'aws-iot-throttled', 'aws-iot-throttled', 'aws-iot-unavailable'
  ]
  rig.controlPlane.before = operation => { if (operation === 'describe' && codes.length > 0) throw new CvmError(codes[0]!) }
  rig.clock.now += DAY_MS
  for (; codes.length > 1; codes.shift()) {
    await t.rejects(step(), { code: codes[0] })
    t.match(await rig.findings.position(), { phase: 'certificates', looked: 0 })
  }
  run.stuck.tries = 0
  await t.rejects(step(), { code: 'aws-iot-unavailable' })
  await t.rejects(step(), { code: 'aws-iot-unavailable' })
  t.match(await step(), { phase: 'rest' }, 'the third time')
  t.match(run.actions, [{ step: 'report-drift', outcome: 'failed', serialNumber: SERIAL, detail: 'aws-iot-unavailable' }])
  codes[0] = 'aws-iot-refused'
  run.actions = []
  rig.clock.now += DAY_MS
  t.match(await step(), { phase: 'rest', pass: 2 }, 'at once where it is the set-up')
  t.match(run.actions, [{ outcome: 'failed', detail: 'aws-iot-refused' }])
})

await t.test('a cursor that is taken no more begins its part anew', async t => {
  const { rig, step } = await vended()
  rig.controlPlane.statuses.set(STRANGER, 'ACTIVE')
  rig.controlPlane.pageSize = 1
  t.match(await step(1), { cursor: String })
  let refuses = true
  rig.controlPlane.before = operation => {
    if (operation !== 'listPage' || !refuses) return
    refuses = false
    throw new CvmError('aws-iot-refused')
  }
  const again: SweepPosition = await step(1)
  t.match(again, { phase: 'certificates', pass: 1 })
  t.equal(again.cursor, undefined)
  t.match(await step(), { phase: 'rest' })
})

await t.test('an accepted finding is looked at in each pass, and comes back when it changes', async t => {
  const { rig, certificateId, pass } = await vended()
  const accept = async (t: Test) => {
    const [finding] = await rig.findings.of(SERIAL)
    t.ok(finding && await rig.findings.accept(finding, { at: 1, actor: 'ada', reason: 'known' }))
  }
  rig.controlPlane.statuses.set(certificateId, 'INACTIVE')
  await pass()
  await accept(t)
  t.same(await pass(), [])
  t.match(await rig.reconcile(), { drift: 0 })
  rig.controlPlane.statuses.set(certificateId, 'REVOKED')
  t.same(await pass(), ['report-drift later: the registry says ACTIVE, AWS IoT says REVOKED'])
  t.match(await rig.reconcile(), { drift: 1 })
  await accept(t)
  rig.controlPlane.statuses.set(certificateId, 'ACTIVE')
  t.same(await pass(), [])
  t.same(await rig.findings.of(SERIAL), [], 'it has ended')
})
