// One key, one device: who gets a certificate for a key, whatever crashes, and what a compromised key is good for.
import t, { type Test } from 'tap'
import { CvmError } from '../../src/errors.ts'
import type { Product } from '../../src/vending/product.ts'
import { Interleaver, randomFrom } from '../fixtures/interleaver.ts'
import { isWhole, proofDay } from '../fixtures/proof-size.ts'
import { CLAIM_LIFETIME_MS, LAST_LOOK_MS, type Rig, SERIAL, type UseCases, makeRig } from '../fixtures/vend-rig.ts'

const OTHER = 'sn-2'
const AFTER = CLAIM_LIFETIME_MS + 5_000
const IN_USE = { name: 'CvmError', code: 'key-in-use' }
const COMPROMISED = { name: 'CvmError', code: 'key-compromised' }

/** A rig with two devices, whose CSRs may have any common name. */
async function twoDevices (changes: Partial<Product> = {}): Promise<Rig> {
  const rig = await makeRig(undefined, { subject: 'any', ...changes })
  await rig.register(OTHER)
  return rig
}

function certifiedFor (rig: Rig, n: 0 | 1, serialNumber: string) {
  return rig.vend({ serialNumber, certificateSigningRequest: rig.csrs[n] })
}

await t.test('a key that is another device\'s is refused, and another key is taken at once', async t => {
  const rig = await twoDevices()
  await rig.vend()
  const calls = rig.controlPlane.calls.length
  await t.rejects(certifiedFor(rig, 0, OTHER), IN_USE)
  t.equal(rig.controlPlane.calls.length, calls, 'AWS IoT is not asked')
  t.match(await rig.registry.find(OTHER), { state: 'ISSUING', suspicion: undefined, certificate: undefined })
  t.strictSame(rig.reuses, [{ code: 'key-in-use', isRefused: true, serialNumber: OTHER, product: 'default', keyOwner: SERIAL, requestId: 'request-2' }])
  t.equal((await certifiedFor(rig, 1, OTHER)).outcome, 'vended')
  t.equal((await rig.vend()).outcome, 'replayed', 'its owner is served as before')
})

await t.test('who has no right token takes no key', async t => {
  const rig = await twoDevices()
  await t.rejects(rig.vend({ serialNumber: OTHER, registrationToken: 'wrong' }), { code: 'device-not-authorized' })
  t.equal((await rig.vend()).outcome, 'vended')
})

await t.test('a product that warns vends all the same, and tells', async t => {
  const rig = await twoDevices({ keyReuse: 'warn' })
  await rig.vend()
  t.equal((await certifiedFor(rig, 0, OTHER)).outcome, 'vended')
  t.match(rig.reuses, [{ code: 'key-in-use', isRefused: false, serialNumber: OTHER, keyOwner: SERIAL }])
  t.equal(rig.controlPlane.active().length, 2)
})

await t.test('a device keeps its own key: after a reset, and in renewals', async t => {
  const rig = await twoDevices()
  await rig.vend()
  await rig.operate('reset')
  t.equal((await rig.vend()).outcome, 'vended', 'the same key after a reset')
  rig.clock.now += AFTER
  await rig.reconcile()
  t.equal((await rig.renew({ certificateSigningRequest: rig.csrs[0] })).outcome, 'renewed', 'a renewal with the same key')
  t.equal((await rig.renew()).outcome, 'renewed', 'and with another')
  await rig.confirm()
  await t.rejects(certifiedFor(rig, 0, OTHER), IN_USE, 'the key before is no other device\'s')
  await t.rejects(rig.vend({ serialNumber: OTHER, certificateSigningRequest: rig.csrs[2] }), IN_USE, 'nor is the new one')
  await rig.operate('decommission')
  rig.clock.now += AFTER
  await rig.reconcile()
  await t.rejects(certifiedFor(rig, 0, OTHER), IN_USE, 'also once its device has ended')
  t.strictSame(rig.reuses.map(({ keyOwner }) => keyOwner), [SERIAL, SERIAL, SERIAL])
})

await t.test('a refused key costs a device nothing that it has', async t => {
  const rig = await twoDevices({ reVendGraceMs: 1_000_000 })
  await certifiedFor(rig, 0, OTHER)
  const { certificate: { certificateId } } = await certifiedFor(rig, 1, SERIAL)
  await t.rejects(certifiedFor(rig, 0, SERIAL), IN_USE, 'within the grace')
  const waiting = await rig.renew()
  await t.rejects(rig.renew({ certificateSigningRequest: rig.csrs[0] }), IN_USE, 'in a renewal')
  t.match(await rig.registry.find(SERIAL), { state: 'ACTIVE', retiring: [], certificate: { certificateId }, renewal: { certificate: waiting.certificate } })
  t.equal(rig.controlPlane.statuses.get(certificateId), 'ACTIVE')
  await rig.confirm()
})

await t.test('certificates made elsewhere: brought, or seen at a connection', async t => {
  const rig = await twoDevices()
  await rig.adopt(0)
  rig.foreign[1].publicKeyFingerprint = rig.foreign[0].publicKeyFingerprint
  await t.rejects(rig.adopt(1, 'registered', OTHER), IN_USE)
  t.notOk(rig.controlPlane.statuses.has(rig.foreign[1].certificateId), 'AWS IoT is not asked')
  t.match(await rig.adopt(0), { outcome: 'replayed' })

  for (const code of ['key-in-use', 'key-compromised'] as const) {
    const jitr = await twoDevices()
    await certifiedFor(jitr, 1, OTHER)
    const { certificateId, publicKeyFingerprint } = jitr.foreign[0]
    await jitr.keyOwners[code === 'key-in-use' ? 'take' : 'block'](publicKeyFingerprint, OTHER, jitr.clock.now)
    t.match(await jitr.activate(0), { outcome: 'refused', code, status: 'INACTIVE', serialNumber: SERIAL }, `JITR: ${code}`)
    t.equal(jitr.controlPlane.statuses.get(certificateId), 'INACTIVE')
    t.match((await jitr.registry.find(SERIAL))?.history.at(-1), { event: 'refused', reason: code })
  }
})

await t.test('a key that was asked for by a device that never had a certificate is given on', async t => {
  const rig = await twoDevices()
  // The CSR of the other device, with the wrong serial number; then AWS IoT fails.
  rig.controlPlane.before = operation => { if (operation === 'createCertificateFromCsr') throw new CvmError('aws-iot-throttled') }
  await t.rejects(rig.vend(), { code: 'aws-iot-throttled' })
  rig.controlPlane.before = () => {}
  await t.rejects(certifiedFor(rig, 0, OTHER), IN_USE, 'not while a worker by another clock may still have it')
  rig.clock.now += AFTER
  t.equal((await certifiedFor(rig, 0, OTHER)).outcome, 'vended')
  await t.rejects(rig.vend(), IN_USE, 'and is then the other device\'s')
  // Its owner asks again between the look at its row and the write that would give the key on.
  const raced = await twoDevices()
  raced.controlPlane.before = operation => { if (operation === 'createCertificateFromCsr') throw new CvmError('aws-iot-throttled') }
  await t.rejects(raced.vend(), { code: 'aws-iot-throttled' })
  raced.controlPlane.before = () => {}
  raced.clock.now += AFTER
  const { find } = raced.registry
  raced.registry.find = async serialNumber => {
    const seen = await find.call(raced.registry, serialNumber)
    raced.registry.find = find
    t.equal((await raced.vend()).outcome, 'vended')
    return seen
  }
  await t.rejects(certifiedFor(raced, 0, OTHER), IN_USE)
  // A lost answer: AWS IoT may have made a certificate for the key.
  const lost = await twoDevices()
  lost.controlPlane.after = operation => { if (operation === 'createCertificateFromCsr') throw new CvmError('aws-iot-unavailable') }
  await t.rejects(lost.vend(), { code: 'aws-iot-unavailable' })
  lost.controlPlane.after = () => {}
  lost.clock.now += AFTER
  await t.rejects(certifiedFor(lost, 0, OTHER), IN_USE, 'not before reconcile has looked')
  for (let run = 0; run < 3; run++) {
    await lost.reconcile()
    lost.clock.now += LAST_LOOK_MS
  }
  t.equal((await certifiedFor(lost, 0, OTHER)).outcome, 'vended')
})

await t.test('a compromised key is never certified again, whatever the product says', async t => {
  for (const keyReuse of ['refuse', 'warn'] as const) {
    const rig = await twoDevices({ keyReuse })
    await rig.vend()
    await rig.renew()
    const revoked = await rig.operate('revoke', undefined, { keyCompromised: true })
    t.match(revoked, { state: 'REVOKED', pending: undefined })
    await rig.operate('reset')
    await t.rejects(rig.vend(), COMPROMISED, `${keyReuse}: its own`)
    await t.rejects(certifiedFor(rig, 0, OTHER), COMPROMISED, `${keyReuse}: for another device`)
    await t.rejects(rig.vend({ serialNumber: OTHER, certificateSigningRequest: rig.csrs[2] }), COMPROMISED, `${keyReuse}: that of the renewal`)
    t.ok(rig.reuses.every(({ isRefused, code }) => isRefused && code === 'key-compromised'))
    t.equal((await certifiedFor(rig, 1, SERIAL)).outcome, 'vended', `${keyReuse}: a new key`)
  }
})

await t.test('blocking: of a device that is REVOKED already, of one without a key, and across a crash', async t => {
  const rig = await twoDevices()
  await t.rejects(rig.operate('revoke', undefined, { keyCompromised: true }), { code: 'state-conflict' }, 'no key to block')
  t.match(await rig.registry.find(SERIAL), { state: 'REGISTERED', pending: undefined })
  await rig.vend()
  await rig.operate('revoke')
  await rig.operate('revoke', undefined, { keyCompromised: true })
  await rig.operate('reset')
  await t.rejects(rig.vend(), COMPROMISED)

  const crashed = await twoDevices()
  await crashed.vend()
  crashed.controlPlane.before = operation => { if (operation === 'revoke') throw new CvmError('aws-iot-unavailable') }
  await t.rejects(crashed.operate('revoke', undefined, { keyCompromised: true }), { code: 'aws-iot-unavailable' })
  crashed.controlPlane.before = () => {}
  crashed.clock.now += AFTER
  await crashed.reconcile()
  t.match(await crashed.registry.find(SERIAL), { state: 'REVOKED' })
  await t.rejects(certifiedFor(crashed, 0, OTHER), COMPROMISED)
})

const COUNT = isWhole ? 10_000 : 400
const SEED = 1 + (isWhole ? 0 : proofDay * COUNT)

const WORK = {
  vend: (own: UseCases): Promise<unknown> => own.vend(),
  'other vends': (own: UseCases): Promise<unknown> => own.vend({ serialNumber: OTHER }),
  'other key': (own: UseCases, { csrs }: Rig): Promise<unknown> => own.vend({ serialNumber: OTHER, certificateSigningRequest: csrs[1] }),
  renew: (own: UseCases, { csrs }: Rig): Promise<unknown> => own.renew({ certificateSigningRequest: csrs[1] }),
  confirm: (own: UseCases): Promise<unknown> => own.confirm(),
  reset: (own: UseCases): Promise<unknown> => own.operate('reset'),
  revoke: (own: UseCases): Promise<unknown> => own.operate('revoke', undefined, { keyCompromised: true }),
  reconcile: (own: UseCases): Promise<unknown> => own.reconcile()
}

/** Two devices with one key at once, with crashes, lost answers and clock jumps; the first broken promise as text, or undefined. */
async function explore (seed: number, breakIt?: (rig: Rig) => void): Promise<string | undefined> {
  const random = randomFrom(seed)
  const rig = await twoDevices()
  breakIt?.(rig)
  const interleaver = new Interleaver(random, rig.isComputing)
  const expected = (cause: unknown) => { if (!(cause instanceof CvmError)) throw cause }
  const kinds = [...Object.keys(WORK), 'vend', 'other vends']
  const workers = ['vend', 'other vends', ...Array.from({ length: 1 + random(4) }, () => kinds[random(kinds.length)] as string)].sort(() => random(2) - 0.5)
  const had = new Map<string, Set<string>>()
  for (let steps = 0; (workers.length > 0 || !interleaver.idle) && steps < 400; steps++) {
    rig.clock.now++
    const dice = random(100)
    if (workers.length > 0 && (interleaver.idle || dice < 20)) {
      const own = rig.through(port => interleaver.through(`${steps}`, port))
      const work = WORK[workers.shift() as keyof typeof WORK](own, rig)
      work.catch(expected)
    } else if (dice < 24) interleaver.crash()
    else if (dice < 28) await interleaver.fail()
    else if (dice < 31) rig.clock.now += [1, CLAIM_LIFETIME_MS, AFTER][random(3)] as number
    else await interleaver.step()
    for (const serialNumber of [SERIAL, OTHER]) {
      const { certificate, renewal } = await rig.registry.find(serialNumber) ?? {}
      for (const key of [certificate?.publicKeyFingerprint, renewal?.certificate?.publicKeyFingerprint]) {
        if (key !== undefined) had.set(key, (had.get(key) ?? new Set()).add(serialNumber))
      }
    }
    if ([...had.values()].some(({ size }) => size > 1)) return 'two devices have had certificates for one key'
  }
  return await recovered(rig)
}

/** Whatever was left: the owner of the key can be vended for it, and nothing else is left over. */
async function recovered (rig: Rig): Promise<string | undefined> {
  for (let run = 0; run < 4; run++) {
    rig.clock.now += 2 * AFTER
    await rig.reconcile()
  }
  for (const serialNumber of [SERIAL, OTHER]) {
    const device = await rig.registry.find(serialNumber)
    if (!['REGISTERED', 'ISSUING', 'ISSUED'].includes(device?.state ?? '')) continue
    const failure = await rig.vend({ serialNumber }).then(() => undefined, (cause: unknown) => cause)
    const isRightly = failure instanceof CvmError && ['key-in-use', 'key-compromised'].includes(failure.code)
    const ownsKey = rig.reuses.at(-1)?.keyOwner === serialNumber && !rig.reuses.at(-1)?.code.includes('compromised')
    if (failure && (!isRightly || ownsKey)) return `${serialNumber} is locked out: ${String(failure)}`
  }
  return undefined
}

await t.test('interleavings of two devices with one key', { timeout: 1_000_000 }, async t => {
  await clean(t, COUNT)
  const BREAKS: Record<string, (rig: Rig) => void> = {
    'keys have no owners' (rig) { rig.keyOwners.take = async () => ({ taken: true }) },
    'a key is given on, whatever its owner has had' (rig) {
      const { take } = rig.keyOwners
      rig.keyOwners.take = async (key, serialNumber, now) => take.call(rig.keyOwners, key, serialNumber, now, await rig.keyOwners.find(key))
    }
  }
  for (const [name, breakIt] of Object.entries(BREAKS)) {
    let found: string | undefined
    let seed = 1
    while (!found && seed < 10_000) found = await explore(seed++, breakIt)
    t.comment(`seed ${seed - 1}: ${found}`)
    t.ok(found, `is noticed: ${name}`)
  }
})

async function clean (t: Test, count: number): Promise<void> {
  const violations: string[] = []
  for (let seed = SEED; seed < SEED + count && violations.length < 5; seed++) {
    const violation = await explore(seed)
    if (violation) violations.push(`seed ${seed}: ${violation}`)
  }
  t.comment(`interleavings: ${count}, violations: ${violations.length}`)
  t.same(violations, [])
}
