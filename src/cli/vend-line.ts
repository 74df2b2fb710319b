import { setTimeout as delay } from 'node:timers/promises'
import { jittered } from './back-off.ts'
import { Later, postBatch } from './batch.ts'
import type { LineAnswer, Summary } from './batch.ts'
import { NoAnswer } from './client.ts'
import type { Service } from './client.ts'
import { workThrough } from './crew.ts'
import { EXIT, Failure } from './failure.ts'
import type { Item } from './line-item.ts'

export interface Run {
  readonly service: Service
  readonly isDryRun: boolean
  /** Devices in one post. */
  readonly chunk: number
  /** Posts at the same time: while one ends, the next is under way. */
  readonly lanes: number
  /** How long to go on without any line being answered; and with lines that fail again and again. */
  readonly timeoutMs: number
  readonly idleMs: number
  /** Ends everything. */
  readonly signal: AbortSignal
  /** Told before each wait. */
  readonly onWait: (ms: number, why: string) => void
  /** No more is to be begun: what is under way ends, what failed is left for the next run. */
  readonly isEnding: () => boolean
  /** What to do with an answer that is final, or one that `failed` once too often; it is stored when this returns. */
  readonly settle: (item: Item, answer: LineAnswer) => Promise<void>
}

/** A device that was answered, and what the service says at the end of a batch. */
export interface Begun { readonly item: Item, readonly answer: LineAnswer, readonly summary: Summary }

interface Failed { readonly item: Item, readonly answer: LineAnswer }

// Enough to keep a disk busy while the next answers come.
const STORED_AT_ONCE = 16

/**
 * Sends devices in chunks until each has its final answer. A line that was answered is not sent again, what was not answered is; lines
 * that `failed` come again after all the others. Throws a `Failure` when it cannot go on.
 */
export async function vendLine (run: Run, items: AsyncGenerator<Item>): Promise<void> {
  let failed: Failed[] = []
  let streak = 0
  const stop = new AbortController()
  const signal = AbortSignal.any([run.signal, stop.signal])
  const pass = (source: AsyncGenerator<Item[]>) => workThrough(source, run.lanes, async chunk => {
    const before = failed.length
    await vendChunk({ ...run, signal }, chunk, entry => failed.push(entry))
    // Where every line of a chunk fails, so will the next chunk's.
    streak = failed.length - before < chunk.length ? 0 : streak + 1
    if (streak > 0 && !run.isEnding()) await pause({ ...run, signal }, jittered(streak, Math.random), 'every line failed')
  }, error => stop.abort(error))

  await pass(chunks(items, run.chunk))
  let since = Date.now()
  for (let attempt = 0; failed.length > 0; attempt++) {
    const again = failed
    const ms = jittered(attempt, Math.random)
    if (run.isEnding() || Date.now() + ms >= since + run.timeoutMs) {
      for (const { item, answer } of again) await run.settle(item, answer)
      return
    }
    failed = []
    await pause(run, ms, `${again.length} lines failed, to be tried again`)
    await pass(chunks(each(again), run.chunk))
    if (failed.length < again.length) since = Date.now()
  }
}

/**
 * Sends one device alone, until the service has told the summary that every folder needs; `keep` saves what an answer holds but once.
 * Returns the device's answer as well. Throws a `Failure`.
 */
export async function beginLine (run: Run, ready: () => Promise<Item>, keep: Run['settle']): Promise<Begun> {
  const since = Date.now()
  for (let attempt = 0; ; attempt++) {
    const item = await ready()
    let answer: LineAnswer | undefined
    let summary: Summary | undefined
    const settle: Run['settle'] = async (_item, said) => {
      answer = said
      await keep(item, said)
    }
    await vendChunk({ ...run, settle }, [item], failed => { answer = failed.answer }, said => { summary = said })
    if (answer !== undefined && summary !== undefined) return { item, answer, summary }
    const ms = jittered(attempt, Math.random)
    if (Date.now() + ms >= since + run.timeoutMs) throw tooLate(run, 'no answer came to its end', undefined)
    await pause(run, ms, 'the answer ended before its end')
  }
}

async function vendChunk (
  run: Run, items: Item[], onFailed: (entry: Failed) => void, onSummary: (summary: Summary) => void = () => {}): Promise<void> {
  const left = new Set(items)
  const { timeoutMs, signal } = run
  let since = Date.now()
  for (let attempt = 0; ; attempt++) {
    const posted = [...left]
    const messages = posted.map(({ message }) => message)
    const end = new AbortController()
    const answers = postBatch({ ...run, messages, onSummary, signal: AbortSignal.any([signal, end.signal]) })
    const trouble = await workThrough(answers, STORED_AT_ONCE, async answer => {
      const item = posted[answer.index]
      if (item === undefined || !left.delete(item)) return
      if (answer.status === 'failed' && !run.isDryRun) onFailed({ item, answer })
      else await run.settle(item, answer)
    }, () => end.abort()).catch((error: unknown) => error)
    signal.throwIfAborted()
    if (trouble !== undefined && !(trouble instanceof Later || trouble instanceof NoAnswer)) throw trouble
    if (left.size === 0) return
    if (left.size < posted.length) {
      since = Date.now()
      attempt = 0
    }
    const why = trouble?.message ?? `${left.size} lines were not answered`
    const asked = trouble instanceof Later ? trouble.askedMs : undefined
    // The jitter comes on top: many lines must not come back in the same moment.
    const ms = (asked ?? 0) + jittered(asked === undefined ? attempt : 0, Math.random)
    if (Date.now() + ms >= since + timeoutMs) throw tooLate(run, why, trouble)
    await pause(run, ms, why)
  }
}

async function pause ({ signal, onWait }: Run, ms: number, why: string): Promise<void> {
  onWait(ms, why)
  await delay(ms, undefined, { signal }).catch(() => signal.throwIfAborted())
}

function tooLate ({ service, timeoutMs }: Run, why: string, trouble: Later | NoAnswer | undefined): Failure {
  const remedy = 'Check --url and the network, then run the same command again: it goes on where this one ended'
  const problem = trouble instanceof Later ? trouble.problem : {}
  return new Failure(EXIT.later, `${service.url.host} did nothing for ${timeoutMs / 1000} s`, { detail: why, ...problem, remedy }, trouble)
}

async function * chunks (items: AsyncGenerator<Item>, size: number): AsyncGenerator<Item[]> {
  let chunk: Item[] = []
  for await (const item of items) {
    chunk.push(item)
    if (chunk.length < size) continue
    yield chunk
    chunk = []
  }
  if (chunk.length > 0) yield chunk
}

async function * each (entries: readonly Failed[]): AsyncGenerator<Item> {
  for (const { item } of entries) yield item
}
