import { CvmError } from '../errors.ts'
import { makeAwsAgree } from './agreement.ts'
import { CertificateStateConflict, type ControlPlane } from './control-plane.ts'
import type { Certificate, Device } from './device.ts'
import type { DeviceRegistry } from './device-registry.ts'
import { type Products, productOf } from './product.ts'
import type { Renewals } from './renewals.ts'

export interface SwapDeps {
  registry: Pick<DeviceRegistry, 'find'>
  renewals: Renewals
  controlPlane: ControlPlane
  products: Products
  /** Epoch milliseconds. */
  now: () => number
  /** A signal that aborts when a request has had its time, which must be shorter than a claim lives. */
  deadline: () => AbortSignal
  claimLifetimeMs: number
}

/** How often a device may change under a worker's hands before it is told to come again. */
const TRIES = 5

/**
 * Puts the certificate of a renewal in the place of the device's: all that may fail first, while the working one works; then the intent;
 * then the one before REVOKED and the new one ACTIVE, never both ACTIVE; then the registry. From the intent on it is only ever finished,
 * by whoever comes: the device's request again, another replica, reconcile. The device as it is then.
 * Raises `CvmError`: `renewal-gone` where AWS IoT has the new certificate no more, the refusals of {@link mustBeActive}, or what the
 * ports raise.
 */
export async function swap (seen: Device, requestId: string, deps: SwapDeps): Promise<Device> {
  const { renewals, controlPlane } = deps
  const signal = deps.deadline()
  const author = () => ({ now: deps.now(), requestId })
  const certificate = newOf(seen)
  if (seen.renewal?.phase === 'issued') await prepare(seen, requestId, signal, deps)
  const device = await intend(seen, certificate, requestId, deps)
  if (device.certificate?.certificateId === certificate.certificateId) return device
  await Promise.all(endings(device).map(id => controlPlane.revoke(id, signal)))
  const isUsable = await activate(certificate, signal, controlPlane)
  const result = await renewals.commit(device, false, author())
  const now = result.device
  if (!isUsable) throw new CvmError('renewal-gone')
  if (now?.state === 'ACTIVE' && now.certificate?.certificateId === certificate.certificateId) return now
  await makeAwsAgree(certificate.certificateId, now, controlPlane, deps.deadline())
  throw changed(now)
}

/** Refuses a device that may not renew in its state, or that is in somebody's hands. */
export function mustBeActive ({ state, pending }: Device): void {
  if (state === 'REVOKED') throw new CvmError('device-revoked')
  if (state === 'DISABLED') throw new CvmError('device-disabled')
  if (state === 'DECOMMISSIONED') throw new CvmError('device-decommissioned')
  if (state !== 'ACTIVE' || pending) throw new CvmError('vend-in-progress', { retryAfterMs: 1_000 })
}

/** What a device whose row came between is told. */
export function changed (now: Device | undefined): CvmError {
  try {
    if (now) mustBeActive(now)
  } catch (cause) {
    return cause as CvmError
  }
  return new CvmError('vend-in-progress', { retryAfterMs: 1_000 })
}

/** What must be REVOKED before the new certificate may be ACTIVE. */
function endings ({ certificate, retiring }: Device): string[] {
  return [...certificate ? [certificate.certificateId] : [], ...retiring]
}

async function prepare (device: Device, requestId: string, signal: AbortSignal, deps: SwapDeps): Promise<void> {
  const { renewals, controlPlane, products, now } = deps
  const { certificateId, certificateArn, thingName } = newOf(device)
  const { policyName } = productOf(device, products)
  const known = await controlPlane.describe(certificateId, signal)
  if (known?.status !== 'INACTIVE') {
    await renewals.abandon(device, { now: now(), requestId })
    throw new CvmError('renewal-gone', { detail: 'AWS IoT has the new certificate no more' })
  }
  await controlPlane.bind(certificateArn, { thingName, policyName }, signal)
}

/** Writes the intent down, or finds that somebody has swapped. Another who writes it as well hinders nobody. */
async function intend (seen: Device, { certificateId }: Certificate, requestId: string, deps: SwapDeps): Promise<Device> {
  const { renewals, now, claimLifetimeMs } = deps
  let device = seen
  for (let tries = 0; tries < TRIES; tries++) {
    const result = await renewals.swap(device, now() + claimLifetimeMs, { now: now(), requestId })
    if (result.applied) return result.device
    const isDone = result.device?.state === 'ACTIVE' && result.device.certificate?.certificateId === certificateId
    if (isDone) return result.device as Device
    const isStillIts = result.device?.renewal?.certificate?.certificateId === certificateId
    if (!result.device || result.device.pending || !isStillIts) throw changed(result.device)
    device = result.device
  }
  throw changed(device)
}

/** False where AWS IoT has ended the certificate since it was looked at; then that is what the registry will say. */
async function activate ({ certificateId }: Certificate, signal: AbortSignal, controlPlane: ControlPlane): Promise<boolean> {
  try {
    await controlPlane.activate(certificateId, signal)
    return true
  } catch (cause) {
    if (!(cause instanceof CertificateStateConflict)) throw cause
    return false
  }
}

function newOf ({ renewal }: Device): Certificate {
  if (!renewal?.certificate) throw new Error('a swap without a new certificate')
  return renewal.certificate
}
