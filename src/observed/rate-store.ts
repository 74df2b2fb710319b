import type { Logger } from 'pino'
import type { Metrics } from '../plugins/metrics.ts'

/** A store that is away is away for every request: one line for all of them in so long. */
const INTERVAL_MS = 60_000

/** Counts and logs the requests about which the shared store of the rate limits did not decide. */
export function observedFallbacks (metrics: Metrics, log: Logger): (cause: Error) => void {
  let saidAt = -Infinity
  let requests = 0
  return ({ name }) => {
    metrics.rateLimitFallbacks.inc()
    requests++
    if (performance.now() - saidAt < INTERVAL_MS) return
    log.warn({ cause: name, requests }, 'the shared store of the rate limits is away: this replica counts serial numbers for itself')
    saidAt = performance.now()
    requests = 0
  }
}
