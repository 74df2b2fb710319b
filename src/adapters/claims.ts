import { DEFAULT_PRODUCT, GENERATED_KEY, type Way } from '../vending/device.ts'
import { UNFINISHED } from './device-row.ts'

/** Rows that an operator put for the old services: no state, a plain token, and not vended by them. */
export const IS_FROM_OLD_SERVICE = 'attribute_not_exists(#state)'
export const WAS_NOT_VENDED_THERE = 'NOT certinfo > :empty AND NOT applyState IN (:vended, :vendedText)'

/** The values that {@link WAS_NOT_VENDED_THERE} needs. */
export const OLD_SERVICE = { ':empty': '', ':vended': -1, ':vendedText': '-1' } as const

/**
 * A row of the old services has no product, which makes it one of the default product. Short names, because an expression may have 4 KB:
 * a hundred products in each branch of the claim's condition just fit.
 */
export function productIsNot (names: readonly string[]): string[] {
  if (names.length === 0) return []
  return [`NOT product IN (${names.map((_, n) => `:p${n}`).join(', ')})`, ...names.includes(DEFAULT_PRODUCT) ? ['attribute_exists(product)'] : []]
}

/** The values that {@link productIsNot} needs. */
export function productValues (names: readonly string[]): Record<string, string> {
  return Object.fromEntries(names.map((name, n) => [`:p${n}`, name]))
}

/** The claim itself, beside a state that says so. */
export function newClaim (fingerprint: string | undefined): string {
  return '#state = :issuing, claimId = :claimId, claimExpiresAt = :claimExpiresAt, way = :way, unfinished = :unfinished' +
    (fingerprint ? ', publicKeyFingerprint = :fingerprint' : '')
}

/** The values that {@link newClaim} needs. */
export function claimValues (claim: { claimId: string, claimExpiresAt: number, way: Way }, fingerprint: string | undefined) {
  const { claimId, claimExpiresAt, way } = claim
  return {
    ':issuing': 'ISSUING',
    ':claimId': claimId,
    ':claimExpiresAt': claimExpiresAt,
    ':way': way,
    ':unfinished': UNFINISHED,
    ...(fingerprint && { ':fingerprint': fingerprint })
  }
}

/** AWS IoT is about to be asked for a certificate: set beside the claim, with `ADD suspects :suspects`. */
export const BEGIN_SUSPICION = 'suspectClaimId = if_not_exists(suspectClaimId, :claimId), suspectSince = if_not_exists(suspectSince, :now), suspectUntil = :claimExpiresAt'

/** The key that it is asked for. */
export function suspectValues (fingerprint: string | undefined) {
  return { ':suspects': new Set([fingerprint ?? GENERATED_KEY]) }
}
