// The weather of a storm: what becomes of each call, and which replica is paused or killed when. One seed makes all of its choices.
import { createHash } from 'node:crypto'
import { setTimeout as delay } from 'node:timers/promises'
import { randomFrom } from '../../fixtures/interleaver.ts'
import type { AwsAnswer, AwsCall, Decider, Fate } from '../aws-proxy.ts'
import type { Replica } from '../fleet.ts'
import type { Observer } from '../observer.ts'

/** What HTTP lets anyone on the way send again (RFC 9110 section 9.2.2), and DynamoDB's calls, which its client sends again itself. */
const REPEATABLE = /^(GET|PUT|DELETE) |^(Describe|Update|Delete|Attach|Detach|List|Get)|Item$|^Query$/

export class Weather implements Decider {
  /** How often each thing happened. */
  readonly counts: Record<string, number> = {}
  readonly #observer: Observer
  readonly #claimMs: number
  readonly #seed: number
  readonly #streams = new Map<string, (below: number) => number>()
  readonly #starting = new Set<string>()
  #isCalm = true
  readonly #over = new AbortController()

  constructor (seed: number, claimMs: number, observer: Observer) {
    this.#seed = seed
    this.#observer = observer
    this.#claimMs = claimMs
  }

  /** A number from 0 to below `below`, of a sequence that the seed gives to whoever asks by this name. */
  random (below: number, name: string): number {
    let stream = this.#streams.get(name)
    if (!stream) {
      const digest = createHash('sha256').update(`${this.#seed} ${name}`).digest()
      stream = randomFrom(digest.readUInt32LE())
      this.#streams.set(name, stream)
    }
    return stream(Math.max(1, Math.floor(below)))
  }

  /** Until then nothing happens. */
  begin (): void {
    this.#isCalm = false
  }

  /** Aborted when the storm is over. */
  get over (): AbortSignal {
    return this.#over.signal
  }

  end (): void {
    this.#isCalm = true
    this.#over.abort()
  }

  /** Whether it happens this time, `inTenThousand` of ten thousand times. */
  happens (what: string, inTenThousand: number): boolean {
    const does = !this.#isCalm && this.random(10_000, what) < inTenThousand
    if (does) this.count(what)
    return does
  }

  count (what: string): void {
    this.counts[what] = (this.counts[what] ?? 0) + 1
  }

  /** Waits, but not beyond the end of the storm. */
  async sleep (ms: number): Promise<void> {
    await delay(ms, undefined, { signal: this.over }).catch(() => {})
  }

  before (call: AwsCall): Fate {
    this.#observer.sent(call)
    if (this.#starting.has(call.from)) return 'pass'
    if (this.happens('AWS call cut', 150)) return 'cut'
    if (this.happens('AWS call delayed', 500)) return { waitMs: this.random(800, 'delay') }
    // The caller has given it up by then, and its claim may have ended.
    if (this.happens('AWS call carried out late', 60)) return { waitMs: this.random(this.#claimMs * 1.5, 'late') }
    if (REPEATABLE.test(call.operation) && this.happens('AWS call twice', 100)) return 'twice'
    return 'pass'
  }

  after (call: AwsCall, answer: AwsAnswer): Fate {
    this.#observer.answered(call, answer)
    if (this.#starting.has(call.from)) return 'pass'
    if (this.happens('AWS answer lost', 150)) return 'cut'
    if (this.happens('AWS answer cut in half', 50)) return 'half'
    if (this.happens('AWS answer late', 80)) return { waitMs: this.random(this.#claimMs * 1.5, 'late') }
    return 'pass'
  }

  /** Stops replicas with SIGSTOP for longer than a claim lives, one or two at a time. */
  async pause (replicas: readonly Replica[]): Promise<void> {
    while (!this.over.aborted) {
      await this.sleep(500 + this.random(2_000, 'pause'))
      const chosen = replicas[this.random(replicas.length, 'paused')]!
      if (this.over.aborted || this.#starting.has(chosen.name)) continue
      const pid = chosen.pid()
      this.count('pause')
      process.kill(pid, 'SIGSTOP')
      await this.sleep(this.#claimMs + 300 + this.random(this.#claimMs, 'paused for'))
      // It may have been killed and started anew meanwhile.
      if (!this.#starting.has(chosen.name) && chosen.pid() === pid) process.kill(pid, 'SIGCONT')
    }
  }

  /** Kills replicas, paused ones too, and starts them anew. */
  async kill (replicas: readonly Replica[], everyMs: number): Promise<void> {
    while (!this.over.aborted) {
      await this.sleep(everyMs / 2 + this.random(everyMs, 'kill'))
      const chosen = replicas[this.random(replicas.length, 'killed')]!
      if (this.over.aborted) return
      this.#starting.add(chosen.name)
      this.count('kill')
      await chosen.kill()
      await chosen.start()
      this.#starting.delete(chosen.name)
    }
  }

  /** Whether a balancer would not send to it. */
  isStarting ({ name }: Replica): boolean {
    return this.#starting.has(name)
  }
}
