import { setTimeout as delay } from 'node:timers/promises'
import { register } from '../vending/register.ts'
import { type Batch, openBatch } from '../vending/vend-batch.ts'
import type { VendDeps } from '../vending/vend-steps.ts'
import { newToken } from './new-token.ts'
import type { Author, Parts } from './parts.ts'
import { observedVend } from './vend.ts'

/** The lines of a batch are vended and registered as the line's, with time to wait. */
export function observedBatch (parts: Parts, vendDeps: VendDeps) {
  const { audit, registry, keyOwners, hashToken, products, forBulk, admitLine } = parts
  const vendLine = observedVend(parts, { ...vendDeps, controlPlane: forBulk })
  const deps = { registry, keyOwners, hashToken, products, newToken, now: Date.now }
  return ({ requestId, ...author }: Required<Omit<Author, 'route'>> & { requestId: string }): Batch => openBatch(requestId, {
    ...deps,
    vend: request => vendLine({ ...request, ...author }),
    async register (registration) {
      const { actor } = author
      const { outcome, device: { serialNumber, product } } = await register(registration, { requestId, actor }, deps)
      if (outcome === 'registered') audit({ event: 'device-registered', outcome: 'done', requestId, ...author, serialNumber, product })
    },
    admit: admitLine,
    pause: (ms, stop) => delay(ms, undefined, { signal: stop }).catch(() => {})
  })
}
