import type { AuditEvent } from '../vending/audit.ts'
import type { ReconcileAction, ReconcileStep } from '../vending/reconcile-run.ts'
import type { Parts } from './parts.ts'

/** The events of what reconcile and the sweep do; all else is a device reconciled. */
const EVENTS: Readonly<Partial<Record<ReconcileStep, AuditEvent>>> = {
  'dispose-retired': 'certificate-disposed',
  'delete-orphan': 'certificate-disposed',
  'report-drift': 'drift-found',
  'repair-drift': 'drift-repaired',
  'search-orphans': 'orphans-searched',
  'undo-late-call': 'late-call-undone'
}

/** Counts and audits what was done; what would be done is neither. */
export function auditActions ({ audit, metrics }: Pick<Parts, 'audit' | 'metrics'>, requestId: string, actions: readonly ReconcileAction[]): void {
  for (const { step, outcome, detail: reason, ...facts } of actions) {
    if (outcome === 'would') continue
    metrics.reconcileActions.inc({ step, outcome })
    audit({ event: EVENTS[step] ?? 'device-reconciled', outcome, requestId, step, reason, ...facts })
  }
}
