import Fastify, { type FastifyInstance } from 'fastify'
import type { Metrics } from './plugins/metrics.ts'

interface Fault { text: string }

interface Setup {
  readonly report: { faults: readonly Fault[], unchecked: readonly string[] }
  readonly fatal: readonly Fault[]
  isUnusable: (dependency: string) => boolean
}

interface OpsOptions {
  metrics: Metrics
  /** Why this task should get no requests; undefined when it should. */
  unready: () => 'draining' | 'overloaded' | undefined
  /** What the last look at the set-up in AWS has found. */
  setup: Setup
  /** A check for each dependency, which rejects when it is down. */
  dependencies: Readonly<Record<string, () => Promise<unknown>>>
  now: () => number
}

/** Asked more often than this, `/healthz` repeats its last findings, so that watching costs no quota. */
const RECHECK_MS = 10_000

/** A dependency that has not answered by then counts as down: who asks has a time limit too. */
const CHECK_MS = 2_000

/** The listener for machines that watch: health that tells the truth, and metrics. Not for the internet. */
export function buildOps ({ metrics, unready, setup, dependencies, now }: OpsOptions): FastifyInstance {
  const app = Fastify({ logger: false, forceCloseConnections: true })

  app.get('/livez', async () => ({ status: 'alive' }))

  // A dependency that does not answer keeps no task from being ready: all would turn unready together, and the balancer would fail open.
  // What is certainly missing is another matter, because nothing works until it is mended.
  app.get('/readyz', async (_request, reply) => {
    const missing = setup.fatal.map(({ text }) => text)
    const reason = unready() ?? (missing.length > 0 ? 'misconfigured' : undefined)
    return reply.code(reason ? 503 : 200).send({ status: reason ?? 'ready', ...missing.length > 0 && { missing } })
  })

  let checkedAt = -Infinity
  let findings: Promise<Record<string, 'up' | 'down'>>
  app.get('/healthz', async (_request, reply) => {
    if (now() - checkedAt > RECHECK_MS) {
      checkedAt = now()
      findings = checkAll()
    }
    const found = await findings
    const { faults, unchecked } = setup.report
    const healthy = faults.length === 0 && Object.values(found).every(state => state === 'up')
    return reply.code(healthy ? 200 : 503).send({
      status: healthy ? 'healthy' : 'degraded',
      dependencies: found,
      ...faults.length > 0 && { missing: faults.map(({ text }) => text) },
      ...unchecked.length > 0 && { unchecked }
    })
  })

  app.get('/metrics', async (_request, reply) => reply.type(metrics.register.contentType).send(await metrics.register.metrics()))
  return app

  async function checkAll (): Promise<Record<string, 'up' | 'down'>> {
    return Object.fromEntries(await Promise.all(Object.entries(dependencies).map(async ([dependency, check]) => {
      const answers = await Promise.race([check().then(() => true, () => false), later(CHECK_MS, false)])
      const state = answers && !setup.isUnusable(dependency) ? 'up' : 'down'
      metrics.dependencyUp.set({ dependency }, state === 'up' ? 1 : 0)
      return [dependency, state] as const
    })))
  }
}

function later<T> (delayMs: number, value: T): Promise<T> {
  return new Promise(resolve => setTimeout(resolve, delayMs, value).unref())
}
