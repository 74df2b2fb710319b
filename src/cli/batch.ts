import { isLater, problemOf, retryAfterMs, settled } from './back-off.ts'
import { NoAnswer, sendForLines } from './client.ts'
import type { Answer, Service } from './client.ts'
import { EXIT, Failure } from './failure.ts'
import type { Problem } from './failure.ts'

/** The answer to one line of a batch; `index` is its place in what was posted, from 0. */
export interface LineAnswer { readonly index: number, readonly status: string, readonly body: Record<string, unknown> }

/** The summary of the service at the end of a batch. */
export type Summary = Record<string, unknown>

/** The batch, or the rest of it, may be answered later: `askedMs` is what the service wants to be given. */
export class Later extends Error {
  readonly problem: Problem
  readonly askedMs: number | undefined

  constructor (message: string, problem: Problem, askedMs?: number) {
    super(message)
    this.problem = problem
    this.askedMs = askedMs
  }
}

export interface Posting {
  readonly service: Service
  readonly messages: readonly object[]
  readonly isDryRun: boolean
  /** The longest time between two answers. */
  readonly idleMs: number
  readonly signal: AbortSignal
  readonly onSummary?: (summary: Summary) => void
}

/**
 * Posts lines once and yields the answers as they come, in any order. Throws `Later` or `NoAnswer` when what was not answered may be
 * posted again, a `Failure` when that does not help.
 */
export async function * postBatch ({ service, messages, isDryRun, idleMs, signal, onSummary }: Posting): AsyncGenerator<LineAnswer> {
  const call = {
    path: isDryRun ? 'v1/batches?dryRun=true' : 'v1/batches',
    body: Buffer.from(messages.map(message => `${JSON.stringify(message)}\n`).join('')),
    headers: { 'content-type': 'application/x-ndjson', accept: 'application/x-ndjson, application/problem+json' }
  }
  const answer = await sendForLines(service, call, idleMs, signal)
  if (!('lines' in answer)) throw whyNot(answer)
  for await (const text of answer.lines) {
    if (text.trim() === '') continue
    const body = parsed(text, service)
    if (body.summary === true) {
      onSummary?.(body)
      return
    }
    if (body.error === true) throw new Later(`${String(body.code)}: ${String(body.detail ?? '')}`, problemOf({ headers: {}, text }))
    const { line, status } = body
    if (typeof line !== 'number' || messages[line - 1] === undefined || typeof status !== 'string') throw notOurs(service)
    yield { index: line - 1, status, body }
  }
  throw new NoAnswer('the answer ended before its end')
}

function whyNot (answer: Answer): Error {
  const problem = problemOf(answer)
  if (isLater(answer)) return new Later(`${answer.status} ${problem.code ?? ''}`.trim(), problem, retryAfterMs(answer, Date.now()))
  try {
    settled(answer)
  } catch (error) {
    if (!(error instanceof Failure) || error.problem.code !== 'body-too-large') return error as Error
    return new Failure(error.exitCode, error.message, { ...error.problem, remedy: 'Run the same command again with a smaller --chunk' }, error)
  }
  return new Failure(EXIT.failed, 'the service answered without lines', { remedy: 'Check --url' })
}

function parsed (text: string, service: Service): Record<string, unknown> {
  try {
    const value: unknown = JSON.parse(text)
    if (typeof value === 'object' && value !== null) return { ...value }
  } catch {}
  throw notOurs(service)
}

function notOurs ({ url }: Service): Failure {
  return new Failure(EXIT.failed, `${url.host} answered with lines that are none of a batch`, { remedy: 'Check --url' })
}
