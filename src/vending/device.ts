/** The states of a device (DESIGN section 4). */
export const DEVICE_STATES = ['REGISTERED', 'ISSUING', 'ISSUED', 'ACTIVE', 'REVOKED', 'DISABLED', 'DECOMMISSIONED'] as const
export type DeviceState = typeof DEVICE_STATES[number]

/** How a certificate is vended: for the device's own key (`csr`), or with a key pair made by AWS IoT (`keys`). */
export type VendWay = 'csr' | 'keys'

/** How a certificate that was made elsewhere is adopted: given to us (`registered`), or first seen by AWS IoT at a connection (`jitr`). */
export type AdoptedWay = 'registered' | 'jitr'

/** How a device came to its certificate. */
export type Way = VendWay | AdoptedWay

/** Whether a certificate of this way was made elsewhere: then its device has had it all along. */
export function isAdopted (way: Way): way is AdoptedWay {
  return way === 'registered' || way === 'jitr'
}

/** The exclusive, expiring right to vend for one device. `claimId` is the fencing token of every later write. */
interface Claim {
  claimId: string
  claimExpiresAt: number
}

/**
 * AWS IoT may hold a certificate that was made for the device and never recorded: an attempt ended between asking for one and
 * recording it. Stays until reconcile has looked.
 */
export interface Suspicion {
  /** The first attempt that left it; whoever records under this claim knows that nothing is amiss. */
  claimId: string
  since: number
  /** When the claim of the last attempt ends: no attempt asks AWS IoT after that. */
  until: number
  /** The public keys asked for, by fingerprint; {@link GENERATED_KEY} for one that AWS IoT was to make. */
  keys: readonly string[]
}

/** Stands for a key that AWS IoT makes, in {@link Suspicion}. */
export const GENERATED_KEY = 'generated'

/** The certificate that a device was or is about to be given. */
export interface Certificate {
  certificateId: string
  certificateArn: string
  certificatePem: string
  /** Lower-case hex SHA-256 of the SubjectPublicKeyInfo. */
  publicKeyFingerprint: string
  way: Way
  /** The registered authority that signed it; AWS IoT's own and self-signed ones have none. */
  caCertificateId?: string
  /** Where AWS IoT knows no CA of it: the device must send the name of the endpoint in its TLS handshake (SNI). */
  certificateMode?: 'SNI_ONLY'
  /** The thing that it is for, by the product's template as it was then. */
  thingName: string
  issuedAt: number
  notAfter: number
}

/**
 * A certificate on its way to take the place of the device's (DESIGN section 4); the device stays `ACTIVE`. `issuing`: a worker asks AWS
 * IoT for it; `issued`: known and INACTIVE, the device may have it; `swapping`: it may be ACTIVE and the other one REVOKED at any moment,
 * so this is finished and never undone.
 */
export interface Renewal {
  phase: 'issuing' | 'issued' | 'swapping'
  /** The fencing token of whoever asks for it. */
  claimId: string
  /** The end of the claim while `issuing`; then until when it may be confirmed. */
  expiresAt: number
  publicKeyFingerprint: string
  /** Of the proof that began it, where that may be used once. */
  nonce?: string
  /** From `issued` on. */
  certificate?: Certificate
}

/** A proof that has begun a renewal, kept until its time is over. */
export interface UsedProof { nonce: string, expiresAt: number }

/** What has been done to a device: by its requests, by operators, by reconcile. */
export type DeviceEvent =
  | 'registered' | 'migrated' | 'claimed' | 'resumed' | 'superseded' | 'revended' | 'issued' | 'adopted' | 'activated' | 'released' | 'refused'
  | 'reset' | 'revoked' | 'disabled' | 'enabled' | 'decommissioned'
  | 'freed' | 'abandoned' | 'disposed'
  | 'renewal-issued' | 'renewal-confirmed' | 'renewed' | 'renewal-abandoned'

/** One line of a device's story. */
export interface HistoryEntry {
  at: number
  event: DeviceEvent
  requestId: string
  certificateId?: string
  /** Who asked for it, and why; for what operators do. */
  actor?: string
  reason?: string
}

/** What operators do to a device (DESIGN sections 4 and 5). */
export type Operation = 'reset' | 'revoke' | 'disable' | 'enable' | 'decommission'

/** An operator's wish that has been written down and is not yet fulfilled everywhere. */
export interface PendingOperation {
  operation: Operation
  operationId: string
  actor: string
  reason: string
  /** For `revoke`: the key is known to others, and is never certified again. */
  keyCompromised?: boolean
  /** For `reset`: the hash of the new token. */
  tokenHash?: string
  tokenExpiresAt?: number
  /** Until then the operator's own request fulfils it; absent in rows of earlier versions. */
  until?: number
}

/** How many lines of history a device keeps; the oldest go first. */
export const HISTORY_LIMIT = 50

/** The product of devices that were registered without naming one. */
export const DEFAULT_PRODUCT = 'default'

/** A row of the registry. All `…At` are epoch milliseconds. */
export interface Device {
  serialNumber: string
  state: DeviceState
  /** The name of the settings that it shares with devices of its kind. */
  product: string
  /** Grows with every change of the row, so that one can be made on the condition that there was none since (If-Match). */
  revision: number
  /** Keyed hash of the registration token; the token itself is stored nowhere. */
  tokenHash: string | undefined
  /** Made by the old services and not changed since: its state is what their attributes say. */
  isLegacy: boolean
  /** The certificate that an old service vended, of which only the id is known. */
  legacyCertificateId: string | undefined
  /** A row made by the old services holds its token in plain text until its first use replaces it. */
  legacyToken: string | undefined
  /** The token may not start a vend from then on; a vend that has begun may be finished. */
  tokenExpiresAt: number | undefined
  claim: Claim | undefined
  /** When the last claim ends or ended, or when reconcile comes back to the device; kept while anything is left to finish. */
  lastClaimExpiresAt: number | undefined
  certificate: Certificate | undefined
  /** Ids of certificates that must be REVOKED in AWS IoT before a newer one may become ACTIVE. */
  retiring: readonly string[]
  suspicion: Suspicion | undefined
  pending: PendingOperation | undefined
  /** What a disabled device goes back to. */
  stateBefore: DeviceState | undefined
  committedAt: number | undefined
  /**
   * From then on no call from before the last disable or enable can change the certificate in AWS IoT any more: reconcile compares its
   * status once more, because such a call may have been carried out late. Absent where nothing is owed.
   */
  recheckAt: number | undefined
  renewal: Renewal | undefined
  usedProofs: readonly UsedProof[]
  /** The certificate that the present one took the place of by renewal, and when. */
  renewedFrom: string | undefined
  renewedAt: number | undefined
  history: readonly HistoryEntry[]
}

/** The id of the certificate that a device has, also where it is known by that alone. */
export function certificateIdOf ({ certificate, legacyCertificateId }: Pick<Device, 'certificate' | 'legacyCertificateId'>): string | undefined {
  return certificate?.certificateId ?? legacyCertificateId
}

/** Whether its certificate's status is still to be compared, where that was done last at `comparedAt`. */
export function owesRecheck ({ state, recheckAt }: Device, comparedAt: number): boolean {
  return recheckAt !== undefined && recheckAt > comparedAt && (state === 'ACTIVE' || state === 'DISABLED')
}

/** When a device that is at rest but for that must be looked at again: a renewal that waits, a status to compare; the first of them. */
export function waitsUntil (device: Device, comparedAt: number): number | undefined {
  const { renewal, recheckAt = Infinity } = device
  const until = Math.min(owesRecheck(device, comparedAt) ? recheckAt : Infinity, renewal?.phase === 'issued' ? renewal.expiresAt : Infinity)
  return until === Infinity ? undefined : until
}

/** What would be left over of a renewal that ends here: its certificate, where it is known. */
export function renewalLeftover ({ renewal }: Pick<Device, 'renewal'>): string[] {
  return renewal?.certificate ? [renewal.certificate.certificateId] : []
}

/** The public keys that a device has a certificate for, or may have one for since its last claim, by fingerprint. */
export function keysOf ({ certificate, renewal, suspicion }: Pick<Device, 'certificate' | 'renewal' | 'suspicion'>): string[] {
  const keys = [certificate?.publicKeyFingerprint, renewal?.publicKeyFingerprint, ...suspicion?.keys ?? []]
  return [...new Set(keys.filter(key => key !== undefined && key !== GENERATED_KEY))] as string[]
}

/** The proofs that stay used when the renewal ends here: one that came to nothing may be sent again. */
export function usedProofsLeft ({ renewal, usedProofs }: Pick<Device, 'renewal' | 'usedProofs'>): UsedProof[] {
  return usedProofs.filter(({ nonce }) => renewal?.phase !== 'issuing' || nonce !== renewal.nonce)
}

/** The history with one line more, bounded to {@link HISTORY_LIMIT}. */
export function withHistory (device: Device, entry: HistoryEntry): HistoryEntry[] {
  return [...device.history, entry].slice(-HISTORY_LIMIT)
}
