import { authorityFault, deviceFault, fault, signatureFault, type Fault } from './certificate-rules.ts'
import { chainRefusal } from './refusals.ts'
import type { Certificate } from './strict-certificate.ts'

interface Trust {
  /** The CA certificate that trust begins at. It may be that of an intermediate CA: who signed it is not asked. */
  readonly anchor: Certificate
  /** CA certificates that may stand between, of any origin and in any order: at most 10, and at most 4 in one path. */
  readonly intermediates?: readonly Certificate[]
  /** Milliseconds since 1970. */
  readonly now: number
}

/** A way up from the device, as far as it goes. `below` counts the CAs on it as path lengths do: without those that are self-issued. */
interface Path { readonly certificates: readonly Certificate[], readonly top: Certificate, readonly below: number }

const MAX_INTERMEDIATES = 10
const MAX_DEPTH = 4

/**
 * The path from a device's certificate to the anchor, both included, kept to every rule of RFC 5280, section 6, that applies without
 * policies and name constraints. Names are compared byte for byte and only say whose key to try; the signature decides. Key
 * identifiers are not asked, and revocation is not looked up.
 * @throws {CvmError} `certificate-not-trusted` with a `reason` from `CHAIN_REFUSALS`.
 */
export function verifyChain (certificate: Certificate, { anchor, intermediates = [], now }: Trust): readonly Certificate[] {
  if (intermediates.length > MAX_INTERMEDIATES) throw chainRefusal('too-many-intermediates', `there are ${intermediates.length}`)
  insist(leafFault(certificate) ?? deviceFault(certificate, now))

  const faults: Fault[] = []
  // Each is entered once and leaves this set, so that the work is bounded by the square of their number, whoever made them.
  const unused = new Set(intermediates)
  const paths: Path[] = [{ certificates: [certificate], top: certificate, below: 0 }]
  for (let path = paths.shift(); path !== undefined; path = paths.shift()) {
    for (const issuer of [anchor, ...unused]) {
      if (!issuer.subjectDer.equals(path.top.issuerDer)) continue
      const found = stepFault(path, issuer, { anchor, now })
      if (found) {
        faults.push(found)
        continue
      }
      const certificates = [...path.certificates, issuer]
      if (issuer === anchor) return certificates
      unused.delete(issuer)
      // Fewest below first: each intermediate is entered by the path that leaves the most to those above it.
      if (isSelfIssued(issuer)) paths.unshift({ certificates, top: issuer, below: path.below })
      else paths.push({ certificates, top: issuer, below: path.below + 1 })
    }
  }
  insist(faults.find(({ reason }) => reason !== 'signature-invalid') ?? faults[0])
  throw chainRefusal(unused.size === intermediates.length ? 'issuer-name-mismatch' : 'no-path')
}

/**
 * A certificate that a device signed with its own key. Other than below an authority it may say that it is a CA's, as openssl lets it
 * by default: nothing is ever trusted because of it.
 * @throws {CvmError} `certificate-not-trusted` with a `reason` from `CHAIN_REFUSALS`.
 */
export function verifySelfSigned (certificate: Certificate, { now }: Pick<Trust, 'now'>): void {
  if (!isSelfIssued(certificate)) throw chainRefusal('issuer-name-mismatch', 'issuer and subject differ')
  insist(deviceFault(certificate, now) ?? signatureFault(certificate, certificate))
}

/**
 * Whether trust may begin at a CA certificate, as `verifyChain` asks it of its anchor: dates, key, that it is a CA and may sign.
 * @throws {CvmError} `certificate-not-trusted` with a `reason` from `CHAIN_REFUSALS`.
 */
export function checkAuthority (certificate: Certificate, { now }: Pick<Trust, 'now'>): void {
  insist(authorityFault(certificate, now))
}

/**
 * The CA certificates of an issuer's other keys, out of those given: of the same name, signed by the issuer, valid at `now`, and allowed to
 * sign CRLs. By them a CA rolls its key over (RFC 4210, 4.4), and may sign the CRL of both keys with the new one.
 */
export function otherKeysOf (issuer: Certificate, given: readonly Certificate[], now: number): readonly Certificate[] {
  return given.filter(other => {
    const { subjectDer, certificateId, extensions: { keyUsage } } = other
    const isNamed = subjectDer.equals(issuer.subjectDer) && isSelfIssued(other) && certificateId !== issuer.certificateId
    return isNamed && (keyUsage?.has('cRLSign') ?? true) && !authorityFault(other, now) && !signatureFault(other, issuer)
  })
}

function stepFault ({ top, below }: Path, issuer: Certificate, { anchor, now }: Trust): Fault | undefined {
  // The signature first: the other faults of a namesake that did not sign would mislead.
  const found = signatureFault(top, issuer) ?? authorityFault(issuer, now, below)
  if (found) return found
  return issuer !== anchor && below >= MAX_DEPTH ? fault('path-too-long', issuer, `at most ${MAX_DEPTH}`) : undefined
}

function leafFault (certificate: Certificate): Fault | undefined {
  const { extensions: { isCa, keyUsage } } = certificate
  return isCa || keyUsage?.has('keyCertSign') ? fault('leaf-is-a-ca', certificate) : undefined
}

function isSelfIssued ({ issuerDer, subjectDer }: Certificate): boolean {
  return issuerDer.equals(subjectDer)
}

function insist (found: Fault | undefined): void {
  if (found) throw chainRefusal(found.reason, found.specifics)
}
