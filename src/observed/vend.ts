import type { VendDeps, VendRequest, Vended } from '../vending/vend-steps.ts'
import { vend } from '../vending/vend.ts'
import { isRefused } from './outcome.ts'
import type { Author, Parts } from './parts.ts'

/** Vending, counted and audited. */
export function observedVend ({ audit, metrics }: Parts, deps: VendDeps) {
  return async ({ address, actor, role, route, ...request }: VendRequest & Author): Promise<Vended> => {
    const way = request.certificateSigningRequest === undefined ? 'keys' : 'csr'
    const { requestId, serialNumber } = request
    const who = { actor, role, route, address }
    let isKnown = false
    try {
      const vended = await vend(request, { ...deps, onKnown: () => { isKnown = true } })
      const { outcome, certificate: { certificateId } } = vended
      metrics.vends.inc({ way, outcome })
      audit({ ...VENDED[outcome], requestId, ...who, serialNumber, certificateId, way })
      return vended
    } catch (cause) {
      const isRefusal = isRefused(cause)
      metrics.vends.inc({ way, outcome: isRefusal ? 'refused' : 'failed' })
      // Who mixes up serial number and token must not find the token in the log.
      const device = isKnown ? { serialNumber } : {}
      if (isRefusal) audit({ event: 'vend-refused', outcome: 'refused', requestId, ...who, ...device, way, code: cause.code, reason: cause.reason }, cause)
      throw cause
    }
  }
}

const VENDED = {
  vended: { event: 'certificate-vended', outcome: 'done' },
  resumed: { event: 'certificate-vended', outcome: 'resumed' },
  replayed: { event: 'certificate-replayed', outcome: 'unchanged' }
} as const
