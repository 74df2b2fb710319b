import { randomUUID } from 'node:crypto'
import { CvmError } from '../errors.ts'
import type { AuditEvent } from '../vending/audit.ts'
import type { Operation } from '../vending/device.ts'
import { type Operated, type OperateDeps, type Wish, operate } from '../vending/operate.ts'
import { newToken } from './new-token.ts'
import { isRefused, toFailure } from './outcome.ts'
import type { Parts } from './parts.ts'

const OPERATED = {
  reset: 'device-reset', revoke: 'device-revoked', disable: 'device-disabled', enable: 'device-enabled', decommission: 'device-decommissioned'
} as const satisfies Record<Operation, AuditEvent>

/** What operators do to a device, audited. */
export function observedOperate ({ audit, hashToken }: Parts, deps: OperateDeps) {
  return async ({ serialNumber, operation, actor, role, reason, keyCompromised, requestId, revision }: Wish): Promise<Operated> => {
    const registrationToken = operation === 'reset' ? newToken() : undefined
    const tokenHash = registrationToken && hashToken(serialNumber, registrationToken)
    const more = { ...(keyCompromised && { keyCompromised }), ...(tokenHash && { tokenHash }) }
    const pending = { operation, operationId: randomUUID(), actor, reason, ...more }
    const facts = { event: OPERATED[operation], requestId, actor, role, reason }
    try {
      const device = await operate(serialNumber, pending, requestId, deps, revision)
      if (tokenHash && device.tokenHash !== tokenHash) throw new CvmError('state-conflict', { detail: 'another wish for this device came between' })
      const done = device.history.findLast(entry => entry.requestId === requestId)
      const certificateId = done?.certificateId ?? device.certificate?.certificateId
      audit({ ...facts, outcome: done ? 'done' : 'unchanged', serialNumber, certificateId })
      if (keyCompromised) audit({ ...facts, event: 'key-compromised', outcome: 'done', serialNumber, certificateId })
      return { device, ...(registrationToken && { registrationToken }) }
    } catch (cause) {
      const failure = toFailure(cause)
      // What is no serial number of ours may be anything.
      const device = failure.code === 'device-not-found' ? {} : { serialNumber }
      audit({ ...facts, outcome: isRefused(cause) ? 'refused' : 'failed', ...device, code: failure.code }, isRefused(cause) ? cause : undefined)
      throw cause
    }
  }
}
