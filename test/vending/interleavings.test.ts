// G1 to G4 under interleavings of the real use cases over models of their ports: devices' requests, operators and reconcile at once,
// with crashes, lost answers, failures and clock jumps at every call. A sample (test/fixtures/proof-size.ts) takes other seeds each day,
// and each day those that notice a mutant.
import t from 'tap'
import { CvmError } from '../../src/errors.ts'
import { LONGEST_CALL_MS } from '../../src/vending/control-plane.ts'
import type { Operation } from '../../src/vending/device.ts'
import type { Product } from '../../src/vending/product.ts'
import type { Vended } from '../../src/vending/vend-steps.ts'
import type { ReconcileReport } from '../../src/vending/reconcile-run.ts'
import { MUTANTS, type Mutant, type Plan } from '../fixtures/broken-protections.ts'
import { Interleaver, randomFrom } from '../fixtures/interleaver.ts'
import { isWhole, proofDay, proofSize } from '../fixtures/proof-size.ts'
import { CLAIM_LIFETIME_MS, CONFIRM_WITHIN_MS, LAST_LOOK_MS, type Rig, SERIAL, UNPROVEN, makeRig } from '../fixtures/vend-rig.ts'

const COUNT = isWhole ? 100_000 : 2_000
/** Seeds that a run looks through for an interleaving that notices a mutant, where the one that is written down does not. */
const SEARCHED = 20_000
const OPERATED = new Set<string>(['disabled', 'revoked', 'reset', 'enabled'])
const BEYOND = CLAIM_LIFETIME_MS + 2_001
const JUMPS = [1, CLAIM_LIFETIME_MS / 2, CLAIM_LIFETIME_MS, BEYOND, LONGEST_CALL_MS, CONFIRM_WITHIN_MS]
const OPERATIONS: readonly Operation[] = ['revoke', 'disable', 'enable', 'reset']

/** The product of the device: as usual, or one that lets other keys be vended anew for ever. */
const USUAL: Partial<Product> = {}
const GRACE: Partial<Product> = { reVendGraceMs: 1_000_000_000 }
/** A device that has its certificate already, and renews it; as usual and where other keys are vended anew. */
const RENEWED: Partial<Product> = { renewAfterMs: 2 }
/** A device for which certificates are brought, or seen at its first connection, beside what it asks for itself. */
const ADOPTED: Partial<Product> = { renewAfterMs: 3 }
const RENEWED_WITH_GRACE: Partial<Product> = { ...GRACE, renewAfterMs: 2 }
/** A device whose certificates are changed past the service, beside what it and its operators ask for. */
const BY_HAND: Partial<Product> = { renewAfterMs: 4 }
/** As usual, where no worker stands still for long: then more of what is lost is looked for while another attempt begins. */
const BRISK: Partial<Product> = {}

const PRODUCTS: Readonly<Record<Plan, Partial<Product>>> = {
  vends: USUAL,
  'vends anew': GRACE,
  renewals: RENEWED,
  adoptions: ADOPTED,
  'renewals and vends anew': RENEWED_WITH_GRACE,
  'changes past the service': BY_HAND,
  'brisk vends': BRISK
}
/** How the interleavings are split among the plans. */
const SHARES: Readonly<Record<Plan, number>> = {
  vends: 0.35,
  'vends anew': 0.05,
  renewals: 0.25,
  adoptions: 0.2,
  'renewals and vends anew': 0.05,
  'changes past the service': 0.07,
  'brisk vends': 0.03
}

interface World {
  rig: Rig
  interleaver: Interleaver
  random: (below: number) => number
  answers: Vended[]
  /** Certificates whose device was told that they will not come into force. */
  gone: Set<string>
  wasReset: boolean
  product: Partial<Product>
  renews: boolean
  /** Whether somebody has changed a certificate past the service. */
  isByHand: boolean
  seen: Set<string>
}

/**
 * Runs one interleaving; the first broken invariant as text, or undefined. Workers stop at any call for longer than a claim lives and go
 * on; calls that were given up are carried out late. `hunts`: for broken protections, by looking where they are needed: at two keys of
 * one device while time flies.
 */
async function explore (seed: number, plannedAs: Plan, hunts = false, mutant?: Mutant): Promise<string | undefined> {
  const random = randomFrom(seed)
  const product = PRODUCTS[plannedAs]
  const rig = await makeRig(undefined, product)
  // Some lists of certificates are longer than one run looks at. Those that nobody has judged are found by such lists alone.
  if (!hunts && product !== ADOPTED && random(4) === 0) {
    rig.limits.maxPages = 1
    rig.controlPlane.pageSize = 1
  }
  mutant?.apply(rig)
  const renews = product === RENEWED || product === RENEWED_WITH_GRACE || product === BY_HAND
  if (renews) await rig.vend()
  // Requests that confirm at once need a renewal that waits for them.
  if (renews && !hunts && random(2) === 0) await rig.renew()
  const isOver = (signal: AbortSignal) => rig.controlPlane.isOver(signal)
  const wires = { now: () => rig.clock.now, longestMs: CLAIM_LIFETIME_MS + LONGEST_CALL_MS, isOver }
  const interleaver = new Interleaver(random, rig.isComputing, hunts ? undefined : wires)
  const unseen = { answers: [], gone: new Set<string>(), seen: new Set<string>(), wasReset: false, isByHand: false }
  const world: World = { rig, interleaver, random, product, renews, ...unseen }
  const usual = () => hunts ? planHunt(random) : plan(random)
  const workers: Worker[] = renews ? planRenewal(random, product) : product === ADOPTED ? planAdoption(random) : usual()
  const usualOdds = { start: 20, crash: 24, fail: 30, jump: 34, arrive: 38, stop: 43, resume: 45 }
  const brisk = { ...usualOdds, stop: 38, resume: 38 }
  const jumps = hunts ? JUMPS.slice(0, 4) : JUMPS
  const hunting = { start: 0, crash: 1, fail: 2, jump: 10, arrive: 10, stop: 10, resume: 10 }
  const odds = hunts ? hunting : product === BRISK ? brisk : usualOdds
  let steps = 0
  while ((workers.length > 0 || !interleaver.idle) && steps++ < 600) {
    // Time goes on at every step: what a worker took for now is over when its call takes effect.
    rig.clock.now++
    const dice = random(100)
    if (workers.length > 0 && (interleaver.idle || dice < odds.start)) start(world, interleaver, workers.shift() as Worker, steps)
    else if (dice < odds.crash) interleaver.crash()
    else if (dice < odds.fail) await interleaver.fail()
    else if (dice < odds.jump) {
      rig.clock.now += jumps[random(jumps.length)] as number
      if (hunts && workers.length > 0) start(world, interleaver, workers.shift() as Worker, steps)
    } else if (dice < odds.arrive) await interleaver.arrive()
    else if (dice < odds.stop) interleaver.stop()
    else if (dice < odds.resume) interleaver.resume()
    else await interleaver.step()
    const atOnce = world.isByHand ? undefined : violated(world)
    const violation = atOnce ?? await unrecorded(rig) ?? await stranded(world) ?? await unproven(rig)
    if (violation) return violation
  }
  return await recovered(world)
}

type Worker = 'first key' | 'second key' | 'generated key' | 'wrong token' | 'confirm without the key' | 'adopt' | 'adopt another' | 'activate' | 'activate another' | 'renew' | 'renew another key' | 'renew at once' | 'confirm' | 'reconcile' | ByHand | Operation

/** What somebody does in AWS's console: to the device's certificate, and to the one that it is being renewed to. */
type ByHand = 'set INACTIVE' | 'set ACTIVE' | 'set the new one ACTIVE' | 'set REVOKED' | 'detach' | 'delete'
const BY_HANDS: readonly ByHand[] = ['set INACTIVE', 'set ACTIVE', 'set the new one ACTIVE', 'set REVOKED', 'detach', 'delete']

function plan (random: (below: number) => number): Worker[] {
  const requests: Worker[] = ['first key', 'first key', 'second key', 'generated key', 'wrong token']
  const workers: Worker[] = Array.from({ length: 2 + random(2) }, () => requests[random(requests.length)] as Worker)
  if (random(2) === 0) workers.push(OPERATIONS[random(4)] as Worker)
  if (random(3) === 0) workers.push(OPERATIONS[random(4)] as Worker)
  if (random(2) === 0) workers.push('reconcile')
  return workers.sort(() => random(2) - 0.5)
}

function planHunt (random: (below: number) => number): Worker[] {
  return ['first key', 'second key', ...random(3) === 0 ? ['wrong token'] as const : []]
}

function planRenewal (random: (below: number) => number, product: Partial<Product>): Worker[] {
  const requests: Worker[] = ['renew', 'renew another key', 'renew at once', 'confirm', 'confirm', 'confirm without the key', 'reconcile', ...product === RENEWED_WITH_GRACE ? ['second key'] as const : []]
  const byHand = product === BY_HAND ? Array.from({ length: 1 + random(2) }, () => BY_HANDS[random(BY_HANDS.length)] as Worker) : []
  const workers: Worker[] = ['renew', ...byHand, ...Array.from({ length: 3 + random(3) }, () => requests[random(requests.length)] as Worker)]
  if (random(3) > 0) workers.push(OPERATIONS[random(4)] as Worker)
  if (random(3) === 0) workers.push(OPERATIONS[random(4)] as Worker)
  return random(2) === 0 && byHand.length === 0 ? workers : workers.sort(() => random(2) - 0.5)
}

function planAdoption (random: (below: number) => number): Worker[] {
  const requests: Worker[] = ['adopt', 'adopt another', 'activate', 'activate another', 'activate', 'first key', 'reconcile']
  const workers: Worker[] = Array.from({ length: 3 + random(3) }, () => requests[random(requests.length)] as Worker)
  if (random(2) === 0) workers.push(OPERATIONS[random(4)] as Worker)
  if (random(3) === 0) workers.push(OPERATIONS[random(4)] as Worker)
  return workers.sort(() => random(2) - 0.5)
}

function start (world: World, interleaver: Interleaver, worker: Worker, number: number): void {
  const { rig, answers } = world
  const own = rig.through(port => interleaver.through(`${worker} ${number}`, port, port as unknown === rig.controlPlane))
  const note = (vended: Vended) => { answers.push(vended) }
  const expected = (cause: unknown) => { if (!(cause instanceof CvmError)) throw cause }
  if (worker === 'first key') own.vend().then(note).catch(expected)
  else if (worker === 'second key') own.vend({ certificateSigningRequest: rig.csrs[1] }).then(note).catch(expected)
  else if (worker === 'wrong token') own.vend({ registrationToken: 'wrong', requestId: UNPROVEN }).then(note).catch(expected)
  else if (worker === 'generated key') own.vendKeys().then(note).catch(expected)
  else if (worker === 'adopt') own.adopt(0).catch(expected)
  else if (worker === 'adopt another') own.adopt(1).catch(expected)
  else if (worker === 'activate' || worker === 'activate another') {
    const which = worker === 'activate' ? 0 : 1
    world.seen.add(rig.foreign[which].certificateId)
    own.activate(which).catch(expected)
  } else if (worker === 'renew') own.renew().catch(expected)
  else if (worker === 'renew another key') own.renew({ certificateSigningRequest: rig.csrs[3] }).catch(expected)
  else if (worker === 'renew at once') own.renew({ swap: 'at-once' }).catch(expected)
  else if (worker === 'confirm') {
    const wanted = rig.registry.find(SERIAL)
    own.confirm().catch(async (cause: unknown) => {
      if (cause instanceof CvmError && cause.code === 'renewal-gone') world.gone.add((await wanted)?.renewal?.certificate?.certificateId ?? '')
      expected(cause)
    })
  } else if (worker === 'confirm without the key') own.confirmWithoutKey().catch(expected)
  else if (isByHand(worker)) changeByHand(world, worker).catch(expected)
  else if (worker === 'reconcile') own.reconcile().catch(expected)
  else own.operate(worker).catch(expected)
  if (worker === 'reset') world.wasReset = true
}

function isByHand (worker: Worker): worker is ByHand {
  return (BY_HANDS as readonly Worker[]).includes(worker)
}

/** Where AWS IoT does not take it, nothing is changed. */
async function changeByHand (world: World, what: ByHand): Promise<void> {
  const { registry, controlPlane } = world.rig
  const { certificate, renewal } = await registry.find(SERIAL) ?? {}
  const { certificateId = '' } = (what === 'set the new one ACTIVE' ? renewal?.certificate : certificate) ?? {}
  const status = controlPlane.statuses.get(certificateId)
  if (status === undefined || status === 'REVOKED') return
  world.isByHand = true
  if (what === 'set INACTIVE') controlPlane.statuses.set(certificateId, 'INACTIVE')
  else if (what === 'set REVOKED') controlPlane.statuses.set(certificateId, 'REVOKED')
  else if (what === 'set ACTIVE' || what === 'set the new one ACTIVE') controlPlane.statuses.set(certificateId, 'ACTIVE')
  else controlPlane.bound.delete(certificateId)
  if (what === 'delete') controlPlane.statuses.delete(certificateId)
}

function violated ({ rig, answers, gone, wasReset, product, renews }: World): string | undefined {
  const active = rig.controlPlane.active()
  if (active.length > 1) return `G1: ${active.length} certificates are ACTIVE`
  if (active.some(id => gone.has(id))) return 'G5: a certificate is in force that its device was told to drop'
  // Vending anew is to hand out more than one.
  if (product === GRACE || product === ADOPTED || renews) return undefined
  const ids = new Set(answers.map(({ certificate }) => certificate.certificateId))
  if (!wasReset && !answers.some(({ keyPair }) => keyPair) && ids.size > 1) return `G2: ${ids.size} certificates were handed out`
  if (!wasReset && answers.filter(({ keyPair }) => keyPair).length > 1) return 'G2: two key pairs were handed out'
  return undefined
}

/** What is ACTIVE is known: to the device, or to the list of what must be ended. */
async function unrecorded (rig: Rig): Promise<string | undefined> {
  const device = await rig.registry.find(SERIAL)
  const known = new Set([device?.certificate?.certificateId, device?.renewal?.certificate?.certificateId, ...device?.retiring ?? []])
  return rig.controlPlane.active().every(id => known.has(id)) ? undefined : 'G4: an ACTIVE certificate that nobody recorded'
}

/** A request without the proof that it needs changes nothing (G7). */
async function unproven (rig: Rig): Promise<string | undefined> {
  const { history = [] } = await rig.registry.find(SERIAL) ?? {}
  const entry = history.find(({ requestId }) => requestId === UNPROVEN)
  return entry && `G7: a request without its proof wrote ${entry.event}`
}

/** A device that is ACTIVE, and that nobody wishes otherwise, has a certificate that works; in the middle of a swap, one that will (G5). */
async function stranded ({ rig, renews, isByHand }: World): Promise<string | undefined> {
  if (isByHand) return undefined
  const device = await rig.registry.find(SERIAL)
  if (!renews || device?.state !== 'ACTIVE' || device.pending || device.history.some(({ event }) => OPERATED.has(event))) return undefined
  const status = (id = '') => rig.controlPlane.statuses.get(id)
  const { certificate, renewal } = device
  if (status(certificate?.certificateId) === 'ACTIVE') return undefined
  if (renewal?.phase === 'swapping' && ['INACTIVE', 'ACTIVE'].includes(status(renewal.certificate?.certificateId) ?? '')) return undefined
  return `G5: the certificate is ${status(certificate?.certificateId)} with a renewal ${renewal?.phase}`
}

/** After everything: one retry and a few runs of reconcile leave exactly what the registry says. */
async function recovered (world: World): Promise<string | undefined> {
  const { rig, interleaver, random } = world
  const reconciled = async () => {
    for (const wait of [BEYOND, BEYOND, LAST_LOOK_MS, LAST_LOOK_MS]) {
      while (random(2) === 0 && await interleaver.arrive());
      rig.clock.now += wait
      let runs = 0
      const isCutOff = ({ actions }: ReconcileReport) => actions.some(({ step, outcome }) => step === 'search-orphans' && outcome === 'later')
      while (isCutOff(await rig.reconcile()) && runs++ < 20);
    }
  }
  rig.clock.now += BEYOND
  // What was brought is not the token's: it is finished by reconcile.
  if (world.product === ADOPTED) await reconciled()
  const before = await rig.registry.find(SERIAL)
  const vendable = ['REGISTERED', 'ISSUING', 'ISSUED', ...world.product === GRACE ? ['ACTIVE'] : []]
  if (before && vendable.includes(before.state) && !before.pending) {
    const isGone = before.certificate && rig.controlPlane.statuses.get(before.certificate.certificateId) !== 'INACTIVE' &&
      rig.controlPlane.statuses.get(before.certificate.certificateId) !== 'ACTIVE'
    // Revoked by an operator who died before telling the registry: reconcile carries that over first.
    if (isGone) await reconciled()
    const now = await rig.registry.find(SERIAL)
    if (now?.state !== 'REVOKED') {
      try {
        world.answers.push(await rig.vend())
      } catch (cause) {
        return `G3: the retry failed with ${(cause as CvmError).code ?? String(cause)} in ${now?.state}`
      }
    }
  }
  if (world.renews) {
    await reconciled()
    const { certificate, renewal } = await rig.registry.find(SERIAL) ?? {}
    const kept = [certificate?.certificateId, renewal?.certificate?.certificateId]
    const ended = [...rig.controlPlane.statuses.keys()].filter(id => !kept.includes(id))
    if (ended.length > 0) return `G4: ${ended.length} certificates wait for nothing while a renewal is ${renewal?.phase}`
  }
  const failed = world.renews ? await renewedAgain(rig) : undefined
  if (failed) return failed
  // What is not confirmed by then is given up.
  if (world.renews) rig.clock.now += CONFIRM_WITHIN_MS
  await reconciled()
  const device = await rig.registry.find(SERIAL)
  const own = device?.certificate?.certificateId
  const others = [...rig.controlPlane.statuses].filter(([id, status]) => id !== own && !isJudged(world, id, status))
  if (others.length > 0) return `G4: ${others.length} certificates are left over in ${device?.state}`
  const status = own && rig.controlPlane.statuses.get(own)
  const expected = { ACTIVE: 'ACTIVE', DISABLED: 'INACTIVE', REVOKED: 'REVOKED' }[device?.state as string]
  if (own && status !== expected && !world.isByHand) return `drift: ${device?.state}, and AWS IoT says ${status}`
  rig.limits.maxPages = 100
  const { backlog, drift } = await rig.reconcile()
  // What somebody has changed stays as it is, and is told; a certificate that is gone is not in the list.
  const isTold = drift > 0 || status === undefined
  if (world.isByHand && own && status !== expected) return isTold ? undefined : `a change by hand is not told: ${device?.state}, AWS IoT ${status}`
  if (backlog > 0 || (drift > 0 && !world.isByHand)) return `reconcile does not come to rest: backlog ${backlog}, drift ${drift}`
  return violated(world)
}

/** What was made elsewhere stays once it was the device's, REVOKED; and where AWS IoT saw it first, as it was refused. */
function isJudged ({ rig, seen }: World, certificateId: string, status: string): boolean {
  const isForeign = rig.foreign.some(foreign => foreign.certificateId === certificateId)
  return isForeign && (status === 'REVOKED' || (seen.has(certificateId) && status === 'INACTIVE'))
}

/** G3 for renewals: whatever was left, a device that is ACTIVE can renew and confirm. */
async function renewedAgain (rig: Rig): Promise<string | undefined> {
  await rig.reconcile()
  rig.clock.now += BEYOND
  await rig.reconcile()
  const device = await rig.registry.find(SERIAL)
  if (device?.state !== 'ACTIVE' || device.pending) return undefined
  if (rig.controlPlane.statuses.get(device.certificate?.certificateId ?? '') !== 'ACTIVE') return undefined
  try {
    const { certificate } = await rig.renew()
    await rig.confirm()
    return rig.controlPlane.statuses.get(certificate.certificateId) === 'ACTIVE' ? undefined : 'G3: a confirmed certificate is not ACTIVE'
  } catch (cause) {
    return `G3: renewing again failed with ${(cause as CvmError).code ?? String(cause)}`
  }
}

for (const [plan, share] of Object.entries(SHARES) as [Plan, number][]) {
  const count = Math.ceil(COUNT * share)
  const first = 1 + (isWhole ? 0 : proofDay * count)
  await t.test(`${count} interleavings of ${plan} keep the guarantees (${proofSize})`, { timeout: 1_000_000 }, async t => {
    const violations: string[] = []
    for (let seed = first; seed < first + count && violations.length < 5; seed++) {
      const violation = await explore(seed, plan)
      if (violation) violations.push(`seed ${seed}: ${violation}`)
    }
    t.comment(`interleavings of ${plan}: seeds ${first} to ${first + count - 1}, violations: ${violations.length}`)
    t.same(violations, [])
  })
}

/** Interleavings that once found a fault in the code. */
const FOUND = [['adoptions', 5892]] as const

for (const [plan, seed] of FOUND) {
  await t.test(`seed ${seed} of ${plan}, which found a fault, keeps the guarantees`, async t => t.equal(await explore(seed, plan, true), undefined))
}

for (const [name, mutant] of Object.entries(MUTANTS)) {
  await t.test(`a mutant is noticed: ${name}`, { timeout: 1_000_000 }, async t => {
    const { plan, seed, isLate = false } = mutant
    t.equal(await explore(seed, plan, !isLate), undefined, `with the protection, seed ${seed} of ${plan} keeps the guarantees`)
    const noticed = await explore(seed, plan, !isLate, mutant)
    t.comment(`seed ${seed} of ${plan}: ${noticed}`)
    if (noticed !== undefined) return
    let next = 1
    const isNoticedAt = async (seed: number) => await explore(seed, plan, !isLate, mutant) && !await explore(seed, plan, !isLate)
    while (next < SEARCHED && !await isNoticedAt(next)) next++
    t.fail(next < SEARCHED
      ? `seed ${seed} does not notice it any more; write down seed ${next}`
      : `no seed below ${SEARCHED} notices it`)
  })
}
