// Limits that replicas share, and what becomes of a request when their store is away.
import { randomUUID } from 'node:crypto'
import t, { type Test } from 'tap'
import { BEST_ENGINE } from '../fixtures/engines.ts'
import { type Fault, startFaultyProxy } from '../fixtures/faulty-proxy.ts'
import { isProblem } from '../fixtures/problems.ts'
import { awsCallsDuring, total } from '../fixtures/scrape.ts'
import { type TestService, startService } from '../fixtures/service.ts'
import { newDevice, vend } from '../fixtures/vending.ts'

const MAX = 3

/** A service that counts serial numbers in DynamoDB, where whatever is about its table goes as the test says. */
async function started (t: Test, timeoutMs: number) {
  const engine = await BEST_ENGINE.start()
  t.teardown(() => engine.close())
  const proxy = await startFaultyProxy(t)
  proxy.forwardTo(engine.url)
  const RATE_LIMIT_TABLE = `rates-${randomUUID()}`
  const service = await startService({
    RATE_LIMIT_STORE: 'dynamodb',
    RATE_LIMIT_TABLE,
    RATE_LIMIT_TIMEOUT_MS: String(timeoutMs),
    RATE_LIMIT_SERIAL_MAX: String(MAX),
    // A machine that is busy with other tests is not what is asked about here.
    MAX_EVENT_LOOP_DELAY_MS: '60000',
    AWS_ENDPOINT_URL_DYNAMODB: proxy.url
  })
  t.teardown(() => service.close())
  let asked = 0
  const failStore = (fault: Fault): void => proxy.fail((_operation, body) => {
    if (!body.includes(RATE_LIMIT_TABLE)) return undefined
    asked++
    return fault
  })
  return { service, failStore, asked: () => asked }
}

const fallbacks = (service: TestService) => total(service, 'cvm_rate_limit_fallbacks_total')
const linesOf = (service: TestService) => service.logs().split('\n').filter(line => line.includes('shared store of the rate limits'))

await t.test('counted in DynamoDB: one more write for the first request of a window, two for others, none beyond the limit', async t => {
  const { service } = await started(t, 30_000)
  const device = await newDevice(service)
  const first = await awsCallsDuring(service, () => vend(service, device))
  t.equal(first['UpdateItem ok'], 5, 'four of the vend, one of the limit')
  const replay = await awsCallsDuring(service, () => vend(service, device))
  t.match(replay, { 'UpdateItem ok': 1, 'UpdateItem ConditionalCheckFailedException': 2 }, 'a replay: one refused write of its own')
  t.equal((await vend(service, device)).statusCode, 200)
  isProblem(t, await vend(service, device), 'rate-limited', { detail: /serial number/ })
  const calls = await awsCallsDuring(service, async () => {
    const refused = await vend(service, device)
    isProblem(t, refused, 'rate-limited', { detail: /serial number/ })
    t.match(refused.headers, { 'retry-after': /^[1-9]\d?$/, 'x-ratelimit-limit': MAX, 'x-ratelimit-remaining': 0, 'x-ratelimit-reset': /^[1-9]\d?$/ })
  })
  t.strictSame(calls, {})
  t.equal((await vend(service, await newDevice(service))).statusCode, 201, 'another is served')
  t.equal(await fallbacks(service), 0)
  t.equal(await total(service, 'cvm_rate_limited_total', { limit: 'serial' }), 2)
})

const away: Record<string, Fault> = {
  'cuts connections': 'reset',
  'does not answer': 'silence',
  'has no table': { status: 400, body: JSON.stringify({ __type: 'com.amazonaws.dynamodb.v20120810#ResourceNotFoundException', message: 'no table' }) }
}
for (const [what, fault] of Object.entries(away)) {
  await t.test(`a store that ${what}: devices are served, each replica counts for itself`, async t => {
    const { service, failStore, asked } = await started(t, 500)
    const device = await newDevice(service)
    failStore(fault)
    const statuses: number[] = []
    const began = performance.now()
    for (let n = 0; n < MAX + 2; n++) statuses.push((await vend(service, device)).statusCode)
    t.strictSame(statuses, [201, 200, 200, 429, 429])
    t.comment(`${statuses.length} requests in ${Math.round(performance.now() - began)} ms`)
    t.equal(await fallbacks(service), MAX + 2, 'all are counted')
    t.ok(asked() < MAX + 2, `the store is left alone for a while, so that it holds nobody up: asked ${asked()} times`)
    t.equal(linesOf(service).length, 1, 'and said once, not for each request')
    t.match(JSON.parse(linesOf(service)[0]!), { level: 40, cause: /\w/, requests: 1 })
    t.notMatch(linesOf(service)[0], device.serialNumber)
  })
}
