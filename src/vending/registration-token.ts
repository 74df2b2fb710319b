import { createHmac, createSecretKey, timingSafeEqual } from 'node:crypto'
import { CvmError } from '../errors.ts'
import type { Device } from './device.ts'

/** Turns a registration token into what is stored and compared. */
export type TokenHasher = (serialNumber: string, token: string) => string

/**
 * Keyed hash of a registration token: HMAC-SHA-256 with the pepper over serial number and token, so that a copy of the table
 * neither reveals tokens nor lets one device's hash be used for another.
 */
export function tokenHasher (pepper: Buffer): TokenHasher {
  const key = createSecretKey(pepper)
  return (serialNumber, token) => createHmac('sha256', key).update(`${serialNumber}\0${token}`).digest('base64url')
}

/** Raises `CvmError('weak-token')` for a token that could be guessed, or that would not survive a terminal or a header. */
export function refuseWeak (token: string): void {
  if (isWeak(token)) throw new CvmError('weak-token')
}

/** Whether a token could be guessed, or would not survive a terminal or a header. */
export function isWeak (token: string): boolean {
  return !/^[!-~]{16,256}$/.test(token) || new Set(token).size < 8
}

/** Whether the token presented, given by its hash, is the device's; in constant time for a given kind of row. */
export function tokenMatches (device: Pick<Device, 'serialNumber' | 'tokenHash' | 'legacyToken'>, presentedHash: string, hash: TokenHasher): boolean {
  const expected = device.tokenHash ?? (device.legacyToken && hash(device.serialNumber, device.legacyToken))
  if (!expected || expected.length !== presentedHash.length) return false
  return timingSafeEqual(Buffer.from(expected), Buffer.from(presentedHash))
}
