import { CvmError } from '../errors.ts'
import { readCertificate } from '../x509/certificate.ts'
import { type Csr, checkCsr } from '../x509/csr.ts'
import type { SignatureRepair } from '../x509/ecdsa-signature.ts'
import { makeAwsAgree } from './agreement.ts'
import { bindCertificate } from './bind-certificate.ts'
import { type Claimed, claim } from './claim.ts'
import { CertificateStateConflict, type ControlPlane, type IssuedCertificate, type KeyPair } from './control-plane.ts'
import type { Certificate, Device } from './device.ts'
import type { DeviceRegistry, FencedWrite, WriteResult } from './device-registry.ts'
import { discard, discardUnrecorded } from './discard.ts'
import { type KeyReuseDeps, takeKey } from './key-reuse.ts'
import { decide } from './lifecycle.ts'
import { type Products, commonNameRule, productOf, refusalsOf, thingOf } from './product.ts'
import type { TokenHasher } from './registration-token.ts'

/** The steps of a vend, in their order; `hold` is adoption's. */
export type VendStep = 'check' | 'claim' | 'hold' | 'key' | 'issue' | 'record' | 'bind' | 'commit'

/** What a device asks for: a certificate for the key of its CSR, or a certificate with a key pair made for it. */
export interface VendRequest {
  serialNumber: string
  registrationToken: string
  requestId: string
  /** Absent: AWS IoT makes the key pair. */
  certificateSigningRequest?: string
  /** The only product whose devices may ask so; any when absent. */
  product?: string
  /** Aborted when nobody is left to take the answer; a key pair that nobody takes is not committed. */
  callerGone?: AbortSignal
}

/** A vended certificate. `keyPair` is there only in the one answer that made it. */
export interface Vended {
  outcome: 'vended' | 'resumed' | 'replayed'
  certificate: Certificate
  /** The name of the device's product. */
  product: string
  keyPair?: KeyPair
}

export interface VendDeps extends KeyReuseDeps {
  registry: DeviceRegistry
  controlPlane: ControlPlane
  hashToken: TokenHasher
  /** Epoch milliseconds. */
  now: () => number
  newClaimId: () => string
  /** A signal that aborts when a vend has had its time, which must be shorter than a claim lives. */
  deadline: () => AbortSignal
  claimLifetimeMs: number
  products: Products
  /** Told that there is such a device; for audit records. */
  onKnown?: () => void
  /** Told how long each step took, and whether it ended well. */
  onStep: (step: VendStep, durationMs: number, ok: boolean) => void
  /** Told of a signature of a CSR that was written anew. */
  onRepair: (what: 'csr', kind: SignatureRepair) => void
  /** Told of a clean-up that failed and is left to reconcile. */
  onLeftover: (what: 'certificate' | 'claim' | 'hold', requestId: string, cause: unknown, certificateId?: string) => void
}

/** Another worker, or an operator, changed the device while we held it. */
export class ClaimLost extends Error {
  readonly device: Device | undefined
  constructor (device: Device | undefined) {
    super('the claim was lost')
    this.device = device
  }
}

/** A run that has a claim: what the steps share that come after it. */
export interface Held extends Pick<VendDeps, 'registry' | 'controlPlane' | 'products' | 'now' | 'deadline' | 'onLeftover'> {
  request: Pick<VendRequest, 'serialNumber' | 'requestId' | 'callerGone'>
  claimId: string
  signal: AbortSignal
  /** False from the moment AWS IoT may hold a certificate that the registry does not know. */
  certainlyNothing: boolean
}

/** One run of the use case: what its steps share. */
export interface Run extends VendDeps, Held {
  request: VendRequest
  csr: Csr | undefined
  /** What each product that refuses the request says to it. */
  refusals: ReadonlyMap<string, CvmError>
  /** Whether the key of the CSR is known to be the device's own. */
  isKeyTaken: boolean
}

export function check ({ serialNumber, certificateSigningRequest }: Pick<VendRequest, 'serialNumber' | 'certificateSigningRequest'>, products: Products): Csr | undefined {
  if (certificateSigningRequest === undefined) return undefined
  return checkCsr(certificateSigningRequest, { serialNumber, commonName: commonNameRule(products) })
}

/** What a run starts with, before anything has happened. */
export function begin (request: VendRequest, csr: Csr | undefined, deps: VendDeps): Run {
  const refusals = refusalsOf(deps.products, request, csr)
  return { ...deps, request, csr, refusals, claimId: deps.newClaimId(), signal: deps.deadline(), certainlyNothing: true, isKeyTaken: false }
}

export function takeClaim (run: Run): Promise<Claimed> {
  const { serialNumber, registrationToken, requestId } = run.request
  const now = run.now()
  const tokenHash = run.hashToken(serialNumber, registrationToken)
  return claim({
    serialNumber,
    registrationToken,
    tokenHash,
    ...wishOf(run),
    claimId: run.claimId,
    now,
    claimExpiresAt: now + run.claimLifetimeMs,
    requestId,
    refusingProducts: [...run.refusals.keys()]
  }, { ...run, ownKey: device => ownKey(run, device) })
}

/** Makes the key of the CSR the device's, once in a run; AWS IoT's own key pairs are never another device's. */
export async function ownKey (run: Run, device: Device): Promise<void> {
  if (!run.csr || run.isKeyTaken) return
  await takeKey({ device, publicKeyFingerprint: run.csr.publicKeyFingerprint, requestId: run.request.requestId }, run)
  run.isKeyTaken = true
}

/** AWS IoT makes a new certificate at every call, so one that cannot be used is deleted before the failure is passed on. */
export async function issue (run: Run, device: Device): Promise<{ certificate: Certificate, keyPair?: KeyPair }> {
  const { controlPlane, csr, signal } = run
  const wanted = thingOf(productOf(device, run.products), device.serialNumber)
  run.certainlyNothing = false
  const [made, thing] = await Promise.allSettled([
    csr ? controlPlane.createCertificateFromCsr(csr.pem, signal) : controlPlane.createKeysAndCertificate(signal),
    controlPlane.ensureThing(wanted, signal)
  ])
  if (made.status === 'rejected') {
    run.certainlyNothing = saysNothingWasMade(made.reason)
    throw made.reason
  }
  const { keyPair, certificateId, certificateArn, certificatePem }: IssuedCertificate & { keyPair?: KeyPair } = made.value
  const { publicKeyFingerprint, notAfter } = readCertificate(certificatePem)
  const { way } = wishOf(run)
  const { thingName } = wanted
  const certificate = { certificateId, certificateArn, certificatePem, publicKeyFingerprint, way, thingName, issuedAt: run.now(), notAfter }
  const carriesOtherKey = csr && publicKeyFingerprint !== csr.publicKeyFingerprint
  if (thing.status === 'fulfilled' && !carriesOtherKey) return { certificate, ...(keyPair && { keyPair }) }
  run.certainlyNothing = await discardUnrecorded(certificateId, run.request.requestId, run)
  throw thing.status === 'rejected' ? thing.reason : new CvmError('aws-iot-refused', { detail: 'the certificate carries another key' })
}

export async function record (run: Run, device: Device, certificate: Certificate): Promise<Device> {
  const result = await run.registry.record(fence(run, device), certificate)
  if (hasCertificate(result, certificate.certificateId)) return result.device
  await discard(certificate.certificateId, run.request.requestId, run)
  throw new ClaimLost(result.device)
}

export async function bind (run: Held, device: Device): Promise<void> {
  const { controlPlane, signal } = run
  const certificate = certificateOf(device)
  const { certificateId, way } = certificate
  await Promise.all([
    bindCertificate(device, certificate, run, signal),
    ...device.retiring.map(retired => controlPlane.revoke(retired, signal))
  ])
  if (way === 'jitr') await mustBePending(run, certificateId)
  try {
    await controlPlane.activate(certificateId, signal)
  } catch (cause) {
    if (!(cause instanceof CertificateStateConflict)) throw cause
    throw new ClaimLost(await run.registry.find(device.serialNumber))
  }
}

export async function commit (run: Held, device: Device): Promise<Certificate> {
  const certificate = certificateOf(device)
  if (certificate.way === 'keys' && run.request.callerGone?.aborted) {
    throw new CvmError('deadline-exceeded', { detail: 'the caller went away before the key pair could be handed over' })
  }
  const result = await run.registry.commit(fence(run, device)).catch((cause: unknown) => lookAgain(run, certificate, cause))
  if (result.applied) return certificate
  const now = result.device
  if (now?.state === 'ACTIVE' && hasCertificate(result, certificate.certificateId)) return certificate
  await makeAwsAgree(certificate.certificateId, now, run.controlPlane, run.deadline())
  throw new ClaimLost(now)
}

/**
 * Somebody who took a certificate out of PENDING_ACTIVATION by another way than this service, such as AWS's console, has judged it:
 * it stays as they left it. AWS IoT has no condition for this, so the look comes as late as it can.
 */
async function mustBePending (run: Held, certificateId: string): Promise<void> {
  const known = await run.controlPlane.describe(certificateId, run.signal)
  if (known?.status === 'PENDING_ACTIVATION' || known?.status === 'ACTIVE') return
  throw new CvmError('vend-in-progress', { detail: 'somebody else has judged the certificate meanwhile', retryAfterMs: 2_000 })
}

/** A commit whose answer was lost may have been done, and with a key pair nobody could ask again: then the row says so. */
async function lookAgain (run: Held, { certificateId }: Certificate, cause: unknown): Promise<WriteResult> {
  const now = await run.registry.find(run.request.serialNumber).catch(() => undefined)
  if (now?.state === 'ACTIVE' && now.certificate?.certificateId === certificateId) return { applied: false, device: now }
  throw cause
}

/** What the row that overtook us says to this request. */
export function answerFrom (device: Device | undefined, run: Run): Vended {
  if (!device) throw new CvmError('device-not-authorized')
  const decision = decide(device, wishOf(run), { now: run.now(), products: run.products, refusals: run.refusals })
  if (decision.kind === 'replay') return { outcome: 'replayed', certificate: decision.certificate, product: device.product }
  throw decision.kind === 'refuse' ? decision.error : new CvmError('vend-in-progress', { retryAfterMs: 1_000 })
}

export async function giveBack (run: Held, device: Device): Promise<void> {
  try {
    await run.registry.release(fence(run, device), run.certainlyNothing)
  } catch (cause) {
    run.onLeftover('claim', run.request.requestId, cause)
  }
}

/** AWS IoT answered with a refusal: it made no certificate. */
function saysNothingWasMade (cause: unknown): boolean {
  return cause instanceof CvmError && ['aws-iot-throttled', 'aws-iot-refused', 'csr-rejected'].includes(cause.code)
}

export function hasCertificate (result: WriteResult, certificateId: string): result is WriteResult & { device: Device } {
  return result.device?.certificate?.certificateId === certificateId
}

function certificateOf (device: Device): Certificate {
  if (!device.certificate) throw new Error(`a device in ${device.state} has no certificate`)
  return device.certificate
}

function wishOf ({ csr }: Run): { way: 'csr' | 'keys', publicKeyFingerprint: string | undefined } {
  return { way: csr ? 'csr' : 'keys', publicKeyFingerprint: csr?.publicKeyFingerprint }
}

export function fence (run: Held, device: Device): FencedWrite {
  return { device, claimId: run.claimId, now: run.now(), requestId: run.request.requestId }
}
