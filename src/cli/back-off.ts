import { setTimeout as delay } from 'node:timers/promises'
import { NoAnswer, send } from './client.ts'
import { EXIT, Failure } from './failure.ts'
import { LASTING_CRL_REASONS } from '../x509/refusals.ts'
import type { Answer, Call, Service } from './client.ts'
import type { Problem } from './failure.ts'

/** How long to go on, and the outside world that a test replaces. */
export interface Patience {
  readonly timeoutMs: number
  readonly attemptMs?: number
  readonly now?: () => number
  readonly sleep?: (ms: number) => Promise<unknown>
  readonly random?: () => number
  /** Told before each wait, so that a person sees why nothing happens. */
  readonly onWait?: (ms: number, why: string) => void
}

/** `etag` is there when the service sent one. */
export interface Reply { readonly status: number, readonly body: Record<string, unknown>, readonly etag?: string }

const FIRST_MS = 500
const LONGEST_MS = 20_000
const ATTEMPT_MS = 30_000

/** POSTs JSON until there is a final answer: the same bytes each time, so that the service recognises a repetition. */
export function postUntilAnswered (
  service: Service, path: string, message: object, patience: Patience, headers: Record<string, string> = {}): Promise<Reply> {
  return untilAnswered(service, { path, body: Buffer.from(JSON.stringify(message)), headers }, patience)
}

/**
 * Calls until there is a final answer. Waits as `Retry-After` says, else exponentially with full jitter. Throws a `Failure`: 3 refused,
 * 4 no answer or "later" until the deadline.
 */
export async function untilAnswered (service: Service, call: Call, patience: Patience): Promise<Reply> {
  const { timeoutMs, attemptMs = ATTEMPT_MS, now = Date.now, sleep = delay, random = Math.random, onWait } = patience
  const deadline = now() + timeoutMs
  for (let attempt = 0; ; attempt++) {
    const left = Math.max(1, deadline - now())
    const answer = await send(service, call, Math.min(attemptMs, left)).catch(passing)
    if (answer instanceof NoAnswer) {
      const ms = jittered(attempt, random)
      if (now() + ms >= deadline) throw unreachable(service, timeoutMs, attempt + 1, answer)
      onWait?.(ms, answer.message)
      await sleep(ms)
      continue
    }
    if (!isLater(answer)) return settled(answer)
    const asked = retryAfterMs(answer, now())
    // The jitter comes on top of what the service asked for: a factory full of devices must not come back in the same second.
    const ms = asked === undefined ? jittered(attempt, random) : asked + Math.round(random() * FIRST_MS)
    if (now() + ms >= deadline) throw tooLate(answer, timeoutMs, asked)
    onWait?.(ms, `${answer.status} ${problemOf(answer).code ?? ''}`.trim())
    await sleep(ms)
  }
}

/** What `Retry-After` asks for: whole seconds or an HTTP date, read against the service's own clock because a device's may be wrong. */
export function retryAfterMs (answer: Pick<Answer, 'headers'>, now: number): number | undefined {
  const asked = answer.headers['retry-after']?.trim()
  if (asked === undefined) return undefined
  if (/^\d{1,9}$/.test(asked)) return Number(asked) * 1000
  const then = Date.parse(asked)
  const reference = Date.parse(answer.headers.date ?? '')
  return Number.isNaN(then) ? undefined : Math.max(0, then - (Number.isNaN(reference) ? now : reference))
}

/** How long to wait before the next attempt: exponential with full jitter. */
export function jittered (attempt: number, random: () => number): number {
  return Math.round(random() * Math.min(LONGEST_MS, FIRST_MS * 2 ** Math.min(attempt, 20)))
}

function passing (error: unknown): NoAnswer {
  if (error instanceof NoAnswer) return error
  throw error
}

/**
 * Whether the same request may be answered better later. 502 is "later" from a balancer; from the service itself (it has a code then) it
 * means that AWS IoT refused: waiting does not cure that. Nor does it cure a CRL that can never be used, or a record that cannot be read.
 */
export function isLater (answer: Answer): boolean {
  const { code, reason = '' } = [500, 503].includes(answer.status) ? problemOf(answer) : {}
  if (code === 'crl-unavailable' && LASTING_CRL_REASONS.has(reason)) return false
  if (code === 'device-unreadable') return false
  if (answer.status === 409) return answer.headers['retry-after'] !== undefined
  if (answer.status === 502) return problemOf(answer).code === undefined
  return [408, 425, 429, 500, 503, 504].includes(answer.status)
}

/** The reply in a final answer; a refusal is thrown as a `Failure`. */
export function settled (answer: Answer): Reply {
  const body = objectOf(answer.text)
  const { etag } = answer.headers
  if (answer.status >= 200 && answer.status < 300) {
    if (body !== undefined) return { status: answer.status, body, ...etag === undefined ? {} : { etag } }
    throw new Failure(EXIT.failed, `the service answered ${answer.status} without a JSON object`, { remedy: 'Check --url' })
  }
  if (answer.status < 400) throw new Failure(EXIT.failed, `the service answered ${answer.status}: it is no CVM`, { remedy: 'Check --url' })
  throw new Failure(EXIT.refused, `the service refused: ${titleOf(answer)}`, problemOf(answer))
}

function tooLate (answer: Answer, timeoutMs: number, asked: number | undefined): Failure {
  const wait = asked === undefined ? '' : `; it asks to come back in ${Math.ceil(asked / 1000)} s`
  return new Failure(EXIT.later, `the service says "later", beyond the ${timeoutMs / 1000} s of --timeout: ${titleOf(answer)}${wait}`, problemOf(answer))
}

function unreachable (service: Service, timeoutMs: number, attempts: number, last: NoAnswer): Failure {
  const what = `no answer from ${service.url.host} within ${timeoutMs / 1000} s (${attempts} attempts)`
  return new Failure(EXIT.later, what, { detail: last.message, remedy: 'Check --url and the network, then run the same command again' }, last)
}

function titleOf (answer: Answer): string {
  const title = objectOf(answer.text)?.title
  return typeof title === 'string' ? `${title} (${answer.status})` : `HTTP ${answer.status}`
}

/** What an answer says went wrong. */
export function problemOf (answer: Pick<Answer, 'headers' | 'text'>): Problem {
  const body = objectOf(answer.text) ?? {}
  const names = ['code', 'reason', 'detail', 'remedy', 'requestId'] as const
  const known = names.flatMap(name => typeof body[name] === 'string' ? [[name, body[name]]] : [])
  const faults = Array.isArray(body.errors) ? JSON.stringify(body.errors) : ''
  const requestId = answer.headers['x-request-id']
  const problem: Problem = { ...(typeof requestId === 'string' ? { requestId } : {}), ...Object.fromEntries(known) }
  return faults === '' ? problem : { ...problem, detail: `${problem.detail ?? ''} ${faults}`.trim() }
}

function objectOf (text: string): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(text)
    return typeof value === 'object' && value !== null && !Array.isArray(value) ? { ...value } : undefined
  } catch {
    return undefined
  }
}
