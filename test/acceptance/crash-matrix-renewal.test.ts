// G1, G3 and G5 where a renewal is hurt at exactly one of its calls to AWS: every call that a clean renewal and its confirmation make,
// before AWS gets it and after it is done, by SIGKILL, by being cut off from AWS, by a lost answer. The device asks until it is served.
// A sample (test/fixtures/proof-size.ts) takes some of these cells each day.
import t, { type Test } from 'tap'
import { proofSize, sliceOfToday } from '../fixtures/proof-size.ts'
import { CLEAN_WITHIN_MS, holdsOnly, startFleet, timesFor, unfinished } from './fleet.ts'
import { Observer } from './observer.ts'
import { ASKED, type Asked, type Reply, RenewingDevice } from './renewing-device.ts'
import { KINDS, PHASES, type Step, type Strike, Strikes } from './strikes.ts'

t.setTimeout(600_000)

interface Cell extends Strike { readonly asked: Asked }

const AT_ONCE = 12
/** Cells of a sample. */
const SAMPLE = 12

const observer = new Observer()
const strikes = new Strikes(observer)
/** At first without reconcile, whose calls are none of a renewal's. */
let fleet = await startFleet(t, 1, strikes, { RECONCILE_INTERVAL_MS: '600000' })

const replica = () => fleet.replicas[0] as typeof fleet.replicas[number]

/** Has the device ask, and resolves once the call has been hurt, or the answer is there. */
async function hurt (t: Test, cell: Cell) {
  const device = await RenewingDevice.vended(t, fleet, observer, () => replica().url())
  if (cell.asked === 'confirm') await device.persist('renew')
  const armed = strikes.arm(device.serialNumber, cell)
  const first = device.ask(cell.asked)
  await Promise.race([armed.struck, first])
  return { cell, device, armed, first }
}

async function cure ({ cell: { asked }, device, first }: Awaited<ReturnType<typeof hurt>>): Promise<Reply> {
  await first
  strikes.disarm(device.serialNumber)
  if (asked === 'renew') await device.persist('renew')
  return device.persist('confirm')
}

await t.test(`one fault at any one call of a renewal (${proofSize})`, async t => {
  const steps: Record<Asked, Step[]> = { renew: [], confirm: [] }
  const clean = await RenewingDevice.vended(t, fleet, observer, () => replica().url())
  for (const asked of ASKED) steps[asked] = (await strikes.traced(() => clean.persist(asked))).filter(({ nameless }) => !nameless)
  const began = Date.now()
  await Promise.all(Array.from({ length: AT_ONCE / 2 }, async () => {
    const another = await RenewingDevice.vended(t, fleet, observer, () => replica().url())
    for (const asked of ASKED) await another.persist(asked)
  }))
  const crowdMs = Date.now() - began
  for (const asked of ASKED) t.ok(steps[asked].length >= 3, `${asked}: ${steps[asked].map(({ name }) => name).join(', ')}`)
  const faults = PHASES.flatMap(phase => KINDS.map(kind => ({ phase, kind })))
  const all = ASKED.flatMap(asked => steps[asked].flatMap(step => faults.map((fault): Cell => ({ asked, step, ...fault }))))
  const cells = sliceOfToday(all, SAMPLE)
  await replica().kill()
  fleet = await startFleet(t, 1, strikes, timesFor(crowdMs))

  const done: { patient: Awaited<ReturnType<typeof hurt>>, last: Reply }[] = []
  for (const isKill of [true, false]) {
    const mine = cells.filter(({ kind }) => (kind === 'kill') === isKill)
    for (let n = 0; n < mine.length; n += AT_ONCE) {
      const patients = await Promise.all(mine.slice(n, n + AT_ONCE).map(cell => hurt(t, cell)))
      if (isKill) {
        await replica().kill()
        await replica().start()
      }
      done.push(...await Promise.all(patients.map(async patient => ({ patient, last: await cure(patient) }))))
    }
  }
  const wanted = new Set<string>()
  for (const { patient: { cell, device, armed }, last } of done) {
    const what = `${cell.asked}: ${cell.step.name} ${cell.phase} ${cell.kind}`
    t.ok(armed.struckAt > 0, `${what}: its call came`)
    t.match(last, { status: 200, body: { certificateId: device.next.certificateId } }, `${what}: confirmed in the end`)
    t.strictSame(observer.activeOf(device.serialNumber), [device.next.certificateId], `${what}: the new one alone is ACTIVE`)
    wanted.add(device.next.certificateId ?? '')
  }
  t.strictSame(observer.violations, [], 'no device ever had two ACTIVE certificates')
  t.strictSame((await holdsOnly(fleet, wanted, CLEAN_WITHIN_MS)).faults, [], 'AWS IoT holds one ACTIVE certificate for each device, and no other')
  t.strictSame(await unfinished(fleet, CLEAN_WITHIN_MS), { actions: [], backlog: 0, drift: 0 }, 'reconcile has nothing left to do')
  t.comment(`the matrix of renewals: ${cells.length} of ${all.length} cells: ${steps.renew.length} and ${steps.confirm.length} calls × ${PHASES.join(', ')} × ${KINDS.join(', ')}`)
})
