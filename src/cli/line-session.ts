import { join } from 'node:path'
import { EXIT, Failure, printable } from './failure.ts'
import type { LineAnswer } from './batch.ts'
import type { Service } from './client.ts'
import { WrongAnswer, itemOf, keepKey, store } from './line-item.ts'
import type { Bench, Item } from './line-item.ts'
import { Manifest } from './manifest.ts'
import type { Entry, Outcome } from './manifest.ts'
import { paceOf, startProgress } from './progress.ts'
import type { Progress } from './progress.ts'
import { readRequests } from './request-list.ts'
import type { VendRequest } from './request-list.ts'
import { beginLine, vendLine } from './vend-line.ts'
import type { Run } from './vend-line.ts'

export interface Order {
  readonly service: Service
  readonly file: string
  /** How many devices the file has. */
  readonly total: number
  readonly bench: Bench
  readonly isResumed: boolean
  readonly chunk: number
  readonly lanes: number
  readonly timeoutMs: number
}

// The service answers a line when AWS IoT's quota lets it.
const IDLE_MS = 120_000
const MOST_FAULTS_TOLD = 10
const PREPARED_AT_ONCE = 16

/** One run of `cvm line vend`: what it has done so far can be read at any time. */
export class LineSession {
  readonly tally = { vended: 0, replayed: 0, refused: 0, failed: 0, skipped: 0 }
  /** Of a dry run: how many lines would end how. */
  readonly classes = new Map<string, number>()
  /** The first lines that were refused or failed, in words. */
  readonly faults: string[] = []
  readonly #order: Order
  readonly #manifest: Manifest | undefined
  readonly #progress: Progress
  readonly #interrupt = new AbortController()
  readonly #began = Date.now()
  #isEnding = false
  #begunWith = 0
  #connection: Record<string, unknown> = {}

  private constructor (order: Order, manifest: Manifest | undefined) {
    this.#order = order
    this.#manifest = manifest
    const { file, total, bench } = order
    this.#progress = startProgress(`${bench.isDryRun ? 'trying' : 'vending'} ${file}`, total, bench.keys === 'aws')
  }

  /** Opens the manifest, unless it is a dry run. Throws a `Failure`. */
  static async open (order: Order): Promise<LineSession> {
    return new LineSession(order, order.bench.isDryRun ? undefined : await Manifest.open(order.bench.out))
  }

  /** Where the manifest is; there is none in a dry run. */
  get manifest (): string | undefined {
    return this.#manifest?.path
  }

  /** How many lines were refused or failed. */
  get wrong (): number {
    return this.tally.refused + this.tally.failed
  }

  /** Vends, or asks what would be vended. Throws a `Failure`; Ctrl-C is one with the exit code 130. */
  async run (): Promise<void> {
    const { service, bench, chunk, lanes, timeoutMs } = this.#order
    const onSignal = () => this.#end()
    for (const name of ['SIGINT', 'SIGTERM'] as const) process.on(name, onSignal)
    const run: Run = {
      service,
      isDryRun: bench.isDryRun,
      chunk,
      lanes,
      timeoutMs,
      idleMs: IDLE_MS,
      signal: this.#interrupt.signal,
      onWait: (ms: number, why: string) => this.#progress.say(`waiting ${(ms / 1000).toFixed(1)} s: ${printable(why)}`),
      isEnding: () => this.#isEnding,
      settle: (item: Item, answer: LineAnswer) => bench.isDryRun ? this.#classify(item, answer) : this.#settle(item, answer)
    }
    try {
      if (bench.isDryRun || await this.#begin(run)) await vendLine(run, this.#items())
      if (this.#isEnding) throw interrupted()
      await this.#manifest?.tidy()
      this.#progress.stop('all lines were answered')
    } catch (error) {
      this.#progress.stop('stopped before the end')
      throw error
    } finally {
      for (const name of ['SIGINT', 'SIGTERM'] as const) process.off(name, onSignal)
    }
  }

  /** Gives the manifest free. */
  async close (): Promise<void> {
    await this.#manifest?.close()
  }

  #end (): void {
    // What AWS IoT makes is in one answer: it is waited for, unless the person insists.
    if (this.#order.bench.keys === 'aws' && !this.#isEnding) this.#progress.say('ending with the posts under way; Ctrl-C again ends at once')
    else this.#interrupt.abort(interrupted())
    this.#isEnding = true
  }

  /**
   * Sends the first device alone: every folder needs root CA and endpoint, which come at the end of an answer, and what is wrong with the
   * whole run shows before keys are made by the thousand. Returns whether there is anything to do.
   */
  async #begin (run: Run): Promise<boolean> {
    const first = await this.#first()
    if (first === undefined) return false
    const ready = () => itemOf(first, this.#order.bench)
    const { item, answer, summary } = await beginLine(run, ready, (item, { body }) => keepKey(item, body))
    this.#connection = connectionIn(summary, run.service)
    if (answer.status === 'failed') return true
    await this.#settle(item, answer)
    this.#begunWith = first.line
    return true
  }

  async #first (): Promise<VendRequest | undefined> {
    for await (const request of readRequests(this.#order.file)) {
      if (!await this.#isDone(request)) return request
    }
    this.#skip(this.#order.total)
    return undefined
  }

  /** Devices that are to be sent, in their order; some are made ready ahead, at the same time. */
  async * #items (): AsyncGenerator<Item> {
    const ahead: Promise<Item | undefined>[] = []
    for await (const request of readRequests(this.#order.file)) {
      if (this.#isEnding) return
      if (request.line === this.#begunWith) continue
      const item = this.#itemOf(request)
      // It is waited for below; until then a failure of it is not unheard.
      item.catch(() => {})
      ahead.push(item)
      if (ahead.length < PREPARED_AT_ONCE) continue
      const ready = await ahead.shift()
      if (ready !== undefined) yield ready
    }
    for (const item of ahead) {
      const ready = await item
      if (this.#isEnding) return
      if (ready !== undefined) yield ready
    }
  }

  async #itemOf (request: VendRequest): Promise<Item | undefined> {
    if (!await this.#isDone(request)) return await itemOf(request, this.#order.bench)
    this.#skip(1)
    return undefined
  }

  async #isDone ({ serialNumber }: VendRequest): Promise<boolean> {
    const { isResumed, bench } = this.#order
    return isResumed && await this.#manifest?.isComplete(serialNumber, join(bench.out, serialNumber)) === true
  }

  async #settle (item: Item, { status, body }: LineAnswer): Promise<void> {
    const { serialNumber } = item.message
    const outcome = status as Outcome
    if (outcome === 'vended' || outcome === 'replayed') {
      try {
        await this.#finish(item, { serialNumber, status: outcome, ...await store(item, { ...this.#connection, ...body }) })
      } catch (error) {
        if (!(error instanceof WrongAnswer)) throw error
        await this.#finish(item, { serialNumber, status: 'failed', code: 'wrong-answer', detail: error.message })
      }
      return
    }
    const { code, detail, remedy } = body
    const words = [detail, remedy].filter(part => typeof part === 'string').join('. ')
    await this.#finish(item, { serialNumber, status: status === 'refused' ? 'refused' : 'failed', code: typeof code === 'string' ? code : 'no-answer', detail: words })
  }

  async #finish (item: Item, entry: Entry): Promise<void> {
    await this.#manifest?.append(entry)
    this.tally[entry.status]++
    this.#advance(item, entry)
  }

  async #classify (item: Item, { status, body }: LineAnswer): Promise<void> {
    const code = typeof body.code === 'string' ? body.code : ''
    const name = code === '' ? status : `${status} ${code}`
    this.classes.set(name, (this.classes.get(name) ?? 0) + 1)
    const isWrong = status === 'refused' || status === 'failed'
    this.tally[isWrong ? status : 'vended']++
    this.#advance(item, { serialNumber: item.message.serialNumber, status: isWrong ? status : 'vended', code, detail: String(body.detail ?? '') })
  }

  #advance ({ line }: Item, { serialNumber, status, code, detail }: Entry): void {
    const { tally } = this
    const done = tally.vended + tally.replayed + this.wrong
    this.#progress.advance(1, paceOf(done, this.#order.total - tally.skipped, this.wrong, Date.now() - this.#began))
    if ((status !== 'refused' && status !== 'failed') || this.faults.length >= MOST_FAULTS_TOLD) return
    this.faults.push(`line ${line}, ${serialNumber}: ${printable([status, code, detail].filter(Boolean).join(': '))}`)
  }

  #skip (count: number): void {
    this.tally.skipped += count
    this.#progress.advance(count)
  }
}

function connectionIn ({ rootCaPem, endpoint }: Record<string, unknown>, { url }: Service): Record<string, unknown> {
  if (typeof rootCaPem === 'string' && typeof endpoint === 'string') return { rootCaPem, endpoint }
  throw new Failure(EXIT.failed, `${url.host} does not tell its root CA and endpoint`, { remedy: 'Check --url' })
}

function interrupted (): Failure {
  return new Failure(EXIT.interrupted, 'interrupted', { remedy: 'The same command goes on from here' })
}
