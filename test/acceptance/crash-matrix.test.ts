// G1–G4 where a vend is hurt at exactly one of its calls to AWS: every call that a clean vend makes, before AWS gets it and after AWS has
// done it, by SIGKILL, by being cut off from AWS, by a lost answer; both ways of vending; with one replica and with three. A sample
// (test/fixtures/proof-size.ts) takes some of these cells, with one replica or with three; over eighteen days it has taken each.
import { X509Certificate, createPublicKey } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { setTimeout as delay } from 'node:timers/promises'
import t from 'tap'
import type { Test } from 'tap'
import { Observer } from './observer.ts'
import { type Attempt, PATHS, type Way, attempt, isPassing, persist } from './persistent-client.ts'
import { folder } from './processes.ts'
import { BEST_ENGINE, CLEAN_WITHIN_MS, CURED_WITHIN_MS, type Fleet, type Replica, holdsOnly, startFleet, timesFor, unfinished } from './fleet.ts'
import type { Device } from './service-process.ts'
import { type Armed, KINDS, PHASES, type Step, type Strike, Strikes } from './strikes.ts'
import { keyAndCsr } from './tools.ts'
import { isWhole, proofDay, proofSize, sliceOfDay } from '../fixtures/proof-size.ts'

t.setTimeout(600_000)

const WAYS = Object.keys(PATHS) as Way[]
/** Replicas. */
const SIZES = [1, 3]
/** Cells at once where they do not disturb each other. */
const AT_ONCE = 12
/** Cells of a sample. */
const SAMPLE = 12
/** What a service answers that is too slow, although the commit may have taken effect. */
const OUT_OF_TIME: ReadonlySet<string> = new Set(['deadline-exceeded', 'registry-unavailable'])
/** Devices for a cell, until the vend of one comes as far as the call that is to be hurt. */
const TRIES = 20

/** A step of a way of vending; `fresh` when only the first vend of a process takes it, `last` for the one that ends the vend. */
interface Place extends Step { readonly way: Way, readonly fresh: boolean, readonly last: boolean }

interface Cell extends Strike { readonly step: Place }

type Times = ReturnType<typeof timesFor>

interface Story { readonly state: string, readonly certificateId?: string, readonly history: { event: string, requestId: string }[] }

/** The calls that a clean vend makes: by looking, so that a new one cannot be forgotten; and how long many of them take at once. */
async function discover (t: Test): Promise<{ places: Place[], crowdMs: number }> {
  const observer = new Observer()
  const strikes = new Strikes(observer)
  const world = new World(t, await startFleet(t, WAYS.length, strikes, { RECONCILE_INTERVAL_MS: '600000' }), observer, strikes)
  const places = await Promise.all(WAYS.map(async () => [] as Place[]))
  const vendBy = async (n: number, way: Way, tries = 1) => {
    const { body } = await world.newDevice(way)
    const statuses: number[] = []
    for (let status = 0; status !== 201 && status !== 200; statuses.push(status)) {
      if (statuses.length === tries) throw new Error(`a clean vend ended with ${statuses.join(', ')}`)
      status = (await attempt(world.fleet.replicas[n]!.url(), way, body)).status
    }
  }
  for (const [n, way] of WAYS.entries()) {
    const vend = () => vendBy(n, way)
    const first = await strikes.traced(vend)
    const second = new Set((await strikes.traced(vend)).map(({ name }) => name))
    places[n] = first.map((step, i) => ({ ...step, way, fresh: !second.has(step.name), last: i === first.length - 1 }))
  }
  const began = Date.now()
  // A busy machine may refuse or overrun one of a crowd.
  await Promise.all(Array.from({ length: AT_ONCE }, (_, n) => vendBy(n % 2, WAYS[n % 2]!, TRIES)))
  const crowdMs = Date.now() - began
  await Promise.all(world.fleet.replicas.map(replica => replica.kill()))
  return { places: places.flat(), crowdMs }
}

/** A device, what it asks for, and what has happened to it. */
interface Patient {
  readonly cell: Cell
  readonly device: Device
  readonly body: string
  readonly keyFile?: string
  readonly armed: Armed
  readonly first: Promise<Attempt>
  attempts: Attempt[]
}

class World {
  readonly #t: Test
  readonly fleet: Fleet
  readonly observer: Observer
  readonly strikes: Strikes
  readonly patients: Patient[] = []
  readonly bystanders: Patient[] = []

  constructor (t: Test, fleet: Fleet, observer: Observer, strikes: Strikes) {
    this.#t = t
    this.fleet = fleet
    this.observer = observer
    this.strikes = strikes
  }

  replica (n: number): Replica {
    return this.fleet.replicas[n % this.fleet.replicas.length]!
  }

  async newDevice (way: Way) {
    const device = await this.fleet.aws.register()
    if (way === 'keys') return { device, body: JSON.stringify(device) }
    const { csr, keyFile } = await keyAndCsr(folder(this.#t), device.serialNumber)
    this.observer.expect(device.serialNumber, csr)
    return { device, keyFile, body: JSON.stringify({ ...device, certificateSigningRequest: csr }) }
  }

  /**
   * Sends the request of a new device to a replica; resolves when the call that is to be hurt has been. A vend that ends before that,
   * because the machine is too busy, is tried again with another device; the one that was left must be well in the end all the same.
   */
  async hurt (cell: Cell, n: number): Promise<Patient> {
    const { way } = cell.step
    for (let tries = 1; ; tries++) {
      const made = await this.newDevice(way)
      const armed = this.strikes.arm(made.device.serialNumber, cell)
      const first = attempt(this.replica(n).url(), way, made.body)
      const patient: Patient = { ...made, cell, armed, first, attempts: [] }
      await Promise.race([armed.struck, first])
      if (armed.struckAt > 0 || tries === TRIES) {
        this.patients.push(patient)
        return patient
      }
      this.bystanders.push(patient)
      await this.cure(patient, n)
    }
  }

  /** The same request again, elsewhere where there is an elsewhere; there at once, as behind a balancer. */
  async cure (patient: Patient, n: number): Promise<void> {
    const { first, body, cell: { step: { way } }, device } = patient
    const again = () => persist(tries => this.replica(n + 1 + tries).url(), way, body, CURED_WITHIN_MS)
    const isAlone = this.fleet.replicas.length === 1
    const peace = first.finally(() => this.strikes.disarm(device.serialNumber))
    const retried = isAlone ? peace.then(answer => isPassing(answer) ? delay(answer.retryAfterMs ?? 50).then(again) : []) : again()
    patient.attempts = [await peace, ...await retried]
  }

  /** Cells of one replica that is killed once all of them have been hurt. */
  async killed (cells: readonly Cell[]): Promise<void> {
    const patients = await Promise.all(cells.map(cell => this.hurt(cell, 0)))
    await this.replica(0).kill()
    const started = this.replica(0).start()
    if (this.fleet.replicas.length === 1) await started
    await Promise.all(patients.map(patient => this.cure(patient, 0)))
    await started
  }

  /** Cells whose faults do not keep others from being served, so many at once. */
  async pooled (cells: readonly Cell[], atOnce: number): Promise<void> {
    const waiting = [...cells.entries()]
    await Promise.all(Array.from({ length: atOnce }, async () => {
      for (let next = waiting.shift(); next; next = waiting.shift()) await this.cure(await this.hurt(next[1], next[0]), next[0])
    }))
  }

  /** A call that names no device is known by being the only one of its kind. */
  async alone (cells: readonly Cell[]): Promise<void> {
    for (const cell of cells) {
      if (cell.step.fresh) {
        await this.replica(0).kill()
        await this.replica(0).start()
      }
      if (cell.kind === 'kill') await this.killed([cell])
      else await this.pooled([cell], 1)
    }
  }

  async run (cells: readonly Cell[]): Promise<void> {
    const kills = cells.filter(({ kind, step }) => kind === 'kill' && !step.nameless)
    for (let i = 0; i < kills.length; i += AT_ONCE) await this.killed(kills.slice(i, i + AT_ONCE))
    await this.pooled(cells.filter(cell => !kills.includes(cell) && !cell.step.nameless), AT_ONCE)
    await this.alone(cells.filter(({ step }) => step.nameless))
  }

  /** What is wrong with a cell, in words. */
  async faults (patient: Patient): Promise<string[]> {
    const { cell: { step, phase }, device: { serialNumber }, armed, attempts, keyFile } = patient
    const faults: string[] = []
    const expect = (holds: boolean, fault: string) => { if (!holds) faults.push(fault) }
    const served = attempts.flatMap(({ vended }) => vended ?? [])
    const story = await this.fleet.ask(`/v1/devices/${serialNumber}`) as Story
    const { certificateId = '' } = story
    const keyLost = step.way === 'keys' && served.length === 0 && attempts.at(-1)?.code === 'key-not-recoverable'

    expect(armed.struckAt > 0 || this.bystanders.includes(patient), 'its call never came')
    expect(served.length > 0 || keyLost, 'was never served')
    if (step.way === 'csr') expect(attempts.at(-1)?.vended !== undefined, 'the last answer is no certificate')
    else expect(served.length < 2, 'was served more than one key pair')
    // Then a request of its own has committed, and its answer was lost: by the fault, or because a slow machine was out of time.
    const committedBy = story.history.find(({ event }) => event === 'activated')?.requestId
    const isLost = ({ requestId, vended, code }: Attempt) =>
      requestId === committedBy && !vended && ((step.last && phase === 'after') || OUT_OF_TIME.has(code ?? ''))
    if (keyLost) expect(attempts.some(isLost), 'lost its key without a commit')
    expect(served.every(vended => vended.certificateId === certificateId), 'an answer carries another certificate')
    expect(new Set(served.map(({ certificatePem }) => certificatePem)).size < 2, 'the answers differ')
    for (const { certificatePem } of served) {
      const key = new X509Certificate(certificatePem).publicKey
      if (keyFile) expect(key.equals(createPublicKey(readFileSync(keyFile))), 'the certificate carries another key')
    }
    expect(story.state === 'ACTIVE', `is ${story.state}`)
    expect(this.observer.activeOf(serialNumber).join() === certificateId, `has ${this.observer.activeOf(serialNumber).length} ACTIVE certificates`)
    return faults.map(fault => `${fault}: ${answersOf(attempts)}`)
  }

  /** The certificates that the devices have. */
  async certificates (): Promise<Set<string>> {
    const devices = [...this.patients, ...this.bystanders].map(({ device }) => device)
    const stories = await Promise.all(devices.map(async ({ serialNumber }) => await this.fleet.ask(`/v1/devices/${serialNumber}`) as Story))
    return new Set(stories.map(({ certificateId = '' }) => certificateId))
  }
}

const answersOf = (attempts: readonly Attempt[]) =>
  attempts.map(({ status, code, vended }) => code ?? (vended ? `${status} ${vended.certificateId.slice(0, 8)}` : 'no answer')).join(', ')

const nameOf = ({ step, phase, kind }: Cell) => `${step.name} ${phase} ${kind}`

async function matrix (t: Test, cells: readonly Cell[], size: number, times: Times): Promise<void> {
  const began = Date.now()
  const observer = new Observer()
  const strikes = new Strikes(observer)
  const world = new World(t, await startFleet(t, size, strikes, times), observer, strikes)
  await world.run(cells)
  const ranMs = Date.now() - began
  const where = `${size} ${size === 1 ? 'replica' : 'replicas'}`

  let violations = 0
  const cures: { ms: number, cell: Cell, answers: string }[] = []
  for (const patient of [...world.patients, ...world.bystanders]) {
    const faults = await world.faults(patient)
    if (faults.length > 0) violations++
    const { cell, armed: { struckAt }, attempts } = patient
    t.strictSame(faults, [], `${where}, ${cell.step.way}: ${nameOf(cell)}${struckAt > 0 ? '' : ', a device that did not come so far'}`)
    if (struckAt > 0) cures.push({ ms: Math.max(...attempts.map(({ endedAt }) => endedAt)) - struckAt, cell, answers: answersOf(attempts) })
  }
  const leftovers = await holdsOnly(world.fleet, await world.certificates(), CLEAN_WITHIN_MS)
  t.equal(world.patients.length, cells.length, `${where}: every cell was run`)
  t.strictSame(leftovers.faults, [], `${where}: AWS IoT holds one ACTIVE certificate for each device, and no other`)
  t.strictSame(observer.violations, [], `${where}: no device ever had two ACTIVE certificates`)
  t.strictSame(await unfinished(world.fleet, CLEAN_WITHIN_MS), { actions: [], backlog: 0, drift: 0 }, `${where}: reconcile has nothing left to do`)

  violations += leftovers.faults.length + observer.violations.length
  const keysLost = world.patients.filter(({ attempts }) => !attempts.some(({ vended }) => vended))
  t.comment(`${where} on ${BEST_ENGINE.name}: ${world.patients.length} cells (${world.bystanders.length} more devices), ${violations} violations; ${observer.activations} activations seen; ` +
    `clean ${leftovers.ms} ms after the last cell; ran ${ranMs} ms; ` +
    `key-not-recoverable after a commit: ${keysLost.map(({ cell }) => nameOf(cell)).join(', ') || 'none'}`)
  for (const { ms, cell, answers } of cures.sort((a, b) => b.ms - a.ms).slice(0, 3)) {
    t.comment(`${where}: among the slowest cures, ${ms} ms after the strike: ${cell.step.way}, ${nameOf(cell)}: ${answers}`)
  }
}

await t.test(`one fault at any one call of a vend (${proofSize})`, async t => {
  const { places, crowdMs } = await discover(t)
  const all = places.flatMap(step => PHASES.flatMap(phase => KINDS.map((kind): Cell => ({ step, phase, kind }))))
  const cells = isWhole ? all : sliceOfDay(all, SAMPLE, Math.floor(proofDay / SIZES.length))
  const sizes = isWhole ? SIZES : [SIZES[proofDay % SIZES.length]!]
  for (const way of WAYS) {
    const calls = places.filter(place => place.way === way).map(({ name }) => name)
    t.ok(calls.length >= 5, `${way}: the calls of a clean vend: ${calls.join(', ')}`)
  }
  await Promise.all(sizes.map(size => matrix(t, cells, size, timesFor(crowdMs * sizes.length))))
  t.comment(`the matrix: ${cells.length * sizes.length} of ${all.length * SIZES.length} cells: ` +
    `${places.length} calls × ${PHASES.join(', ')} × ${KINDS.join(', ')} × ${SIZES.join(', ')} replicas; ${AT_ONCE} clean vends take ${crowdMs} ms`)
})
