import { CvmError } from '../errors.ts'
import { CallRate } from './call-rate.ts'

/** Whom calls are for, in this order: devices, which wait for their answer; batches and reconcile, which have time; the sweep for drift. */
export const PRIORITIES = ['device', 'bulk', 'sweep'] as const
export type Priority = typeof PRIORITIES[number]

/** Time and timers, given so that tests can turn the hands. */
export interface Clock {
  /** Milliseconds; never goes back. */
  now: () => number
  /** Does the work once, after at least `delayMs`. */
  later: (delayMs: number, work: () => void) => void
}

/** Told what happens in the queue of an operation. */
export interface PaceObserver {
  queue: (operation: string, priority: Priority, length: number) => void
  waited: (operation: string, priority: Priority, waitMs: number) => void
  refused: (operation: string, priority: Priority) => void
  throttled: (operation: string) => void
  pace: (operation: string, perSecond: number) => void
}

interface Turn {
  priority: Priority
  /** Ends the wait with {@link CvmError} `aws-iot-throttled`: nothing was done. */
  signal: AbortSignal
  /** Throttled before: at the head of its class. */
  again?: boolean
}

/** Lets a waiting call go. */
type Go = () => void

/** Calls that an idle operation may make at once, in seconds' worth of its pace; far from the second's worth that AWS allows. */
const BURST_S = 0.1

/** When others wait too, every so many calls one is a bulk call. */
const BULK_SHARE = 10

/** The same for calls of the sweep: it never stands still. */
const SWEEP_SHARE = 100

/** No caller is sent away for longer; a crowd that comes back before its time could otherwise push the time out for ever. */
const LONGEST_RETRY_MS = 60_000

/** A token is whole but for what adding fractions loses. */
const WHOLE = 1 - 1e-9

/**
 * The queue before one operation of AWS IoT: lets calls go at the pace of {@link CallRate}, devices before bulk, in order within each.
 * In any window of s seconds it lets go at most `pace × s` calls and a burst: 0.1 s' worth or one call, and one more.
 */
export class Pacer {
  readonly #operation: string
  readonly #clock: Clock
  readonly #observer: PaceObserver
  readonly #rate: CallRate
  readonly #queues: Record<Priority, Go[]> = { device: [], bulk: [], sweep: [] }
  /** When the last caller that was sent away is to be served, so that the next one is told a later time. */
  readonly #promised: Record<Priority, number> = { device: 0, bulk: 0, sweep: 0 }
  #tokens = 1
  #filledAt: number
  #sinceBulk = 0
  #sinceSweep = 0
  #timed = false

  constructor (operation: string, quota: number, clock: Clock, observer: PaceObserver) {
    this.#operation = operation
    this.#clock = clock
    this.#observer = observer
    this.#rate = new CallRate(quota, clock.now)
    this.#filledAt = clock.now()
    observer.pace(operation, quota)
    for (const priority of PRIORITIES) observer.queue(operation, priority, 0)
  }

  /** Calls a second that are let go now. */
  get perSecond (): number {
    return this.#rate.perSecond
  }

  /** How long a call of this class would wait if it came now, in milliseconds. */
  waitMs (priority: Priority): number {
    this.#fill()
    const { device, bulk, sweep } = this.#queues
    const bulkBefore = priority === 'device' ? Math.min(bulk.length, Math.floor(device.length / (BULK_SHARE - 1))) : bulk.length
    const others = device.length + bulkBefore
    const sweepBefore = priority === 'sweep' ? sweep.length : Math.min(sweep.length, Math.floor(others / (SWEEP_SHARE - 1)))
    return Math.max(0, (others + sweepBefore + 1 - this.#tokens) / this.#rate.perSecond * 1000)
  }

  /** The refusal for a call that would wait `waitMs`; each says a later time than the one before. */
  refusal (priority: Priority, waitMs: number): CvmError {
    this.#observer.refused(this.#operation, priority)
    const now = this.#clock.now()
    const servedAt = Math.max(this.#promised[priority] + 1000 / this.#rate.perSecond, now + waitMs)
    this.#promised[priority] = Math.min(servedAt, now + LONGEST_RETRY_MS)
    return new CvmError('aws-iot-throttled', { retryAfterMs: this.#promised[priority] - now })
  }

  /** Resolves when the call may be made. */
  turn ({ priority, signal, again = false }: Turn): Promise<void> {
    return new Promise((resolve, reject) => {
      const queue = this.#queues[priority]
      const leave = () => {
        queue.splice(queue.indexOf(go), 1)
        this.#observer.queue(this.#operation, priority, queue.length)
        reject(this.refusal(priority, this.waitMs(priority)))
      }
      const since = this.#clock.now()
      const go = () => {
        signal.removeEventListener('abort', leave)
        this.#observer.waited(this.#operation, priority, this.#clock.now() - since)
        resolve()
      }
      this.#fill()
      queue[again ? 'unshift' : 'push'](go)
      if (signal.aborted) return leave()
      signal.addEventListener('abort', leave, { once: true })
      this.#serve()
      this.#observer.queue(this.#operation, priority, queue.length)
    })
  }

  /** AWS throttled a call that was made at `startedAt`. */
  throttled (startedAt: number): void {
    this.#fill()
    this.#rate.throttled(startedAt)
    this.#tokens = Math.min(this.#tokens, 0)
    this.#observer.throttled(this.#operation)
    this.#observer.pace(this.#operation, this.#rate.perSecond)
  }

  #serve (): void {
    this.#fill()
    for (let priority = this.#next(); priority && this.#tokens >= WHOLE; priority = this.#next()) {
      const queue = this.#queues[priority]
      this.#tokens -= 1
      this.#sinceBulk = priority === 'bulk' ? 0 : this.#sinceBulk + 1
      this.#sinceSweep = priority === 'sweep' ? 0 : this.#sinceSweep + 1
      this.#rate.used()
      queue.shift()?.()
      this.#observer.queue(this.#operation, priority, queue.length)
      this.#observer.pace(this.#operation, this.#rate.perSecond)
    }
    if (this.#timed || !this.#next()) return
    this.#timed = true
    this.#clock.later((1 - this.#tokens) / this.#rate.perSecond * 1000, () => {
      this.#timed = false
      this.#serve()
    })
  }

  #next (): Priority | undefined {
    const { device, bulk, sweep } = this.#queues
    if (sweep.length > 0 && (device.length + bulk.length === 0 || this.#sinceSweep >= SWEEP_SHARE - 1)) return 'sweep'
    if (bulk.length > 0 && (device.length === 0 || this.#sinceBulk >= BULK_SHARE - 1)) return 'bulk'
    return device.length > 0 ? 'device' : undefined
  }

  /** Time that a late timer lost while calls waited is made good by one call more than the burst. */
  #fill (): void {
    const now = this.#clock.now()
    const most = Math.max(1, this.#rate.perSecond * BURST_S) + (this.#next() ? 1 : 0)
    this.#tokens = Math.min(most, this.#tokens + (now - this.#filledAt) / 1000 * this.#rate.perSecond)
    this.#filledAt = now
  }
}
