// Replicas that share an account's quota and never talk to each other, each with its own pacer, against one token bucket like AWS's.
import t from 'tap'
import { Pacer } from '../../src/adapters/pacer.ts'
import { HandClock } from '../fixtures/hand-clock.ts'

const never = new AbortController().signal
const SILENT = { queue () {}, waited () {}, refused () {}, throttled () {}, pace () {} }
const WORKERS = 20

interface Replica { readonly pacer: Pacer, working: boolean, served: number }

/** AWS as it throttles: a bucket that holds one second's worth; an answer takes 20 to 80 ms. */
function account (quota: number, size: number) {
  const clock = new HandClock()
  const replicas: Replica[] = Array.from({ length: size }, () => ({ pacer: new Pacer('Op', quota, clock, SILENT), working: true, served: 0 }))
  const counts = { served: 0, throttled: 0 }
  let tokens = quota
  let filledAt = 0
  let seed = 1
  const random = () => { seed = (seed * 1_103_515_245 + 12_345) % 2_147_483_648; return seed / 2_147_483_648 }
  const isServed = (): boolean => {
    tokens = Math.min(quota, tokens + (clock.now() - filledAt) / 1000 * quota)
    filledAt = clock.now()
    if (tokens < 1) return false
    tokens -= 1
    return true
  }
  const work = async (replica: Replica): Promise<void> => {
    for (let again = false; replica.working;) {
      await replica.pacer.turn({ priority: 'bulk', signal: never, again })
      const startedAt = clock.now()
      again = !isServed()
      counts[again ? 'throttled' : 'served'] += 1
      replica.served += again ? 0 : 1
      await clock.pause(20 + 60 * random())
      if (again) replica.pacer.throttled(startedAt)
    }
  }
  const started: Promise<void>[] = []
  const start = (replica: Replica) => { for (let n = 0; n < WORKERS; n++) started.push(work(replica)) }
  for (const replica of replicas) start(replica)
  return {
    replicas,
    start,
    /** What share of the quota was used in the next `seconds`, of the calls throttled, and of the replicas' even share the poorest got. */
    async during (seconds: number) {
      const before = { ...counts }
      const had = replicas.map(({ served }) => served)
      await clock.turn(seconds * 1000)
      const served = counts.served - before.served
      const throttled = counts.throttled - before.throttled
      const got = replicas.map((replica, n) => replica.served - had[n]!)
      return { used: served / quota / seconds, throttled: throttled / (served + throttled), poorest: Math.min(...got) / served * size }
    }
  }
}

const percent = (share: number) => `${(share * 100).toFixed(2)} %`

await t.test('replicas settle on the quota, with hardly a throttled call', async t => {
  const table = [
    { quota: 100, size: 1, most: 0 },
    { quota: 100, size: 2, most: 0.01 },
    { quota: 100, size: 3, most: 0.01 },
    { quota: 10, size: 1, most: 0 },
    // Each look for more costs the same few calls, which are a larger share of few calls.
    { quota: 10, size: 3, most: 0.03 }
  ]
  for (const { quota, size, most } of table) {
    const { during } = account(quota, size)
    const whole = await during(60)
    const steady = await during(120)
    t.comment(`${size} at ${quota}/s: used ${percent(steady.used)}, throttled ${percent(steady.throttled)}, poorest ${percent(steady.poorest)} of its share; ` +
      `the first minute: used ${percent(whole.used)}, throttled ${percent(whole.throttled)}`)
    t.ok(steady.used >= 0.9, `${size} at ${quota}/s use the quota`)
    t.ok(steady.throttled <= most, 'steady')
    t.ok(whole.used >= 0.9 && whole.throttled <= 0.1, 'from the start')
    t.ok(steady.poorest >= 0.3, 'each gets a share')
  }
})

await t.test('what a replica leaves, others take within a minute; an idle one keeps nothing, and gets its share again', async t => {
  const { replicas, start, during } = account(100, 3)
  await during(60)
  for (const replica of replicas.slice(1)) replica.working = false
  await during(60)
  const alone = await during(20)
  t.comment(`alone, a minute after two others left: used ${percent(alone.used)}`)
  t.ok(alone.used >= 0.9)
  for (const replica of replicas.slice(1)) {
    replica.working = true
    start(replica)
  }
  const back = await during(60)
  const settled = await during(60)
  t.comment(`the minute after they are back: throttled ${percent(back.throttled)}, used ${percent(back.used)}; then poorest ${percent(settled.poorest)}`)
  t.ok(back.throttled <= 0.1 && back.used >= 0.9 && settled.poorest >= 0.3)
})
