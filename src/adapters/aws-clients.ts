import { DynamoDBClient } from '@aws-sdk/client-dynamodb'
import { IoTClient } from '@aws-sdk/client-iot'
import { IoTDataPlaneClient } from '@aws-sdk/client-iot-data-plane'
import type { StandardRetryStrategy } from '@smithy/core/retry'
import { UndiciHttpHandler } from '@smithy/undici-http-handler'
import toFastProperties from 'to-fast-properties'
import { type Failure, repeated, typeOf } from './attempts.ts'
import { SigningHash } from './signing-hash.ts'

/** Where the SDK keeps what a call was sent with (`SMITHY_CONTEXT_KEY` of @smithy/types). */
const SMITHY_CONTEXT_KEY = '__smithy_context'

/** Of one client to one host, as many as the SDK's own handler opens. */
const MAX_CONNECTIONS = 50

/**
 * What works at each call for a logger that nobody has set, for a header that only functions of AWS Lambda need, for lengths that undici
 * counts itself, and for a name that is always the same.
 */
const LEFT_OUT = ['loggerMiddleware', 'recursionDetectionMiddleware', 'contentLengthMiddleware', 'getUserAgentMiddleware']

/** Where the SDK has its own, which this replaces. */
const ATTEMPTS = { name: 'retryMiddleware', step: 'finalizeRequest', priority: 'high', override: true } as const

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
  return paced(new IoTClient({ ...common(settings, settings.iotEndpoint), maxAttempts: 6 }), settings, bindingTypeOf)
}

/** For shadows: the SDK's own retries, because merging the same again changes nothing. The endpoint is each account's own. */
export function iotDataClient (settings: AwsSettings, endpointUrl: () => Promise<string>): IoTDataPlaneClient {
  const endpoint = async () => ({ url: new URL(await endpointUrl()) })
  return observed(new IoTDataPlaneClient({ ...common(settings, undefined), endpoint, maxAttempts: 3 }), 'iot-data', settings.observe)
}

/**
 * As the SDK sees an error, but for two things: `LimitExceededException` is permanent in AWS IoT (410, too many policies), and a
 * certificate or thing made a moment ago may not be found yet.
 */
function bindingTypeOf (error: Failure) {
  if (error.name === 'LimitExceededException') return 'CLIENT_ERROR'
  return error.name === 'ResourceNotFoundException' ? 'TRANSIENT' : typeOf(error)
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

/** In the steps where there is a request already. */
interface Args { request: { headers: Record<string, string> } }
type Next = (args: Args) => Promise<unknown>
interface Context { commandName?: string, [SMITHY_CONTEXT_KEY]?: { abortSignal?: AbortSignal } }
type Middleware = (next: Next, context: Context) => Next
interface Stack { add: (middleware: Middleware, options: object) => void, addRelativeTo: Stack['add'], remove: (name: string) => boolean }

/** Every attempt and every page is observed, whether it is repeated or not. */
function observed<C extends DynamoDBClient | IoTClient | IoTDataPlaneClient> (
  client: C, service: AwsService, observe: ObserveCall, typed: typeof typeOf = typeOf
): C {
  // The SDK copies its settings several times at each call, which takes V8 six times as long while they are a dictionary.
  toFastProperties(client.config)
  // It makes a signer at each call, though a client has but one service and region; the credentials are asked for by the signer.
  const { signer } = client.config
  let made: ReturnType<typeof signer> | undefined
  client.config.signer = scheme => {
    made ??= signer(scheme)
    return made
  }
  const stack = client.middlewareStack as unknown as Stack
  for (const name of LEFT_OUT) stack.remove(name)
  const userAgent = userAgentOf(client)
  stack.add(next => async args => {
    args.request.headers['user-agent'] = await userAgent
    return next(args)
  }, { name: 'cvmUserAgent', step: 'build' })
  const strategies = client.config.retryStrategy() as Promise<StandardRetryStrategy>
  stack.add((next, { [SMITHY_CONTEXT_KEY]: { abortSignal } = {} }) => async args =>
    repeated({ strategy: await strategies, typeOf: typed }, abortSignal, () => next(args)), ATTEMPTS)
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
  }, { name: 'cvmObserve', relation: 'after', toMiddleware: ATTEMPTS.name })
  return client
}

/** Before a call is signed and observed: a signature ages while it waits, and waiting is no time of AWS's. */
function paced (client: IoTClient, { observe, pace }: IotSettings, typed?: typeof typeOf): IoTClient {
  const stack = observed(client, 'iot', observe, typed).middlewareStack as unknown as Stack
  stack.addRelativeTo((next, { commandName, [SMITHY_CONTEXT_KEY]: { abortSignal } = {} }) => args =>
    pace(operationOf(commandName), abortSignal, () => next(args)), { name: 'cvmPace', relation: 'before', toMiddleware: 'cvmObserve' })
  return client
}

/** As the SDK names itself, but for the features it counts: made once, and not at each call. */
async function userAgentOf ({ config }: DynamoDBClient | IoTClient | IoTDataPlaneClient): Promise<string> {
  const parts = await config.defaultUserAgentProvider()
  return parts.map(([name, version = '']) => [name, version].filter(Boolean).join(name.includes('/') ? '#' : '/')).join(' ')
}

function operationOf (commandName = 'unknown'): string {
  return commandName.replace(/Command$/, '')
}
