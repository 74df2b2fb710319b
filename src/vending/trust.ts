import { CvmError } from '../errors.ts'
import { verifyChain } from '../x509/chain.ts'
import type { Certificate } from '../x509/strict-certificate.ts'
import type { Authority } from './authority.ts'
import type { AuthorityDirectory, KnownAuthority } from './authority-directory.ts'

/** A certificate that somebody else made, to be led up to an authority. */
interface TrustRequest {
  certificate: Certificate
  /** Certificates that came with it; they help to find the way up and prove nothing. */
  chain?: readonly Certificate[]
  /** The authority that it must be of; else any that is ACTIVE. */
  caCertificateId?: string
}

/** Who vouches for a certificate. */
interface Trusted {
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

/**
 * Throws `certificate-revoked` or `crl-unavailable` where the path, from the device up to the authority, is not clear. The intermediates
 * that the operator has set may say which other keys the CA has.
 */
export type CheckRevocation = (
  path: readonly Certificate[], authority: Authority, signal: AbortSignal, intermediates: readonly Certificate[]
) => Promise<void>

interface TrustDeps {
  directory: Pick<AuthorityDirectory, 'list' | 'find'>
  checkRevocation: CheckRevocation
  now: () => number
}

/** What is said of a namesake that did not sign; another candidate's fault tells more. */
const OF_NAMESAKES: ReadonlySet<string | undefined> = new Set(['signature-invalid', 'issuer-name-mismatch', 'no-path'])

/** The judgement, over the account's authorities. */
export function truster ({ directory, checkRevocation, now }: TrustDeps): Trust {
  return async ({ certificate, chain = [], caCertificateId }, signal) => {
    const candidates = caCertificateId === undefined
      ? (await directory.list(signal)).filter(known => mayLeadTo(known, [certificate, ...chain]))
      : [await directory.find(caCertificateId, signal)].filter(known => known !== undefined)
    const failures: CvmError[] = []
    for (const known of candidates) {
      try {
        const path = pathTo(known, certificate, chain, now())
        // Only of one that signed it: whether a namesake is ACTIVE says nothing.
        if (known.authority.status !== 'ACTIVE') throw new CvmError('authority-not-active')
        await checkRevocation(path, known.authority, signal, known.intermediates)
        return { authority: known.authority, isDirect: path.length === 2 }
      } catch (cause) {
        if (!(cause instanceof CvmError) || !PASSED_OVER.has(cause.code)) throw cause
        failures.push(cause)
      }
    }
    throw mostTelling(failures) ?? unknownAuthority(caCertificateId)
  }
}

/** The same key may be registered a second time, with newer dates or other settings. */
const PASSED_OVER: ReadonlySet<string> = new Set(['certificate-not-trusted', 'authority-not-active', 'crl-unavailable'])

/** By names alone, which only say whom to ask. */
function mayLeadTo ({ certificate: { subjectDer }, intermediates }: KnownAuthority, given: readonly Certificate[]): boolean {
  return [...given, ...intermediates].some(({ issuerDer }) => issuerDer.equals(subjectDer))
}

function pathTo (known: KnownAuthority, certificate: Certificate, chain: readonly Certificate[], now: number) {
  const { certificate: anchor, intermediates } = known
  const between = new Map([...intermediates, ...chain].map(each => [each.certificateId, each]))
  // Who sends a whole chain sends these two as well.
  for (const { certificateId } of [anchor, certificate]) between.delete(certificateId)
  return verifyChain(certificate, { anchor, intermediates: [...between.values()], now })
}

function mostTelling (failures: readonly CvmError[]): CvmError | undefined {
  return failures.find(({ code }) => code !== 'certificate-not-trusted') ?? failures.find(({ reason }) => !OF_NAMESAKES.has(reason)) ?? failures[0]
}

function unknownAuthority (caCertificateId: string | undefined): CvmError {
  const detail = caCertificateId === undefined
    ? 'No registered authority has the name of its issuer.'
    : `There is no authority ${caCertificateId}, or its certificate cannot be read.`
  return new CvmError('certificate-not-trusted', { reason: 'authority-unknown', detail })
}
