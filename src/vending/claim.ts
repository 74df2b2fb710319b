import { CvmError } from '../errors.ts'
import type { Certificate, Device } from './device.ts'
import type { ClaimRequest, DeviceRegistry, WriteResult } from './device-registry.ts'
import { decide } from './lifecycle.ts'
import type { Products } from './product.ts'
import { type TokenHasher, tokenMatches } from './registration-token.ts'
import { UnreadableDevice } from './unreadable-device.ts'

/** The right to vend is ours, or the answer was there already. */
export type Claimed =
  | { kind: 'claimed' | 'resumed', device: Device }
  | { kind: 'replay', device: Device, certificate: Certificate }

interface ClaimDeps {
  registry: DeviceRegistry
  hashToken: TokenHasher
  products: Products
  /** What each product that refuses the request says to it. */
  refusals: ReadonlyMap<string, CvmError>
  /** Makes the key asked for the device's. Throws `CvmError` where it is another device's or compromised. */
  ownKey: (device: Device) => Promise<void>
  /** Told that there is such a device, before anything is refused; for audit records, never for the caller. */
  onKnown?: () => void
}

/**
 * Takes the claim on a device in one conditional write, or learns from the row that was in the way what to do instead.
 *
 * Unknown device, wrong token and expired token are refused alike with `device-not-authorized`, after the same work (G7);
 * every other refusal is only told to who holds the token. Nothing is written for a request that the device's product refuses. A claim
 * that replaces or finishes a certificate is taken after the key, so that a refused key leaves the certificate as it is; the caller takes
 * the key after any other claim.
 */
export async function claim (request: ClaimRequest, deps: ClaimDeps): Promise<Claimed> {
  const { registry, hashToken, products, refusals } = deps
  const result = await claimOrLook(request, deps).catch((cause: unknown) => {
    // Whoever does not hold the token must not learn that there is such a row (G7).
    const isStranger = cause instanceof UnreadableDevice && !tokenMatches(cause.proofs, request.tokenHash, hashToken)
    throw isStranger ? new CvmError('device-not-authorized', { cause }) : cause
  })
  if (result.device) deps.onKnown?.()
  if (holds(result, request.claimId)) return { kind: 'claimed', device: result.device }

  const { device } = result
  if (!device || !tokenMatches(device, request.tokenHash, hashToken)) throw new CvmError('device-not-authorized')
  const decision = decide(device, request, { now: request.now, products, refusals })
  if (['resume', 'supersede', 'revend'].includes(decision.kind)) await deps.ownKey(device)
  switch (decision.kind) {
    case 'refuse': throw decision.error
    case 'replay': return { kind: 'replay', device, certificate: decision.certificate }
    case 'resume': return { kind: 'resumed', device: mustHold(await registry.resume(device, request), request.claimId) }
    case 'supersede': return { kind: 'claimed', device: mustHold(await registry.supersede(device, request), request.claimId) }
    case 'revend': return { kind: 'claimed', device: mustHold(await registry.revend(device, request), request.claimId) }
  }
}

/** A request that every product refuses needs no write to find that out. */
async function claimOrLook (request: ClaimRequest, { registry, products, refusals }: ClaimDeps): Promise<WriteResult> {
  if (refusals.size < products.size) return registry.claim(request)
  return { applied: false, device: await registry.find(request.serialNumber) }
}

/** Whether a write put the device into our hands, now or at a first try whose answer was lost. */
export function holds (result: WriteResult, claimId: string): result is WriteResult & { device: Device } {
  return result.applied || result.device?.claim?.claimId === claimId
}

/** The device that a write has put into our hands. Raises `CvmError('vend-in-progress')` where somebody else was faster. */
export function mustHold (result: WriteResult, claimId: string): Device {
  if (holds(result, claimId)) return result.device
  throw new CvmError('vend-in-progress', { retryAfterMs: 1_000 })
}
