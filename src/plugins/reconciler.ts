import { randomUUID } from 'node:crypto'
import fp from 'fastify-plugin'
import type { Logger } from 'pino'
import type { ReconcileReport } from '../vending/reconcile-run.ts'
import type { UnfinishedDevices } from '../vending/unfinished-devices.ts'

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
 * also when the replica that has the lease dies. Stops at the next device when the service closes.
 */
export const reconciler = fp<ReconcilerOptions>(async (app, { intervalMs, devices, reconcile, log }) => {
  const stop = new AbortController()
  let timer: NodeJS.Timeout | undefined
  let running: Promise<void> = Promise.resolve()

  const run = async (): Promise<void> => {
    const now = Date.now()
    // A new owner each time: nobody renews a lease, so that it also says when the last run began.
    if (!await devices.lease('reconcile', randomUUID(), now, now + Math.floor(intervalMs * LEASE))) return
    await reconcile({ requestId: `reconcile-${randomUUID()}`, dryRun: false, stop: stop.signal })
  }
  const schedule = (): void => {
    if (stop.signal.aborted) return
    timer = setTimeout(() => {
      running = run().catch((cause: unknown) => {
        const { name, code } = cause as { name?: string, code?: string }
        log.warn({ cause: name, code }, 'reconcile failed; it runs again after the interval')
      }).finally(schedule)
    }, intervalMs / TRIES * (0.8 + Math.random() * 0.2))
    timer.unref()
  }
  app.addHook('onListen', async () => schedule())
  app.addHook('onClose', async () => {
    stop.abort()
    clearTimeout(timer)
    await running
  })
}, { name: 'reconciler' })
