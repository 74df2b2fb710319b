// What requests cost that get no new certificate, beside a vend; and how good devices fare while somebody floods the service.
import { randomUUID } from 'node:crypto'
import { forked } from './children.ts'
import { type Result, type Size, cpuMsOf, crowd, median, paired, quantile, resultOf } from './harness.ts'
import { clientOf, mustBe, startOnAnswers, vendBody } from './service.ts'

const AT_ONCE = 8
const FLOOD_PER_SECOND = 300
/** Proxies tell the service the addresses of a flood; its own limits are as they are by default but for good devices' one address. */
const BEHIND_PROXY = { TRUST_PROXY_CIDRS: '127.0.0.0/8', RATE_LIMIT_SERIAL_MAX: '10' }

export async function refusals ({ rounds, scale }: Size): Promise<Result[]> {
  const { service, csr, bodyOf, stop } = await startOnAnswers(0, { RATE_LIMIT_SERIAL_MAX: '10', RATE_LIMIT_WINDOW_MS: '3600000' })
  const client = clientOf(service.url, AT_ONCE)
  const times = Math.ceil(300 * scale)
  const cost = (status: number, body: () => string) => async () => {
    const before = cpuMsOf(service.pid)
    await crowd(AT_ONCE, times, async () => mustBe(status, await client.post(body())))
    return Math.max(10, cpuMsOf(service.pid) - before)
  }
  const limited = vendBody('sn-limited', csr)
  for (let n = 0; n < 10; n++) await client.post(limited)
  const vend = cost(201, bodyOf)
  await vend()
  const goal = { against: 'a vend', atMost: 0.3 }
  const results = [
    await paired({ ...goal, what: 'CPU of a wrong token' }, rounds, cost(401, () => vendBody(`wrong-${randomUUID()}`, csr)), vend),
    await paired({ ...goal, what: 'CPU of a rate-limited request' }, rounds, cost(429, () => limited), vend),
    await paired({ against: 'a vend', what: 'CPU of a replay' }, rounds, cost(200, () => vendBody(`replay-${randomUUID()}`, csr)), vend)
  ]
  await Promise.all([client.close(), stop()])
  return results
}

export async function floods ({ rounds, scale }: Size): Promise<Result[]> {
  // A busy machine makes good devices slow, never refused: their answers are what is measured.
  const patient = { VEND_DEADLINE_MS: '120000', CLAIM_LIFETIME_MS: '150000' }
  const { service, csr, bodyOf, stop } = await startOnAnswers(5, { ...BEHIND_PROXY, ...patient })
  const client = clientOf(service.url, 2)
  const flood = await forked<string>('flood.ts')
  const good = async () => {
    const took: number[] = []
    await crowd(2, Math.ceil(120 * scale) + 2, async () => {
      const answer = await client.post(bodyOf())
      mustBe(201, answer)
      took.push(answer.ms)
    })
    return quantile(took, 0.99)
  }
  const during = async (kind: string) => {
    flood.process.send({ kind, url: service.url, csr, perSecond: FLOOD_PER_SECOND })
    const p99 = await good()
    const stopped = new Promise(resolve => flood.process.once('message', resolve))
    flood.process.send({ kind: 'none' })
    await stopped
    return p99
  }
  const results: Result[] = []
  await good()
  for (const [kind, by] of [['serial', 'one serial number'], ['addresses', 'many addresses with wrong tokens']] as const) {
    await during(kind)
    const [ratios, controls]: [number[], number[]] = [[], []]
    for (let round = 0; round < rounds; round++) {
      const [before, flooded, after] = [await good(), await during(kind), await good()]
      ratios.push(flooded / ((before + after) / 2))
      controls.push(before / after)
    }
    const what = `p99 of good devices, ${FLOOD_PER_SECOND} requests a second by ${by} beside them`
    results.push(resultOf({ what, against: 'without them', atMost: 2 }, ratios, { control: median(controls) }))
  }
  await Promise.all([client.close(), flood.stop(), stop()])
  return results
}
