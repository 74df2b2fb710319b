// The shared store of the rate limits: counts on each engine as one, and never holds anybody up.
import { randomUUID } from 'node:crypto'
import { ConditionalCheckFailedException, DescribeTimeToLiveCommand, type DynamoDBClient, ScanCommand } from '@aws-sdk/client-dynamodb'
import t from 'tap'
import { dynamoDbRateStore, ensureRateLimitTable } from '../../src/adapters/dynamodb-rate-store.ts'
import { ENGINES, clientOf } from '../fixtures/engines.ts'
import { until } from '../fixtures/until.ts'

type Store = InstanceType<ReturnType<typeof dynamoDbRateStore>>

/** One request more; `windowMs` and `max` are what @fastify/rate-limit passes on. */
const count = (store: Store, key: string, max = 3, windowMs = 60_000) =>
  new Promise<{ current: number, ttl: number }>((resolve, reject) => {
    store.incr(key, (error, result) => error ? reject(error) : resolve(result!), windowMs, max)
  })

/** Stores of as many replicas. */
const replicas = (client: DynamoDBClient, tableName: string, size: number): Store[] =>
  Array.from({ length: size }, () => new (dynamoDbRateStore({ client, tableName, decisionMs: 30_000 }))().child())

for (const engine of ENGINES) {
  await t.test(engine.name, async t => {
    const { url, close } = await engine.start()
    const client = clientOf(url)
    const tableName = `rates-${randomUUID()}`
    t.teardown(async () => { client.destroy(); await close() })
    await ensureRateLimitTable(client, tableName)
    await t.resolves(ensureRateLimitTable(client, tableName), 'a table that is there is left alone')
    const rows = async () => (await client.send(new ScanCommand({ TableName: tableName, ConsistentRead: true }))).Items ?? []

    await t.test('requests of one key at several replicas at once are counted one by one', async t => {
      const stores = replicas(client, tableName, 3)
      const key = randomUUID()
      const results = await Promise.all(Array.from({ length: 30 }, (_, n) => count(stores[n % 3]!, key)))
      t.strictSame(results.map(({ current }) => current).filter(current => current <= 3).sort(), [1, 2, 3])
      t.ok(results.every(({ ttl }) => ttl > 0 && ttl <= 61_000), 'each is told when the window ends')
      t.equal((await count(stores[0]!, randomUUID())).current, 1, 'another key is counted apart')
    })

    await t.test('the row has what TTL needs: whole seconds since 1970, not before the end of the window', async t => {
      const key = randomUUID()
      const before = Date.now()
      await count(replicas(client, tableName, 1)[0]!, key, 3, 60_001)
      const row = (await rows()).find(({ key: { S = '' } = {} }) => S === `serial:${key}`)
      t.match(row, { points: { N: '1' }, expire: { N: /^\d{10}$/ } })
      const expire = Number(row?.['expire']?.N)
      t.ok(expire * 1000 >= before + 60_001 && expire * 1000 < Date.now() + 61_001, `${expire}`)
      if (engine.name === 'dynalite') return t.comment('no TTL on dynalite')
      const { TimeToLiveDescription } = await client.send(new DescribeTimeToLiveCommand({ TableName: tableName }))
      t.match(TimeToLiveDescription, { AttributeName: 'expire', TimeToLiveStatus: 'ENABLED' })
    })

    await t.test('after the window it is counted anew', async t => {
      const [store] = replicas(client, tableName, 1)
      const key = randomUUID()
      for (let n = 0; n < 3; n++) await count(store!, key, 1, 200)
      t.ok(await until(async () => (await count(store!, key, 1, 200)).current === 1))
    })

    await t.test('what a replica knows to be too much costs no write', async t => {
      let writes = 0
      const counting = { send: (command: never) => { writes++; return client.send(command) } } as unknown as DynamoDBClient
      const [store] = replicas(counting, tableName, 1)
      const key = randomUUID()
      const costs: number[] = []
      for (let n = 0; n < 5; n++) {
        const before = writes
        await count(store!, key, 2)
        costs.push(writes - before)
      }
      t.strictSame(costs, [1, 2, 2, 0, 0])
    })
  })
}

/** A DynamoDB that answers a call as the test says. */
function scripted (answer: (call: number) => Promise<unknown>): { client: DynamoDBClient, calls: () => number } {
  let calls = 0
  return { client: { send: () => answer(++calls) } as unknown as DynamoDBClient, calls: () => calls }
}

const COUNTED = { Attributes: { key: { S: 'k' }, points: { N: '1' }, expire: { N: '9999999999' } } }
const REFUSED = () => new ConditionalCheckFailedException({ message: 'no', $metadata: {} })

await t.test('a window that ends between the two writes of a count: counted again', async t => {
  const { client, calls } = scripted(async call => { if (call <= 2) throw REFUSED(); return COUNTED })
  const store = new (dynamoDbRateStore({ client, tableName: 'any', decisionMs: 30_000 }))()
  t.equal((await count(store, 'k')).current, 1)
  t.equal(calls(), 3)
})

await t.test('a store that does not answer is told in time, then left alone, then tried by one', async t => {
  let answer: () => Promise<unknown> = () => new Promise(() => {})
  const { client, calls } = scripted(() => answer())
  const store = new (dynamoDbRateStore({ client, tableName: 'any', decisionMs: 1_000, restMs: 1_000 }))()
  const began = performance.now()
  await t.rejects(count(store, 'k'), { name: 'TimeoutError' })
  t.ok(performance.now() - began >= 990, 'not before its time')
  for (const key of ['k', 'other']) await t.rejects(count(store, key), { name: 'StoreAtRest' })
  t.equal(calls(), 1, 'nobody asks meanwhile')

  let release = () => {}
  answer = () => new Promise(resolve => { release = () => resolve(COUNTED) })
  let trying: Promise<unknown> = Promise.resolve()
  t.ok(await until(async () => {
    trying = count(store, 'k')
    return await Promise.race([trying.then(() => true, () => false), new Promise(resolve => setTimeout(resolve, 5, 'waits'))]) === 'waits'
  }), 'after the rest somebody asks')
  await t.rejects(count(store, 'other'), { name: 'StoreAtRest' }, 'the others do not wait for that')
  release()
  await t.resolves(trying)
  answer = async () => COUNTED
  await t.resolves(Promise.all(['a', 'b', 'c'].map(key => count(store, key))), 'all ask again')
})

await t.test('a store that refuses (no table, no permission) is away as well', async t => {
  const { client, calls } = scripted(async () => { throw Object.assign(new Error('no table'), { name: 'ResourceNotFoundException' }) })
  const store = new (dynamoDbRateStore({ client, tableName: 'any', decisionMs: 30_000 }))()
  await t.rejects(count(store, 'k'), { name: 'ResourceNotFoundException' })
  await t.rejects(count(store, 'k'), { name: 'StoreAtRest' })
  t.equal(calls(), 2, 'both writes of the one count')
})
