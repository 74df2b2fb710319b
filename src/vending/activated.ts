import type { CvmError, ErrorCode } from '../errors.ts'

/**
 * What became of a certificate that was seen for the first time. `activated`: the device's, ACTIVE; also where that was done before.
 * `refused`: INACTIVE or REVOKED, for good.
 * `ignored`: somebody has judged it already, or it is gone. `later`: it waits, and reconcile comes back to it.
 */
export type Activated = { certificateId: string } & (
  | { outcome: 'activated', serialNumber: string, product: string, caCertificateId: string }
  | { outcome: 'refused', status: 'INACTIVE' | 'REVOKED', code: ErrorCode, reason?: string, serialNumber?: string, failure: CvmError }
  | { outcome: 'ignored', status: string }
  | { outcome: 'later', code: ErrorCode, reason?: string }
)
