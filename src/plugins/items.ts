import { Readable } from 'node:stream'
import type { FastifyReply, FastifyRequest } from 'fastify'
import fp from 'fastify-plugin'
import type { Static, TSchema } from 'typebox'
import { CvmError, ERRORS, type ErrorCode } from '../errors.ts'
import { SERIAL_NUMBER } from '../vending/names.ts'
import { asTheyFinish } from './as-they-finish.ts'
import { logFailure } from './error-handler.ts'
import { Lines, NDJSON } from './ndjson.ts'
import { problemOf, toCvmError } from './problem.ts'

interface ItemsOptions {
  /** Items of one request that are worked on at once. */
  atOnce: number
  /** How long an array may be worked on; what is not begun by then has failed, rather than the answer to all. */
  arrayMs: number
  /** Told of every item that is refused or fails. */
  onFailure: (code: ErrorCode) => void
  /** Whether a failure is in the log already, as a security event. */
  isAudited: (error: Error) => boolean
}

/** What to do with each item. */
interface ItemWork<S extends TSchema> {
  /** What an item must look like. */
  schema: S
  /** What `work` can say, for the counts; `refused` and `failed` come with it. */
  statuses: readonly string[]
  /** What it raises is this item's refusal, or its failure where sending it again may help (5xx, or with a time to retry). */
  work: (item: Static<S>, place: Place) => Promise<{ status: string }>
  /** Items of this request that are worked on at once, where it is another number than for others. */
  atOnce?: number
  /** Told of each item's status. */
  onResult?: (status: string) => void
  /** What stands beside the counts. */
  more?: object
}

/** Where in its request an item is. */
interface Place {
  /** From 1. */
  line: number
  /** Aborted when nothing more is to be begun: the caller has gone, the service is shutting down, or the time of an array is over. */
  stop: AbortSignal
  /** Aborted when nobody is left to take the result. */
  callerGone: AbortSignal
}

/** One item of an array, or one line. */
interface Item { line: number, read: () => Promise<unknown>, deadline?: AbortSignal }

interface Result { line: number, status: string }

/** A caller who takes nothing for so long is dropped. */
const STALL_MS = 60_000

/** The most faults of one item that are told. */
const MAX_FAULTS = 5

/** Answers many items in one request, each by itself: whatever becomes of one, the others are answered. */
export const items = fp<ItemsOptions>(async (app, { atOnce, arrayMs, ...told }) => {
  app.decorateReply('answerItems', function answerItems<S extends TSchema> (this: FastifyReply, body: unknown, itemWork: ItemWork<S>) {
    const gone = this.callerGone()
    const { more, onResult } = itemWork
    const counts = Object.fromEntries([...itemWork.statuses, 'refused', 'failed'].map(status => [status, 0]))
    const answer = answerer(this.request, itemWork, { ...told, callerGone: gone, stopping: app.stopping })
    const results = (source: AsyncIterable<Item>) => asTheyFinish(source, itemWork.atOnce ?? atOnce, gone, async item => {
      const result = await answer(item)
      onResult?.(result.status)
      counts[result.status] = (counts[result.status] ?? 0) + 1
      return result
    })
    this.header('cache-control', 'no-store')
    if (Array.isArray(body)) return answerArray(results(itemsOf(body, AbortSignal.timeout(arrayMs))), counts, more)
    // A body without a media type is checked by no schema.
    if (!(body instanceof Lines)) throw new CvmError('invalid-request', { detail: 'the body is missing' })
    const answers = answerLines(body, results(body), { counts, more }, () => this.raw.destroy())
    return this.type(NDJSON).send(Readable.from(answers, { highWaterMark: 1 }))
  })
}, { name: 'items', dependencies: ['caller-gone', 'drain', 'ndjson'] })

async function answerArray (results: AsyncIterable<Result>, counts: Record<string, number>, more?: object) {
  const all: Result[] = []
  for await (const result of results) all.push(result)
  return { results: all.sort((a, b) => a.line - b.line), ...counts, ...more }
}

/** What the answer ends with. */
interface Sum { counts: Record<string, number>, more: object | undefined }

/** The results as they are ready, then what ended them early if anything did, then the sum. */
async function * answerLines (
  body: Lines, results: AsyncIterable<Result>, { counts, more }: Sum, drop: () => void
): AsyncGenerator<string> {
  let lines = 0
  try {
    for await (const result of results) {
      lines++
      const stalled = setTimeout(drop, STALL_MS)
      try {
        yield lineOf(result)
      } finally {
        clearTimeout(stalled)
      }
    }
  } catch (cause) {
    const { code, detail, remedy } = problemOf(toCvmError(cause))
    yield lineOf({ error: true, line: body.taken + 1, code, detail, remedy })
  }
  yield lineOf({ summary: true, lines, ...counts, ...more })
}

function lineOf (value: object): string {
  return `${JSON.stringify(value)}\n`
}

async function * itemsOf (values: readonly unknown[], deadline: AbortSignal): AsyncGenerator<Item> {
  for (const [index, value] of values.entries()) {
    yield { line: index + 1, read: async () => value, deadline }
  }
}

interface Around extends Pick<ItemsOptions, 'onFailure' | 'isAudited'> { callerGone: AbortSignal, stopping: AbortSignal }

/** Reads, checks and works on one item; never rejects. */
function answerer<S extends TSchema> (request: FastifyRequest, { schema, work }: ItemWork<S>, around: Around) {
  const { callerGone, stopping, onFailure, isAudited } = around
  const over = AbortSignal.any([callerGone, stopping])
  const validate = request.compileValidationSchema(schema as never)
  return async ({ line, read, deadline }: Item): Promise<Result> => {
    let item: unknown
    try {
      item = await read()
      if (deadline?.aborted) throw new CvmError('deadline-exceeded', { detail: 'the time for the whole array was over before this item was begun' })
      if (!validate(item)) throw new CvmError('invalid-request', { cause: { validation: validate.errors } })
      const stop = deadline ? AbortSignal.any([over, deadline]) : over
      return { line, ...serialNumberOf(item), ...await work(item as Static<S>, { line, stop, callerGone }) }
    } catch (cause) {
      const error = toCvmError(cause)
      onFailure(error.code)
      if (!isAudited(error)) logFailure(request, error, { line })
      const { detail, remedy, reason, errors = [] } = problemOf(error)
      const { retryAfterMs } = error
      const faults = errors.slice(0, MAX_FAULTS).map(fault => `${fault.pointer} ${fault.detail}`.trim()).join('; ')
      const status = ERRORS[error.code].status < 500 && retryAfterMs === undefined ? 'refused' : 'failed'
      const failure = { status, code: error.code, detail: faults ? `${detail}: ${faults}` : detail, remedy }
      return { line, ...serialNumberOf(item), ...failure, ...(reason && { reason }), ...(retryAfterMs !== undefined && { retryAfterMs }) }
    }
  }
}

/** Told only where it can be one: what stands in its place may be anything, such as a token. */
function serialNumberOf (item: unknown): { serialNumber?: string } {
  const { serialNumber } = (item ?? {}) as { serialNumber?: unknown }
  return typeof serialNumber === 'string' && new RegExp(SERIAL_NUMBER).test(serialNumber) ? { serialNumber } : {}
}

declare module 'fastify' {
  interface FastifyReply {
    /**
     * Answers a body of many items, from 1: an array with `{results, …counts}` in its order; lines with a stream of result lines as
     * they are ready and a summary line last. Reads no more lines while the caller takes no results, and begins none once the caller
     * is gone.
     */
    answerItems: <S extends TSchema>(body: unknown, itemWork: ItemWork<S>) => unknown
  }
}
