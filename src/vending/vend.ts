import type { KeyPair } from './control-plane.ts'
import type { Device } from './device.ts'
import { productOf } from './product.ts'
import {
  ClaimLost, type VendDeps, type VendRequest, type VendStep, type Vended,
  answerFrom, begin, bind, check, commit, giveBack, issue, ownKey, record, takeClaim
} from './vend-steps.ts'

/**
 * Vends a certificate: the six steps of DESIGN section 4, intent before act, every write after the claim fenced by `claimId`.
 * The key of a CSR becomes the device's between the claim and the call of AWS IoT: only a request with the claim takes a key, and no key of
 * another device is certified. Safe to repeat with the same request at any time and from any replica. Throws `CvmError` for every refusal
 * and failure.
 */
export async function vend (request: VendRequest, deps: VendDeps): Promise<Vended> {
  // 1. Check the CSR: nothing is written and AWS IoT is not called before this.
  const csr = await timed(deps, 'check', async () => check(request, deps.products))
  if (csr?.repair) deps.onRepair('csr', csr.repair)
  const run = begin(request, csr, deps)
  // 2. Claim the device, or find that the answer is there already.
  const claimed = await timed(deps, 'claim', () => takeClaim(run))
  if (claimed.kind === 'replay') return { outcome: 'replayed', certificate: claimed.certificate, product: claimed.device.product }
  let { device } = claimed
  try {
    let keyPair: KeyPair | undefined
    if (device.state === 'ISSUING') {
      if (csr) await timed(deps, 'key', () => ownKey(run, device))
      // 3. Issue a certificate, INACTIVE, beside making sure of the thing.
      const issued = await timed(deps, 'issue', () => issue(run, device))
      keyPair = issued.keyPair
      // 4. Record it before anybody can use it.
      device = await timed(deps, 'record', () => record(run, device, issued.certificate))
    }
    // 5. Bind it to thing and policy, retire what it replaces, make it ACTIVE.
    await timed(deps, 'bind', () => bind(run, device))
    // 6. Commit: from here on the answer is remembered.
    const certificate = await timed(deps, 'commit', () => commit(run, device))
    const outcome = claimed.kind === 'resumed' ? 'resumed' : 'vended'
    return { outcome, certificate, product: device.product, ...(keyPair && { keyPair }) }
  } catch (cause) {
    if (cause instanceof ClaimLost) return answerFrom(cause.device, run)
    await giveBack(run, device)
    throw cause
  }
}

/**
 * Finishes what another worker left in `ISSUED`, as the next request of the device would: steps 5 and 6 under a claim of our own.
 * False when somebody else has taken the device meanwhile. Raises `CvmError`: for a product that is not configured any more, before
 * anything is written.
 */
export async function finish (device: Device, requestId: string, deps: VendDeps): Promise<boolean> {
  const request = { serialNumber: device.serialNumber, registrationToken: '', requestId }
  productOf(device, deps.products)
  const run = begin(request, undefined, deps)
  const now = deps.now()
  const resumed = await deps.registry.resume(device, { claimId: run.claimId, claimExpiresAt: now + deps.claimLifetimeMs, now, requestId })
  if (!resumed.applied) return false
  try {
    await bind(run, resumed.device)
    await commit(run, resumed.device)
    return true
  } catch (cause) {
    if (cause instanceof ClaimLost) return false
    await giveBack(run, resumed.device)
    throw cause
  }
}

/** Tells how long a step took, and whether it ended well. */
export async function timed<T> (deps: Pick<VendDeps, 'now' | 'onStep'>, step: VendStep, work: () => Promise<T>): Promise<T> {
  const start = deps.now()
  try {
    const result = await work()
    deps.onStep(step, deps.now() - start, true)
    return result
  } catch (cause) {
    deps.onStep(step, deps.now() - start, false)
    throw cause
  }
}
