import { CvmError } from '../errors.ts'
import { makeAwsAgree } from './agreement.ts'
import { bindCertificate } from './bind-certificate.ts'
import { CertificateStateConflict, type ControlPlane } from './control-plane.ts'
import type { Certificate, Device } from './device.ts'
import type { DeviceRegistry } from './device-registry.ts'
import type { Products } from './product.ts'
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
 * Throws `CvmError`: `renewal-gone` where AWS IoT has ended the new certificate and the registry has given the renewal up, the refusals
 * of {@link mustBeActive}, or what the ports throw.
 */
export async function swap (seen: Device, requestId: string, deps: SwapDeps): Promise<Device> {
  const { renewals, controlPlane } = deps
  const signal = deps.deadline()
  const author = () => ({ now: deps.now(), requestId })
  const certificate = newOf(seen)
  const prepared = seen.renewal?.phase === 'issued' ? await prepare(seen, requestId, signal, deps) : seen
  if (prepared.certificate?.certificateId === certificate.certificateId) return prepared
  const device = await intend(prepared, certificate, requestId, deps)
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

/**
 * Binds the new certificate; the device as it is then. An ACTIVE certificate is bound too: another worker has promoted it since the row
 * was read, or an operator activated it past this service; the device holds its key.
 */
async function prepare (device: Device, requestId: string, signal: AbortSignal, deps: SwapDeps): Promise<Device> {
  const certificate = newOf(device)
  const known = await deps.controlPlane.describe(certificate.certificateId, signal)
  if (known?.status !== 'INACTIVE' && known?.status !== 'ACTIVE') {
    const status = known ? `the new certificate is ${known.status} in AWS IoT` : 'AWS IoT does not have the new certificate any more'
    return await giveUp(device, `The renewal was given up, because ${status}. The certificate before it is in force.`, requestId, deps)
  }
  await bindCertificate(device, certificate, deps, signal)
  return device
}

/**
 * Gives a renewal up that can no longer be confirmed. Answers with the device where another worker has promoted the new certificate or has
 * written the intent to: the registry decides, so that a device is never told to drop a certificate that is or will be in force.
 * Throws `CvmError`: `renewal-gone` once the registry has no such renewal; else as {@link changed}.
 */
export async function giveUp (device: Device, detail: string, requestId: string, { renewals, now }: SwapDeps): Promise<Device> {
  const { certificateId } = newOf(device)
  const { applied, device: then } = await renewals.abandon(device, { now: now(), requestId })
  if (applied) throw new CvmError('renewal-gone', { detail })
  const isPromoted = then?.certificate?.certificateId === certificateId
  const isPromoting = then?.renewal?.phase === 'swapping' && then.renewal.certificate?.certificateId === certificateId
  if (then && then.state === 'ACTIVE' && (isPromoted || isPromoting)) return then
  throw changed(then)
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
