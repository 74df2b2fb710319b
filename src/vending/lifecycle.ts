import { CvmError } from '../errors.ts'
import type { Certificate, Device, DeviceState, Operation, Way } from './device.ts'
import type { Fulfilment } from './device-registry.ts'

/** What a vend request wants, once its token is known to be right. */
export interface Wish {
  way: Way
  publicKeyFingerprint: string | undefined
}

/**
 * What an operator's wish makes of a device in its state; `undefined` when it is so already. Raises `CvmError('state-conflict')`
 * where the state does not allow it.
 */
export function fulfilmentOf (device: Device, operation: Operation): Fulfilment | undefined {
  const { state, stateBefore = 'REGISTERED' } = device
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

function conflict (state: DeviceState, operation: Operation): CvmError {
  return new CvmError('state-conflict', { detail: `a device that is ${state} cannot be changed by ${operation}` })
}

/** What to do about a device that could not be claimed. */
export type Decision =
  | { kind: 'replay', certificate: Certificate }
  | { kind: 'resume' }
  | { kind: 'supersede' }
  | { kind: 'refuse', error: CvmError }

interface Moment { now: number, replayWindowMs: number }

/** A claim is usually given back long before it expires, so that callers are told to look again sooner. */
const LOOK_AGAIN_MS = 2_000

/**
 * The pure half of the state machine (DESIGN section 4): what a request with the right token gets from a device in a state
 * that the claim's condition did not accept. Never reached with a wrong token, so it may speak plainly (G7).
 */
export function decide (device: Device, wish: Wish, { now, replayWindowMs }: Moment): Decision {
  switch (device.state) {
    case 'REVOKED': return refuse('device-revoked')
    case 'DISABLED': return refuse('device-disabled')
    case 'DECOMMISSIONED': return refuse('device-decommissioned')
    case 'ACTIVE': return decideActive(device, wish, now - replayWindowMs)
    case 'ISSUED': return decideIssued(device, wish, now)
    case 'ISSUING':
    case 'REGISTERED': return isHeld(device, now) ? inProgress(device, now) : decideFree(device, now)
  }
}

/** Free, yet refused by the claim: its token has expired, or it became free between the write and the look at it. */
function decideFree (device: Device, now: number): Decision {
  return hasExpired(device, now) ? refuse('device-not-authorized') : inProgress(device, now)
}

function decideIssued (device: Device, wish: Wish, now: number): Decision {
  if (isHeld(device, now)) return inProgress(device, now)
  if (isSameKey(device.certificate, wish)) return { kind: 'resume' }
  return hasExpired(device, now) ? refuse('device-not-authorized') : { kind: 'supersede' }
}

function decideActive (device: Device, wish: Wish, replayableSince: number): Decision {
  const { certificate, committedAt = 0 } = device
  if (certificate?.way === 'keys' && wish.way === 'keys') return refuse('key-not-recoverable')
  if (!certificate || !isSameKey(certificate, wish) || committedAt < replayableSince) return refuse('already-vended')
  return { kind: 'replay', certificate }
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

function inProgress (device: Device, now: number): Decision {
  const leftMs = Math.max((device.claim?.claimExpiresAt ?? 0) - now, 1)
  return { kind: 'refuse', error: new CvmError('vend-in-progress', { retryAfterMs: Math.min(leftMs, LOOK_AGAIN_MS) }) }
}

function refuse (code: 'device-revoked' | 'device-disabled' | 'device-decommissioned' | 'device-not-authorized' |
'already-vended' | 'key-not-recoverable'): Decision {
  return { kind: 'refuse', error: new CvmError(code) }
}
