import { type Certificate, DEFAULT_PRODUCT, type Device, type DeviceState, type HistoryEntry, type PendingOperation, type Renewal, type Suspicion, type UsedProof, type Way } from '../vending/device.ts'
import { UnreadableDevice } from '../vending/unreadable-device.ts'
import { faultOf, renewalCertificateOf } from './row-faults.ts'

/**
 * A row as DynamoDB holds it: flat, optional attributes absent rather than null. `deviceToken`, `certinfo` and `applyState` are
 * the attributes of the old services' rows.
 */
export interface DeviceRow {
  serialNumber: string
  state?: DeviceState
  product?: string
  revision?: number
  /** State and serial number, the sort key of the index by product; absent on rows that an old service was the last to change. */
  listing?: string
  tokenHash?: string
  tokenExpiresAt?: number
  tokenSpentAt?: number
  claimId?: string
  claimExpiresAt?: number
  way?: Way
  publicKeyFingerprint?: string
  certificateId?: string
  certificateArn?: string
  certificatePem?: string
  /** Absent on rows from before products had templates: the serial number. */
  thingName?: string
  /** Of certificates that were made elsewhere. */
  caCertificateId?: string
  certificateMode?: 'SNI_ONLY'
  issuedAt?: number
  notAfter?: number
  committedAt?: number
  recheckAt?: number
  retiring?: Set<string>
  pending?: PendingOperation
  stateBefore?: DeviceState
  renewal?: Renewal
  usedProofs?: UsedProof[]
  renewedFrom?: string
  renewedAt?: number
  suspectClaimId?: string
  suspectSince?: number
  /** Absent on rows that an earlier version was the last to change. */
  suspectUntil?: number
  suspects?: Set<string>
  history?: HistoryEntry[]
  /** Present exactly on rows that somebody must finish; the key of the sparse index. */
  unfinished?: typeof UNFINISHED | typeof QUARANTINED
  deviceToken?: string
  certinfo?: string
  applyState?: number | string
}

/** The partition of the sparse index for unfinished rows. */
export const UNFINISHED = 'unfinished'

/** The partition of the same index for rows that cannot be read: kept apart, so that they keep no other row waiting. */
export const QUARANTINED = 'quarantined'

/** The sort key of the index by product. */
export function listingOf (state: string, serialNumber: string): string {
  return `${state}#${serialNumber}`
}

/** The domain's view of a row, from DynamoDB's item. Throws `UnreadableDevice`, which says which attribute is wrong. */
export function deviceOf (item: Readonly<Record<string, unknown>>): Device {
  const row = item as unknown as DeviceRow
  const fault = faultOf(item)
  if (fault) throw new UnreadableDevice({ serialNumber: row.serialNumber, ...fault }, proofsOf(row))
  return {
    serialNumber: row.serialNumber,
    state: row.state ?? (wasVendedByOldService(row) ? 'ACTIVE' : 'REGISTERED'),
    product: row.product ?? DEFAULT_PRODUCT,
    revision: row.revision ?? 0,
    isLegacy: row.state === undefined,
    tokenHash: row.tokenHash,
    legacyCertificateId: /:cert\/([0-9a-f]{64})$/.exec(row.certinfo ?? '')?.[1],
    legacyToken: typeof row.deviceToken === 'string' ? row.deviceToken : undefined,
    tokenExpiresAt: row.tokenExpiresAt,
    claim: row.claimId === undefined ? undefined : { claimId: row.claimId, claimExpiresAt: row.claimExpiresAt ?? 0 },
    lastClaimExpiresAt: row.claimExpiresAt,
    certificate: certificateOf(row),
    retiring: [...row.retiring ?? []],
    suspicion: suspicionOf(row),
    pending: row.pending,
    stateBefore: row.stateBefore,
    committedAt: row.committedAt,
    recheckAt: row.recheckAt,
    renewal: row.renewal,
    usedProofs: row.usedProofs ?? [],
    renewedFrom: row.renewedFrom,
    renewedAt: row.renewedAt,
    history: row.history ?? []
  }
}

/** What is left of the means to prove that one is the device. */
function proofsOf (row: DeviceRow) {
  const { serialNumber, tokenHash, deviceToken, certificatePem, certificateId } = row
  const isWhole = typeof certificatePem === 'string' && typeof certificateId === 'string'
  const certificates = [isWhole ? certificateOf(row) : undefined, renewalCertificateOf({ ...row })] as (Certificate | undefined)[]
  return {
    serialNumber,
    tokenHash: typeof tokenHash === 'string' ? tokenHash : undefined,
    legacyToken: typeof deviceToken === 'string' ? deviceToken : undefined,
    certificates: certificates.filter(certificate => certificate !== undefined)
  }
}

function suspicionOf (row: DeviceRow): Suspicion | undefined {
  const { suspectClaimId, suspectSince, suspects, claimExpiresAt = 0, suspectUntil = claimExpiresAt } = row
  if (suspectClaimId === undefined || suspectSince === undefined) return undefined
  return { claimId: suspectClaimId, since: suspectSince, until: suspectUntil, keys: [...suspects ?? []] }
}

function certificateOf (row: DeviceRow): Certificate | undefined {
  const { certificateId, certificateArn, certificatePem, publicKeyFingerprint, way, issuedAt, notAfter, thingName = row.serialNumber } = row
  const { caCertificateId, certificateMode } = row
  if (!certificateId || !certificateArn || !certificatePem || !publicKeyFingerprint || !way || !issuedAt || !notAfter) return undefined
  const ca = { ...caCertificateId && { caCertificateId }, ...certificateMode && { certificateMode } }
  return { certificateId, certificateArn, certificatePem, publicKeyFingerprint, way, thingName, ...ca, issuedAt, notAfter }
}

function wasVendedByOldService ({ certinfo, applyState }: DeviceRow): boolean {
  return Boolean(certinfo) || Number(applyState) === -1
}
