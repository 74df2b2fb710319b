// A deploy and its rollback: this version and an older one share a table, each finishes what the other left, and the older one leaves alone
// what only the newer one knows.
import { randomUUID } from 'node:crypto'
import t, { type Test } from 'tap'
import { isWhole, proofDay, proofSize, sliceOfDay } from '../fixtures/proof-size.ts'
import { BEST_ENGINE, CLEAN_WITHIN_MS, CURED_WITHIN_MS, holdsOnly, startFleet, unfinished } from './fleet.ts'
import { keyAndRequest } from './key-and-request.ts'
import { Observer } from './observer.ts'
import { olderServer } from './older-version.ts'
import { attempt, persist } from './persistent-client.ts'
import { SERVER } from './processes.ts'
import { RenewingDevice } from './renewing-device.ts'
import type { Device } from './service-process.ts'
import { PHASES, Strikes } from './strikes.ts'

t.setTimeout(600_000)

const CROWD = isWhole ? 40 : 12
/** Calls of the former that a takeover hurts in a sample. */
const SAMPLE = 6

interface Story { readonly state: string, readonly certificateId?: string }

/** Two programs on one table, which share a pepper and the lease of reconcile. */
async function handover (t: Test, programs: readonly [former: string, latter: string]) {
  const observer = new Observer()
  const strikes = new Strikes(observer)
  const fleet = await startFleet(t, programs, strikes)
  const [former, latter] = fleet.replicas as [typeof fleet.replicas[number], typeof fleet.replicas[number]]
  const wanted = new Set<string>()
  return {
    observer,
    strikes,
    fleet,
    former,
    latter,
    wanted,
    /** A device that the former has registered, so that its token is a hash of the former's making. */
    async registered () {
      const { serialNumber, registrationToken } = await fleet.ask('/v1/devices', { serialNumber: `sn-${randomUUID()}` }, former) as Device
      const { csr, body } = await keyAndRequest({ serialNumber, registrationToken })
      observer.expect(serialNumber, csr)
      return { serialNumber, body }
    },
    /** What must be true whoever came first: AWS IoT holds what the devices have, and nothing is left to do. */
    async holds (t: Test) {
      t.strictSame((await holdsOnly(fleet, wanted, CLEAN_WITHIN_MS)).faults, [], 'AWS IoT holds one ACTIVE certificate for each device, and no other')
      t.strictSame(observer.violations, [], 'no device ever had two ACTIVE certificates')
      t.strictSame(await unfinished(fleet, CLEAN_WITHIN_MS), { actions: [], backlog: 0, drift: 0 }, 'the latter has nothing left to do')
    }
  }
}

/** The former vends, is killed at each of its calls, and is gone; the latter takes over. */
async function takeover (t: Test, programs: readonly [former: string, latter: string]): Promise<void> {
  const { fleet, former, latter, strikes, wanted, registered, holds } = await handover(t, programs)
  const clean = await registered()
  let first = await attempt(former.url(), 'csr', clean.body)
  const traced = await registered()
  const steps = (await strikes.traced(async () => { wanted.add((await attempt(former.url(), 'csr', traced.body)).vended!.certificateId) })).filter(({ nameless }) => !nameless)
  const all = steps.flatMap(step => PHASES.map(phase => ({ step, phase, kind: 'kill' } as const)))
  const cells = isWhole ? all : sliceOfDay(all, SAMPLE, Math.floor(proofDay / 2))
  t.ok(all.length >= 12, `the former's calls: ${steps.map(({ name }) => name).join(', ')}`)

  const left = await Promise.all(cells.map(async cell => {
    const device = await registered()
    const armed = strikes.arm(device.serialNumber, cell)
    const answer = attempt(former.url(), 'csr', device.body)
    await Promise.race([armed.struck, answer])
    return { cell, armed, answer, ...device }
  }))
  const revoked = await registered()
  const itsOwn = await attempt(former.url(), 'csr', revoked.body)
  await former.kill()
  const struck = await Promise.all(left.map(async ({ cell: { step, phase }, armed, answer, serialNumber, body }) => {
    await answer
    strikes.disarm(serialNumber)
    const last = (await persist(() => latter.url(), 'csr', body, CURED_WITHIN_MS)).at(-1)!
    t.ok(last.vended, `killed ${phase} ${step.name}: the latter finishes (${last.status} ${last.code ?? ''})`)
    wanted.add(last.vended?.certificateId ?? '')
    return armed.struckAt > 0
  }))
  // Reconcile's calls may have been counted among the steps.
  t.ok(struck.filter(Boolean).length >= (isWhole ? 12 : 2), `${struck.filter(Boolean).length} of ${cells.length} calls were killed`)
  const again = await attempt(latter.url(), 'csr', clean.body)
  t.strictSame([again.status, again.vended], [200, first.vended], 'a certificate that the former gave is given again, the same')
  wanted.add(first.vended!.certificateId)
  await fleet.ask(`/v1/devices/${revoked.serialNumber}/revoke`, { reason: 'lost' })
  t.match(await fleet.ask(`/v1/devices/${revoked.serialNumber}`), { state: 'REVOKED', certificateId: itsOwn.vended!.certificateId })
  t.match(await attempt(latter.url(), 'csr', revoked.body), { status: 403 }, 'and revoked')
  await former.start()
  first = await attempt(former.url(), 'csr', clean.body)
  t.strictSame([first.status, first.vended], [200, again.vended], 'the former, when it is back, gives it too')
  await fleet.ask(`/v1/devices/${revoked.serialNumber}/decommission`, { reason: 'gone' }, former)
  await holds(t)
}

const older = await olderServer(t)
if (older) {
  t.comment(`on ${BEST_ENGINE.name} (${proofSize})`)
  // A sample takes a deploy one day, and a rollback the next.
  if (isWhole || proofDay % 2 === 0) await t.test('a deploy: what the older version began, this one finishes', t => takeover(t, [older, SERVER]))
  if (isWhole || proofDay % 2 === 1) await t.test('a rollback: what this version began, the older one finishes', t => takeover(t, [SERVER, older]))

  await t.test('both at once: a device that asks both gets one certificate, and the older leaves renewals alone', async t => {
    const { fleet, former, latter, observer, wanted, registered, holds } = await handover(t, [older, SERVER])
    const devices = await Promise.all(Array.from({ length: CROWD }, registered))
    const answers = await Promise.all(devices.map(({ body }) => Promise.all([former, latter].map(replica => persist(() => replica.url(), 'csr', body, CURED_WITHIN_MS)))))
    for (const both of answers) {
      const pems = new Set(both.map(attempts => attempts.at(-1)?.vended?.certificatePem))
      if (pems.size !== 1 || pems.has(undefined)) t.fail('not the same', { both })
      wanted.add(both[0]!.at(-1)?.vended?.certificateId ?? '')
    }
    t.equal(wanted.size, CROWD)

    // Renewals are what the older version does not know.
    const story = async (serialNumber: string) => await fleet.ask(`/v1/devices/${serialNumber}`) as Story
    const device = await RenewingDevice.vended(t, fleet, observer, () => latter.url())
    t.match(await device.persist('renew'), { status: 201 })
    t.match(await fleet.ask(`/v1/devices/${device.serialNumber}`, undefined, former), { state: 'ACTIVE', certificateId: device.present.certificateId })
    t.match(await fleet.ask('/v1/reconcile', {}, former), { drift: 0 })
    t.match(await device.persist('confirm'), { status: 200 }, 'confirmed after the older version has looked at it')
    t.match(await fleet.ask('/v1/reconcile', {}, former), { drift: 0 })
    t.match(await story(device.serialNumber), { state: 'ACTIVE', certificateId: device.next.certificateId })
    wanted.add(device.next.certificateId ?? '')
    await holds(t)
  })
}
