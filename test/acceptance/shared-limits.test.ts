// G9 across replicas: with RATE_LIMIT_STORE=dynamodb one serial number has one limit, however its requests are spread.
import { randomBytes, randomUUID } from 'node:crypto'
import { DeleteTableCommand } from '@aws-sdk/client-dynamodb'
import t, { type Test } from 'tap'
import { until } from '../fixtures/until.ts'
import { wholeOnly } from '../fixtures/whole-only.ts'
import type { Decider, Fate } from './aws-proxy.ts'
import { BEST_ENGINE, type Fleet, startFleet } from './fleet.ts'
import { keyAndRequest } from './key-and-request.ts'
import { type Attempt, attempt } from './persistent-client.ts'

t.setTimeout(900_000)

const REPLICAS = 3
const MAX = 5

/** Three replicas whose calls to the limits' table meet the fate that the test chooses. */
async function startLimited (t: Test): Promise<{ fleet: Fleet, setFate: (fate: Fate) => void }> {
  const table = `rates-${randomUUID()}`
  let fate: Fate = 'pass'
  const decider: Decider = { before: ({ body }) => body['TableName'] === table ? fate : 'pass', after: () => 'pass' }
  const fleet = await startFleet(t, REPLICAS, decider, {
    RATE_LIMIT_STORE: 'dynamodb',
    RATE_LIMIT_TABLE: table,
    RATE_LIMIT_SERIAL_MAX: String(MAX),
    RATE_LIMIT_WINDOW_MS: '600000',
    // Time for an engine on a busy machine.
    RATE_LIMIT_TIMEOUT_MS: '30000'
  })
  t.teardown(async () => { await fleet.aws.dynamodb.send(new DeleteTableCommand({ TableName: table })) })
  return { fleet, setFate (next) { fate = next } }
}

/** As many requests of one device at once, in turn at each replica. */
async function hammer ({ replicas }: Fleet, body: string, count: number): Promise<Attempt[]> {
  return await Promise.all(Array.from({ length: count }, (_, n) => attempt(replicas[n % REPLICAS]!.url(), 'csr', body)))
}

/** How many were let in, whatever they were told then. */
const letIn = (attempts: Attempt[]): number => attempts.filter(({ status }) => status !== 429).length

/** The sum of a metric over the replicas. */
async function sum ({ replicas }: Fleet, metric: string): Promise<number> {
  const pages = await Promise.all(replicas.map(async ({ opsUrl }) => await (await fetch(`${opsUrl()}/metrics`)).text()))
  return pages.reduce((sum, page) => sum + Number(new RegExp(`^${metric} (\\d+)$`, 'm').exec(page)?.[1] ?? NaN), 0)
}

await t.test(`in DynamoDB, on ${BEST_ENGINE.name}`, { skip: wholeOnly }, async t => {
  const { fleet, setFate } = await startLimited(t)
  const device = await fleet.aws.register()
  const { body } = await keyAndRequest(device)
  const wrong = JSON.stringify({ ...JSON.parse(body), registrationToken: randomBytes(32).toString('base64url') })

  await t.test('of 30 guesses at a token, three replicas take as many as one would', async t => {
    const answers = await hammer(fleet, wrong, 30)
    t.equal(letIn(answers), MAX)
    t.ok(answers.filter(({ status }) => status === 429).every(({ code, retryAfterMs = 0 }) => code === 'rate-limited' && retryAfterMs > 0 && retryAfterMs <= 601_000))
    t.equal(await sum(fleet, 'cvm_rate_limit_fallbacks_total'), 0, 'all were counted in DynamoDB')
  })

  await t.test('another serial number is served meanwhile', async t => {
    const other = await fleet.aws.register()
    t.equal((await attempt(fleet.replicas[1]!.url(), 'csr', (await keyAndRequest(other)).body)).status, 201)
  })

  await t.test('a replica that starts anew knows of it', async t => {
    const replica = fleet.replicas[0]!
    await replica.kill()
    await replica.start()
    t.equal((await attempt(replica.url(), 'csr', wrong)).status, 429)
  })

  await t.test('the store away: devices are served, within a limit for each replica', async t => {
    const lost = await fleet.aws.register()
    const { body } = await keyAndRequest(lost)
    const before = await sum(fleet, 'cvm_rate_limit_fallbacks_total')
    setFate('cut')
    const answers = await hammer(fleet, body, 10 * REPLICAS)
    t.ok(answers.some(({ status }) => status === 201), 'vended')
    t.equal(letIn(answers), MAX * REPLICAS)
    t.equal(await sum(fleet, 'cvm_rate_limit_fallbacks_total') - before, 10 * REPLICAS)
    setFate('pass')
    const back = await until(async () => {
      const { body } = await keyAndRequest(await fleet.aws.register())
      const before = await sum(fleet, 'cvm_rate_limit_fallbacks_total')
      await hammer(fleet, body, REPLICAS)
      return await sum(fleet, 'cvm_rate_limit_fallbacks_total') === before
    })
    t.ok(back, 'once it is back, it counts again for all')
  })
})
