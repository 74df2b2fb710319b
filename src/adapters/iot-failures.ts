import { CvmError } from '../errors.ts'
import { isUnreadAnswer } from './attempts.ts'

/** When to come back to AWS IoT after a failure that may pass. */
export const RETRY_AFTER_MS = 2_000

/** Passes a call on; its failure becomes what it means to a caller. */
export async function failing<T> (call: Promise<T>): Promise<T> {
  try {
    return await call
  } catch (cause) {
    throw failureOf(cause)
  }
}

/** AWS's name for what went wrong. */
export function nameOf (cause: unknown): string {
  return cause instanceof Error ? cause.name : ''
}

/** Whether AWS refused a call for its quota and did nothing. By name before status: it throttles with 400 here and 429 there. */
export function isThrottled (cause: unknown): boolean {
  return /Throttl|TooManyRequests/.test(nameOf(cause)) || statusOf(cause) === 429
}

function statusOf (cause: unknown): number {
  return (cause as { $metadata?: { httpStatusCode?: number } }).$metadata?.httpStatusCode ?? 0
}

/** What an SDK failure means to a caller. */
export function failureOf (cause: unknown): CvmError {
  if (cause instanceof CvmError) return cause
  const name = nameOf(cause)
  const status = statusOf(cause)
  if (name === 'AbortError') return new CvmError('deadline-exceeded', { retryAfterMs: RETRY_AFTER_MS, cause })
  if (isThrottled(cause)) return new CvmError('aws-iot-throttled', { retryAfterMs: RETRY_AFTER_MS, cause })
  // Such as one that was cut off, or a proxy's page in place of it.
  if (isUnreadAnswer(cause)) return new CvmError('aws-iot-unavailable', { retryAfterMs: RETRY_AFTER_MS, cause })
  if (status >= 400 && status < 500) return new CvmError('aws-iot-refused', { cause })
  return new CvmError('aws-iot-unavailable', { retryAfterMs: RETRY_AFTER_MS, cause })
}
