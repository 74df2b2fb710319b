import { CvmError } from '../errors.ts'
import { readCertificate } from '../x509/certificate.ts'
import { type Csr, checkCsr } from '../x509/csr.ts'
import type { SignatureRepair } from '../x509/ecdsa-signature.ts'
import type { IssuedCertificate } from './control-plane.ts'
import type { Certificate, Device } from './device.ts'
import { discard, discardUnrecorded } from './discard.ts'
import { type KeyReuseDeps, takeKey } from './key-reuse.ts'
import { commonNameRule, productOf, refusalsOf, timesOf } from './product.ts'
import { type JwsProof, type TlsProof, verifyProof } from './renewal-proof.ts'
import { type SwapDeps, changed, mustBeActive, swap } from './swap.ts'
import { findOrFault } from './unreadable-device.ts'

/** What a device asks for that has a certificate. */
export interface RenewRequest {
  serialNumber: string
  certificateSigningRequest: string
  /** By the key of the present certificate. */
  proof: JwsProof | TlsProof
  /**
   * `when-confirmed`: the new certificate stays INACTIVE until the new key confirms it. `at-once`: for protocols that know no
   * confirmation (EST); the certificate before is REVOKED when this is answered, and its key gets the same answer again for the
   * product's `replayWindowMs`.
   */
  swap: 'when-confirmed' | 'at-once'
  requestId: string
}

/** A renewal's certificate. */
export interface Renewed {
  outcome: 'renewed' | 'replayed'
  certificate: Certificate
  /** The name of the device's product. */
  product: string
  /** Until when it must be confirmed, in epoch milliseconds; absent where it is the device's already. */
  confirmBefore?: number
}

export interface RenewDeps extends SwapDeps, KeyReuseDeps {
  newClaimId: () => string
  /** What proofs must be for. */
  audience: () => Promise<string>
  /** How far the clock of a device may be off. */
  proofWindowMs: number
  /** How long an unconfirmed renewal waits. */
  confirmWithinMs: number
  /** Told that the proof is the device's; for audit records. */
  onKnown?: () => void
  /** Told of a signature that was written anew. */
  onRepair: (what: 'csr' | 'proof', kind: SignatureRepair | 'der') => void
  /** Told of a clean-up that failed and is left to reconcile. */
  onLeftover: (what: 'certificate' | 'claim', requestId: string, cause: unknown, certificateId?: string) => void
}

/** Used proofs that are kept; more renewals than that within two windows are no renewals. */
const MOST_PROOFS = 32

/**
 * Renews a certificate (DESIGN section 4): a new one is issued INACTIVE beside the working one, which goes on working. The same key again
 * gets the same certificate; another key replaces one that was not confirmed. Safe to repeat at any time and from any replica.
 * Raises `CvmError`: `device-not-authorized`, alike for an unknown device and a wrong proof; every other refusal only
 * to whom the proof holds.
 */
export async function renew (request: RenewRequest, deps: RenewDeps): Promise<Renewed> {
  const { serialNumber, requestId } = request
  const csr = checkCsr(request.certificateSigningRequest, { serialNumber, commonName: commonNameRule(deps.products) })
  if (csr.repair) deps.onRepair('csr', csr.repair)
  const { device: seen, unreadable } = await findOrFault(deps.registry, serialNumber)
  const nonce = await authorise(request, csr, seen ?? { certificate: unreadable?.proofs.certificates[0] }, deps)
  if (unreadable) throw unreadable
  if (!seen?.certificate) throw new CvmError('device-not-authorized')
  deps.onKnown?.()
  mustBeActive(seen)
  if (isAfterwards(request, seen)) return answerAfterwards(seen.certificate, seen, csr)
  const { renewal } = seen
  const isSame = renewal?.publicKeyFingerprint === csr.publicKeyFingerprint
  if (renewal?.phase === 'issuing' && renewal.expiresAt > deps.now()) throw new CvmError('vend-in-progress', { retryAfterMs: 1_000 })
  if (renewal?.phase === 'swapping' && !isSame) throw new CvmError('vend-in-progress', { retryAfterMs: 1_000 })
  const isThere = isSame && renewal?.certificate !== undefined && (renewal.phase === 'swapping' || renewal.expiresAt > deps.now())
  if (!isThere) mustBeRenewable(seen, csr, nonce, deps)
  const device = isThere ? seen : await issue(seen, csr, nonce, request, deps)
  const outcome = isThere ? 'replayed' : 'renewed'
  if (request.swap === 'at-once') return { ...answer(await swap(device, requestId, deps)), outcome: 'renewed' }
  return { ...answer(device), outcome }
}

function answer (device: Device): Omit<Renewed, 'outcome'> {
  const { renewal, product } = device
  const certificate = renewal?.certificate ?? device.certificate
  if (!certificate) throw new Error('a renewal without a certificate')
  return { certificate, product, ...(renewal && { confirmBefore: renewal.expiresAt }) }
}

/** The nonce of a proof that may be used once. Raises `CvmError` where the proof does not hold. */
async function authorise (
  { proof }: RenewRequest, csr: Csr, device: Pick<Device, 'certificate'> & Partial<Device>, deps: RenewDeps
): Promise<string | undefined> {
  if (proof.kind === 'jws') {
    const rules = { audience: await deps.audience(), now: deps.now(), windowMs: deps.proofWindowMs, csrDer: csr.der }
    const { nonce, isRepaired } = await verifyProof(proof.jws, [device.certificate], rules)
    if (isRepaired) deps.onRepair('proof', 'der')
    return nonce
  }
  const { certificate, renewedFrom, renewedAt = 0, product } = device
  if (certificate?.certificateId === proof.certificateId) return undefined
  const isInTime = product !== undefined && renewedAt + timesOf(product, deps.products).replayWindowMs > deps.now()
  if (isInTime && renewedFrom === proof.certificateId) return undefined
  throw new CvmError('device-not-authorized')
}

/** Whether who asks has the certificate that the present one came after. */
function isAfterwards ({ proof }: RenewRequest, { renewedFrom }: Device): boolean {
  return proof.kind === 'tls' && proof.certificateId === renewedFrom
}

function answerAfterwards (certificate: Certificate, { product }: Device, csr: Csr): Renewed {
  if (certificate.publicKeyFingerprint !== csr.publicKeyFingerprint) throw new CvmError('device-not-authorized')
  return { outcome: 'replayed', certificate, product }
}

/** The conditions for a new certificate: the product's, the age of the one that is there, and a proof that was not used. */
function mustBeRenewable (device: Device, csr: Csr, nonce: string | undefined, { products, now }: RenewDeps): void {
  const product = productOf(device, products)
  const refusal = refusalsOf(products, device, csr).get(product.name)
  if (refusal) throw refusal
  if ((device.certificate?.notAfter ?? 0) + product.renewExpiredForMs <= now()) throw new CvmError('certificate-expired')
  const used = device.usedProofs.filter(({ expiresAt }) => expiresAt > now())
  const mayRepeat = device.renewal?.phase === 'issuing' && device.renewal.nonce === nonce
  if (!mayRepeat && used.some(proof => proof.nonce === nonce)) throw new CvmError('proof-rejected', { reason: 'nonce-used', detail: 'the proof was used before' })
  if (used.length >= MOST_PROOFS) throw new CvmError('rate-limited', { retryAfterMs: Math.min(...used.map(({ expiresAt }) => expiresAt)) - now() })
}

/** Takes the renewal, has AWS IoT make a certificate, and records it before anybody has it. */
async function issue (seen: Device, csr: Csr, nonce: string | undefined, { requestId }: RenewRequest, deps: RenewDeps): Promise<Device> {
  const { renewals, controlPlane } = deps
  const signal = deps.deadline()
  const claimId = deps.newClaimId()
  const now = deps.now()
  const { publicKeyFingerprint } = csr
  // Before anything is written: a key that is refused leaves a renewal that waits as it is.
  await takeKey({ device: seen, publicKeyFingerprint, requestId }, deps)
  const proof = nonce === undefined ? {} : { proof: { nonce, expiresAt: now + 2 * deps.proofWindowMs } }
  const claim = { claimId, claimExpiresAt: now + deps.claimLifetimeMs, publicKeyFingerprint, ...proof, now, requestId }
  const begun = await renewals.begin(seen, claim)
  if (begun.device?.renewal?.claimId !== claimId) throw changed(begun.device)
  let certainlyNothing = false
  try {
    const issued = await controlPlane.createCertificateFromCsr(csr.pem, signal).catch((cause: unknown) => {
      certainlyNothing = cause instanceof CvmError && ['aws-iot-throttled', 'aws-iot-refused', 'csr-rejected'].includes(cause.code)
      throw cause
    })
    const certificate = factsOf(issued, seen, deps.now())
    const carriesOtherKey = certificate.publicKeyFingerprint !== publicKeyFingerprint
    const confirmBefore = deps.now() + deps.confirmWithinMs
    const recorded = carriesOtherKey
      ? { device: undefined }
      : await renewals.record(begun.device, certificate, confirmBefore, { now: deps.now(), requestId })
    if (recorded.device?.renewal?.certificate?.certificateId === certificate.certificateId) return recorded.device
    certainlyNothing = await (carriesOtherKey ? discardUnrecorded : discard)(certificate.certificateId, requestId, deps)
    throw carriesOtherKey ? new CvmError('aws-iot-refused', { detail: 'the certificate carries another key' }) : changed(recorded.device)
  } catch (cause) {
    await renewals.release(begun.device, certainlyNothing, { now: deps.now(), requestId })
      .catch((failure: unknown) => deps.onLeftover('claim', requestId, failure))
    throw cause
  }
}

function factsOf (issued: IssuedCertificate, { certificate, serialNumber }: Device, issuedAt: number): Certificate {
  const { certificateId, certificateArn, certificatePem } = issued
  const { publicKeyFingerprint, notAfter } = readCertificate(certificatePem)
  const { thingName } = certificate ?? { thingName: serialNumber }
  return { certificateId, certificateArn, certificatePem, publicKeyFingerprint, way: 'csr', thingName, issuedAt, notAfter }
}
