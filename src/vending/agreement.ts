import { CertificateStateConflict, type ControlPlane } from './control-plane.ts'
import { type Device, certificateIdOf } from './device.ts'

/**
 * Makes AWS IoT say of a certificate what the registry says: what a device no longer has, or has and is revoked, becomes REVOKED; what
 * a disabled device has becomes INACTIVE, what an active one has ACTIVE. For whoever finds that they were overtaken after they had
 * changed AWS IoT. A certificate that is revoked or gone there stays so.
 */
export async function makeAwsAgree (
  certificateId: string, device: Device | undefined, controlPlane: ControlPlane, signal: AbortSignal
): Promise<void> {
  // What is being renewed to is its renewal's affair.
  if (device?.renewal?.certificate?.certificateId === certificateId) return
  if (!device || certificateIdOf(device) !== certificateId) return controlPlane.revoke(certificateId, signal)
  try {
    switch (device.state) {
      case 'REVOKED': return await controlPlane.revoke(certificateId, signal)
      case 'DISABLED': return await controlPlane.deactivate(certificateId, signal)
      case 'ACTIVE':
        await Promise.all(device.retiring.map(retired => controlPlane.revoke(retired, signal)))
        return await controlPlane.activate(certificateId, signal)
    }
  } catch (cause) {
    if (!(cause instanceof CertificateStateConflict)) throw cause
  }
}
