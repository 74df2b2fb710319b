// A crowd before an account with AWS's own quotas: what cannot be served in time is told when to come back, and then is served.
import { randomBytes } from 'node:crypto'
import t from 'tap'
import { isWhole } from '../fixtures/proof-size.ts'
import { BEST_ENGINE } from './fleet.ts'
import { keyAndRequest } from './key-and-request.ts'
import { type Attempt, persist } from './persistent-client.ts'
import { startLocalAws, startProduction } from './service-process.ts'

t.setTimeout(900_000)

const [DEVICES, CLIENTS] = isWhole ? [100, 64] : [50, 50]
/** UpdateCertificate's, the least of those that a vend needs. */
const QUOTA = 10

await t.test(`${DEVICES} devices, ${CLIENTS} at a time, at AWS's default quotas`, async t => {
  const aws = await startLocalAws(t, BEST_ENGINE, { LOCAL_QUOTAS: '1' })
  const service = await startProduction(t, aws, {
    AWS_IOT_QUOTA_FACTOR: '1',
    // Short, so that most of the crowd is sent away at first.
    QUEUE_WAIT_DEVICE_MS: '500',
    RATE_LIMIT_ADDRESS_MAX: '1000000',
    MAX_IN_FLIGHT_ADDRESS: '512',
    RATE_LIMIT_SERIAL_MAX: '1000000',
    TOKEN_PEPPER: randomBytes(32).toString('base64')
  })
  const bodies: string[] = []
  for (let n = 0; n < DEVICES; n++) bodies.push((await keyAndRequest(await aws.register())).body)

  const errands: Attempt[][] = []
  const began = performance.now()
  await Promise.all(Array.from({ length: CLIENTS }, async () => {
    for (let body = bodies.shift(); body; body = bodies.shift()) errands.push(await persist(() => service.serviceUrl, 'csr', body, 600_000))
  }))
  const tookS = (performance.now() - began) / 1000

  // 200 where reconcile has finished meanwhile what a request was sent away from.
  t.equal(errands.filter(attempts => [200, 201].includes(attempts.at(-1)!.status)).length, DEVICES, 'each is served in the end')
  const refusals = errands.flatMap(attempts => attempts.slice(0, -1))
  t.ok(refusals.length > 0, 'some are sent away')
  const throttles = refusals.filter(({ status, code }) => status === 503 && code === 'aws-iot-throttled')
  t.ok(throttles.length > 0 && throttles.every(({ retryAfterMs = 0 }) => retryAfterMs >= 1_000), 'and told when to come back')
  const tries = errands.map(({ length }) => length)
  const ids = new Set(errands.map(attempts => attempts.at(-1)!.vended?.certificateId))

  const calls = samples(await (await fetch(`${service.opsUrl}/metrics`)).text(), 'cvm_aws_calls_total').filter(({ labels }) => labels.includes('service="iot"'))
  const sum = (of: typeof calls) => of.reduce((total, { value }) => total + value, 0)
  const throttled = sum(calls.filter(({ labels }) => labels.includes('Throttl')))
  t.comment(`${tookS.toFixed(1)} s, ${(tookS * QUOTA / DEVICES).toFixed(2)} of what the quota needs; ${refusals.length} sent away, ` +
    `at most ${Math.max(...tries)} tries; ${throttled} of ${sum(calls)} calls throttled`)
  // Where the machine is slow, calls that were sent at their time arrive together.
  t.ok(throttled < 0.2 * sum(calls), 'few calls are throttled')

  const held = await aws.certificates()
  t.strictSame([held.length, ids.size], [DEVICES, DEVICES], 'one certificate for each')
  t.ok(held.every(({ status, certificateId = '' }) => status === 'ACTIVE' && ids.has(certificateId)))
})

function samples (text: string, name: string): { labels: string, value: number }[] {
  return text.split('\n').filter(line => line.startsWith(`${name}{`)).map(line => ({ labels: line, value: Number(line.split(' ').at(-1)) }))
}
