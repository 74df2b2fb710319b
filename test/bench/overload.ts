// Four times as many requests as the service can serve: what it still serves, how soon it says no to the rest, and what it holds in memory.
import { setTimeout as delay } from 'node:timers/promises'
import { forked, has, pin } from './children.ts'
import type { Outcome } from './flood.ts'
import { type Result, type Size, crowd, quantile, resultOf, rssMbOf } from './harness.ts'
import { clientOf, mustBe, startOnAnswers } from './service.ts'

const CALL_MS = 5
/** Enough to keep a core busy, and no more than the service lets in while it is. */
const IN_FLIGHT = 16
const SECONDS = 8
const TIMES_PEAK = 4

export async function overload ({ rounds, scale }: Size): Promise<Result[]> {
  // The limits that are not about overload stay open; those that are, are as by default.
  const { aws, service, csr, bodyOf, stop } = await startOnAnswers(CALL_MS, { MAX_EVENT_LOOP_DELAY_MS: '1000' })
  const flood = await forked<string>('flood.ts')
  if (has('taskset')) {
    pin(service.pid, 0)
    for (const { pid } of [aws, flood]) pin(pid, 1)
  }
  const client = clientOf(service.url, IN_FLIGHT)
  const peak = async () => {
    const began = performance.now()
    const times = Math.ceil(800 * scale)
    await crowd(IN_FLIGHT, times, async () => mustBe(201, await client.post(bodyOf())))
    return times * 1000 / (performance.now() - began)
  }
  await peak()
  const [goodput, refused, memory]: [number[], number[], number[]] = [[], [], []]
  for (let round = 0; round < Math.min(rounds, 5); round++) {
    const best = await peak()
    const quiet = rssMbOf(service.pid)
    const seconds = SECONDS * Math.max(scale, 0.1)
    flood.process.send({ kind: 'vends', url: service.url, csr, perSecond: TIMES_PEAK * best })
    await delay(seconds * 1000)
    const loaded = rssMbOf(service.pid)
    const ended = new Promise<Outcome[]>(resolve => flood.process.once('message', message => resolve(message as Outcome[])))
    const tail = performance.now()
    flood.process.send({ kind: 'none' })
    const outcomes = await ended
    const took = seconds + (performance.now() - tail) / 1000
    goodput.push(outcomes.filter(({ status }) => status === 201).length / took / best)
    const noes = outcomes.filter(({ status }) => status === 503).map(({ ms }) => ms)
    refused.push(noes.length > 0 ? quantile(noes, 0.99) : NaN)
    memory.push(loaded / quiet)
    const counts: Record<number, number> = {}
    for (const { status } of outcomes) counts[status] = (counts[status] ?? 0) + 1
    console.log(`peak ${best.toFixed(0)}/s; at ${TIMES_PEAK} times as many: ${JSON.stringify(counts)}`)
  }
  await Promise.all([client.close(), flood.stop(), stop()])
  const at = `at ${TIMES_PEAK} × capacity`
  return [
    resultOf({ what: `goodput ${at}`, against: 'its peak', atLeast: 0.8 }, goodput),
    resultOf({ what: `p99 of a refusal ${at}`, against: '', atMost: 50 }, refused, { unit: 'ms' }),
    resultOf({ what: `resident memory ${at}`, against: 'at its peak', atMost: 2 }, memory)
  ]
}
