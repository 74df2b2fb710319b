// One line of a batch: tried again while that may help, ended with its batch, and at work only while it has been admitted.
import t from 'tap'
import { CvmError } from '../../src/errors.ts'
import { type VendBatchDeps, openBatch } from '../../src/vending/vend-batch.ts'
import type { VendRequest, Vended } from '../../src/vending/vend-steps.ts'

const VENDED = { outcome: 'vended', product: 'default' } as unknown as Vended
const never = new AbortController().signal
const line = { serialNumber: 'sn-1', registrationToken: 'token' }

/** A batch whose vends end as `answers` say, the last one for ever; time passes only in pauses. */
function rig (...answers: (Vended | Error)[]) {
  const pauses: number[] = []
  const requests: VendRequest[] = []
  const stop = new AbortController()
  let now = 0
  let atWork = 0
  let onPause = (): void => {}
  const deps: VendBatchDeps = {
    async vend (request) {
      requests.push(request)
      t.equal(atWork, 1, 'admitted while it is at work')
      const answer = answers[Math.min(requests.length, answers.length) - 1] as Vended | Error
      if (answer instanceof Error) throw answer
      return answer
    },
    register: async () => {},
    registry: { find: async () => undefined },
    keyOwners: { find: async () => undefined },
    hashToken: () => 'hash',
    products: new Map(),
    now: () => now,
    async admit () { atWork = 1; return () => { atWork = 0 } },
    async pause (ms) { t.equal(atWork, 0, 'it makes room while it waits'); pauses.push(ms); now += ms; onPause() }
  }
  const batch = openBatch('request-1', deps)
  const vend = (n = 1, callerGone = never) => batch.vend(line, { line: n, stop: stop.signal, callerGone })
  return { batch, vend, pauses, requests, stop, isIdle: () => atWork === 0, onPause: (work: () => void) => { onPause = work } }
}

await t.test('what passes is tried again, as the failure says and ever more slowly', async t => {
  const { vend, pauses, isIdle } = rig(
    new CvmError('aws-iot-unavailable', { retryAfterMs: 2_000 }), new CvmError('registry-unavailable'), new CvmError('vend-in-progress', { retryAfterMs: 300 }), VENDED
  )
  t.equal(await vend(), VENDED)
  t.same(pauses, [2_000, 500, 1_000])
  t.ok(isIdle())
})

await t.test('for about a minute, and never into it', async t => {
  const busy = rig(new CvmError('aws-iot-throttled', { retryAfterMs: 7_000 }))
  await t.rejects(busy.vend(), { code: 'aws-iot-throttled', retryAfterMs: 7_000 })
  t.equal(busy.pauses.length, 8)
  const long = rig(new CvmError('aws-iot-throttled', { retryAfterMs: 61_000 }))
  await t.rejects(long.vend(), { code: 'aws-iot-throttled' })
  t.same(long.pauses, [])
  t.ok(long.isIdle())
})

await t.test('what stays is not', async t => {
  for (const error of [new CvmError('device-revoked'), new CvmError('aws-iot-refused'), new CvmError('product-not-configured', { retryAfterMs: 1 }), new Error('bug')]) {
    const { vend, requests, isIdle } = rig(error)
    await t.rejects(vend(), error)
    t.equal(requests.length, 1)
    t.ok(isIdle())
  }
})

await t.test('a batch that ends: no further try, and who would take a key pair is asked by the vend', async t => {
  const { vend, requests, stop, onPause } = rig(new CvmError('aws-iot-unavailable'))
  onPause(() => stop.abort())
  const { signal } = new AbortController()
  await t.rejects(vend(1, signal), { code: 'aws-iot-unavailable' })
  t.same(requests.map(({ requestId, callerGone }) => [requestId, callerGone === signal]), [['request-1', true]])
})

await t.test('the same serial number again names the line that had it, whatever became of that', async t => {
  const { batch, vend } = rig(new CvmError('device-revoked'))
  await t.rejects(vend(3), { code: 'device-revoked' })
  await t.rejects(vend(7), { code: 'duplicate-in-batch', message: 'the same serial number is in line 3' })
  await t.rejects(batch.foresee(line, { line: 9 }), { code: 'duplicate-in-batch' })
})
