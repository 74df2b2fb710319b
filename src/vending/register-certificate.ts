import { CvmError } from '../errors.ts'
import { verifySelfSigned } from '../x509/chain.ts'
import { type Certificate, checkDevice, readCertificates } from '../x509/strict-certificate.ts'
import { type Adopted, adopt } from './adopt.ts'
import type { AdoptDeps } from './adoption-steps.ts'
import { type Voucher, foreignOf, refusalsOfForeign } from './foreign-certificate.ts'
import type { Trust } from './trust.ts'
import { timed } from './vend.ts'

/** A certificate that somebody brings for a device. */
export interface CertificateRegistration {
  serialNumber: string
  /** The device's certificate first; then, in any order, CA certificates on the way up to an authority. */
  certificatePem: string
  requestId: string
}

export interface RegisterCertificateDeps extends AdoptDeps {
  trust: Trust
}

/**
 * Makes a certificate that was made elsewhere the one of a registered device: read strictly, led up to a registered authority by
 * signatures or found to be signed by its own key, held to the rules of the device's product, then adopted. Safe to repeat. Raises
 * `CvmError`: `certificate-rejected`, `certificate-not-trusted`, what {@link Trust} and {@link adopt} raise.
 */
export async function registerCertificate (request: CertificateRegistration, deps: RegisterCertificateDeps): Promise<Adopted> {
  const { serialNumber, requestId } = request
  const signal = deps.deadline()
  const { certificate, voucher } = await timed(deps, 'check', () => judge(request.certificatePem, deps, signal))
  const refusals = refusalsOfForeign(deps.products, serialNumber, certificate, voucher)
  return adopt({ serialNumber, requestId, way: 'registered', certificate: foreignOf(certificate, voucher), refusals, signal }, deps)
}

async function judge (
  certificatePem: string, { trust, now }: RegisterCertificateDeps, signal: AbortSignal
): Promise<{ certificate: Certificate, voucher: Voucher }> {
  const [first, ...chain] = readCertificates(certificatePem)
  const certificate = checkDevice(first as Certificate)
  if (isSelfSigned(certificate, now())) return { certificate, voucher: 'own-key' }
  return { certificate, voucher: await trust({ certificate, chain }, signal) }
}

/** Not every one whose issuer is its subject: a CA may sign for a device under its own name. */
function isSelfSigned (certificate: Certificate, now: number): boolean {
  if (!certificate.issuerDer.equals(certificate.subjectDer)) return false
  try {
    verifySelfSigned(certificate, { now })
    return true
  } catch (cause) {
    if (cause instanceof CvmError && cause.reason === 'signature-invalid') return false
    throw cause
  }
}
