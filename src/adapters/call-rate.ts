/** What is left of the rate after a throttled call; AWS's own adaptive mode cuts as much. */
const CUT = 0.7

/** Throttled calls of one burst count once: those made before the last cut, and those that end within this time after it. */
const CUT_ONCE_MS = 200

/** The rate never falls below this share of the quota, nor below this many calls a second. */
const FLOOR_SHARE = 0.02
const FLOOR = 0.5

/**
 * Growth in shares of the quota a second, and the seconds without a throttled call after which it has doubled. It begins slowly because
 * each look for more costs throttled calls, and accelerates so that a quota that has become free is used within a minute.
 */
const GROWTH = 0.001
const DOUBLED_AFTER_S = 10

/**
 * The calls a second that this process allows itself for one operation: the quota, until AWS throttles. Then it is cut in proportion and
 * grows by the same amount everywhere, which is what makes processes that share a quota end with equal shares without talking to each
 * other. `now` is in milliseconds and never goes back.
 */
export class CallRate {
  readonly #quota: number
  readonly #now: () => number
  #perSecond: number
  #cutAt = -Infinity
  #grownAt = 0
  /** Seconds at work since the last cut. */
  #calmS = 0

  constructor (quota: number, now: () => number) {
    this.#quota = quota
    this.#now = now
    this.#perSecond = quota
  }

  get perSecond (): number {
    return this.#perSecond
  }

  /** A call that was made at `startedAt` was throttled. */
  throttled (startedAt: number): void {
    const now = this.#now()
    if (startedAt < this.#cutAt || now - this.#cutAt < CUT_ONCE_MS) return
    const floor = Math.min(this.#quota, Math.max(FLOOR, this.#quota * FLOOR_SHARE))
    this.#perSecond = Math.max(floor, this.#perSecond * CUT)
    this.#cutAt = now
    this.#grownAt = now
    this.#calmS = 0
  }

  /** A call is being made. Time in which hardly any is made says nothing about the quota, so it lets nothing grow. */
  used (): void {
    const now = this.#now()
    const seconds = Math.min((now - this.#grownAt) / 1000, 2 / this.#perSecond)
    this.#grownAt = now
    if (this.#perSecond >= this.#quota) return
    this.#calmS += seconds
    const growth = GROWTH * this.#quota * (1 + (this.#calmS / DOUBLED_AFTER_S) ** 2)
    this.#perSecond = Math.min(this.#quota, this.#perSecond + growth * seconds)
  }
}
