import type { Certificate, Device, UsedProof } from './device.ts'
import type { WriteResult } from './device-registry.ts'
import type { Author } from './unfinished-devices.ts'

/** Who asks for a device's next certificate. */
export interface RenewalClaim extends Author {
  claimId: string
  claimExpiresAt: number
  publicKeyFingerprint: string
  /** Remembered with those before it that have not expired; absent where the proof cannot be used twice. */
  proof?: UsedProof
}

/**
 * The writes that renew, beside those of `DeviceRegistry` and under the same promises: single conditional writes, each for the device and
 * its renewal as they were seen. No operator's wish may be pending, but where a swap is finished.
 */
export interface Renewals {
  /** `ACTIVE` with the certificate and the renewal seen → a renewal `issuing` under this claim; its certificate joins `retiring`. */
  begin (device: Device, claim: RenewalClaim): Promise<WriteResult>

  /** `issuing` under the claim seen, which has not expired → `issued`, to be confirmed until then, and listed then or at `recheckAt`. */
  record (device: Device, certificate: Certificate, confirmBefore: number, author: Author): Promise<WriteResult>

  /** `issuing` under the claim seen → no renewal. Ends the suspicion that this claim began where AWS IoT has `certainlyNothing` of it. */
  release (device: Device, certainlyNothing: boolean, author: Author): Promise<WriteResult>

  /**
   * `issued` or `swapping` with the certificate seen → `swapping`: the intent, before AWS IoT is touched. Whoever writes it has until
   * `expiresAt` to finish; anybody else may finish too.
   */
  swap (device: Device, expiresAt: number, author: Author): Promise<WriteResult>

  /** `swapping` with the certificate seen → that is the device's; the one before joins `retiring`. With `despiteWish` also despite one. */
  commit (device: Device, despiteWish: boolean, author: Author): Promise<WriteResult>

  /** A renewal seen that is not `swapping` → none, due for reconcile at once; its certificate joins `retiring`. */
  abandon (device: Device, author: Author): Promise<WriteResult>
}
