import { CvmError } from '../errors.ts'
import { makeAwsAgree } from './agreement.ts'
import { CertificateStateConflict, type ControlPlane, LONGEST_CALL_MS } from './control-plane.ts'
import { type Device, type Operation, type PendingOperation, certificateIdOf, keysOf, renewalLeftover } from './device.ts'
import type { DeviceRegistry, Fulfilment } from './device-registry.ts'
import { fulfilmentOf } from './lifecycle.ts'
import type { KeyOwners } from './key-owners.ts'
import type { Renewals } from './renewals.ts'

/** What an operator asks for, and in which request. */
export interface Wish {
  serialNumber: string
  operation: Operation
  actor: string
  role: string
  reason: string
  /** For `revoke`: blocks the device's keys for good. */
  keyCompromised?: boolean
  requestId: string
  /** Only while the device is at this revision. */
  revision?: number
}

/** The device as it is after that; for `reset` with its new token, which nobody can learn later. */
export interface Operated { device: Device, registrationToken?: string }

export interface OperateDeps {
  registry: DeviceRegistry
  renewals: Pick<Renewals, 'commit'>
  keyOwners: Pick<KeyOwners, 'block'>
  controlPlane: ControlPlane
  now: () => number
  deadline: () => AbortSignal
  claimLifetimeMs: number
}

const NO_KEY = 'no key of the device is known that could be blocked; revoke it without keyCompromised'

/** How often a device may change under an operator's hands before they are told to try again. */
const TRIES = 5

/**
 * Carries out an operator's wish: written down first, then done in AWS IoT, then in the registry, so that a crash between any two
 * is finished by reconcile. The same wish again is fulfilled already and changes nothing, but for `reset`, which gives a new token. With
 * `keyCompromised` the device's keys are blocked before anything else, also where the device is REVOKED already.
 *
 * With a `revision` (If-Match), only for the device as it was seen: any change since then refuses the wish, also where it is fulfilled
 * already. RFC 9110 section 13.1.1 would allow success there; an operator who asks for a condition wants to know that it does not hold.
 * Raises `CvmError`: `device-not-found`, `state-conflict`, `precondition-failed`, or what the ports raise.
 */
export async function operate (
  serialNumber: string, pending: PendingOperation, requestId: string, deps: OperateDeps, revision?: number
): Promise<Device> {
  const device = await deps.registry.find(serialNumber)
  if (!device) throw new CvmError('device-not-found')
  if (revision !== undefined && device.revision !== revision) throw new CvmError('precondition-failed')
  if (pending.keyCompromised && keysOf(device).length === 0) throw new CvmError('state-conflict', { detail: NO_KEY })
  if (!fulfilmentOf(device, pending.operation)) {
    await blockKeys(device, pending, deps)
    return device
  }
  const expiresAt = deps.now() + deps.claimLifetimeMs
  const intended = await deps.registry.intend(device, pending, { expiresAt, ...(revision !== undefined && { revision }) })
  if (!intended.device) throw new CvmError('device-not-found')
  // A write that is repeated because its answer was lost finds its own wish, at a later revision.
  if (!intended.applied && intended.device.pending?.operationId !== pending.operationId) throw new CvmError('precondition-failed')
  return fulfil(intended.device, requestId, deps)
}

/** Disables a device that is still at the revision seen, because AWS IoT says so of its certificate. Throws as {@link operate}. */
export function pause (
  { serialNumber, revision }: Device, requestId: string, deps: OperateDeps & { newOperationId: () => string }
): Promise<Device> {
  const pending = { operation: 'disable', operationId: deps.newOperationId(), actor: 'reconcile', reason: 'AWS IoT says INACTIVE' } as const
  return operate(serialNumber, pending, requestId, deps, revision)
}

/** Does what was written down, until the registry agrees; also for reconcile, after a crash. */
export async function fulfil (seen: Device, requestId: string, deps: OperateDeps): Promise<Device> {
  let device = seen
  for (let tries = 0; tries < TRIES; tries++) {
    const { pending } = device
    if (!pending || pending.operationId !== seen.pending?.operationId) return overtaken(seen, device, deps)
    await blockKeys(device, pending, deps)
    if (device.renewal?.phase === 'swapping') {
      // Cut off by the wish: the registry goes on to the new certificate, and what is wished is done to that one.
      const swapped = await deps.renewals.commit(device, true, { now: deps.now(), requestId })
      if (!swapped.device) throw new CvmError('device-not-found')
      device = swapped.device
      continue
    }
    const { wished, refusal } = wishOf(device, pending)
    const change = await changeAws(device, wished, deps)
    const { tokenHash, tokenExpiresAt } = pending
    const token = { ...(tokenHash && { tokenHash }), ...(tokenExpiresAt && { tokenExpiresAt }) }
    const fulfilment = { ...change, ...token, ...recheck(device, change, deps) }
    const result = await deps.registry.fulfil(device, fulfilment, { now: deps.now(), requestId })
    if (!result.device) throw new CvmError('device-not-found')
    if (result.applied && refusal) throw refusal
    if (result.applied) return result.device
    device = result.device
  }
  throw new CvmError('vend-in-progress', { detail: 'the device keeps changing', retryAfterMs: 2_000 })
}

/** Idempotent: each try blocks what the device has by then. */
async function blockKeys (device: Device, { keyCompromised }: PendingOperation, { keyOwners, now }: OperateDeps): Promise<void> {
  if (keyCompromised) await Promise.all(keysOf(device).map(key => keyOwners.block(key, device.serialNumber, now())))
}

/**
 * A status that can change again may be changed by a call from before this write: one that was given up and is carried out late, or one
 * of a worker that was stopped meanwhile. REVOKED is final, and the registry says so only after AWS IoT does.
 */
function recheck (device: Device, { to, retiresCertificate }: Fulfilment, { now, claimLifetimeMs }: OperateDeps): Pick<Fulfilment, 'recheckAt'> {
  const isFinal = !['DISABLED', 'ACTIVE', 'ISSUED'].includes(to) || retiresCertificate || certificateIdOf(device) === undefined
  return isFinal ? {} : { recheckAt: now() + claimLifetimeMs + LONGEST_CALL_MS }
}

/** What was wished for, or nothing where it is so already or where the state has come to refuse it since it was written down. */
function wishOf (device: Device, { operation }: PendingOperation): { wished: Fulfilment, refusal?: CvmError } {
  const { state, stateBefore } = device
  // What a disabled device goes back to stays: another request may have disabled it since this wish was looked at.
  const nothing = { to: state, retiresCertificate: false, ...(stateBefore && { stateBefore }) }
  try {
    return { wished: fulfilmentOf(device, operation) ?? nothing }
  } catch (cause) {
    if (!(cause instanceof CvmError)) throw cause
    return { wished: nothing, refusal: cause }
  }
}

/** Somebody else has fulfilled it, or wished for something else since: what we did in AWS IoT meanwhile must not stand. */
async function overtaken (seen: Device, now: Device, { controlPlane, deadline }: OperateDeps): Promise<Device> {
  if (seen.certificate) await makeAwsAgree(seen.certificate.certificateId, now, controlPlane, deadline())
  return now
}

/**
 * AWS IoT first: what the registry is about to say must be true there already. What is revoked there stays so, whatever was wished: then
 * that is what the registry will say.
 */
async function changeAws (device: Device, wished: Fulfilment, { controlPlane, deadline }: OperateDeps): Promise<Fulfilment> {
  // What was replaced may still be ACTIVE where its replacement was cut short.
  await Promise.all([...device.retiring, ...renewalLeftover(device)].map(retired => controlPlane.revoke(retired, deadline())))
  const certificateId = certificateIdOf(device)
  if (!certificateId) return wished
  try {
    if (wished.retiresCertificate || wished.to === 'REVOKED') await controlPlane.revoke(certificateId, deadline())
    else if (wished.to === 'DISABLED') await controlPlane.deactivate(certificateId, deadline())
    else if (wished.to === 'ACTIVE' && device.state === 'DISABLED') await controlPlane.activate(certificateId, deadline())
    return wished
  } catch (cause) {
    if (!(cause instanceof CertificateStateConflict)) throw cause
    return { to: 'REVOKED', event: 'revoked', retiresCertificate: false }
  }
}
