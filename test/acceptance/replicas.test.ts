// G1, G2, G4 under a crowd while replicas die: three processes, 64 clients, devices that ask twice or with two keys, and a SIGKILL every
// time the replica killed before is back.
import { X509Certificate } from 'node:crypto'
import t from 'tap'
import { isWhole, proofSize } from '../fixtures/proof-size.ts'
import { BEST_ENGINE, CLEAN_WITHIN_MS, CURED_WITHIN_MS, holdsOnly, startFleet, unfinished } from './fleet.ts'
import { keyAndRequest } from './key-and-request.ts'
import { Observer, watchedBy } from './observer.ts'
import { type Attempt, isPassing, persist } from './persistent-client.ts'

t.setTimeout(600_000)

const DEVICES = isWhole ? 2_000 : 100
const CLIENTS = 64
const REPLICAS = 3
/** Every so many devices: one whose request comes twice at once, and one whose second request has another key. */
const EVERY = 20
/** As in production, but sooner. */
const TIMES = { CLAIM_LIFETIME_MS: '6000', VEND_DEADLINE_MS: '5000', AWS_CALL_TIMEOUT_MS: '2000', RECONCILE_INTERVAL_MS: '2000' }

/** One client's errand: a request that is repeated until its answer is final. */
interface Errand { readonly serialNumber: string, readonly body: string, readonly publicKey: Buffer, attempts: Attempt[] }

await t.test(`${DEVICES} devices, ${CLIENTS} clients, ${REPLICAS} replicas that are killed in turn, on ${BEST_ENGINE.name} (${proofSize})`, async t => {
  const observer = new Observer()
  const fleet = await startFleet(t, REPLICAS, watchedBy(observer), TIMES)

  const errands: Errand[] = []
  const register = async (n: number): Promise<void> => {
    const device = await fleet.aws.register()
    const { serialNumber } = device
    const first = await keyAndRequest(device)
    const requests = [first]
    if (n % EVERY === 0) requests.push(first)
    if (n % EVERY === EVERY / 2) requests.push(await keyAndRequest(device))
    for (const { body, csr, publicKey } of requests) {
      observer.expect(serialNumber, csr)
      errands.push({ serialNumber, body, publicKey, attempts: [] })
    }
  }
  const crowd = (work: (n: number) => Promise<void>) => Promise.all(Array.from({ length: CLIENTS }, (_, n) => work(n)))
  await crowd(async first => { for (let n = first; n < DEVICES; n += CLIENTS) await register(n) })

  let kills = 0
  const work = new AbortController()
  const began = Date.now()
  const killer = (async () => {
    for (; !work.signal.aborted || kills < REPLICAS; kills++) {
      const replica = fleet.replicas[kills % REPLICAS]!
      await replica.kill()
      await replica.start()
    }
  })()
  const waiting = [...errands.entries()]
  await crowd(async () => {
    for (let next = waiting.shift(); next; next = waiting.shift()) {
      const [n, errand] = next
      errand.attempts = await persist(tries => fleet.replicas[(n + tries) % REPLICAS]!.url(), 'csr', errand.body, CURED_WITHIN_MS)
    }
  })
  const servedMs = Date.now() - began
  work.abort()
  await killer

  const counts: Record<string, number> = {}
  for (const { status, code } of errands.flatMap(({ attempts }) => attempts)) {
    const what = status === 0 ? 'no answer' : `${status}${code ? ` ${code}` : ''}`
    counts[what] = (counts[what] ?? 0) + 1
  }
  t.strictSame(errands.filter(({ attempts }) => isPassing(attempts.at(-1)!)).length, 0, 'no failure that a retry did not cure')
  const ofDevice = new Map<string, Errand[]>()
  for (const errand of errands) ofDevice.set(errand.serialNumber, [...ofDevice.get(errand.serialNumber) ?? [], errand])
  const wanted = new Set<string>()
  const wrong = [...ofDevice].flatMap(([serialNumber, mine]) => {
    const served = mine.flatMap(({ attempts, publicKey }) => attempts.flatMap(({ vended }) => vended ? { vended, publicKey } : []))
    const pems = new Set(served.map(({ vended }) => vended.certificatePem))
    for (const { vended } of served) wanted.add(vended.certificateId)
    const refused = mine.map(({ attempts }) => attempts.at(-1)!).filter(({ status }) => status >= 300)
    const faults = [
      pems.size !== 1 && `${pems.size} certificates were given to it`,
      served.some(({ vended, publicKey }) => !publicKeyOf(vended.certificatePem).equals(publicKey)) && 'it was given a certificate for another key',
      refused.some(({ code }) => code !== 'already-vended') && `it was told ${refused.map(({ code }) => code).join()}`,
      refused.length > 0 && new Set(mine.map(({ body }) => body)).size === 1 && 'it was refused its own certificate',
      observer.activeOf(serialNumber).join() !== [...served.map(({ vended }) => vended.certificateId)][0] && 'another one is ACTIVE'
    ]
    return faults.filter(fault => fault !== false).map(fault => `${serialNumber}: ${fault}`)
  })
  t.strictSame(wrong, [], 'every device has one certificate, for a key of its own, and every answer carries that one')
  t.equal(wanted.size, DEVICES, 'each its own')
  const { faults, ms } = await holdsOnly(fleet, wanted, CLEAN_WITHIN_MS)
  t.strictSame(faults, [], 'AWS IoT holds one ACTIVE certificate for each device, and no other')
  t.strictSame(observer.violations, [], 'no device ever had two ACTIVE certificates')
  t.strictSame(await unfinished(fleet, CLEAN_WITHIN_MS), { actions: [], backlog: 0, drift: 0 }, 'reconcile has nothing left to do')
  t.comment(`${DEVICES} devices, ${errands.length} requests, ${kills} kills: served in ${servedMs} ms, clean ${ms} ms after that; ${JSON.stringify(counts)}`)
})

/** The SubjectPublicKeyInfo of a certificate. */
function publicKeyOf (certificatePem: string): Buffer {
  return new X509Certificate(certificatePem).publicKey.export({ type: 'spki', format: 'der' })
}
