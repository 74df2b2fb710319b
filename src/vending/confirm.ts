import { CvmError } from '../errors.ts'
import type { Renewed, RenewDeps } from './renew.ts'
import { type JwsProof, verifyProof } from './renewal-proof.ts'
import { giveUp, mustBeActive, swap } from './swap.ts'
import { findOrFault } from './unreadable-device.ts'

/** What a device asks for that has stored the certificate of its renewal. */
export interface ConfirmRequest {
  serialNumber: string
  /** By the key of the new certificate. */
  proof: JwsProof
  requestId: string
}

/**
 * Puts a renewal's certificate into force, once the device has shown that it holds key and certificate. Safe to repeat; once it is done,
 * the same again says so. Until the intent is written the certificate before goes on working, whatever fails.
 * Raises `CvmError`: `device-not-authorized` also for a certificate that was given up since, else as `swap` does.
 */
export async function confirm ({ serialNumber, proof, requestId }: ConfirmRequest, deps: RenewDeps): Promise<Renewed> {
  const { device, unreadable } = await findOrFault(deps.registry, serialNumber)
  const rules = { audience: await deps.audience(), now: deps.now(), windowMs: deps.proofWindowMs }
  const known = unreadable?.proofs.certificates ?? [device?.renewal?.certificate, device?.certificate]
  const { certificate, isRepaired } = await verifyProof(proof.jws, known, rules)
  if (isRepaired) deps.onRepair('proof', 'der')
  if (unreadable) throw unreadable
  if (!device) throw new CvmError('device-not-authorized')
  deps.onKnown?.()
  mustBeActive(device)
  const { renewal, product } = device
  if (device.certificate?.certificateId === certificate.certificateId) return { outcome: 'replayed', certificate, product }
  const isLate = renewal?.phase === 'issued' && renewal.expiresAt <= deps.now()
  const then = isLate ? await giveUp(device, 'The renewal was not confirmed in time. The certificate before it is in force.', requestId, deps) : device
  if (then.certificate?.certificateId !== certificate.certificateId) await swap(then, requestId, deps)
  return { outcome: 'renewed', certificate, product }
}
