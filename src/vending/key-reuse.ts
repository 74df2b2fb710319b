import { CvmError } from '../errors.ts'
import type { Device, DeviceEvent } from './device.ts'
import type { DeviceRegistry } from './device-registry.ts'
import type { KeyOwners, OwnedKey } from './key-owners.ts'
import { type Products, productOf } from './product.ts'
import { CLOCK_SKEW_MS } from './reconcile-run.ts'

/** A device that asked for a certificate for a key that is another device's, or compromised. */
export interface KeyReuse {
  code: 'key-in-use' | 'key-compromised'
  /** False where the product only warns. */
  isRefused: boolean
  serialNumber: string
  product: string
  /** The device whose key it is. */
  keyOwner: string
  requestId: string
}

export interface KeyReuseDeps {
  registry: Pick<DeviceRegistry, 'find'>
  keyOwners: KeyOwners
  products: Products
  now: () => number
  /** Told of each reuse; for audit records and metrics. */
  onKeyReuse: (reuse: KeyReuse) => void
}

/** A device that has shown who it is, and the key that it asks to have certified. */
interface KeyUse {
  device: Pick<Device, 'serialNumber' | 'product'>
  publicKeyFingerprint: string
  requestId: string
  /** Whether the certificate is held: otherwise reconcile may take it for one that an attempt of the key's owner left. */
  isHeld?: boolean
}

/** What the history of a device has in it that may have had a certificate. */
const EVIDENCE: ReadonlySet<DeviceEvent> = new Set(['issued', 'adopted', 'activated', 'renewal-issued', 'renewed', 'migrated', 'disposed'])

/**
 * Makes a key the device's, in one conditional write, before AWS IoT is asked to certify it. The caller has authenticated the device, so
 * that a request without a valid proof cannot take a key; a crash afterwards costs nothing, because the key is the device's own. A key of
 * a device that never had a certificate and that no worker holds is given on: a CSR that was sent for the wrong device is not lost.
 * Throws `CvmError`: `key-compromised`, also where the product warns only; `key-in-use`; `product-not-configured`; what the ports throw.
 */
export async function takeKey (use: KeyUse, deps: KeyReuseDeps): Promise<void> {
  const { device: { serialNumber, product }, publicKeyFingerprint, requestId } = use
  const { keyOwners, products, now, onKeyReuse } = deps
  let taking = await keyOwners.take(publicKeyFingerprint, serialNumber, now())
  if (!taking.taken && await isAbandoned(taking.key, use, deps)) {
    taking = await keyOwners.take(publicKeyFingerprint, serialNumber, now(), taking.key)
  }
  if (taking.taken) return
  const { code, isRefused } = verdictOn(taking.key, product, products)
  onKeyReuse({ code, isRefused, serialNumber, product, keyOwner: taking.key.serialNumber, requestId })
  if (isRefused) throw new CvmError(code)
}

/** Throws what {@link takeKey} would, from a look at the key: nothing is written. */
export async function lookAtKey (
  use: Omit<KeyUse, 'requestId'>, deps: Pick<KeyReuseDeps, 'registry' | 'products' | 'now'> & { keyOwners: Pick<KeyOwners, 'find'> }
): Promise<void> {
  const { device: { serialNumber, product }, publicKeyFingerprint } = use
  const key = await deps.keyOwners.find(publicKeyFingerprint)
  if (!key || (key.serialNumber === serialNumber && !key.isCompromised) || await isAbandoned(key, use, deps)) return
  const { code, isRefused } = verdictOn(key, product, deps.products)
  if (isRefused) throw new CvmError(code)
}

function verdictOn ({ isCompromised }: OwnedKey, product: string, products: Products): Pick<KeyReuse, 'code' | 'isRefused'> {
  if (isCompromised) return { code: 'key-compromised', isRefused: true }
  return { code: 'key-in-use', isRefused: productOf({ product }, products).keyReuse === 'refuse' }
}

/**
 * Whether no certificate for the key can have come of what its owner asked for: by the owner's row it has never had one, and its last
 * claim is over by any clock. A later claim takes the key again first, which the write that gives the key on would see.
 */
async function isAbandoned (key: OwnedKey, { isHeld }: Pick<KeyUse, 'isHeld'>, { registry, now }: Pick<KeyReuseDeps, 'registry' | 'now'>): Promise<boolean> {
  if (key.isCompromised) return false
  const owner = await registry.find(key.serialNumber)
  if (!owner || owner.history[0]?.event !== 'registered' || owner.history.some(({ event }) => EVIDENCE.has(event))) return false
  // Once no claim is left, reconcile may have put the time off when it looks for orphans next.
  const claimExpiresAt = Math.min(owner.lastClaimExpiresAt ?? 0, owner.suspicion?.until ?? Infinity)
  const isOver = claimExpiresAt + CLOCK_SKEW_MS <= now()
  return isOver && owner.retiring.length === 0 && (isHeld === true || owner.suspicion === undefined)
}
