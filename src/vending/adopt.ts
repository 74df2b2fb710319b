import { CvmError } from '../errors.ts'
import { type AdoptDeps, type AdoptRequest, type Adoption, begin, hold, letGo, ownKey, record, register, takeClaim } from './adoption-steps.ts'
import type { Certificate } from './device.ts'
import { decideAdoption } from './lifecycle.ts'
import { ClaimLost, bind, commit, giveBack } from './vend-steps.ts'
import { timed } from './vend.ts'

/** A certificate that is its device's now, or was before. */
export interface Adopted {
  outcome: 'adopted' | 'resumed' | 'replayed'
  certificate: Certificate
  /** The name of the device's product. */
  product: string
}

/**
 * Makes a certificate that was made elsewhere the one of a device, by the steps of vending: it differs only in that its bytes are known
 * beforehand, so that a repetition finds the same certificate, and in who vouches for it, which must have been seen to before. A
 * device that has or is being given another one keeps that. Raises `CvmError` for every refusal and failure: those of the states of the
 * device, `already-vended`, `vend-in-progress`, `certificate-in-use`, `key-in-use`, `key-compromised`,
 * `certificate-revoked`, what the product or the ports raise.
 */
export async function adopt (request: AdoptRequest, deps: AdoptDeps): Promise<Adopted> {
  const run = begin(request, deps)
  // 1. Claim the device, or find that the certificate is its own already.
  const claimed = await timed(deps, 'claim', () => takeClaim(run))
  if (claimed.kind === 'replay') return { outcome: 'replayed', certificate: claimed.certificate, product: claimed.device.product }
  let { device } = claimed
  let isDecided = false
  try {
    // 2. Hold the certificate, which is this device's from now on.
    await timed(deps, 'hold', () => hold(run, device))
    // Its key is this device's, too.
    await timed(deps, 'key', () => ownKey(run, device))
    if (device.state === 'ISSUING') {
      // 3. Register it with AWS IoT, INACTIVE, beside making sure of the thing.
      const certificate = await timed(deps, 'issue', () => register(run, device))
      // 4. Record it before anybody can use it.
      device = await timed(deps, 'record', () => record(run, device, certificate))
    }
    // 5. Bind it to thing and policy, retire what was there before, make it ACTIVE.
    await timed(deps, 'bind', () => bind(run, device))
    // 6. Commit.
    const certificate = await timed(deps, 'commit', () => commit(run, device))
    isDecided = true
    return { outcome: claimed.kind === 'resumed' ? 'resumed' : 'adopted', certificate, product: device.product }
  } catch (cause) {
    if (cause instanceof ClaimLost) return answerFrom(cause.device, run)
    await giveBack(run, device)
    throw cause
  } finally {
    // Who has taken the hold for a longer piece of work gives it back.
    if (!request.holdId) await letGo(request.certificate.certificateId, request.requestId, run, isDecided)
  }
}

/** What the row that overtook us says of this certificate. */
function answerFrom (device: ClaimLost['device'], run: Adoption): Adopted {
  if (!device) throw new CvmError('device-not-found')
  const { request: { certificate: { certificateId } }, products, refusals } = run
  const decision = decideAdoption(device, certificateId, { now: run.now(), products, refusals })
  if (decision.kind === 'replay') return { outcome: 'replayed', certificate: decision.certificate, product: device.product }
  throw decision.kind === 'refuse' ? decision.error : new CvmError('vend-in-progress', { retryAfterMs: 1_000 })
}
