/** The wait after a first failure; it doubles with each further one, up to the second. */
const FIRST_MS = 30_000
const LONGEST_MS = 900_000

/** Devices that are remembered. One that is forgotten is tried as if it had never failed. */
const MOST = 10_000

/** What to do about a waiting device in this run: first those that never failed, then those whose wait is over; the rest not yet. */
export type Turn = 'first' | 'last' | 'not-yet'

/**
 * Remembers which devices reconcile could not finish, so that they keep no others waiting. In memory: each replica has its own, and one
 * that starts learns it anew.
 */
export class Deferrals {
  readonly #failed = new Map<string, { failures: number, until: number }>()

  /** When the device is to be tried, now. */
  turnOf (serialNumber: string, now: number): Turn {
    const known = this.#failed.get(serialNumber)
    if (!known) return 'first'
    return known.until <= now ? 'last' : 'not-yet'
  }

  failed (serialNumber: string, now: number): void {
    const failures = (this.#failed.get(serialNumber)?.failures ?? 0) + 1
    this.#remember(serialNumber, { failures, until: now + Math.min(LONGEST_MS, FIRST_MS * 2 ** (failures - 1)) })
  }

  /** Nothing failed, and something is left: it goes to the end, without a wait. */
  left (serialNumber: string, now: number): void {
    this.#remember(serialNumber, { failures: 0, until: now })
  }

  finished (serialNumber: string): void {
    this.#failed.delete(serialNumber)
  }

  #remember (serialNumber: string, entry: { failures: number, until: number }): void {
    this.#failed.delete(serialNumber)
    this.#failed.set(serialNumber, entry)
    const [oldest] = this.#failed.keys()
    if (this.#failed.size > MOST && oldest !== undefined) this.#failed.delete(oldest)
  }
}
