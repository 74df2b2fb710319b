import { CvmError } from '../errors.ts'
import { type Certificate, type Device, type DeviceState, type Operation, type VendWay, isAdopted } from './device.ts'
import type { Fulfilment } from './device-registry.ts'
import { type Products, notConfigured, timesOf } from './product.ts'

/** What a vend request wants, once its token is known to be right. */
export interface Wish {
  way: VendWay
  publicKeyFingerprint: string | undefined
}

/**
 * What an operator's wish makes of a device in its state; `undefined` when it is so already. Raises `CvmError('state-conflict')`
 * where the state does not allow it.
 */
export function fulfilmentOf (device: Device, operation: Operation): Fulfilment | undefined {
  const { state, stateBefore = stateByCertificate(device) } = device
  if (state === 'DECOMMISSIONED' && operation !== 'decommission') throw conflict(state, operation)
  switch (operation) {
    case 'decommission': return state === 'DECOMMISSIONED' ? undefined : { to: 'DECOMMISSIONED', event: 'decommissioned', retiresCertificate: true }
    case 'reset': return { to: 'REGISTERED', event: 'reset', retiresCertificate: true }
    case 'revoke': return state === 'REVOKED' ? undefined : { to: 'REVOKED', event: 'revoked', retiresCertificate: false }
    case 'disable':
      if (state === 'REVOKED') throw conflict(state, operation)
      // A claim ends with being disabled, so what it was taken from is what the device goes back to.
      return state === 'DISABLED'
        ? undefined
        : { to: 'DISABLED', event: 'disabled', retiresCertificate: false, stateBefore: state === 'ISSUING' ? 'REGISTERED' : state }
    case 'enable':
      if (state === 'REVOKED') throw conflict(state, operation)
      return state === 'DISABLED' ? { to: stateBefore, event: 'enabled', retiresCertificate: false } : undefined
  }
}

/** What a device was that is disabled, where its row does not say: never free for another certificate while it has one. */
function stateByCertificate ({ certificate, committedAt }: Device): DeviceState {
  if (!certificate) return 'REGISTERED'
  return committedAt === undefined ? 'ISSUED' : 'ACTIVE'
}

function conflict (state: DeviceState, operation: Operation): CvmError {
  return new CvmError('state-conflict', { detail: `a device that is ${state} cannot be changed by ${operation}` })
}

/** What to do about a device that could not be claimed. */
export type Decision =
  | { kind: 'replay', certificate: Certificate }
  | { kind: 'resume' }
  | { kind: 'supersede' }
  | { kind: 'revend' }
  | Refusal

interface Refusal { kind: 'refuse', error: CvmError }

/** When it is decided, and what each product that refuses the request says to it. */
interface Circumstances { now: number, products: Products, refusals: ReadonlyMap<string, CvmError> }

/** A claim is usually given back long before it expires, so that callers are told to look again sooner. */
const LOOK_AGAIN_MS = 2_000

/**
 * The pure half of the state machine (DESIGN section 4): what a request with the right token gets from a device in a state
 * that the claim's condition did not accept. Never reached with a wrong token, so it may speak plainly (G7).
 */
export function decide (device: Device, wish: Wish, circumstances: Circumstances): Decision {
  const { now } = circumstances
  switch (device.state) {
    case 'REVOKED': return refuse('device-revoked')
    case 'DISABLED': return refuse('device-disabled')
    case 'DECOMMISSIONED': return refuse('device-decommissioned')
    case 'ACTIVE': return decideActive(device, wish, circumstances)
    case 'ISSUED': return decideIssued(device, wish, circumstances)
    case 'ISSUING':
    case 'REGISTERED': return isHeld(device, now) ? inProgress(device, now) : decideFree(device, circumstances)
  }
}

/**
 * What becomes of a certificate that was made elsewhere and whose device could not be claimed. What a device has or is being given
 * is never displaced: a reset makes room.
 */
export function decideAdoption (device: Device, certificateId: string, circumstances: Circumstances): Exclude<Decision, { kind: 'supersede' | 'revend' }> {
  const { now } = circumstances
  const { certificate, state } = device
  const isSame = certificate?.certificateId === certificateId
  switch (state) {
    case 'REVOKED': return refuse('device-revoked')
    case 'DISABLED': return refuse('device-disabled')
    case 'DECOMMISSIONED': return refuse('device-decommissioned')
    case 'ACTIVE': return isSame ? { kind: 'replay', certificate } : refuse('already-vended')
    case 'ISSUED': return isSame && !isHeld(device, now) ? { kind: 'resume' } : inProgress(device, now)
    case 'ISSUING':
    case 'REGISTERED': return isHeld(device, now) ? inProgress(device, now) : refuseByProduct(device, circumstances) ?? inProgress(device, now)
  }
}

/**
 * What a request with the right token would get now, for a dry run: `vend` or `replay`. Raises the `CvmError` that it would be refused
 * with. Does not know the keys of vends that were begun before their token expired, so it calls those refused.
 */
export function foresee (device: Device, wish: Wish, circumstances: Circumstances): 'vend' | 'replay' {
  const { now } = circumstances
  const isFree = ['REGISTERED', 'ISSUING'].includes(device.state) && !isHeld(device, now) && !hasExpired(device, now)
  const decision = isFree ? refuseByProduct(device, circumstances) : decide(device, wish, circumstances)
  if (decision?.kind === 'refuse') throw decision.error
  return decision?.kind === 'replay' ? 'replay' : 'vend'
}

/** Free, yet refused by the claim: by its token's age, by its product, or because it became free between the write and the look at it. */
function decideFree (device: Device, circumstances: Circumstances): Decision {
  const { now } = circumstances
  return hasExpired(device, now) ? refuse('device-not-authorized') : refuseByProduct(device, circumstances) ?? inProgress(device, now)
}

/** What was recorded is finished, whatever its product has come to refuse since; another key must be one that the product takes. */
function decideIssued (device: Device, wish: Wish, circumstances: Circumstances): Decision {
  const { now, products } = circumstances
  if (isHeld(device, now)) return inProgress(device, now)
  if (isSameKey(device.certificate, wish) && products.has(device.product)) return { kind: 'resume' }
  // Its device has had it all along, and whoever named it wants it to be finished: reconcile does.
  if (device.certificate && isAdopted(device.certificate.way)) return inProgress(device, now)
  return hasExpired(device, now) ? refuse('device-not-authorized') : refuseByProduct(device, circumstances) ?? { kind: 'supersede' }
}

function decideActive (device: Device, wish: Wish, circumstances: Circumstances): Decision {
  const { now, products } = circumstances
  const { certificate, committedAt = 0 } = device
  const isSame = isSameKey(certificate, wish)
  if (certificate && isSame && committedAt >= now - timesOf(device.product, products).replayWindowMs) return { kind: 'replay', certificate }
  const graceMs = products.get(device.product)?.reVendGraceMs ?? 0
  // Without a grace nothing is vended anew, also for a request that was on its way, with an older clock, when another one was served.
  const isOurs = certificate !== undefined && !isAdopted(certificate.way)
  const isInGrace = graceMs > 0 && isOurs && !isSame && committedAt + graceMs > now && !hasExpired(device, now)
  if (isInGrace) return refuseByProduct(device, circumstances) ?? { kind: 'revend' }
  return refuse(certificate?.way === 'keys' && wish.way === 'keys' ? 'key-not-recoverable' : 'already-vended')
}

function refuseByProduct ({ product }: Device, { products, refusals }: Circumstances): Refusal | undefined {
  const error = refusals.get(product) ?? (products.has(product) ? undefined : notConfigured(product))
  return error && { kind: 'refuse', error }
}

function isSameKey (certificate: Certificate | undefined, wish: Wish): boolean {
  return wish.publicKeyFingerprint !== undefined && certificate?.publicKeyFingerprint === wish.publicKeyFingerprint
}

function hasExpired (device: Device, now: number): boolean {
  return device.tokenExpiresAt !== undefined && device.tokenExpiresAt <= now
}

function isHeld (device: Device, now: number): boolean {
  return device.claim !== undefined && device.claim.claimExpiresAt > now
}

function inProgress (device: Device, now: number): Refusal {
  const leftMs = Math.max((device.claim?.claimExpiresAt ?? 0) - now, 1)
  return { kind: 'refuse', error: new CvmError('vend-in-progress', { retryAfterMs: Math.min(leftMs, LOOK_AGAIN_MS) }) }
}

function refuse (code: 'device-revoked' | 'device-disabled' | 'device-decommissioned' | 'device-not-authorized' |
'already-vended' | 'key-not-recoverable'): Refusal {
  return { kind: 'refuse', error: new CvmError(code) }
}
