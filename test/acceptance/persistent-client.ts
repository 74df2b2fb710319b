// A client that does not give up: the same request again, as Retry-After says, until there is a final answer.
import { setTimeout as delay } from 'node:timers/promises'
import type { Vended } from './tools.ts'

/** What came of one try. Status 0: no answer at all. */
export interface Attempt {
  readonly requestId: string
  readonly status: number
  readonly code?: string
  readonly vended?: Vended
  /** When to come back, in milliseconds, as the answer said. */
  readonly retryAfterMs?: number
  readonly endedAt: number
}

export const PATHS = { csr: '/v1/certificates', keys: '/v1/keys-and-certificates' } as const
export type Way = keyof typeof PATHS

let requests = 0

/** One request; never rejects. */
export async function attempt (serviceUrl: string, way: Way, body: string): Promise<Attempt> {
  const requestId = `attempt-${process.pid}-${++requests}`
  try {
    const headers = { 'content-type': 'application/json', 'x-request-id': requestId }
    const response = await fetch(serviceUrl + PATHS[way], { method: 'POST', headers, body, signal: AbortSignal.timeout(30_000) })
    const content = await response.json() as Vended & { code?: string }
    const { status } = response
    const retryAfter = response.headers.get('retry-after')
    return {
      requestId,
      status,
      endedAt: Date.now(),
      ...(response.ok ? { vended: content } : { code: content.code ?? 'none' }),
      ...(retryAfter !== null && { retryAfterMs: Number(retryAfter) * 1000 })
    }
  } catch {
    return { requestId, status: 0, endedAt: Date.now() }
  }
}

/** Whether the same request may get another answer later. */
export function isPassing ({ status, retryAfterMs }: Attempt): boolean {
  return status === 0 || status >= 500 || retryAfterMs !== undefined
}

/** Tries again and again, each time where `urlOf` says, until an answer is final or the time is up; all the answers. */
export async function persist (urlOf: (n: number) => string, way: Way, body: string, withinMs: number): Promise<Attempt[]> {
  const attempts: Attempt[] = []
  for (const deadline = Date.now() + withinMs; ;) {
    const last = await attempt(urlOf(attempts.length), way, body)
    attempts.push(last)
    const waitMs = last.retryAfterMs ?? Math.min(50 * 2 ** attempts.length, 1_000)
    if (!isPassing(last) || Date.now() + waitMs > deadline) return attempts
    await delay(waitMs)
  }
}
