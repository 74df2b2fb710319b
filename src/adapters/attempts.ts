import { type StandardRetryStrategy, getRetryAfterHint, isServerError, isThrottlingError, isTransientError } from '@smithy/core/retry'

type Strategy = Pick<StandardRetryStrategy, 'acquireInitialRetryToken' | 'refreshRetryTokenForRetry' | 'recordSuccess'>
type Info = Parameters<Strategy['refreshRetryTokenForRetry']>[1]
export type Failure = Parameters<typeof isTransientError>[0] & { $response?: unknown }

/** Which strategy of the SDK, and what it is told that an error is: after a `CLIENT_ERROR` there is no other attempt. */
export interface Repeating { readonly strategy: Strategy, readonly typeOf: (error: Failure) => Info['errorType'] }

/**
 * Makes a call as often as a strategy of the SDK says, and passes on the error of the last attempt. An abort ends the wait for the next
 * with an `AbortError`. In place of the SDK's own loop, which makes an error, with its stack, for each call that goes well.
 */
export async function repeated<T> (
  { strategy, typeOf }: Repeating, signal: AbortSignal | undefined, attempt: () => Promise<T>
): Promise<T> {
  let token = await strategy.acquireInitialRetryToken('')
  for (;;) {
    try {
      const result = await attempt()
      strategy.recordSuccess(token)
      return result
    } catch (cause) {
      const error = cause as Failure
      const errorType = typeOf(error)
      if (errorType === 'CLIENT_ERROR') throw error
      const retryAfterHint = getRetryAfterHint(error.$response)
      const info = { error, errorType, ...(retryAfterHint && { retryAfterHint }) }
      // The strategy waits as long as it means its caller to.
      token = await orAborted(strategy.refreshRetryTokenForRetry(token, info).catch(() => { throw error }), signal)
    }
  }
}

/** As the SDK sees it, which does not know an answer that ended in its middle as passing. */
export function typeOf (error: Failure): Info['errorType'] {
  if (isThrottlingError(error)) return 'THROTTLING'
  if (isTransientError(error) || isUnreadAnswer(error)) return 'TRANSIENT'
  return isServerError(error) ? 'SERVER_ERROR' : 'CLIENT_ERROR'
}

/** Whether an answer began and could not be read to its end: what AWS said is unknown, whatever the status of it. */
export function isUnreadAnswer (cause: unknown): boolean {
  const { $fault, $metadata } = cause as Partial<Failure>
  return $fault === undefined && $metadata?.httpStatusCode !== undefined
}

function orAborted<T> (work: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (!signal) return work
  return new Promise((resolve, reject) => {
    const abort = () => { reject(Object.assign(new Error('The wait for another attempt was aborted'), { name: 'AbortError' })) }
    if (signal.aborted) abort()
    signal.addEventListener('abort', abort)
    work.then(resolve, reject).finally(() => { signal.removeEventListener('abort', abort) })
  })
}
