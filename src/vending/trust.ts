import type { Certificate } from '../x509/strict-certificate.ts'
import type { Authority } from './authority.ts'

/** A certificate that somebody else made, to be led up to an authority. */
export interface TrustRequest {
  certificate: Certificate
  /** Certificates that came with it; they help to find the way up and prove nothing. */
  chain?: readonly Certificate[]
  /** The authority that it must be of; else any that is ACTIVE. */
  caCertificateId?: string
}

/** Who vouches for a certificate. */
export interface Trusted {
  authority: Authority
  /** Whether the authority itself signed it, as AWS IoT asks of a CA that is sent along; else an intermediate did. */
  isDirect: boolean
}

/**
 * Judges a certificate: the registered authority that it leads up to by signatures, never by name alone, and that is ACTIVE, and
 * no CRL on the way lists anything. Raises `CvmError`: `certificate-not-trusted` with a reason, `authority-not-active`,
 * `certificate-revoked`, `crl-unavailable`, and what the ports raise. Which products the authority is for is asked by `refusalByAuthority`.
 */
export type Trust = (request: TrustRequest, signal: AbortSignal) => Promise<Trusted>
