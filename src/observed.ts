import { randomUUID } from 'node:crypto'
import type { Logger } from 'pino'
import type { Config } from './config.ts'
import { CvmError, ERRORS } from './errors.ts'
import type { Metrics } from './plugins/metrics.ts'
import type { ControlPlane } from './vending/control-plane.ts'
import type { Device, Operation } from './vending/device.ts'
import type { DeviceRegistry } from './vending/device-registry.ts'
import { fulfil, operate } from './vending/operate.ts'
import { reconcile } from './vending/reconcile.ts'
import type { ReconcileReport, ReconcileRequest } from './vending/reconcile-run.ts'
import type { TokenHasher } from './vending/registration-token.ts'
import type { UnfinishedDevices } from './vending/unfinished-devices.ts'
import type { VendDeps, VendRequest, Vended } from './vending/vend-steps.ts'
import { finish, vend } from './vending/vend.ts'

interface Parts {
  config: Config
  log: Logger
  metrics: Metrics
  registry: DeviceRegistry
  devices: UnfinishedDevices
  controlPlane: ControlPlane
  hashToken: TokenHasher
}

/** The use cases with their settings and a clock, and with eyes on them: metrics, and log lines from an allow-list. */
export function observedUseCases (parts: Parts) {
  const deps = vendDeps(parts)
  return { vend: observedVend(parts, deps), operate: observedOperate(parts, deps), reconcile: observedReconcile(parts, deps) }
}

function vendDeps ({ config, log, metrics, registry, controlPlane, hashToken }: Parts): VendDeps {
  return {
    registry,
    controlPlane,
    hashToken,
    now: Date.now,
    newClaimId: randomUUID,
    deadline: () => AbortSignal.timeout(config.VEND_DEADLINE_MS),
    claimLifetimeMs: config.CLAIM_LIFETIME_MS,
    replayWindowMs: config.REPLAY_WINDOW_MS,
    onStep: (step, durationMs, ok) => metrics.stepSeconds.observe({ step, result: ok ? 'ok' : 'failed' }, durationMs / 1000),
    onLeftover (what, requestId, cause) {
      metrics.leftovers.inc({ what })
      log.warn({ what, requestId, cause: (cause as Error).name }, 'left to reconcile')
    }
  }
}

function observedVend ({ log, metrics }: Parts, deps: VendDeps) {
  return async (request: VendRequest): Promise<Vended> => {
    const way = request.certificateSigningRequest === undefined ? 'keys' : 'csr'
    try {
      const vended = await vend(request, deps)
      metrics.vends.inc({ way, outcome: vended.outcome })
      const { requestId, serialNumber } = request
      log.info({ requestId, serialNumber, way, outcome: vended.outcome, certificateId: vended.certificate.certificateId }, 'vended')
      return vended
    } catch (cause) {
      const isRefusal = cause instanceof CvmError && ERRORS[cause.code].status < 500
      metrics.vends.inc({ way, outcome: isRefusal ? 'refused' : 'failed' })
      throw cause
    }
  }
}

interface Wish {
  serialNumber: string
  operation: Operation
  actor: string
  reason: string
  requestId: string
  /** For `reset`: the new token. */
  registrationToken?: string
}

function observedOperate ({ log, hashToken }: Parts, deps: VendDeps) {
  return async ({ serialNumber, operation, actor, reason, requestId, registrationToken }: Wish): Promise<Device> => {
    const token = registrationToken === undefined ? {} : { tokenHash: hashToken(serialNumber, registrationToken) }
    const pending = { operation, operationId: randomUUID(), actor, reason, ...token }
    const device = await operate(serialNumber, pending, requestId, deps)
    log.info({ requestId, serialNumber, operation, actor, state: device.state }, 'operated')
    return device
  }
}

function observedReconcile ({ config, log, metrics, devices, controlPlane }: Parts, deps: VendDeps) {
  let comparedAt = Date.now()
  return async (request: Omit<ReconcileRequest, 'compareSince'>): Promise<ReconcileReport> => {
    const startedAt = Date.now()
    const report = await reconcile({ ...request, compareSince: comparedAt }, {
      devices,
      controlPlane,
      finish: (device, requestId) => finish(device, requestId, deps),
      fulfil: (device, requestId) => fulfil(device, requestId, deps),
      now: Date.now,
      deadline: deps.deadline,
      claimLifetimeMs: config.CLAIM_LIFETIME_MS,
      batch: config.RECONCILE_BATCH,
      maxPages: config.RECONCILE_MAX_PAGES
    })
    for (const { step, outcome, ...facts } of report.actions) {
      if (outcome !== 'would') metrics.reconcileActions.inc({ step, outcome })
      log[step === 'report-drift' || outcome === 'failed' ? 'warn' : 'info']({ requestId: request.requestId, step, outcome, ...facts }, 'reconcile')
    }
    if (request.dryRun) return report
    metrics.reconcileBacklog.set(report.backlog)
    metrics.drift.set(report.drift)
    metrics.reconcileLastRun.set(startedAt / 1000)
    if (report.complete) comparedAt = startedAt
    return report
  }
}
