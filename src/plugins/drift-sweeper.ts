import { randomUUID } from 'node:crypto'
import fp from 'fastify-plugin'
import type { Logger } from 'pino'
import type { SweepPosition } from '../vending/drift-findings.ts'
import type { UnfinishedDevices } from '../vending/unfinished-devices.ts'
import { runLeased } from './leased-job.ts'

interface DriftSweeperOptions {
  /** Time from pass to pass; 0: there is no sweep. */
  intervalMs: number
  devices: Pick<UnfinishedDevices, 'lease'>
  sweep: (wish: { requestId: string, stop: AbortSignal }) => Promise<SweepPosition>
  show: () => Promise<void>
  log: Logger
}

/** Between two runs of a few pages each: 100,000 devices are some 80 runs. */
const LONGEST_PAUSE_MS = 30_000
/** With short intervals, as tests have them, there are this many runs in one at least. */
const RUNS_IN_INTERVAL = 20

/** The lease outlives a run's pause by so much, so that the same replica goes on, which remembers what it has seen. */
const LEASE_PAUSES = 4

/**
 * Goes on with the sweep for drift while the service listens, in the replica that has its lease; the others only renew their gauges. A
 * replica keeps the lease until it stops, and the next one goes on where it was. Stops at the next device when the service closes.
 */
export const driftSweeper = fp<DriftSweeperOptions>(async (app, { intervalMs, devices, sweep, show, log }) => {
  if (intervalMs === 0) return
  const owner = randomUUID()
  const pauseMs = Math.min(LONGEST_PAUSE_MS, Math.max(1, intervalMs / RUNS_IN_INTERVAL))
  runLeased(app, {
    lease: 'drift-sweep',
    name: 'the drift sweep',
    ownerOf: () => owner,
    leaseMs: Math.ceil(pauseMs * LEASE_PAUSES),
    pauseMs,
    work: stop => sweep({ requestId: `drift-sweep-${randomUUID()}`, stop }),
    otherwise: show,
    failed: 'the drift sweep was cut short; it goes on at the same page',
    devices,
    log
  })
}, { name: 'drift-sweeper' })
