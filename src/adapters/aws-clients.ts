import { DynamoDBClient } from '@aws-sdk/client-dynamodb'
import { IoTClient } from '@aws-sdk/client-iot'
import { StandardRetryStrategy } from '@smithy/core/retry'

/** Told of every call to AWS once it has ended, retries included. `result` is `ok` or the name of the error. */
type ObserveCall = (service: 'dynamodb' | 'iot', operation: string, result: string, durationMs: number) => void

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

/** DynamoDB's single-item conditional writes may be retried freely: a repeat finds its own claim in the row. */
export function dynamodbClient (settings: AwsSettings): DynamoDBClient {
  return observed(new DynamoDBClient({ ...common(settings, settings.dynamodbEndpoint), maxAttempts: 3 }), 'dynamodb', settings.observe)
}

/** For the two calls that mint a certificate each time: never retried, because a lost answer would make two. */
export function iotIssuingClient (settings: AwsSettings): IoTClient {
  return observed(new IoTClient({ ...common(settings, settings.iotEndpoint), maxAttempts: 1 }), 'iot', settings.observe)
}

/** For looking at certificates and ending them: the SDK's own retries. */
export function iotTendingClient (settings: AwsSettings): IoTClient {
  return observed(new IoTClient({ ...common(settings, settings.iotEndpoint), maxAttempts: 3 }), 'iot', settings.observe)
}

/** For the calls that make a fresh certificate usable: all of them may be repeated. */
export function iotBindingClient (settings: AwsSettings): IoTClient {
  const retryStrategy = new BindingRetry(6)
  return observed(new IoTClient({ ...common(settings, settings.iotEndpoint), retryStrategy }), 'iot', settings.observe)
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
    requestHandler: { requestTimeout: callTimeoutMs, throwOnRequestTimeout: true, connectionTimeout: Math.min(callTimeoutMs, 2_000) },
    ...(endpoint && { endpoint }),
    ...(credentials && { credentials })
  }
}

function observed<C extends DynamoDBClient | IoTClient> (client: C, service: 'dynamodb' | 'iot', observe: ObserveCall): C {
  const stack = client.middlewareStack as { add: (middleware: unknown, options: object) => void }
  stack.add((next: (args: unknown) => Promise<unknown>, { commandName = 'unknown' }: { commandName?: string }) => async (args: unknown) => {
    const start = performance.now()
    const operation = commandName.replace(/Command$/, '')
    try {
      const result = await next(args)
      observe(service, operation, 'ok', performance.now() - start)
      return result
    } catch (cause) {
      observe(service, operation, (cause as Error).name, performance.now() - start)
      throw cause
    }
  }, { step: 'initialize', name: 'cvmObserve' })
  return client
}
