import { CvmError } from '../errors.ts'
import { readCertificate } from '../x509/certificate.ts'
import type { Adoptions } from './adoptions.ts'
import type { CertificateHolds, Hold } from './certificate-holds.ts'
import { type Claimed, holds, mustHold } from './claim.ts'
import type { DescribedCertificate } from './control-plane.ts'
import type { AdoptedWay, Certificate, Device } from './device.ts'
import { takeKey } from './key-reuse.ts'
import { decideAdoption } from './lifecycle.ts'
import { productOf, thingOf } from './product.ts'
import { CLOCK_SKEW_MS } from './reconcile-run.ts'
import { ClaimLost, type Held, type VendDeps, fence, hasCertificate } from './vend-steps.ts'

/** A certificate that was made elsewhere: its facts, and its one PEM form. */
export interface ForeignCertificate extends Pick<Certificate, 'certificateId' | 'certificatePem' | 'publicKeyFingerprint' | 'notAfter'> {
  /** The registered authority that it was verified to; absent for a self-signed one. */
  caCertificateId?: string
  /** That authority's PEM, where AWS IoT can see for itself that it signed this one. */
  caCertificatePem?: string
  certificateMode?: 'SNI_ONLY'
}

export interface AdoptRequest {
  serialNumber: string
  requestId: string
  way: AdoptedWay
  certificate: ForeignCertificate
  /** What each product that refuses the certificate says to it. */
  refusals: ReadonlyMap<string, CvmError>
  /** Aborts when the adoption has had its time, where that is not a vend's. */
  signal?: AbortSignal
  /** The hold that the caller has taken already. */
  holdId?: string
}

export interface AdoptDeps extends Omit<VendDeps, 'hashToken' | 'onKnown'> {
  adoptions: Adoptions
  certificateHolds: CertificateHolds
}

/** One run of the use case: what its steps share. */
export interface Adoption extends AdoptDeps, Held {
  request: AdoptRequest
  refusals: ReadonlyMap<string, CvmError>
  holdId: string
}

/** A run that decides about a certificate. */
type Holding = Pick<Adoption, 'certificateHolds' | 'onLeftover' | 'holdId' | 'claimLifetimeMs' | 'now'>

/** How often a certificate may slip away under our hands. */
const TRIES = 3

export function begin (request: AdoptRequest, deps: AdoptDeps): Adoption {
  const { refusals, signal = deps.deadline(), holdId = deps.newClaimId() } = request
  return { ...deps, request, refusals, signal, holdId, claimId: deps.newClaimId(), certainlyNothing: true }
}

/** Takes the claim in one conditional write, or learns from the row that was in the way what to do instead. */
export async function takeClaim (run: Adoption): Promise<Claimed> {
  const { request: { serialNumber, requestId, way, certificate }, claimId, products, refusals } = run
  const { certificateId, publicKeyFingerprint } = certificate
  const now = run.now()
  const claim = { claimId, claimExpiresAt: now + run.claimLifetimeMs, now, requestId }
  const wanted = { serialNumber, certificateId, publicKeyFingerprint, way, refusingProducts: [...refusals.keys()] }
  const result = await run.adoptions.claim({ ...claim, ...wanted })
  if (holds(result, claimId)) return { kind: 'claimed', device: result.device }

  const { device } = result
  if (!device) throw new CvmError('device-not-found')
  const decision = decideAdoption(device, certificateId, { now, products, refusals })
  switch (decision.kind) {
    case 'refuse': throw decision.error
    case 'replay': return { kind: 'replay', device, certificate: decision.certificate }
    case 'resume': return { kind: 'resumed', device: mustHold(await run.registry.resume(device, claim), claimId) }
  }
}

/**
 * Takes the certificate for the device. One that was another device's once, and by that device's row is not any more, may be taken
 * over: what that device had is REVOKED, so that only a certificate goes on that never became anybody's.
 */
export async function hold (run: Adoption, { serialNumber }: Device): Promise<void> {
  const { certificateId } = run.request.certificate
  let insteadOf: string | undefined
  for (let tries = 0; tries < TRIES; tries++) {
    const purpose = { serialNumber, ...insteadOf !== undefined && { insteadOf } }
    const taken = await run.certificateHolds.take(holdOf(certificateId, run), purpose)
    if (taken.taken) return
    if (taken.isHeld) break
    insteadOf = taken.serialNumber
    const other = insteadOf === undefined ? undefined : await run.registry.find(insteadOf)
    if (other?.certificate?.certificateId === certificateId || other?.retiring.includes(certificateId)) throw new CvmError('certificate-in-use')
    // Whoever is vending for the other device may be about to record this one.
    if ((other?.claim?.claimExpiresAt ?? 0) + CLOCK_SKEW_MS > run.now()) break
  }
  throw new CvmError('vend-in-progress', { detail: 'somebody else is deciding about the certificate', retryAfterMs: 2_000 })
}

/** Makes the key of the certificate the device's. */
export function ownKey (run: Adoption, device: Device): Promise<void> {
  const { certificate: { publicKeyFingerprint }, requestId } = run.request
  return takeKey({ device, publicKeyFingerprint, requestId, isHeld: true }, run)
}

/** Gives the certificate back; `isDecided`: for good. */
export async function letGo (certificateId: string, requestId: string, run: Holding, isDecided: boolean): Promise<void> {
  try {
    await run.certificateHolds.release(holdOf(certificateId, run), isDecided)
  } catch (cause) {
    run.onLeftover('hold', requestId, cause)
  }
}

/** Has AWS IoT know the certificate, and the thing be there. */
export async function register (run: Adoption, device: Device): Promise<Certificate> {
  const { request: { certificate, way }, controlPlane, signal } = run
  const wanted = thingOf(productOf(device, run.products), device.serialNumber)
  run.certainlyNothing = way === 'jitr'
  const [known, thing] = await Promise.allSettled([
    way === 'jitr' ? mustKnow(run) : registerOnce(run),
    controlPlane.ensureThing(wanted, signal)
  ])
  if (known.status === 'rejected') throw known.reason
  if (thing.status === 'rejected') throw thing.reason
  // One that somebody has made ACTIVE elsewhere would be the second one of a device whose old one is not REVOKED yet.
  if (known.value.status === 'ACTIVE') await Promise.all(device.retiring.map(retired => controlPlane.revoke(retired, signal)))
  const { caCertificatePem, ...facts } = certificate
  return { ...facts, certificateArn: known.value.certificateArn, way, thingName: wanted.thingName, issuedAt: run.now() }
}

type Known = Pick<DescribedCertificate, 'status' | 'certificateArn'>

/** Registers the certificate, or finds that AWS IoT has it: made by an earlier try, by somebody else, or at the device's connection. */
async function registerOnce (run: Adoption): Promise<Known> {
  const { controlPlane, signal, request: { certificate: { certificatePem, caCertificatePem } } } = run
  for (let tries = 0; tries < TRIES; tries++) {
    const made = await controlPlane.registerCertificate(certificatePem, caCertificatePem, signal).catch((cause: unknown) => {
      run.certainlyNothing = cause instanceof CvmError && ['aws-iot-throttled', 'aws-iot-refused', 'certificate-rejected'].includes(cause.code)
      throw cause
    })
    if (made) return { ...made, status: 'INACTIVE' }
    run.certainlyNothing = true
    const known = await look(run)
    if (known) return known
  }
  throw new CvmError('aws-iot-unavailable', { detail: 'AWS IoT has the certificate, and does not know it', retryAfterMs: 2_000 })
}

async function mustKnow (run: Adoption): Promise<Known> {
  const known = await look(run)
  if (!known) throw new CvmError('certificate-not-found')
  return known
}

/** What AWS IoT says of the certificate. Raises for one that can be nobody's any more. */
async function look (run: Adoption): Promise<Known | undefined> {
  const { certificateId } = run.request.certificate
  const known = await run.controlPlane.describe(certificateId, run.signal)
  if (!known) return undefined
  if (readCertificate(known.certificatePem).certificateId !== certificateId) throw new CvmError('aws-iot-refused', { detail: 'AWS IoT has another certificate by this id' })
  if (known.status === 'REVOKED') throw new CvmError('certificate-revoked')
  if (!ADOPTABLE.has(known.status)) throw new CvmError('certificate-in-use', { detail: `AWS IoT says that it is ${known.status}` })
  return known
}

const ADOPTABLE: ReadonlySet<string> = new Set(['ACTIVE', 'INACTIVE', 'PENDING_ACTIVATION'])

/**
 * Records the certificate as the device's. Where the claim was lost nothing is deleted: somebody else may have made the certificate, or
 * may be recording it now. Reconcile finds what is nobody's.
 */
export async function record (run: Adoption, device: Device, certificate: Certificate): Promise<Device> {
  const result = await run.registry.record(fence(run, device), certificate)
  if (hasCertificate(result, certificate.certificateId)) return result.device
  throw new ClaimLost(result.device)
}

/** The hold of a run, as it is now. */
export function holdOf (certificateId: string, { holdId, claimLifetimeMs, ...run }: Holding): Hold {
  const now = run.now()
  return { certificateId, holdId, now, expiresAt: now + claimLifetimeMs }
}
