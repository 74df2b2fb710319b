import { randomUUID } from 'node:crypto'
import fp from 'fastify-plugin'
import type { Logger } from 'pino'
import type { ReconcileReport } from '../vending/reconcile-run.ts'
import type { UnfinishedDevices } from '../vending/unfinished-devices.ts'
import { runLeased } from './leased-job.ts'

interface ReconcilerOptions {
  intervalMs: number
  devices: UnfinishedDevices
  reconcile: (request: { requestId: string, dryRun: boolean, stop: AbortSignal }) => Promise<ReconcileReport>
  log: Logger
}

/** A lease lasts this share of the interval, and each replica tries for it this often in one: together less than one interval. */
const LEASE = 0.6
const TRIES = 3

/**
 * Runs reconcile while the service listens, in whichever replica gets the lease: at least once an interval in all of them together,
 * also when the replica that has the lease dies. Stops at the next device when the service closes, or when another replica has the lease.
 */
export const reconciler = fp<ReconcilerOptions>(async (app, { intervalMs, devices, reconcile, log }) => {
  runLeased(app, {
    lease: 'reconcile',
    name: 'reconcile',
    // A new owner for each run, so that the lease also says when the last one ended.
    ownerOf: randomUUID,
    leaseMs: Math.floor(intervalMs * LEASE),
    pauseMs: intervalMs / TRIES,
    work: stop => reconcile({ requestId: `reconcile-${randomUUID()}`, dryRun: false, stop }),
    failed: 'reconcile failed; it runs again after the interval',
    devices,
    log
  })
}, { name: 'reconciler' })
