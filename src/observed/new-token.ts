import { randomBytes } from 'node:crypto'

/** A registration token of 256 random bits. */
export function newToken (): string {
  return randomBytes(32).toString('base64url')
}
