// How long a vend takes beside a bare script of the SDK that makes the same calls, each of which takes 5 ms here: what the service adds.
import { forked } from './children.ts'
import { type Result, type Size, crowd, median, quantile, resultOf } from './harness.ts'
import { clientOf, mustBe, startOnAnswers } from './service.ts'

const CALL_MS = 5
const P50_MS = 2.5
const P99_RATIO = 1.5

export async function latencies ({ rounds, scale }: Size): Promise<Result[]> {
  const { aws, service, csr, bodyOf, stop } = await startOnAnswers(CALL_MS)
  const script = await forked<string>('bare-sdk.ts', [aws.first, csr])
  const bare = (inFlight: number, times: number) => new Promise<number[]>(resolve => {
    script.process.once('message', message => resolve(message as number[]))
    script.process.send({ inFlight, times })
  })
  const client = clientOf(service.url, 64)
  const ours = async (inFlight: number, times: number) => {
    const took: number[] = []
    await crowd(inFlight, times, async () => {
      const answer = await client.post(bodyOf())
      mustBe(201, answer)
      took.push(answer.ms)
    })
    return took
  }
  const results: Result[] = []
  for (const inFlight of [1, 16, 64]) {
    const times = Math.ceil(Math.max(100, inFlight * 8) * scale)
    await Promise.all([ours(inFlight, times), bare(inFlight, times)])
    const [added, p99s, controls]: [number[], number[], number[]] = [[], [], []]
    for (let round = 0; round < rounds; round++) {
      const [before, own, after] = [await bare(inFlight, times), await ours(inFlight, times), await bare(inFlight, times)]
      added.push(median(own) - (median(before) + median(after)) / 2)
      p99s.push(quantile(own, 0.99) / ((quantile(before, 0.99) + quantile(after, 0.99)) / 2))
      controls.push(median(before) / median(after))
    }
    const [control, at] = [median(controls), `${inFlight} in flight`]
    results.push(resultOf({ what: `p50 that a vend adds to its calls, ${at}`, against: 'a bare SDK script', ...(inFlight === 1 && { atMost: P50_MS }) }, added, { control, unit: 'ms' }))
    results.push(resultOf({ what: `p99 of a vend, ${at}`, against: 'a bare SDK script', atMost: P99_RATIO }, p99s, { control }))
  }
  await Promise.all([client.close(), script.stop(), stop()])
  return results
}
