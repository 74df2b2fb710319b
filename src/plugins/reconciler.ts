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

/**
 * A lease lasts this share of the interval, and each replica tries for it this often in one: together less than one interval. It is
 * renewed this often while it lasts, because a run may take longer.
 */
const LEASE = 0.6
const TRIES = 3
const RENEWALS = 3

/**
 * Runs reconcile while the service listens, in whichever replica gets the lease: at least once an interval in all of them together,
 * also when the replica that has the lease dies. Stops at the next device when the service closes, or when another replica has the lease.
 */
export const reconciler = fp<ReconcilerOptions>(async (app, { intervalMs, devices, reconcile, log }) => {
  const stop = new AbortController()
  let timer: NodeJS.Timeout | undefined
  let running: Promise<void> = Promise.resolve()

  const run = async (): Promise<void> => {
    // A new owner for each run, so that the lease also says when the last one ended.
    const owner = randomUUID()
    const leaseMs = Math.floor(intervalMs * LEASE)
    const take = () => {
      const now = Date.now()
      return devices.lease('reconcile', owner, now, now + leaseMs)
    }
    if (!await take()) return
    const lost = new AbortController()
    const renewal = setInterval(() => {
      // Where the table is away nobody else can take the lease.
      take().then(isOurs => { if (!isOurs) lost.abort() }, ({ code }: { code?: string }) => log.warn({ code }, 'the lease of reconcile was not renewed'))
    }, Math.max(1, Math.floor(leaseMs / RENEWALS)))
    renewal.unref()
    try {
      await reconcile({ requestId: `reconcile-${randomUUID()}`, dryRun: false, stop: AbortSignal.any([stop.signal, lost.signal]) })
    } finally {
      clearInterval(renewal)
    }
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
