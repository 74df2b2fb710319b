// G1, G3 and G5 where a renewal is hurt at exactly one of its calls to AWS: every call that a clean renewal and its confirmation make,
// before AWS gets it and after it is done, by SIGKILL, by being cut off from AWS, by a lost answer. The device asks until it is served.
import { createPrivateKey } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { setTimeout as delay } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { proofBy } from '../fixtures/proofs.ts'
import { TIMES, holdsOnly, startFleet, unfinished } from './fleet.ts'
import { Observer } from './observer.ts'
import { folder } from './processes.ts'
import { KINDS, PHASES, type Step, type Strike, Strikes } from './strikes.ts'
import { type Vended, keyAndCsr, vendBody } from './tools.ts'

t.setTimeout(600_000)

const ASKED = ['renew', 'confirm'] as const
type Asked = typeof ASKED[number]
interface Cell extends Strike { readonly asked: Asked }
interface Reply { readonly status: number, readonly body: Partial<Vended> & { code?: string }, readonly retryAfterMs: number }

const AT_ONCE = 12
const CURED_WITHIN_MS = TIMES.CLAIM_LIFETIME_MS + 30_000
const CLEAN_WITHIN_MS = TIMES.CLAIM_LIFETIME_MS + TIMES.RECONCILE_INTERVAL_MS + 20_000

const observer = new Observer()
const strikes = new Strikes(observer)
/** At first without reconcile, whose calls are none of a renewal's. */
let fleet = await startFleet(t, 1, strikes, { RECONCILE_INTERVAL_MS: '600000' })

const replica = () => fleet.replicas[0] as typeof fleet.replicas[number]

async function post (path: string, body: object): Promise<Reply> {
  try {
    const headers = { 'content-type': 'application/json' }
    const signal = AbortSignal.timeout(30_000)
    const answer = await fetch(replica().url() + path, { method: 'POST', headers, body: JSON.stringify(body), signal })
    return { status: answer.status, body: await answer.json() as Reply['body'], retryAfterMs: Number(answer.headers.get('retry-after') ?? 0) * 1000 }
  } catch {
    return { status: 0, body: {}, retryAfterMs: 0 }
  }
}

/** Asks until it is served; what was said at last where it never was. */
async function served (ask: () => Promise<Reply>): Promise<Reply> {
  for (const deadline = Date.now() + CURED_WITHIN_MS; ;) {
    const reply = await ask()
    const isPassing = reply.status === 0 || reply.status >= 500 || reply.retryAfterMs > 0
    if (!isPassing || Date.now() > deadline) return reply
    await delay(reply.retryAfterMs || 200)
  }
}

/** A device with its certificate, and all that it needs to renew it. */
class Device {
  readonly serialNumber: string
  readonly present: Vended
  readonly #keys: { present: string, next: string }
  readonly #csr: string
  next: Partial<Vended> = {}

  private constructor (present: Vended, keys: { present: string, next: string }, csr: string) {
    this.serialNumber = present.serialNumber
    this.present = present
    this.#keys = keys
    this.#csr = csr
  }

  static async vended (t: Test): Promise<Device> {
    const dir = folder(t)
    const device = await fleet.aws.register()
    const [first, second] = [await keyAndCsr(dir, device.serialNumber), await keyAndCsr(dir, device.serialNumber, 'P-256', 'next')]
    for (const { csr } of [first, second]) observer.expect(device.serialNumber, csr)
    const { status, body } = await served(() => post('/v1/certificates', JSON.parse(vendBody(device, first.csr)) as object))
    if (status >= 300) throw new Error(`a clean vend ended with ${status} ${body.code}`)
    return new Device(body as Vended, { present: first.keyFile, next: second.keyFile }, second.csr)
  }

  /** Each time with a new proof, as the README's recipe does. */
  async ask (asked: Asked): Promise<Reply> {
    const { serialNumber, present: { certificateId, endpoint } } = this
    const proof = async (key: string, id: string, csr?: string) =>
      proofBy(createPrivateKey(readFileSync(key)), id, endpoint, Date.now(), csr)
    if (asked === 'confirm') {
      return post('/v1/certificates/confirm', { serialNumber, proof: await proof(this.#keys.next, this.next.certificateId ?? '') })
    }
    const reply = await post('/v1/certificates/renew', {
      serialNumber, certificateSigningRequest: this.#csr, proof: await proof(this.#keys.present, certificateId, this.#csr)
    })
    if (reply.body.certificateId) this.next = reply.body
    return reply
  }

  persist (asked: Asked): Promise<Reply> {
    return served(() => this.ask(asked))
  }
}

/** Has the device ask, and resolves once the call has been hurt, or the answer is there. */
async function hurt (t: Test, cell: Cell) {
  const device = await Device.vended(t)
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

await t.test('one fault at any one call of a renewal', async t => {
  const steps: Record<Asked, Step[]> = { renew: [], confirm: [] }
  const clean = await Device.vended(t)
  for (const asked of ASKED) steps[asked] = (await strikes.traced(() => clean.persist(asked))).filter(({ nameless }) => !nameless)
  for (const asked of ASKED) t.ok(steps[asked].length >= 3, `${asked}: ${steps[asked].map(({ name }) => name).join(', ')}`)
  const faults = PHASES.flatMap(phase => KINDS.map(kind => ({ phase, kind })))
  const cells = ASKED.flatMap(asked => steps[asked].flatMap(step => faults.map((fault): Cell => ({ asked, step, ...fault }))))
  fleet = await startFleet(t, 1, strikes)

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
  t.comment(`the matrix of renewals: ${cells.length} cells: ${steps.renew.length} and ${steps.confirm.length} calls × ${PHASES.join(', ')} × ${KINDS.join(', ')}`)
})
