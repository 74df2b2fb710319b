import { CvmError, ERRORS } from '../errors.ts'
import { checkCertificate } from '../x509/strict-certificate.ts'
import { type Candidate, findCandidate } from './activation-candidate.ts'
import type { Activated } from './activated.ts'
import { adopt } from './adopt.ts'
import { type AdoptDeps, holdOf, letGo } from './adoption-steps.ts'
import { CertificateStateConflict, type DescribedCertificate } from './control-plane.ts'
import { foreignOf } from './foreign-certificate.ts'
import type { Trust } from './trust.ts'

/** A certificate that AWS IoT has registered at its device's connection (JITR), and that waits for somebody's judgement. */
export interface ActivateRequest {
  certificateId: string
  /** The authority that the event names; AWS IoT must say the same of the certificate. */
  caCertificateId?: string
  requestId: string
  /** Aborts when the answer is due. */
  signal: AbortSignal
}

export interface ActivateDeps extends AdoptDeps {
  trust: Trust
}

/** One run of the use case. */
interface Run extends ActivateDeps {
  request: ActivateRequest
  holdId: string
}

/**
 * Judges a certificate that AWS IoT has seen for the first time: led up to its authority by signatures, on no CRL, of a device of the
 * registry or of a product that enrols openly; then adopted, by the steps of vending. What is refused becomes INACTIVE, or REVOKED where
 * a CRL says so. Only one that is PENDING_ACTIVATION is ever touched, so that events may come twice, late and in any order. It is
 * written down before anything else, so that whatever cuts this off is taken up by reconcile. Raises `CvmError` where not even that
 * could be done, and `invalid-request` where the event and AWS IoT name different authorities.
 */
export async function activate (request: ActivateRequest, deps: ActivateDeps): Promise<Activated> {
  const run: Run = { ...deps, request, holdId: deps.newClaimId() }
  const { certificateId } = request
  const { taken } = await run.certificateHolds.take(holdOf(certificateId, run), { isPending: true })
  if (!taken) return { certificateId, outcome: 'later', code: 'vend-in-progress' }
  let isDecided = false
  try {
    const activated = await decide(run)
    isDecided = true
    return activated
  } catch (cause) {
    if (!(cause instanceof CvmError) || !mayPass(cause)) throw cause
    return { certificateId, outcome: 'later', code: cause.code, ...cause.reason !== undefined && { reason: cause.reason } }
  } finally {
    await letGo(certificateId, request.requestId, run, isDecided)
  }
}

async function decide (run: Run): Promise<Activated> {
  const { request: { certificateId, caCertificateId, signal } } = run
  const known = await run.controlPlane.describe(certificateId, signal)
  if (known?.status !== 'PENDING_ACTIVATION') return { certificateId, outcome: 'ignored', status: known?.status ?? 'gone' }
  if (caCertificateId !== undefined && caCertificateId !== known.caCertificateId) {
    throw new CvmError('invalid-request', { detail: 'caCertificateId is not the authority that AWS IoT says of the certificate' })
  }
  let candidate: Candidate | undefined
  try {
    candidate = await judge(run, known)
    return await take(run, candidate)
  } catch (cause) {
    if (!(cause instanceof CvmError) || mayPass(cause)) throw cause
    return refuse(run, candidate, cause)
  }
}

async function judge (run: Run, { certificatePem, caCertificateId }: DescribedCertificate): Promise<Candidate> {
  const certificate = checkCertificate(certificatePem)
  const voucher = await run.trust({ certificate, ...caCertificateId !== undefined && { caCertificateId } }, run.request.signal)
  return findCandidate(certificate, voucher, run)
}

async function take (run: Run, { serialNumber, certificate, voucher, refusals, enrolAs }: Candidate): Promise<Activated> {
  const { request: { certificateId, requestId, signal }, holdId } = run
  if (enrolAs !== undefined) {
    const device = { serialNumber, product: enrolAs, tokenHash: undefined, tokenExpiresAt: undefined }
    await run.registry.register(device, { now: run.now(), requestId })
  }
  const { caCertificateId } = voucher.authority
  const { product } = await adopt({ serialNumber, requestId, way: 'jitr', certificate: foreignOf(certificate, voucher), refusals, signal, holdId }, run)
  return { certificateId, outcome: 'activated', serialNumber, product, caCertificateId }
}

/** Ends the wait of one that is nobody's. One that somebody else has ended meanwhile stays as they left it. */
async function refuse (run: Run, candidate: Candidate | undefined, failure: CvmError): Promise<Activated> {
  const { request: { certificateId, requestId, signal }, controlPlane } = run
  const { code, reason } = failure
  // A hold may be lifted (RFC 5280, section 5.3.1), and what is REVOKED in AWS IoT never comes back.
  const status = code === 'certificate-revoked' && reason !== 'certificate-hold' ? 'REVOKED' : 'INACTIVE'
  try {
    await (status === 'REVOKED' ? controlPlane.revoke(certificateId, signal) : controlPlane.deactivate(certificateId, signal))
  } catch (cause) {
    if (!(cause instanceof CertificateStateConflict)) throw cause
    return { certificateId, outcome: 'ignored', status: 'REVOKED' }
  }
  const device = candidate && await run.registry.find(candidate.serialNumber)
  if (device) await run.adoptions.tell(device, { at: run.now(), event: 'refused', requestId, certificateId, reason: reason ?? code })
  const about = { ...reason !== undefined && { reason }, ...device && { serialNumber: device.serialNumber } }
  return { certificateId, outcome: 'refused', status, code, ...about, failure }
}

/** Whether it may be otherwise the next time: then nothing is decided. */
function mayPass ({ code }: CvmError): boolean {
  return ERRORS[code].status >= 500 || code === 'vend-in-progress'
}
