import { type JWTPayload, errors, jwtVerify } from 'jose'
import { CvmError } from '../errors.ts'
import { ROLES, type Role } from './access.ts'
import { type KeySource, keysOf } from './identity-provider.ts'

/** Who calls: the name for audit records, and what they may do. */
export interface Caller { name: string, roles: readonly Role[] }

export interface OidcOptions extends KeySource {
  audience: string
  /** The claim that holds the audience: `aud` (RFC 7519 section 4.1.3), or `client_id` for access tokens of Cognito. */
  audienceClaim: string
  algorithms: readonly string[]
  /** Names of claims; a dotted one is a path unless there is a claim of that very name. */
  roleClaim: string
  nameClaim: string
}

/** How far the provider's clock may be from ours, in seconds. */
const TOLERANCE = 30

/** What may stand in an audit record: a subject, an e-mail address, an ARN; never a line break or a quote. */
const NAME = /^[A-Za-z0-9._@+|:/=,~-]{1,128}$/

/**
 * Tells whose an OIDC token is (a JWT, RFC 7519, signed by the issuer for this audience). Names begin with `oidc:`, so that nobody
 * can choose to be called as the holder of an API key is. Raises `CvmError`: `unauthenticated` with a reason, or
 * `identity-provider-unavailable`.
 */
export function oidcCallers (options: OidcOptions): (token: string) => Promise<Caller> {
  const { issuer, audience, audienceClaim, algorithms, roleClaim, nameClaim } = options
  const keys = keysOf(options)
  const expected = { issuer, algorithms: [...algorithms], requiredClaims: ['exp'], clockTolerance: TOLERANCE }
  return async token => {
    const { payload } = await jwtVerify(token, keys, expected).catch((cause: unknown) => { throw refusalOf(cause) })
    if (![claimIn(payload, audienceClaim)].flat().includes(audience)) throw new CvmError('unauthenticated', { reason: 'token-aud' })
    const name = claimIn(payload, nameClaim)
    if (typeof name !== 'string' || !NAME.test(name)) throw new CvmError('unauthenticated', { reason: 'token-name' })
    const roles = [claimIn(payload, roleClaim)].flat()
    return { name: `oidc:${name}`, roles: ROLES.filter(role => roles.includes(role)) }
  }
}

/** What is wrong with a token; its claims are named only once its signature has been found good. */
function refusalOf (cause: unknown): CvmError {
  if (cause instanceof CvmError) return cause
  const reason = cause instanceof errors.JWTExpired
    ? 'token-expired'
    : cause instanceof errors.JWTClaimValidationFailed ? `token-${cause.claim}` : 'credential-unknown'
  return new CvmError('unauthenticated', { reason, cause })
}

/** Own members only: a claim must not be found in what every object has. */
function claimIn (payload: JWTPayload, claim: string): unknown {
  if (Object.hasOwn(payload, claim)) return payload[claim]
  return claim.split('.').reduce<unknown>((value, name) =>
    typeof value === 'object' && value !== null && Object.hasOwn(value, name) ? (value as JWTPayload)[name] : undefined, payload)
}
