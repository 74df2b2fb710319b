// G1 to G4 under interleavings of the real use cases over models of their ports: devices' requests, operators and reconcile at once,
// with crashes, lost answers, failures and clock jumps at every call. INTERLEAVINGS and SEED change how many, and which.
import t from 'tap'
import { CvmError } from '../../src/errors.ts'
import type { Operation } from '../../src/vending/device.ts'
import type { Product } from '../../src/vending/product.ts'
import type { Vended } from '../../src/vending/vend-steps.ts'
import { BREAKS, type Break } from '../fixtures/broken-protections.ts'
import { Interleaver, randomFrom } from '../fixtures/interleaver.ts'
import { CLAIM_LIFETIME_MS, CONFIRM_WITHIN_MS, type Rig, SERIAL, makeRig } from '../fixtures/vend-rig.ts'

const COUNT = Number(process.env['INTERLEAVINGS'] ?? 3_000)
const SEED = Number(process.env['SEED'] ?? 1)
const OPERATED = new Set<string>(['disabled', 'revoked', 'reset', 'enabled'])
const BEYOND = CLAIM_LIFETIME_MS + 2_001
const OPERATIONS: readonly Operation[] = ['revoke', 'disable', 'enable', 'reset']

/** The product of the device: as usual, or one that lets other keys be vended anew for ever. */
const USUAL: Partial<Product> = {}
const GRACE: Partial<Product> = { reVendGraceMs: 1_000_000_000 }
/** A device that has its certificate already, and renews it; as usual and where other keys are vended anew. */
const RENEWED: Partial<Product> = { renewAfterMs: 2 }
/** A device for which certificates are brought, or seen at its first connection, beside what it asks for itself. */
const ADOPTED: Partial<Product> = { renewAfterMs: 3 }
const RENEWED_WITH_GRACE: Partial<Product> = { ...GRACE, renewAfterMs: 2 }

interface World { rig: Rig, answers: Vended[], wasReset: boolean, product: Partial<Product>, renews: boolean, seen: Set<string> }

/** Runs one interleaving; the first broken invariant as text, or undefined. */
async function explore (seed: number, product: Partial<Product>, broken?: Break): Promise<string | undefined> {
  const random = randomFrom(seed)
  const rig = await makeRig(undefined, product)
  broken?.(rig)
  const renews = product === RENEWED || product === RENEWED_WITH_GRACE
  if (renews) await rig.vend()
  const world: World = { rig, answers: [], wasReset: false, product, renews, seen: new Set() }
  const interleaver = new Interleaver(random)
  // To see a broken protection, look where it is needed: two keys of one device, and time that flies.
  const workers: Worker[] = renews ? planRenewal(random, product) : product === ADOPTED ? planAdoption(random) : broken ? ['first key', 'second key'] : plan(random)
  const odds = broken ? { start: 0, crash: 1, fail: 2, jump: 10 } : { start: 20, crash: 24, fail: 28, jump: 32 }
  let steps = 0
  while ((workers.length > 0 || !interleaver.idle) && steps++ < 600) {
    // Time goes on at every step: what a worker took for now is over when its call takes effect.
    rig.clock.now++
    const dice = random(100)
    if (workers.length > 0 && (interleaver.idle || dice < odds.start)) start(world, interleaver, workers.shift() as Worker, steps)
    else if (dice < odds.crash) interleaver.crash()
    else if (dice < odds.fail) await interleaver.fail()
    else if (dice < odds.jump) {
      rig.clock.now += [1, CLAIM_LIFETIME_MS / 2, CLAIM_LIFETIME_MS, BEYOND][random(4)] as number
      if (broken && workers.length > 0) start(world, interleaver, workers.shift() as Worker, steps)
    } else await interleaver.step()
    const violation = violated(world) ?? await unrecorded(rig) ?? await stranded(world)
    if (violation) return violation
  }
  return await recovered(world)
}

type Worker = 'first key' | 'second key' | 'generated key' | 'adopt' | 'adopt another' | 'activate' | 'activate another' | 'renew' | 'renew another key' | 'renew at once' | 'confirm' | 'reconcile' | Operation

function plan (random: (below: number) => number): Worker[] {
  const requests: Worker[] = ['first key', 'first key', 'second key', 'generated key']
  const workers: Worker[] = Array.from({ length: 2 + random(2) }, () => requests[random(4)] as Worker)
  if (random(2) === 0) workers.push(OPERATIONS[random(4)] as Worker)
  if (random(3) === 0) workers.push(OPERATIONS[random(4)] as Worker)
  if (random(2) === 0) workers.push('reconcile')
  return workers.sort(() => random(2) - 0.5)
}

function planRenewal (random: (below: number) => number, product: Partial<Product>): Worker[] {
  const requests: Worker[] = ['renew', 'renew another key', 'renew at once', 'confirm', 'confirm', 'reconcile', ...product === RENEWED_WITH_GRACE ? ['second key'] as const : []]
  const workers: Worker[] = ['renew', ...Array.from({ length: 3 + random(3) }, () => requests[random(requests.length)] as Worker)]
  if (random(3) > 0) workers.push(OPERATIONS[random(4)] as Worker)
  if (random(3) === 0) workers.push(OPERATIONS[random(4)] as Worker)
  return random(2) === 0 ? workers : workers.sort(() => random(2) - 0.5)
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
  const own = rig.through(port => interleaver.through(`${worker} ${number}`, port))
  const note = (vended: Vended) => { answers.push(vended) }
  const expected = (cause: unknown) => { if (!(cause instanceof CvmError)) throw cause }
  if (worker === 'first key') own.vend().then(note).catch(expected)
  else if (worker === 'second key') own.vend({ certificateSigningRequest: rig.csrs[1] }).then(note).catch(expected)
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
  else if (worker === 'confirm') own.confirm().catch(expected)
  else if (worker === 'reconcile') own.reconcile().catch(expected)
  else own.operate(worker).catch(expected)
  if (worker === 'reset') world.wasReset = true
}

function violated ({ rig, answers, wasReset, product, renews }: World): string | undefined {
  const active = rig.controlPlane.active()
  if (active.length > 1) return `G1: ${active.length} certificates are ACTIVE`
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

/** A device that is ACTIVE, and that nobody wishes otherwise, has a certificate that works; in the middle of a swap, one that will (G5). */
async function stranded ({ rig, renews }: World): Promise<string | undefined> {
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
  const { rig } = world
  const reconciled = async () => {
    for (let run = 0; run < 4; run++) {
      rig.clock.now += BEYOND
      await rig.reconcile()
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
  if (own && status !== expected) return `drift: ${device?.state}, and AWS IoT says ${status}`
  const { backlog, drift } = await rig.reconcile()
  if (backlog + drift > 0) return `reconcile does not come to rest: backlog ${backlog}, drift ${drift}`
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

const SCENARIOS = [
  [Math.ceil(COUNT * 0.6), USUAL, ''],
  [Math.ceil(COUNT / 20), GRACE, ', where other keys are vended anew'],
  [Math.ceil(COUNT * 0.3), RENEWED, ' of renewals'],
  [Math.ceil(COUNT * 0.3), ADOPTED, ' of certificates made elsewhere'],
  [Math.ceil(COUNT / 20), RENEWED_WITH_GRACE, ' of renewals, where other keys are vended anew']
] as const

for (const [count, product, what] of SCENARIOS) {
  await t.test(`${count} interleavings keep the guarantees${what}`, { timeout: 1_000_000 }, async t => {
    const violations: string[] = []
    for (let seed = SEED; seed < SEED + count && violations.length < 5; seed++) {
      const violation = await explore(seed, product)
      if (violation) violations.push(`seed ${seed}: ${violation}`)
    }
    t.comment(`interleavings: ${count}, seeds ${SEED} to ${SEED + count - 1}, violations: ${violations.length}`)
    t.same(violations, [])
  })
}

for (const [name, broken] of Object.entries(BREAKS)) {
  await t.test(`is noticed: ${name}`, async t => {
    let found: string | undefined
    let seed = SEED
    while (!found && seed < SEED + 30_000) found = await explore(seed++, name.includes('renewal') ? RENEWED : name.includes('elsewhere') ? ADOPTED : name.startsWith('vending anew') ? GRACE : USUAL, broken)
    t.comment(`seed ${seed - 1}: ${found}`)
    t.ok(found)
  })
}
