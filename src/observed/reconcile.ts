import { randomUUID } from 'node:crypto'
import { Deferrals } from '../vending/deferrals.ts'
import { fulfil, pause } from '../vending/operate.ts'
import { reconcile } from '../vending/reconcile.ts'
import type { ReconcileDeps, ReconcileReport, ReconcileRequest } from '../vending/reconcile-run.ts'
import { swap } from '../vending/swap.ts'
import type { VendDeps } from '../vending/vend-steps.ts'
import { finish } from '../vending/vend.ts'
import { showFindings } from './drift.ts'
import { toFailure } from './outcome.ts'
import type { Parts } from './parts.ts'
import { auditActions } from './reconcile-actions.ts'

interface ReconcileWish extends Omit<ReconcileRequest, 'compareSince'> {
  /** Who asked for it; nobody where it is its time. */
  caller?: { name: string, role: string } | null
}

/** Reconcile, counted and audited. */
export function observedReconcile (parts: Parts, vendDeps: VendDeps, activate: ReconcileDeps['activate']) {
  const { config, audit, metrics, devices, renewals, catalog, certificateHolds, findings, forBulk } = parts
  const deps = { ...vendDeps, renewals, controlPlane: forBulk }
  const deferrals = new Deferrals()
  const recheck = {}
  let comparedAt = Date.now()
  return async ({ caller, ...request }: ReconcileWish): Promise<ReconcileReport> => {
    const startedAt = Date.now()
    const { requestId, dryRun } = request
    const requested = { event: 'reconcile-requested', requestId, actor: caller?.name, role: caller?.role, reason: dryRun ? 'dry-run' : undefined } as const
    const report = await reconcile({ ...request, compareSince: comparedAt }, {
      devices,
      renewals,
      catalog,
      certificateHolds,
      activate,
      findings,
      recheck,
      products: deps.products,
      disable: (device, requestId) => pause(device, requestId, { ...deps, newOperationId: randomUUID }),
      deferrals,
      newHoldId: deps.newClaimId,
      controlPlane: forBulk,
      finish: (device, requestId) => finish(device, requestId, deps),
      fulfil: (device, requestId) => fulfil(device, requestId, deps),
      swap: (device, requestId) => swap(device, requestId, deps),
      now: Date.now,
      deadline: deps.deadline,
      claimLifetimeMs: config.CLAIM_LIFETIME_MS,
      batch: config.RECONCILE_BATCH,
      maxPages: config.RECONCILE_MAX_PAGES
    }).catch((cause: unknown) => {
      if (caller) audit({ ...requested, outcome: 'failed', code: toFailure(cause).code })
      throw cause
    })
    if (caller) audit({ ...requested, outcome: 'done' })
    auditActions(parts, requestId, report.actions)
    if (dryRun) return report
    metrics.reconcileBacklog.set(report.backlog)
    showFindings(metrics, report.findings)
    metrics.quarantined.set(report.quarantined)
    for (const [age, count] of countByAge(report.pendingSince, startedAt)) metrics.pendingActivation.set({ age }, count)
    metrics.reconcileLastRun.set(startedAt / 1000)
    if (report.complete) comparedAt = startedAt
    return report
  }
}

/** How long certificates wait, by the least that each age is, in milliseconds. */
const AGES = { 'over-1d': 24 * 3_600_000, 'over-1h': 3_600_000, 'over-5m': 300_000, 'under-5m': -Infinity } as const

function countByAge (since: readonly number[], now: number): Map<string, number> {
  const counts = new Map(Object.keys(AGES).map(age => [age, 0]))
  for (const at of since) {
    const [age = ''] = Object.entries(AGES).find(([, leastMs]) => now - at >= leastMs) ?? []
    counts.set(age, (counts.get(age) ?? 0) + 1)
  }
  return counts
}
