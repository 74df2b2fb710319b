import type { Logger } from 'pino'
import { type Audit, type AuditRecord, auditLine } from '../vending/audit.ts'

/** Events that somebody should look at. */
function isAlarming ({ event, outcome }: AuditRecord): boolean {
  return outcome === 'failed' || event === 'drift-found' || event === 'key-reused'
}

/** Where security events go: to the log, at any level but `silent`. Knows the failures that are told there already. */
export function auditLog (log: Logger): { audit: Audit, isAudited: (failure: Error) => boolean } {
  const told = new WeakSet<Error>()
  const lines = log.child({}, { level: log.level === 'silent' ? 'silent' : 'info' })
  return {
    audit (record, failure) {
      if (failure) told.add(failure)
      lines[isAlarming(record) ? 'warn' : 'info'](auditLine(record), 'audit')
    },
    isAudited: failure => told.has(failure)
  }
}
