import { type Registered, type Registration, register } from '../vending/register.ts'
import { newToken } from './new-token.ts'
import { isRefused, toFailure } from './outcome.ts'
import type { Parts } from './parts.ts'

/** Who registers a device, and in which request. */
interface Registrar { requestId: string, actor: string, role: string }

/** Registering, audited. */
export function observedRegister ({ audit, registry, hashToken, products }: Parts) {
  const deps = { registry, hashToken, products, newToken, now: Date.now }
  return async (registration: Registration, { role, ...author }: Registrar): Promise<Registered> => {
    const facts = { event: 'device-registered', ...author, role } as const
    try {
      const registered = await register(registration, author, deps)
      const { serialNumber, product } = registered.device
      audit({ ...facts, outcome: registered.outcome === 'registered' ? 'done' : 'unchanged', serialNumber, product })
      return registered
    } catch (cause) {
      const { code } = toFailure(cause)
      const isRefusal = isRefused(cause)
      // Who mixes up serial number and token must not find the token in the log.
      const device = isRefusal && code !== 'device-exists' ? {} : { serialNumber: registration.serialNumber }
      audit({ ...facts, outcome: isRefusal ? 'refused' : 'failed', ...device, code }, isRefusal ? cause : undefined)
      throw cause
    }
  }
}
