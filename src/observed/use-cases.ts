import { randomUUID } from 'node:crypto'
import type { VendDeps } from '../vending/vend-steps.ts'
import { observedAdoption } from './adopt.ts'
import { observedAuthorities } from './authorities.ts'
import { observedBatch } from './batch.ts'
import { observedDrift } from './drift.ts'
import { observedKeyReuse } from './key-reuse.ts'
import { observedMigration } from './migrate.ts'
import { observedOperate } from './operate.ts'
import type { Parts } from './parts.ts'
import { observedReconcile } from './reconcile.ts'
import { observedRegister } from './register.ts'
import { observedRenewal } from './renew.ts'
import { observedShadows } from './shadows.ts'
import { observedVend } from './vend.ts'

/** The use cases with their settings and a clock, and with eyes on them: metrics, and security events. */
export function observedUseCases (parts: Parts) {
  const deps = vendDeps(parts)
  const { trust, authorities } = observedAuthorities(parts)
  const { activatePending, ...adoption } = observedAdoption(parts, deps, trust)
  return {
    register: observedRegister(parts),
    vend: observedVend(parts, deps),
    ...observedRenewal(parts, deps),
    openBatch: observedBatch(parts, deps),
    operate: observedOperate(parts, { ...deps, renewals: parts.renewals }),
    ...adoption,
    reconcile: observedReconcile(parts, deps, activatePending),
    drift: observedDrift(parts, deps),
    shadows: observedShadows(parts),
    migrate: observedMigration(parts),
    authorities
  }
}

function vendDeps (parts: Parts): VendDeps {
  const { config, log, metrics, registry, keyOwners, forDevices, hashToken, products } = parts
  return {
    registry,
    keyOwners,
    onKeyReuse: observedKeyReuse(parts),
    controlPlane: forDevices,
    hashToken,
    now: Date.now,
    newClaimId: randomUUID,
    deadline: () => AbortSignal.timeout(config.VEND_DEADLINE_MS),
    claimLifetimeMs: config.CLAIM_LIFETIME_MS,
    products,
    onStep: (step, durationMs, ok) => metrics.stepSeconds.observe({ step, result: ok ? 'ok' : 'failed' }, durationMs / 1000),
    onRepair: (what, kind) => metrics.repairs.inc({ what, kind }),
    onLeftover (what, requestId, cause, certificateId) {
      metrics.leftovers.inc({ what })
      log.warn({ what, requestId, certificateId, cause: (cause as Error).name }, 'left to reconcile')
    }
  }
}
