// When lines of batches begin: as many as the pace serves soon, in their order, and none that would only wait.
import { setImmediate as settled } from 'node:timers/promises'
import t from 'tap'
import { type Forecast, LineAdmission } from '../../src/adapters/line-admission.ts'
import { HandClock } from '../fixtures/hand-clock.ts'

const never = new AbortController().signal

/** An admission whose forecast a test sets; `begun` are the lines that may begin, in order, each with what ends it. */
function rig (forecast: Forecast) {
  const clock = new HandClock()
  const asked: string[] = []
  const admission = new LineAdmission(way => { asked.push(way); return forecast }, clock)
  const begun: { name: number, end: () => void }[] = []
  const refused: unknown[] = []
  const ask = (name: number, stop = never) => {
    admission.admit('csr', stop).then(end => { begun.push({ name, end }) }, (cause: unknown) => { refused.push(cause) })
  }
  const names = async () => { await settled(); return begun.map(({ name }) => name) }
  return { clock, asked, ask, begun, refused, names, forecast }
}

await t.test('as many as the pace serves in two seconds, and the next when one ends', async t => {
  const { ask, begun, names, forecast } = rig({ perSecond: 3, waitMs: 0 })
  for (let n = 0; n < 10; n++) ask(n)
  t.same(await names(), [0, 1, 2, 3, 4, 5])
  begun[2]?.end()
  begun[2]?.end()
  t.same(await names(), [0, 1, 2, 3, 4, 5, 6], 'ended twice is ended once')
  forecast.perSecond = 1
  for (const n of [0, 1, 3, 4]) begun[n]?.end()
  t.same(await names(), [0, 1, 2, 3, 4, 5, 6], 'a slower pace lets none begin')
  begun[5]?.end()
  t.same(await names(), [0, 1, 2, 3, 4, 5, 6, 7])
  forecast.perSecond = 0.5
  for (const n of [6, 7]) begun[n]?.end()
  t.same(await names(), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9], 'two are at work at any pace')
})

await t.test('without a quota all begin', async t => {
  const { ask, names } = rig({ perSecond: Infinity, waitMs: 0 })
  for (let n = 0; n < 1_000; n++) ask(n)
  t.equal((await names()).length, 1_000)
})

await t.test('none while others fill the queues; looks again when that is over, with one timer', async t => {
  const { clock, asked, ask, names, forecast } = rig({ perSecond: 10, waitMs: 12_000 })
  for (let n = 0; n < 5; n++) ask(n)
  t.same(await names(), [])
  t.equal(clock.timers, 1)
  const looks = asked.length
  await clock.turn(9_999)
  t.equal(asked.length, looks, 'and does not ask meanwhile')
  forecast.waitMs = 2_500
  await clock.turn(1)
  t.same(await names(), [])
  forecast.waitMs = 1_000
  await clock.turn(500)
  t.same(await names(), [0, 1, 2, 3, 4])
})

await t.test('a batch that ends takes its lines with it, and no others', async t => {
  const { ask, begun, refused, names } = rig({ perSecond: 1, waitMs: 0 })
  const stop = new AbortController()
  ask(0, stop.signal)
  ask(1)
  ask(2, stop.signal)
  ask(3)
  stop.abort()
  ask(4, stop.signal)
  t.same(await names(), [0, 1], 'what has begun goes on')
  t.match(refused, [{ code: 'deadline-exceeded', retryAfterMs: 2_000 }, { code: 'deadline-exceeded' }])
  begun[0]?.end()
  t.same(await names(), [0, 1, 3])
})
