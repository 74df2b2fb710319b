import { CvmError } from '../errors.ts'
import type { VendWay } from '../vending/device.ts'
import type { Clock } from './pacer.ts'

/** How fast the calls of a vend can be made by the operation that is slowest for it, and how long a bulk call would wait for its turn. */
export interface Forecast { perSecond: number, waitMs: number }

/**
 * The work that is begun ahead of the quota: the calls of so much time. Enough that the slowest operation always has the next call
 * waiting; little enough that a line never waits long while its claim runs.
 */
const AHEAD_MS = 2_000

/** So many lines are at work at any pace. */
const LEAST = 2

interface Waiting { way: VendWay, go: () => void }

/**
 * Lets lines of batches begin when they can be served soon, in the order in which they came, whatever batch they are of: never more at
 * work than the pace serves within {@link AHEAD_MS}, and none while others keep the queues longer than that.
 */
export class LineAdmission {
  readonly #forecast: (way: VendWay) => Forecast
  readonly #clock: Clock
  readonly #waiting: Waiting[] = []
  #atWork = 0
  #timed = false

  constructor (forecast: (way: VendWay) => Forecast, clock: Clock) {
    this.#forecast = forecast
    this.#clock = clock
  }

  /**
   * Resolves when the line may begin, with what to call once it has ended, more than once if need be. Raises
   * `CvmError('deadline-exceeded')` at `stop`.
   */
  admit (way: VendWay, stop: AbortSignal): Promise<() => void> {
    return new Promise((resolve, reject) => {
      const waiting: Waiting = {
        way,
        go: () => {
          stop.removeEventListener('abort', leave)
          let isAtWork = true
          resolve(() => {
            if (isAtWork) this.#ended()
            isAtWork = false
          })
        }
      }
      const leave = () => {
        const at = this.#waiting.indexOf(waiting)
        if (at >= 0) this.#waiting.splice(at, 1)
        reject(new CvmError('deadline-exceeded', { detail: 'the batch ended before this line was begun', retryAfterMs: AHEAD_MS }))
        this.#serve()
      }
      if (stop.aborted) return leave()
      stop.addEventListener('abort', leave, { once: true })
      this.#waiting.push(waiting)
      this.#serve()
    })
  }

  #ended (): void {
    this.#atWork--
    this.#serve()
  }

  #serve (): void {
    for (let next = this.#waiting[0]; next; next = this.#waiting[0]) {
      const { perSecond, waitMs } = this.#forecast(next.way)
      if (this.#atWork >= Math.max(LEAST, perSecond * AHEAD_MS / 1000)) return
      if (waitMs > AHEAD_MS) return this.#lookAgain(waitMs - AHEAD_MS)
      this.#atWork++
      this.#waiting.shift()
      next.go()
    }
  }

  /** The queues grow shorter without us when they are full of others' calls. */
  #lookAgain (delayMs: number): void {
    if (this.#timed) return
    this.#timed = true
    this.#clock.later(delayMs, () => {
      this.#timed = false
      this.#serve()
    })
  }
}
