import { CvmError } from '../errors.ts'
import type { Device } from './device.ts'
import type { DeviceRegistry } from './device-registry.ts'
import { type TokenHasher, tokenMatches } from './registration-token.ts'
import { findOrFault } from './unreadable-device.ts'

/** What a device proves itself with where it is not vended to. */
export interface DeviceProof { serialNumber: string, registrationToken: string }

export interface CheckTokenDeps {
  registry: Pick<DeviceRegistry, 'find'>
  hashToken: TokenHasher
  now: () => number
  /** Told that there is such a device, before anything is refused; for audit records, never for the caller. */
  onKnown?: () => void
}

/**
 * The device whose token this is, also where its token is spent: nothing is written. Raises `CvmError`: `device-not-authorized` for an
 * unknown device, a wrong token and an expired one alike, after the same work (G7); to who holds the token `device-disabled`,
 * `device-revoked` or `device-decommissioned`; `registry-unavailable`.
 */
export async function checkToken ({ serialNumber, registrationToken }: DeviceProof, deps: CheckTokenDeps): Promise<Device> {
  const { registry, hashToken, now, onKnown } = deps
  const presented = hashToken(serialNumber, registrationToken)
  const { device, unreadable } = await findOrFault(registry, serialNumber)
  if (device) onKnown?.()
  const matches = tokenMatches(device ?? unreadable?.proofs ?? nobody(serialNumber), presented, hashToken)
  if (unreadable && matches) throw unreadable
  const hasExpired = device?.tokenExpiresAt !== undefined && device.tokenExpiresAt <= now()
  if (!device || !matches || hasExpired) throw new CvmError('device-not-authorized')
  switch (device.state) {
    case 'DISABLED': throw new CvmError('device-disabled')
    case 'REVOKED': throw new CvmError('device-revoked')
    case 'DECOMMISSIONED': throw new CvmError('device-decommissioned')
    default: return device
  }
}

/** A device that no token fits, of as many characters as a hash has: comparing with it takes as long. */
function nobody (serialNumber: string) {
  return { serialNumber, tokenHash: '-'.repeat(43), legacyToken: undefined }
}
