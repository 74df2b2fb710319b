/** The exclusive, expiring right to decide about a certificate that was made elsewhere; `holdId` is its fencing token. */
export interface Hold {
  certificateId: string
  holdId: string
  now: number
  expiresAt: number
}

/** What a hold is for. */
export interface Purpose {
  /** The certificate becomes this device's, for good; absent while that is not known. */
  serialNumber?: string
  /** The device whose it is by the registry and is not any more. */
  insteadOf?: string
  /** It waits for its activation: it is in the list from the end of the hold until it is released as decided. */
  isPending?: boolean
}

/** The outcome: taken, or what was in the way: another's hold, or another device's certificate. */
export type Taking = { taken: true } | { taken: false, isHeld: boolean, serialNumber: string | undefined }

/** A certificate that waits for its activation; `seenAt` is when it was first held. */
export interface PendingCertificate { certificateId: string, seenAt: number }

/**
 * Who may decide about a certificate that was made elsewhere, and whose it is. Whoever changes such a certificate in AWS IoT before it
 * is recorded as a device's holds it: so that of two judgements about one certificate none comes late, and no two devices get it.
 *
 * Conditional writes of one item each, with the promises of `DeviceRegistry`.
 */
export interface CertificateHolds {
  /** Takes the hold, or goes on with one's own: while nobody else's has not expired, and while the certificate is no other device's. */
  take (hold: Hold, purpose: Purpose): Promise<Taking>

  /** Gives one's hold back; `isDecided`: nothing is left to do about the certificate. */
  release (hold: Hold, isDecided: boolean): Promise<void>

  /** The certificates that wait and that nobody holds, longest waiting first. Found by the sparse index: no scan. */
  list (now: number, limit: number): Promise<PendingCertificate[]>
}
