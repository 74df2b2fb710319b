import { CvmError } from '../errors.ts'
import type { Revocation } from '../x509/crl-entries.ts'
import type { Certificate } from '../x509/strict-certificate.ts'
import type { Authority } from './authority.ts'
import { untilAborted } from './authority-directory.ts'
import { otherKeysOf } from '../x509/chain.ts'
import type { Crl } from '../x509/crl.ts'
import { CRL_REFUSALS, LASTING_CRL_REASONS } from '../x509/refusals.ts'
import { type CrlFault, type Judged, KeptCrl, type KeptCrlDeps, OF_ANOTHER, RETRY_MS, UNUSABLE_RETRY_MS } from './kept-crl.ts'

/** Why nobody can tell whether a certificate is revoked: the `reason` beside `crl-unavailable`. */
interface Unknown { reason: CrlFault['reason'] | 'crl-not-set' | 'crl-missing-for-issuer' | 'crl-is-delta' | 'crl-delta-without-base', detail: string }

interface RevocationDeps extends KeptCrlDeps {
  /** Told of each question when the first list ends of those that are in use. */
  onNextUpdate: (at: number) => void
  /** A certificate could not be judged by a list, and was refused or accepted. */
  onUnavailable: (then: Authority['whenCrlUnavailable'], reason: string, caCertificateId: string) => void
}

/** A delta list of the issuer, and why it is not in force. */
interface Delta { list: Crl, fault: Unknown | undefined }

/** The faults of a source that was never read: its list is unknown and may be a delta. A stale list, or one of another key, was read. */
const MAY_HIDE_A_DELTA: ReadonlySet<string> = new Set<Unknown['reason']>([
  'crl-timeout', 'crl-too-large', 'crl-http-status', 'crl-redirected', 'crl-unreachable', 'crl-file-missing', 'crl-folder-not-set',
  'crl-too-long', 'crl-not-pem', 'crl-not-der', 'crl-malformed', 'crl-critical-extension'
])

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
   * Each certificate below the authority, by the list of its issuer: `CheckRevocation`. Throws `CvmError`: `certificate-revoked`;
   * `crl-unavailable` with a reason where the status is unknown and the authority does not accept that; `deadline-exceeded`.
   */
  async check (
    path: readonly Certificate[], authority: Authority, signal: AbortSignal, intermediates: readonly Certificate[] = []
  ): Promise<void> {
    const { whenCrlUnavailable, caCertificateId, crls } = authority
    const judged = path.slice(0, -1).map((certificate, n) => {
      const issuer = path[n + 1] as Certificate
      // A key never vouches for itself.
      const others = intermediates.filter(({ certificateId }) => certificateId !== certificate.certificateId)
      return { certificate, issuer, otherKeys: otherKeysOf(issuer, others, this.#deps.now()) }
    })
    const lists = crls.map(source => this.#keep(source))
    await untilAborted(Promise.all(lists.map(list => list.refresh(judged))), signal)
    const unknown = judged.map(each => judge(each, lists)).find(Boolean)
    this.#tellNextUpdate()
    if (!unknown) return
    this.#deps.onUnavailable(whenCrlUnavailable, unknown.reason, caCertificateId)
    const retryAfterMs = LASTING_CRL_REASONS.has(unknown.reason) ? UNUSABLE_RETRY_MS : RETRY_MS
    if (whenCrlUnavailable === 'refuse') throw new CvmError('crl-unavailable', { ...unknown, retryAfterMs })
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

/**
 * Throws where any list says that the certificate is revoked. Answers why the status is unknown: no complete list of the issuer is in
 * force, a list that is set has never been read and may be a delta, or a delta cannot be used.
 */
function judge (judged: Judged, lists: readonly KeptCrl[]): Unknown | undefined {
  const { certificate, issuer: { serialNumber } } = judged
  const complete: Crl[] = []
  const deltas: Delta[] = []
  const faults: Unknown[] = []
  const ofAnother: Unknown[] = []
  for (const [n, kept] of lists.entries()) {
    const told = ({ reason, detail }: Unknown): Unknown => ({ reason, detail: `CRL ${n + 1} of the authority: ${detail}` })
    const list = kept.listOf(judged)
    if ('reason' in list) {
      (OF_ANOTHER.has(list.reason) ? ofAnother : faults).push(told(list))
      continue
    }
    const revocation = list.isRevoked(certificate.serialNumber)
    if (revocation) throw revoked(certificate.serialNumber, revocation)
    const gap = list.gapFor(certificate, kept.name)
    const fault = gap === undefined ? kept.faultOf(list) : { reason: 'crl-is-partial' as const, detail: `${CRL_REFUSALS['crl-is-partial']} (${gap}).` }
    if (list.baseNumber !== undefined) {
      if (gap === undefined) deltas.push({ list, fault: fault && told(fault) })
    } else if (fault) faults.push(told(fault))
    else complete.push(list)
  }
  if (complete.length > 0) {
    return faults.find(({ reason }) => MAY_HIDE_A_DELTA.has(reason)) ?? deltas.map(delta => faultOfDelta(delta, complete)).find(Boolean)
  }
  if (lists.length === 0) return { reason: 'crl-not-set', detail: 'No CRL is set for the authority. Set one, or accept certificates without.' }
  if (deltas.length > 0) faults.push({ reason: 'crl-is-delta', detail: 'The CRL says only what has changed (deltaCRLIndicator). Set the complete one too.' })
  // A list of another CA is no fault; that there is none of this one is.
  return faults[0] ?? ofAnother.find(({ reason }) => reason === 'crl-of-another-key') ??
    { reason: 'crl-missing-for-issuer', detail: `None of the authority's CRLs is of the CA certificate ${serialNumber}.` }
}

/** RFC 5280, 5.2.4: a delta adds to a complete list that is no older than the one it continues. */
function faultOfDelta ({ list: { baseNumber = 0n }, fault }: Delta, complete: readonly Crl[]): Unknown | undefined {
  if (fault || complete.some(({ number }) => number !== undefined && number >= baseNumber)) return fault
  const detail = `The delta CRL continues number ${baseNumber}, and the complete CRL that is known is older or has no number.`
  return { reason: 'crl-delta-without-base', detail }
}

/** The reason of the list in kebab-case, as all reasons are: a certificate on hold may come back. RFC 5280, 5.3.1. */
function revoked (serialNumber: string, { reason, revokedAt }: Revocation): CvmError {
  const name = reason.replace(/^([ac])A/, '$1a').replace(/[A-Z]/g, letter => `-${letter.toLowerCase()}`)
  return new CvmError('certificate-revoked', {
    reason: name, detail: `A CRL lists the serial number ${serialNumber} as revoked at ${new Date(revokedAt).toISOString()} (${reason}).`
  })
}
