/** A public key that a device has asked to have certified. */
export interface OwnedKey {
  /** The first device that did. */
  serialNumber: string
  /** When it last did. */
  takenAt: number
  isCompromised: boolean
}

/** The outcome: the device's, or what was in the way. */
export type KeyTaking = { taken: true } | { taken: false, key: OwnedKey }

/**
 * Whose a public key is, by the fingerprint that `Certificate` has. The first device that asks for a certificate for a key owns it for
 * good: a reset, a renewal or a decommissioning does not free it. Only a key of which no certificate can have come is given on.
 *
 * Conditional writes of one item each, with the promises of `DeviceRegistry`. A repeated `take` by the owner applies.
 */
export interface KeyOwners {
  /**
   * Makes the key the device's. Does not apply to another device's key, nor to a compromised one. With `abandoned`: also where the key
   * is exactly as it was seen, so that it does not apply once its owner has asked again.
   */
  take: (publicKeyFingerprint: string, serialNumber: string, now: number, abandoned?: OwnedKey) => Promise<KeyTaking>

  /** Undefined for a key that no device has asked for (strongly consistent read). */
  find: (publicKeyFingerprint: string) => Promise<OwnedKey | undefined>

  /** Marks the key as compromised for good. It becomes this device's where it is no other's. Idempotent. */
  block: (publicKeyFingerprint: string, serialNumber: string, now: number) => Promise<void>
}
