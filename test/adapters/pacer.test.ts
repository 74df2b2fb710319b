// The pace of one operation, with a clock that is turned by hand.
import t from 'tap'
import { PRIORITIES, Pacer, type Priority } from '../../src/adapters/pacer.ts'
import { CvmError } from '../../src/errors.ts'
import { HandClock } from '../fixtures/hand-clock.ts'

const never = new AbortController().signal
const SILENT = { queue () {}, waited () {}, refused () {}, throttled () {}, pace () {} }

function rig (quota: number) {
  const clock = new HandClock()
  let pace = quota
  const pacer = new Pacer('Op', quota, clock, { ...SILENT, pace: (_operation, perSecond) => { pace = perSecond } })
  const served: { name: string, at: number }[] = []
  const call = async (name: string, priority: Priority = 'device', signal = never): Promise<void> => {
    await pacer.turn({ priority, signal })
    served.push({ name, at: clock.now() })
  }
  const entered: Promise<void>[] = []
  const enter = (...args: Parameters<typeof call>): void => { entered.push(call(...args)) }
  return { clock, pacer, served, call, enter, pace: () => pace }
}

await t.test('the pace holds over every window, bursts included', async t => {
  for (const quota of [0.5, 10, 150]) {
    const { clock, served, enter } = rig(quota)
    const burst = Math.max(1, quota * 0.1) + 1
    await clock.turn(60_000)
    for (let n = 0; n < 20 * quota + burst; n++) enter(`${n}`)
    await clock.turn(1)
    t.ok(served.length <= burst, `${quota}/s: ${served.length} at once after a pause`)
    await clock.turn(8_000)
    // More come while some wait, and after a pause in which hardly anything was saved up.
    for (let n = 0; n < 5 * quota; n++) enter(`more ${n}`)
    await clock.turn(60_000)
    for (let n = 0; n < 5 * quota; n++) enter(`last ${n}`)
    await clock.turn(60_000)
    t.equal(served.length, Math.ceil(20 * quota + burst) + 2 * Math.ceil(5 * quota), 'all are served')
    let worst = 0
    for (let first = 0; first < served.length; first++) {
      for (let last = first; last < served.length; last++) {
        worst = Math.max(worst, last - first + 1 - quota * (served[last]!.at - served[first]!.at) / 1000)
      }
    }
    t.ok(worst <= burst + 0.001, `${quota}/s: at most ${worst} calls ahead of the pace`)
  }
})

await t.test('while calls wait, the quota is used in full, also where timers are late', async t => {
  for (const lateMs of [0, 30]) {
    const { clock, served, enter } = rig(10)
    clock.lateMs = lateMs
    for (let n = 0; n < 200; n++) enter(`${n}`)
    await clock.turn(10_000)
    t.ok(served.length >= 99, `${served.length} in 10 s, timers ${lateMs} ms late`)
    t.ok(clock.timers <= 1, 'one timer for all who wait')
  }
})

await t.test('devices go before bulk, which still gets one in ten; in order within each', async t => {
  const { clock, served, enter } = rig(10)
  for (let n = 0; n < 50; n++) enter(`bulk ${n}`, 'bulk')
  for (let n = 0; n < 50; n++) enter(`device ${n}`)
  await clock.turn(20_000)
  const names = served.map(({ name }) => name)
  for (const kind of ['bulk', 'device']) {
    const numbers = names.filter(name => name.startsWith(kind)).map(name => Number(name.split(' ')[1]))
    t.strictSame(numbers, numbers.toSorted((a, b) => a - b), `${kind} in order`)
  }
  const contended = names.slice(0, names.indexOf('device 49'))
  const bulk = contended.filter(name => name.startsWith('bulk')).length
  t.ok(bulk >= 4 && bulk <= 7, `${bulk} bulk among ${contended.length}`)
})

await t.test('the sweep goes last, and still gets one in a hundred', async t => {
  const { clock, served, enter } = rig(10)
  for (let n = 0; n < 5; n++) enter(`sweep ${n}`, 'sweep')
  for (let n = 0; n < 150; n++) enter(`bulk ${n}`, 'bulk')
  for (let n = 0; n < 150; n++) enter(`device ${n}`)
  await clock.turn(60_000)
  const names = served.map(({ name }) => name.split(' ')[0])
  t.equal(names.length, 305)
  const contended = names.slice(0, 300)
  t.equal(contended.filter(name => name === 'sweep').length, 3, 'the first, which was alone, and one in each hundred')
  t.equal(names.at(-1), 'sweep')
})

await t.test('the wait that is foretold is the wait that comes', async t => {
  const { clock, pacer, served, call, enter } = rig(10)
  for (let n = 0; n < 30; n++) enter('device')
  for (let n = 0; n < 30; n++) enter('bulk', 'bulk')
  await clock.turn(50)
  for (const priority of PRIORITIES) {
    const foretold = clock.now() + pacer.waitMs(priority)
    const name = `asked as ${priority}`
    await Promise.all([call(name, priority), clock.turn(10_000)])
    const { at } = served.find(call => call.name === name)!
    // The sweep's share of the calls before may serve it earlier.
    t.ok((priority === 'sweep' ? at - foretold : Math.abs(at - foretold)) <= 400, `${priority}: foretold ${foretold}, served ${at}`)
    if (priority !== 'sweep') for (let n = 0; n < 30; n++) enter('bulk', 'bulk')
  }
  t.equal(pacer.waitMs('device'), 0, 'nobody waits: at once')
})

await t.test('each who is sent away is told a later time, within a minute', async t => {
  const { pacer } = rig(10)
  const told = Array.from({ length: 1_000 }, () => pacer.refusal('device', 5_000))
  t.match(told[0], { code: 'aws-iot-throttled', retryAfterMs: 5_000 })
  t.match(told[1], { retryAfterMs: 5_100 })
  t.ok(told.every(({ retryAfterMs = 0 }) => retryAfterMs <= 60_000))
})

await t.test('who gives up leaves the queue', async t => {
  const { clock, pacer, served, call, enter } = rig(10)
  const leaving = new AbortController()
  enter('first')
  const gone = call('gone', 'device', leaving.signal)
  enter('second')
  leaving.abort()
  const error = await gone.catch((cause: unknown) => cause)
  t.ok(error instanceof CvmError && error.code === 'aws-iot-throttled' && error.retryAfterMs! > 0, 'nothing was done, and when to come back')
  await clock.turn(1_000)
  t.strictSame(served.map(({ name }) => name), ['first', 'second'])
  t.equal(served[1]!.at, 100, 'its place is not kept')
  await t.rejects(pacer.turn({ priority: 'device', signal: AbortSignal.abort() }), { code: 'aws-iot-throttled' })
  await clock.turn(1_000)
  t.equal(clock.timers, 0)
})

await t.test('who was throttled is next', async t => {
  const { clock, pacer, served, enter } = rig(10)
  for (let n = 0; n < 3; n++) enter(`${n}`)
  pacer.throttled(clock.now())
  const again = pacer.turn({ priority: 'device', signal: never, again: true }).then(() => served.push({ name: 'again', at: clock.now() }))
  await clock.turn(5_000)
  await again
  t.strictSame(served.map(({ name }) => name), ['0', 'again', '1', '2'])
})

await t.test('throttling cuts the pace once a burst, down to a floor; calls without throttling bring it back', async t => {
  const { clock, pacer, enter, pace } = rig(10)
  await clock.turn(1_000)
  for (let n = 0; n < 5; n++) pacer.throttled(clock.now())
  t.equal(pace(), 7, 'five at once are one')
  await clock.turn(1_000)
  pacer.throttled(500)
  t.equal(pace(), 7, 'a call made before the cut says nothing about it')
  for (let n = 0; n < 30; n++) {
    await clock.turn(1_000)
    pacer.throttled(clock.now())
  }
  t.equal(pace(), 0.5, 'the floor')
  await clock.turn(600_000)
  enter('one')
  await clock.turn(10_000)
  t.ok(pace() < 0.6, 'a pause brings nothing back')
  for (let n = 0; n < 1_000; n++) enter('busy')
  await clock.turn(120_000)
  t.equal(pace(), 10, 'back at the quota, and no further')
})
