import { type ConfirmRequest, confirm } from '../vending/confirm.ts'
import { type RenewDeps, type RenewRequest, type Renewed, renew } from '../vending/renew.ts'
import type { VendDeps } from '../vending/vend-steps.ts'
import { isRefused } from './outcome.ts'
import type { Author, Parts } from './parts.ts'

const EVENTS = { renew: 'certificate-renewed', confirm: 'renewal-confirmed' } as const

/** Renewing and confirming, counted and audited. */
export function observedRenewal ({ config, audit, metrics, renewals, forDevices }: Parts, vendDeps: VendDeps) {
  const deps: RenewDeps = {
    ...vendDeps,
    renewals,
    onRepair: (what, kind) => metrics.repairs.inc({ what, kind }),
    audience: async () => config.RENEWAL_AUDIENCE || await forDevices.endpoint(),
    proofWindowMs: config.RENEWAL_PROOF_WINDOW_MS,
    confirmWithinMs: config.RENEWAL_CONFIRM_WITHIN_MS
  }
  return {
    renew: ({ address, ...request }: RenewRequest & Author) => observed('renew', address, request, onKnown => renew(request, { ...deps, onKnown })),
    confirm: ({ address, ...request }: ConfirmRequest & Author) => observed('confirm', address, request, onKnown => confirm(request, { ...deps, onKnown }))
  }

  async function observed (
    step: keyof typeof EVENTS, address: string, { serialNumber, requestId }: ConfirmRequest | RenewRequest,
    work: (onKnown: () => void) => Promise<Renewed>
  ): Promise<Renewed> {
    let isKnown = false
    try {
      const renewed = await work(() => { isKnown = true })
      const { outcome, certificate: { certificateId } } = renewed
      metrics.renewals.inc({ step, outcome })
      audit({ event: EVENTS[step], outcome: outcome === 'renewed' ? 'done' : 'unchanged', requestId, address, serialNumber, certificateId })
      return renewed
    } catch (cause) {
      const isRefusal = isRefused(cause)
      metrics.renewals.inc({ step, outcome: isRefusal ? 'refused' : 'failed' })
      const device = isKnown ? { serialNumber } : {}
      if (isRefusal) audit({ event: 'renewal-refused', outcome: 'refused', requestId, address, ...device, step, code: cause.code, reason: cause.reason }, cause)
      throw cause
    }
  }
}
