import { type ActivateDeps, type ActivateRequest, activate } from '../vending/activate.ts'
import type { Activated } from '../vending/activated.ts'
import type { Adopted } from '../vending/adopt.ts'
import { type CertificateRegistration, registerCertificate } from '../vending/register-certificate.ts'
import type { Trust } from '../vending/trust.ts'
import type { VendDeps } from '../vending/vend-steps.ts'
import { isRefused, toFailure } from './outcome.ts'
import type { Parts } from './parts.ts'

/** A sender in a hurry: AWS IoT gives up on an HTTP action after 3 s, with all its tries together. */
const EVENT_DEADLINE_MS = 2_000

interface Registrar { actor: string, role: string }

/** Adopting certificates that were made elsewhere, counted and audited. */
export function observedAdoption (parts: Parts, vendDeps: VendDeps, trust: Trust) {
  const { config, audit, metrics, adoptions, certificateHolds, forBulk, destinations } = parts
  const deps = { ...vendDeps, adoptions, certificateHolds, trust }
  const inBulk = { ...deps, controlPlane: forBulk }
  return {
    /** One of many waits behind devices. */
    registerCertificate: ({ actor, role, isOneOfMany, ...request }: CertificateRegistration & Registrar & { isOneOfMany: boolean }) =>
      observedRegistration(request, { actor, role }, isOneOfMany ? inBulk : deps),
    activate: (request: { certificateId: string, caCertificateId?: string, requestId: string }, address: string) =>
      observedActivation({ ...request, signal: AbortSignal.timeout(EVENT_DEADLINE_MS) }, deps, address),
    /** For reconcile, which has time; undefined where the account's certificates are activated by somebody else. */
    activatePending: config.JITR_SECRET === ''
      ? undefined
      : (certificateId: string, requestId: string) => observedActivation({ certificateId, requestId, signal: deps.deadline() }, inBulk),
    async confirmDestination (destination: { arn: string, confirmationToken: string }, requestId: string, address: string): Promise<void> {
      const facts = { event: 'destination-confirmed', requestId, address } as const
      try {
        await destinations.confirm(destination, AbortSignal.timeout(EVENT_DEADLINE_MS))
        audit({ ...facts, outcome: 'done' })
      } catch (cause) {
        const isRefusal = isRefused(cause)
        audit({ ...facts, outcome: isRefusal ? 'refused' : 'failed', code: toFailure(cause).code }, isRefusal ? cause : undefined)
        throw cause
      }
    }
  }

  async function observedRegistration (request: CertificateRegistration, who: Registrar, deps: ActivateDeps): Promise<Adopted> {
    const { requestId, serialNumber } = request
    const facts = { requestId, ...who, way: 'registered' } as const
    try {
      const adopted = await registerCertificate(request, deps)
      const { outcome, product, certificate: { certificateId, caCertificateId } } = adopted
      metrics.adoptions.inc({ way: 'registered', outcome })
      const of = { serialNumber, certificateId, product, caCertificateId }
      audit({ ...facts, event: 'certificate-adopted', outcome: OUTCOMES[outcome], ...of })
      return adopted
    } catch (cause) {
      const isRefusal = isRefused(cause)
      metrics.adoptions.inc({ way: 'registered', outcome: isRefusal ? 'refused' : 'failed' })
      if (isRefusal) {
        // What is no serial number of ours may be anything.
        const device = cause.code === 'device-not-found' ? {} : { serialNumber }
        audit({ ...facts, event: 'adoption-refused', outcome: 'refused', ...device, code: cause.code, reason: cause.reason }, cause)
      }
      throw cause
    }
  }

  async function observedActivation (request: ActivateRequest, deps: ActivateDeps, address?: string): Promise<Activated> {
    const { requestId, certificateId } = request
    const facts = { requestId, address, certificateId, way: 'jitr' } as const
    try {
      const activated = await activate(request, deps)
      const { outcome } = activated
      metrics.adoptions.inc({ way: 'jitr', outcome: outcome === 'activated' ? 'adopted' : outcome })
      if (outcome === 'activated') {
        const { serialNumber, product, caCertificateId } = activated
        audit({ ...facts, event: 'certificate-adopted', outcome: 'done', serialNumber, product, caCertificateId })
      } else if (outcome === 'refused') {
        const { status, code, reason, serialNumber, failure } = activated
        audit({ ...facts, event: 'adoption-refused', outcome: 'refused', serialNumber, changed: `status=${status}`, code, reason }, failure)
      }
      return activated
    } catch (cause) {
      metrics.adoptions.inc({ way: 'jitr', outcome: isRefused(cause) ? 'refused' : 'failed' })
      throw cause
    }
  }
}

const OUTCOMES = { adopted: 'done', resumed: 'resumed', replayed: 'unchanged' } as const
