import t from 'tap'
import { CvmError } from '../../src/errors.ts'
import type { WriteResult } from '../../src/vending/device-registry.ts'
import { CLAIM_LIFETIME_MS, REPLAY_WINDOW_MS, SERIAL, type Rig, makeRig } from '../fixtures/vend-rig.ts'
import type { Operation } from '../fixtures/model-control-plane.ts'

const WRONG = { registrationToken: 'wrong' }
const code = (name: string, more: object = {}) => ({ name: 'CvmError', code: name, ...more })

await t.test('vends, then replays the same certificate', async t => {
  const rig = await makeRig()
  const first = await rig.vend()
  t.equal(first.outcome, 'vended')
  t.same(rig.controlPlane.active(), [first.certificate.certificateId])
  t.same(rig.steps, ['check', 'claim', 'key', 'issue', 'record', 'bind', 'commit'].map(step => [step, true]))
  const calls = rig.controlPlane.calls.length
  t.same(await rig.vend(), { outcome: 'replayed', certificate: first.certificate, product: 'default' })
  t.equal(rig.controlPlane.calls.length, calls, 'a replay asks nothing of AWS IoT')
  rig.clock.now += REPLAY_WINDOW_MS
  t.equal((await rig.vend()).outcome, 'replayed')
  rig.clock.now += 1
  await t.rejects(rig.vend(), code('already-vended'), 'the stated time is over')
})

await t.test('a bad CSR is refused before anything is written or asked', async t => {
  const rig = await makeRig()
  await t.rejects(rig.vend({ certificateSigningRequest: 'nonsense' }), code('csr-rejected'))
  t.match(await rig.registry.find(SERIAL), { state: 'REGISTERED', history: { length: 1 } })
  t.same(rig.controlPlane.calls, [])
})

await t.test('another key, another token, another device', async t => {
  const rig = await makeRig()
  await t.rejects(rig.vend(WRONG), code('device-not-authorized'))
  await rig.vend()
  await t.rejects(rig.vend({ certificateSigningRequest: rig.csrs[1] }), code('already-vended'))
  await t.rejects(rig.vendKeys(), code('already-vended'))
  await t.rejects(rig.vend(WRONG), code('device-not-authorized'))
  await t.rejects(rig.vendKeys({ serialNumber: 'unknown' }), code('device-not-authorized'))
})

await t.test('a generated key pair is in one answer only', async t => {
  const rig = await makeRig()
  const { keyPair, certificate } = await rig.vendKeys()
  t.ok(keyPair)
  t.same(rig.controlPlane.active(), [certificate.certificateId])
  await t.rejects(rig.vendKeys(), code('key-not-recoverable'))
  await t.rejects(rig.vend(), code('already-vended'))
  t.notMatch(JSON.stringify(await rig.registry.find(SERIAL)), /private/, 'and nowhere in the registry')
})

await t.test('a commit whose answer was lost is looked up, so that no key pair is lost with it', async t => {
  for (const applies of [true, false]) {
    const rig = await makeRig()
    const { registry } = rig
    const commit = registry.commit.bind(registry)
    registry.commit = async write => {
      if (applies) await commit(write)
      throw new CvmError('registry-unavailable')
    }
    if (applies) t.match(await rig.vendKeys(), { outcome: 'vended', keyPair: { privateKey: String } })
    else await t.rejects(rig.vendKeys(), { code: 'registry-unavailable' })
    registry.commit = commit
    rig.clock.now += 1
    if (!applies) t.match(await rig.vendKeys(), { outcome: 'vended', keyPair: { privateKey: String } }, 'the next request gets a key pair')
    t.equal(rig.controlPlane.active().length, 1)
  }
})

await t.test('a key pair that nobody is left to take is not committed', async t => {
  const rig = await makeRig()
  const gone = new AbortController()
  rig.controlPlane.after = operation => { if (operation === 'activate') gone.abort() }
  await t.rejects(rig.vendKeys({ callerGone: gone.signal }), code('deadline-exceeded'))
  rig.clock.now += 1
  const { certificate } = await rig.vendKeys()
  t.same(rig.controlPlane.active(), [certificate.certificateId], 'the retry works at once, and the first is revoked')
})

await t.test('while one request works, the others are told when to look again', async t => {
  const rig = await makeRig()
  rig.controlPlane.before = async operation => {
    if (operation !== 'bind') return
    rig.controlPlane.before = () => {}
    await t.rejects(rig.vend(), code('vend-in-progress', { retryAfterMs: 2_000 }))
    await t.rejects(rig.vend(WRONG), code('device-not-authorized'))
  }
  t.equal((await rig.vend()).outcome, 'vended')
})

await t.test('after a failure of any AWS call the same request succeeds at once, with one certificate ACTIVE', async t => {
  const failures = ['aws-iot-throttled', 'aws-iot-unavailable', 'aws-iot-refused', 'deadline-exceeded'] as const
  for (const way of ['vend', 'vendKeys'] as const) {
    const calls = (await traced(rig => rig[way]())).controlPlane.calls
    for (const [position, operation] of calls.entries()) {
      for (const moment of ['before', 'after'] as const) {
        for (const failure of failures) {
          const rig = await makeRig()
          failOnce(rig, moment, position, new CvmError(failure))
          await t.rejects(rig[way](), code(failure), `${way}: ${failure} ${moment} ${operation}`)
          rig.controlPlane.before = rig.controlPlane.after = () => {}
          rig.clock.now += 1
          const { certificate } = await rig[way]()
          t.same(rig.controlPlane.active(), [certificate.certificateId])
        }
      }
    }
  }
})

await t.test('an answer of the registry that was lost after the write applied', async t => {
  for (const method of ['claim', 'record', 'commit'] as const) {
    const rig = await makeRig()
    // As the SDK's own retry sees it: the first try applied, the second finds its condition no longer true.
    const original = rig.registry[method].bind(rig.registry) as (...args: unknown[]) => Promise<WriteResult>
    rig.registry[method] = async (...args: unknown[]) => {
      await original(...args)
      return original(...args)
    }
    const { certificate } = await rig.vend()
    t.same(rig.controlPlane.active(), [certificate.certificateId], `${method} repeated`)
    t.equal([...rig.controlPlane.statuses].length, 1, 'and nothing else was made')
  }
})

await t.test('a worker that lost its claim before it recorded deletes what it made, and answers from the row', async t => {
  const rig = await makeRig()
  rig.controlPlane.isOver = () => false
  rig.controlPlane.before = async operation => {
    if (operation !== 'createCertificateFromCsr') return
    rig.controlPlane.before = () => {}
    rig.clock.now += CLAIM_LIFETIME_MS
    await rig.vend()
  }
  const late = await rig.vend()
  t.equal(late.outcome, 'replayed')
  t.same([...rig.controlPlane.statuses], [[late.certificate.certificateId, 'ACTIVE']])
})

await t.test('a worker that wakes after its certificate was superseded cannot bring it back', async t => {
  for (const asleep of ['bind', 'activate'] as const) {
    const rig = await makeRig()
    rig.controlPlane.isOver = () => false
    let winner = ''
    rig.controlPlane.before = async operation => {
      if (operation !== asleep) return
      rig.controlPlane.before = () => {}
      rig.clock.now += CLAIM_LIFETIME_MS
      winner = (await rig.vend({ certificateSigningRequest: rig.csrs[1] })).certificate.certificateId
    }
    await t.rejects(rig.vend(), code('already-vended'))
    t.same(rig.controlPlane.active(), [winner])
  }
})

await t.test('what was recorded and not committed is finished by the next request with the same key', async t => {
  const rig = await makeRig()
  failOnce(rig, 'before', 2, new CvmError('aws-iot-unavailable'))
  await t.rejects(rig.vend())
  t.match(await rig.registry.find(SERIAL), { state: 'ISSUED' })
  rig.clock.now += 1
  t.equal((await rig.vend()).outcome, 'resumed')
  t.equal(rig.controlPlane.statuses.size, 1, 'no second certificate')
})

await t.test('a thing that cannot be made: the certificate made beside it is deleted', async t => {
  const rig = await makeRig()
  rig.controlPlane.before = operation => { if (operation === 'ensureThing') throw new CvmError('aws-iot-throttled') }
  await t.rejects(rig.vend(), code('aws-iot-throttled'))
  t.equal(rig.controlPlane.statuses.size, 0)
  rig.controlPlane.before = operation => {
    if (operation === 'ensureThing' || operation === 'deleteUnbound') throw new CvmError('aws-iot-throttled')
  }
  rig.clock.now += 1
  await t.rejects(rig.vend(), code('aws-iot-throttled'))
  t.same(rig.leftovers, ['certificate', ...rig.controlPlane.statuses.keys()], 'or reported for reconcile')
})

await t.test('a certificate for another key than the CSR\'s is never handed out (G6)', async t => {
  const rig = await makeRig()
  const create = rig.controlPlane.createKeysAndCertificate.bind(rig.controlPlane)
  rig.controlPlane.createCertificateFromCsr = () => create()
  await t.rejects(rig.vend(), code('aws-iot-refused'))
  t.equal(rig.controlPlane.statuses.size, 0)
})

await t.test('a certificate for another key that AWS IoT will not delete is revoked; what is left is told by its id', async t => {
  for (const isKept of [false, true]) {
    const rig = await makeRig()
    const create = rig.controlPlane.createKeysAndCertificate.bind(rig.controlPlane)
    rig.controlPlane.createCertificateFromCsr = async () => {
      const made = await create()
      await rig.controlPlane.activate(made.certificateId)
      return made
    }
    if (isKept) rig.controlPlane.before = operation => { if (operation === 'deleteUnbound') throw new CvmError('aws-iot-refused') }
    await t.rejects(rig.vend(), code('aws-iot-refused'))
    t.same([...rig.controlPlane.statuses.values()], isKept ? ['REVOKED'] : [], isKept ? 'it cannot be deleted' : 'it was ACTIVE')
    t.same(rig.leftovers, isKept ? ['certificate', ...rig.controlPlane.statuses.keys()] : [])
  }
})

function failOnce (rig: Rig, moment: 'before' | 'after', position: number, failure: Error): void {
  let seen = 0
  rig.controlPlane[moment] = () => {
    if (seen++ === position) throw failure
  }
}

async function traced (work: (rig: Rig) => Promise<unknown>): Promise<{ controlPlane: { calls: Operation[] } }> {
  const rig = await makeRig()
  await work(rig)
  return rig
}
