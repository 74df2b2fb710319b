import type { FastifyInstance } from 'fastify'
import type { Logger } from 'pino'
import type { UnfinishedDevices } from '../vending/unfinished-devices.ts'

interface LeasedJob {
  lease: Parameters<UnfinishedDevices['lease']>[0]
  /** For texts of the log. */
  name: string
  /** The owner of the lease in a run. The same owner may take its lease again; another one waits until it ends. */
  ownerOf: () => string
  leaseMs: number
  /** Time from the end of a run to the next one at most; a fifth less at least, so that replicas do not keep step. */
  pauseMs: number
  /** A run; the signal aborts when the service closes or another replica has the lease. */
  work: (stop: AbortSignal) => Promise<unknown>
  /** What a replica without the lease does. */
  otherwise?: () => Promise<unknown>
  /** What the log says of a run that failed. */
  failed: string
  devices: Pick<UnfinishedDevices, 'lease'>
  log: Logger
}

/** A lease is renewed this often while it lasts, because a run may take longer. */
const RENEWALS = 3

/** Runs a job again and again while the service listens, in the one replica that has its lease. */
export function runLeased (app: FastifyInstance, job: LeasedJob): void {
  const { lease, name, ownerOf, leaseMs, pauseMs, work, otherwise, failed, devices, log } = job
  const stop = new AbortController()
  let timer: NodeJS.Timeout | undefined
  let running: Promise<void> = Promise.resolve()

  const run = async (): Promise<void> => {
    const owner = ownerOf()
    const take = () => {
      const now = Date.now()
      return devices.lease(lease, owner, now, now + leaseMs)
    }
    if (!await take()) {
      await otherwise?.()
      return
    }
    const lost = new AbortController()
    const renewal = setInterval(() => {
      // While the table is away, no other replica can take the lease.
      take().then(isOurs => { if (!isOurs) lost.abort() }, ({ code }: { code?: string }) => log.warn({ code }, `the lease of ${name} was not renewed`))
    }, Math.max(1, Math.floor(leaseMs / RENEWALS)))
    renewal.unref()
    try {
      await work(AbortSignal.any([stop.signal, lost.signal]))
    } finally {
      clearInterval(renewal)
    }
  }
  const schedule = (): void => {
    if (stop.signal.aborted) return
    timer = setTimeout(() => {
      running = run().catch((cause: unknown) => {
        const { name, code } = cause as { name?: string, code?: string }
        log.warn({ cause: name, code }, failed)
      }).finally(schedule)
    }, pauseMs * (0.8 + Math.random() * 0.2))
    timer.unref()
  }
  app.addHook('onListen', async () => schedule())
  app.addHook('onClose', async () => {
    stop.abort()
    clearTimeout(timer)
    await running
  })
}
