import { DynamoDBClient } from '@aws-sdk/client-dynamodb'
import { IoTClient } from '@aws-sdk/client-iot'
import { IoTDataPlaneClient } from '@aws-sdk/client-iot-data-plane'
import { StandardRetryStrategy } from '@smithy/core/retry'
import { UndiciHttpHandler } from '@smithy/undici-http-handler'
import { CvmError } from '../errors.ts'
import { SigningHash } from './signing-hash.ts'

/** Where the SDK keeps what a call was sent with (`SMITHY_CONTEXT_KEY` of @smithy/types). */
const SMITHY_CONTEXT_KEY = '__smithy_context'

/** Of one client to one host, as many as the SDK's own handler opens. */
const MAX_CONNECTIONS = 50

/** The services by their names in metrics. */
type AwsService = 'dynamodb' | 'iot' | 'iot-data'

/** Told of every attempt of a call to AWS once it has ended. `result` is `ok` or the name of the error. */
type ObserveCall = (service: AwsService, operation: string, result: string, durationMs: number) => void

/** Makes a call to AWS IoT when its turn has come; `signal` ends the wait. */
export type Pace = <T>(operation: string, signal: AbortSignal | undefined, call: () => Promise<T>) => Promise<T>

export interface AwsSettings {
  region: string
  /** Set in local mode and for stand-ins; the SDK's own endpoints otherwise. */
  dynamodbEndpoint: string | undefined
  iotEndpoint: string | undefined
  /** Time for one attempt of one call, after which its connection is really given up. */
  callTimeoutMs: number
  /** Fixed credentials for stand-ins; the SDK's default chain otherwise. */
  credentials: { accessKeyId: string, secretAccessKey: string } | undefined
  observe: ObserveCall
}

interface IotSettings extends AwsSettings { pace: Pace }

/** DynamoDB's single-item conditional writes may be retried freely: a repeat finds its own claim in the row. */
export function dynamodbClient (settings: AwsSettings): DynamoDBClient {
  return observed(new DynamoDBClient({ ...common(settings, settings.dynamodbEndpoint), maxAttempts: 3 }), 'dynamodb', settings.observe)
}

/** For counting requests, which must not hold them up: one attempt. */
export function countingClient (settings: AwsSettings): DynamoDBClient {
  return observed(new DynamoDBClient({ ...common(settings, settings.dynamodbEndpoint), maxAttempts: 1 }), 'dynamodb', settings.observe)
}

/** For the two calls that mint a certificate each time: never retried, because a lost answer would make two. */
export function iotIssuingClient (settings: IotSettings): IoTClient {
  return paced(new IoTClient({ ...common(settings, settings.iotEndpoint), maxAttempts: 1 }), settings)
}

/** For looking at certificates and ending them: the SDK's own retries. */
export function iotTendingClient (settings: IotSettings): IoTClient {
  return paced(new IoTClient({ ...common(settings, settings.iotEndpoint), maxAttempts: 3 }), settings)
}

/** For the calls that make a fresh certificate usable: all of them may be repeated. */
export function iotBindingClient (settings: IotSettings): IoTClient {
  const retryStrategy = new BindingRetry(6)
  return paced(new IoTClient({ ...common(settings, settings.iotEndpoint), retryStrategy }), settings)
}

/** For shadows: the SDK's own retries, because merging the same again changes nothing. The endpoint is each account's own. */
export function iotDataClient (settings: AwsSettings, endpointUrl: () => Promise<string>): IoTDataPlaneClient {
  const endpoint = async () => ({ url: new URL(await endpointUrl()) })
  return observed(new IoTDataPlaneClient({ ...common(settings, undefined), endpoint, maxAttempts: 3 }), 'iot-data', settings.observe)
}

/**
 * The SDK's standard strategy, but for two things: `LimitExceededException` is permanent in AWS IoT (410, too many policies),
 * and a certificate or thing made a moment ago may not be found yet.
 */
class BindingRetry extends StandardRetryStrategy {
  override refreshRetryTokenForRetry (...[token, info]: Parameters<StandardRetryStrategy['refreshRetryTokenForRetry']>) {
    const { name } = (info.error ?? {}) as Error
    if (name === 'LimitExceededException') return super.refreshRetryTokenForRetry(token, { ...info, errorType: 'CLIENT_ERROR' })
    if (name === 'ResourceNotFoundException') return super.refreshRetryTokenForRetry(token, { ...info, errorType: 'TRANSIENT' })
    return super.refreshRetryTokenForRetry(token, info)
  }
}

function common ({ region, callTimeoutMs, credentials }: AwsSettings, endpoint: string | undefined) {
  return {
    region,
    sha256: SigningHash,
    requestHandler: new UndiciHttpHandler({
      dispatcher: {
        connections: MAX_CONNECTIONS,
        connect: { timeout: Math.min(callTimeoutMs, 2_000) },
        headersTimeout: callTimeoutMs,
        bodyTimeout: callTimeoutMs
      }
    }),
    ...(endpoint && { endpoint }),
    ...(credentials && { credentials })
  }
}

type Next = (args: unknown) => Promise<unknown>
interface Context { commandName?: string, [SMITHY_CONTEXT_KEY]?: { abortSignal?: AbortSignal }, refusal?: unknown }
type Middleware = (next: Next, context: Context) => Next
interface Stack { add: (middleware: Middleware, options: object) => void, addRelativeTo: Stack['add'], remove: (name: string) => boolean }

/** Inside the SDK's retries, so that every attempt and every page counts. */
function observed<C extends DynamoDBClient | IoTClient | IoTDataPlaneClient> (client: C, service: AwsService, observe: ObserveCall): C {
  const stack = client.middlewareStack as Stack
  // They work at each call for a logger that nobody has set, and for a header that only functions of AWS Lambda need.
  for (const name of ['loggerMiddleware', 'recursionDetectionMiddleware']) stack.remove(name)
  stack.addRelativeTo((next, { commandName }) => async args => {
    const start = performance.now()
    const operation = operationOf(commandName)
    try {
      const result = await next(args)
      observe(service, operation, 'ok', performance.now() - start)
      return result
    } catch (cause) {
      observe(service, operation, (cause as Error).name, performance.now() - start)
      throw cause
    }
  }, { name: 'cvmObserve', relation: 'after', toMiddleware: 'retryMiddleware' })
  return client
}

/** Before a call is signed and observed: a signature ages while it waits, and waiting is no time of AWS's. */
function paced (client: IoTClient, { observe, pace }: IotSettings): IoTClient {
  const stack = observed(client, 'iot', observe).middlewareStack as Stack
  stack.addRelativeTo((next, context) => args => {
    const { commandName, [SMITHY_CONTEXT_KEY]: { abortSignal } = {} } = context
    return pace(operationOf(commandName), abortSignal, () => next(args)).catch((cause: unknown) => {
      context.refusal = cause instanceof CvmError ? cause : undefined
      throw cause
    })
  }, { name: 'cvmPace', relation: 'before', toMiddleware: 'cvmObserve' })
  // Once the signal has aborted, the SDK's retries throw away what they were told; that nothing was done must not be lost.
  stack.add((next, context) => args => next(args).catch((cause: unknown) => { throw context.refusal ?? cause }), { name: 'cvmRefusal', step: 'initialize' })
  return client
}

function operationOf (commandName = 'unknown'): string {
  return commandName.replace(/Command$/, '')
}
