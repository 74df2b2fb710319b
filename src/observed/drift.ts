import { randomUUID } from 'node:crypto'
import type { Metrics } from '../plugins/metrics.ts'
import { type AcceptWish, acceptDrift } from '../vending/accept-drift.ts'
import type { Device } from '../vending/device.ts'
import type { Finding, FindingKind, SweepPosition } from '../vending/drift-findings.ts'
import { sweep } from '../vending/drift-sweep.ts'
import { pause } from '../vending/operate.ts'
import type { ReconcileAction } from '../vending/reconcile-run.ts'
import { SeenCertificates } from '../vending/seen-certificates.ts'
import type { VendDeps } from '../vending/vend-steps.ts'
import { isRefused, toFailure } from './outcome.ts'
import type { Parts } from './parts.ts'
import { auditActions } from './reconcile-actions.ts'

/** Pages that one run looks at: few enough to end soon when the service stops. */
const PAGES = 10

/** As long as an operator waits for a sweep; the replicas go on with the rest of it. */
const NOW_MS = 20_000

interface SweepWish {
  requestId: string
  /** Begins a pass now, where none is under way. */
  isWanted?: boolean
  stop?: AbortSignal
}

/** The sweep for drift, counted and audited: `sweep` goes on with it, `show` renews the gauges from the table. */
export function observedDrift (parts: Parts, vendDeps: VendDeps) {
  const { config, audit, metrics, devices, catalog, findings, forSweep: controlPlane, products } = parts
  const deps = { ...vendDeps, controlPlane, renewals: parts.renewals }
  const kept = { seen: new SeenCertificates(), stuck: { revision: -1, tries: 0 } }
  const show = async (): Promise<void> => {
    showFindings(metrics, await findings.count())
    showPosition(metrics, await findings.position())
  }
  let last: Promise<unknown> = Promise.resolve()
  return {
    show,
    sweep: enqueue,
    sweepNow,
    accept
  }

  async function accept ({ requestId, role, ...wish }: AcceptWish & { requestId: string, role: string }): Promise<Finding[]> {
    const { serialNumber, actor, reason } = wish
    const facts = { event: 'drift-accepted', requestId, actor, role, reason } as const
    try {
      const accepted = await acceptDrift(wish, { findings, now: Date.now })
      for (const { kind: changed, certificateId } of accepted) audit({ ...facts, outcome: 'done', serialNumber, certificateId, changed })
      return accepted
    } catch (cause) {
      const isRefusal = isRefused(cause)
      const { code } = toFailure(cause)
      // What is no serial number of ours may be anything.
      const device = code === 'drift-not-found' ? {} : { serialNumber }
      audit({ ...facts, outcome: isRefusal ? 'refused' : 'failed', ...device, code }, isRefusal ? cause : undefined)
      throw cause
    } finally {
      await show()
    }
  }

  /** One run at a time in this process: an operator's follows the replica's own. */
  function enqueue (wish: SweepWish): Promise<SweepPosition> {
    const run = last.then(() => sweepOnce(wish))
    last = run.catch(() => {})
    return run
  }

  /** A pass within an operator's request: from its beginning, as far as the time allows. */
  async function sweepNow (requestId: string): Promise<SweepPosition> {
    const stop = AbortSignal.timeout(NOW_MS)
    let position = await enqueue({ requestId, isWanted: true, stop })
    while (position.phase !== 'rest' && !stop.aborted) position = await enqueue({ requestId, stop })
    return position
  }

  async function sweepOnce ({ requestId, isWanted = false, stop }: SweepWish): Promise<SweepPosition> {
    const actions: ReconcileAction[] = []
    try {
      return await sweep(Object.assign(kept, {
        request: { requestId, dryRun: false, ...stop && { stop } },
        actions,
        devices,
        catalog,
        findings,
        products,
        controlPlane,
        disable: (device: Device, id: string) => pause(device, id, { ...deps, newOperationId: randomUUID }),
        now: Date.now,
        deadline: deps.deadline,
        intervalMs: config.DRIFT_SWEEP_INTERVAL_MS,
        onLooked: (count: number) => metrics.driftLooked.inc(count)
      }), PAGES, isWanted)
    } finally {
      auditActions(parts, requestId, actions)
      await show()
    }
  }
}

/** Sets the gauges of open findings. */
export function showFindings (metrics: Pick<Metrics, 'drift' | 'driftFindings'>, findings: Record<FindingKind, number>): void {
  metrics.drift.set(Object.values(findings).reduce((sum, count) => sum + count))
  for (const [kind, count] of Object.entries(findings)) metrics.driftFindings.set({ kind }, count)
}

/** Before a first pass has ended, its beginning stands for the end of the last one, so that one that never ends is noticed. */
function showPosition (metrics: Metrics, position: SweepPosition | undefined): void {
  if (!position) return
  metrics.driftLastPass.set((position.endedAt ?? position.startedAt) / 1000)
  if (position.durationMs !== undefined) metrics.driftPassSeconds.set(position.durationMs / 1000)
}
