import { CvmError } from '../errors.ts'
import type { Revocation } from '../x509/crl-entries.ts'
import type { Certificate } from '../x509/strict-certificate.ts'
import type { Authority } from './authority.ts'
import { untilAborted } from './authority-directory.ts'
import { type CrlFault, KeptCrl, type KeptCrlDeps, RETRY_MS } from './kept-crl.ts'

/** Why nobody can tell whether a certificate is revoked: the `reason` beside `crl-unavailable`. */
interface Unknown { reason: CrlFault['reason'] | 'crl-not-set' | 'crl-missing-for-issuer', detail: string }

interface RevocationDeps extends KeptCrlDeps {
  /** Told of each question when the first list ends of those that are in use. */
  onNextUpdate: (at: number) => void
  /** A certificate could not be judged by a list, and was refused or accepted. */
  onUnavailable: (then: Authority['whenCrlUnavailable'], reason: string, caCertificateId: string) => void
}

/** How many sources are remembered; an account with more of them fetches some each time. */
const MOST_SOURCES = 64

/**
 * Whether certificates are revoked, by the lists of their authority. A list is in force when its issuer in the way signed it, and until
 * it says that there is a newer one; whom it lists is revoked also after that.
 */
export class RevocationLists {
  readonly #deps: RevocationDeps
  /** The one that was asked for the longest time ago is the first. */
  readonly #kept = new Map<string, KeptCrl>()

  constructor (deps: RevocationDeps) {
    this.#deps = deps
  }

  /**
   * Each certificate below the authority, by the list of whoever signed it: `CheckRevocation`. Raises `CvmError`: `certificate-revoked`;
   * `crl-unavailable` with a reason where nobody can tell and the authority does not accept that; `deadline-exceeded`.
   */
  async check (path: readonly Certificate[], authority: Authority, signal: AbortSignal): Promise<void> {
    const lists = authority.crls.map(source => this.#keep(source))
    await untilAborted(Promise.all(lists.map(list => list.refresh())), signal)
    const unknown = path.slice(0, -1).map((certificate, n) => judge(certificate, path[n + 1] as Certificate, lists)).find(Boolean)
    this.#tellNextUpdate()
    if (!unknown) return
    const { whenCrlUnavailable, caCertificateId } = authority
    this.#deps.onUnavailable(whenCrlUnavailable, unknown.reason, caCertificateId)
    if (whenCrlUnavailable === 'refuse') throw new CvmError('crl-unavailable', { ...unknown, retryAfterMs: RETRY_MS })
  }

  #keep (source: string): KeptCrl {
    const kept = this.#kept.get(source) ?? new KeptCrl(source, this.#deps)
    this.#kept.delete(source)
    this.#kept.set(source, kept)
    const [oldest] = this.#kept.keys()
    if (this.#kept.size > MOST_SOURCES && oldest !== undefined) this.#kept.delete(oldest)
    return kept
  }

  #tellNextUpdate (): void {
    const ends = [...this.#kept.values()].flatMap(({ nextUpdate }) => nextUpdate ?? [])
    if (ends.length > 0) this.#deps.onNextUpdate(Math.min(...ends))
  }
}

/** Raises where any list says that it is revoked; tells why nobody knows where no list is in force. */
function judge ({ serialNumber }: Certificate, issuer: Certificate, lists: readonly KeptCrl[]): Unknown | undefined {
  const faults: CrlFault[] = []
  let isKnown = false
  for (const [n, kept] of lists.entries()) {
    const list = kept.listOf(issuer)
    const fault = 'isRevoked' in list ? kept.faultOf(list) : list
    const revocation = 'isRevoked' in list ? list.isRevoked(serialNumber) : undefined
    if (revocation) throw revoked(serialNumber, revocation)
    if (fault) faults.push({ ...fault, detail: `CRL ${n + 1} of the authority: ${fault.detail}` })
    else isKnown = true
  }
  if (isKnown) return undefined
  if (lists.length === 0) return { reason: 'crl-not-set', detail: 'No CRL is set for the authority. Set one, or accept certificates without.' }
  // A list of another CA is no fault; that there is none of this one is.
  return faults.find(({ reason }) => reason !== 'crl-issuer-mismatch') ??
    { reason: 'crl-missing-for-issuer', detail: `None of the authority's CRLs is of the CA certificate ${issuer.serialNumber}.` }
}

/** The reason of the list in kebab-case, as all reasons are: a certificate on hold may come back. RFC 5280, 5.3.1. */
function revoked (serialNumber: string, { reason, revokedAt }: Revocation): CvmError {
  const name = reason.replace(/^([ac])A/, '$1a').replace(/[A-Z]/g, letter => `-${letter.toLowerCase()}`)
  return new CvmError('certificate-revoked', {
    reason: name, detail: `A CRL lists the serial number ${serialNumber} as revoked at ${new Date(revokedAt).toISOString()} (${reason}).`
  })
}
