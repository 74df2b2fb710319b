import {
  ConditionalCheckFailedException, CreateTableCommand, type CreateTableCommandInput, type DynamoDBClient, ResourceInUseException,
  UpdateItemCommand, type UpdateItemCommandInput, UpdateTimeToLiveCommand
} from '@aws-sdk/client-dynamodb'
import { RateLimiterDynamo, RateLimiterRes } from 'rate-limiter-flexible'

interface RateStoreOptions {
  /** Makes one attempt. */
  client: DynamoDBClient
  tableName: string
  /** How long one decision may take, connection and all. */
  decisionMs: number
  /** How long the store is left alone after a failure. */
  restMs?: number
}

/** What @fastify/rate-limit asks of a store. */
type Told = (error: Error | null, result?: { current: number, ttl: number }) => void

/**
 * Counts in DynamoDB, for all replicas together: a store of @fastify/rate-limit on rate-limiter-flexible. The first request of a window
 * costs one write, each further one two, one that this replica knows to be above the limit none. Any failure is told to the caller within
 * `decisionMs`; for `restMs` after it all are told at once, and then one of them tries.
 */
export function dynamoDbRateStore ({ client, tableName, decisionMs, restMs = 5_000 }: RateStoreOptions) {
  let restsUntil = 0

  return class DynamoDbRateStore {
    #limiter: RateLimiterDynamo | undefined

    incr (key: string, told: Told, windowMs: number, max: number): void {
      this.#decide(key, windowMs, max).then(result => told(null, result), (cause: Error) => told(cause))
    }

    child (): DynamoDbRateStore {
      return new DynamoDbRateStore()
    }

    async #decide (key: string, windowMs: number, max: number): Promise<{ current: number, ttl: number }> {
      const began = performance.now()
      if (began < restsUntil) throw failure('StoreAtRest', 'the store of the rate limits rests after a failure')
      // The others go on without it while one tries.
      if (restsUntil > 0) restsUntil = began + restMs
      this.#limiter ??= limiterOf(client, tableName, windowMs, max)
      try {
        const result = await withinMs(decisionMs, consume(this.#limiter, key))
        restsUntil = 0
        return { current: result.isRefused ? max + 1 : result.current, ttl: result.ttl }
      } catch (cause) {
        restsUntil = performance.now() + restMs
        throw cause
      }
    }
  }
}

/** By which DynamoDB deletes old counters. */
export const RATE_LIMIT_TTL = 'expire'

/** The table of the shared limits, as Terraform makes it in production. */
export function rateLimitTable (tableName: string): CreateTableCommandInput {
  return {
    TableName: tableName,
    BillingMode: 'PAY_PER_REQUEST',
    AttributeDefinitions: [{ AttributeName: 'key', AttributeType: 'S' }],
    KeySchema: [{ AttributeName: 'key', KeyType: 'HASH' }]
  }
}

/** Creates the table of the shared limits where there is none: for laptops and tests, never in production. */
export async function ensureRateLimitTable (client: DynamoDBClient, tableName: string): Promise<void> {
  try {
    await client.send(new CreateTableCommand(rateLimitTable(tableName)))
    const TimeToLiveSpecification = { AttributeName: RATE_LIMIT_TTL, Enabled: true }
    await client.send(new UpdateTimeToLiveCommand({ TableName: tableName, TimeToLiveSpecification }))
  } catch (cause) {
    // dynalite knows no TTL: old counters stay in its memory.
    const { name } = cause as Error
    if (!(cause instanceof ResourceInUseException) && name !== 'UnknownOperationException') throw cause
  }
}

function limiterOf (client: DynamoDBClient, tableName: string, windowMs: number, max: number): RateLimiterDynamo {
  return new RateLimiterDynamo({
    storeClient: { updateItem: (input: UpdateItemCommandInput) => client.send(new UpdateItemCommand(inWholeSeconds(input))) },
    tableName,
    tableCreated: true,
    ttlSet: true,
    keyPrefix: 'serial',
    points: max,
    duration: windowMs / 1000,
    inMemoryBlockOnConsumed: max + 1
  })
}

/** DynamoDB's TTL wants whole seconds, the limiter writes fractions. Rounded up, so that a window is never cut short. */
function inWholeSeconds (input: UpdateItemCommandInput): UpdateItemCommandInput {
  const { ':new_expire': expire, ...values } = input.ExpressionAttributeValues ?? {}
  if (expire?.N === undefined) return input
  return { ...input, ExpressionAttributeValues: { ...values, ':new_expire': { N: String(Math.ceil(Number(expire.N))) } } }
}

/** One request more. The limiter rejects with what it counted when that is too much. */
async function consume (limiter: RateLimiterDynamo, key: string): Promise<{ isRefused: boolean, current: number, ttl: number }> {
  for (let isAgain = false; ; isAgain = true) {
    try {
      const { consumedPoints, msBeforeNext } = await limiter.consume(key)
      return { isRefused: false, current: consumedPoints, ttl: msBeforeNext }
    } catch (cause) {
      if (cause instanceof RateLimiterRes) return { isRefused: true, current: cause.consumedPoints, ttl: cause.msBeforeNext }
      // The window ended between the limiter's two writes, so neither applied.
      if (isAgain || !(cause instanceof ConditionalCheckFailedException)) throw cause
    }
  }
}

async function withinMs<T> (ms: number, work: Promise<T>): Promise<T> {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<never>((_resolve, reject) => {
    timer = setTimeout(() => reject(failure('TimeoutError', `the store of the rate limits did not decide within ${ms} ms`)), ms)
  })
  return await Promise.race([work, late]).finally(() => clearTimeout(timer))
}

function failure (name: string, message: string): Error {
  return Object.assign(new Error(message), { name })
}
