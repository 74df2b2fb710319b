import { CvmError } from '../errors.ts'
import { DEFAULT_PRODUCT, type Device } from './device.ts'
import type { DeviceRegistry } from './device-registry.ts'
import { type Products, hasRoomFor } from './product.ts'
import { type TokenHasher, refuseWeak, tokenMatches } from './registration-token.ts'

/** A device that somebody wants registered. */
export interface Registration {
  serialNumber: string
  /** Its product; `default` where it is not named. */
  product?: string
  /** Its token; made here where it is not given. */
  registrationToken?: string
  /** Epoch milliseconds after which its token may not start a vend. */
  tokenExpiresAt?: number
}

export interface Registered {
  /** `unchanged` when it stood there exactly so. */
  outcome: 'registered' | 'unchanged'
  device: Device
  /** The token that was made; there is no other way to learn it. */
  registrationToken?: string
}

export interface RegisterDeps {
  registry: Pick<DeviceRegistry, 'register'>
  hashToken: TokenHasher
  /** A token of 256 random bits. */
  newToken: () => string
  products: Products
  now: () => number
}

/**
 * Adds a device. The same again, with the token given and the device not yet vended, changes nothing, so that a caller who gives tokens
 * may repeat after a lost answer. Raises `CvmError`: `unknown-product`, `thing-name-too-long`, `weak-token`, `invalid-request` for an
 * expiry that is not in the future, `device-exists` for any other device with this serial number, `registry-unavailable`.
 */
export async function register (
  registration: Registration, author: { requestId: string, actor: string }, deps: RegisterDeps
): Promise<Registered> {
  const { registry, hashToken, newToken, products, now } = deps
  const { serialNumber, product = DEFAULT_PRODUCT, registrationToken: given, tokenExpiresAt } = registration
  const kind = products.get(product)
  if (!kind) throw new CvmError('unknown-product')
  if (!hasRoomFor(kind, serialNumber)) throw new CvmError('thing-name-too-long')
  if (given !== undefined) refuseWeak(given)
  if (tokenExpiresAt !== undefined && !(tokenExpiresAt > now())) throw new CvmError('invalid-request', { detail: 'tokenExpiresAt is not in the future' })

  const token = given ?? newToken()
  const tokenHash = hashToken(serialNumber, token)
  const { applied, device } = await registry.register({ serialNumber, product, tokenHash, tokenExpiresAt }, { ...author, now: now() })
  const isSame = device?.state === 'REGISTERED' && device.product === product && device.tokenExpiresAt === tokenExpiresAt &&
    tokenMatches(device, tokenHash, hashToken)
  if (!device || (!applied && !isSame)) throw new CvmError('device-exists')
  if (given !== undefined) return { outcome: applied ? 'registered' : 'unchanged', device }
  // Nobody else knows this token, so a device that has it was written by us, in an attempt whose answer was lost.
  return { outcome: 'registered', device, registrationToken: token }
}
