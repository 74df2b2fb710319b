import type { Certificate } from './device.ts'

/** The share of a period over which devices are spread, so that a batch vended together does not renew together. */
const SPREAD = 0.1

/**
 * When a device should renew: `periodMs` after issue, or at two thirds of the certificate's life if that is sooner, less up to a
 * tenth by certificate id. The same for the same certificate, so that a replay says the same.
 */
export function renewAfter ({ certificateId, issuedAt, notAfter }: Certificate, periodMs: number): number {
  const period = Math.min(periodMs, (notAfter - issuedAt) * 2 / 3)
  const share = Number.parseInt(certificateId.slice(0, 8), 16) / 0xffffffff
  return Math.round(issuedAt + period * (1 - SPREAD * share))
}
