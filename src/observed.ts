import { randomBytes, randomUUID } from 'node:crypto'
import { setTimeout as delay } from 'node:timers/promises'
import type { Logger } from 'pino'
import type { Config } from './config.ts'
import { CvmError, ERRORS } from './errors.ts'
import type { Metrics } from './plugins/metrics.ts'
import { type Audit, type AuditEvent, type AuditRecord, auditLine } from './vending/audit.ts'
import type { ControlPlane } from './vending/control-plane.ts'
import type { Device, Operation, Way } from './vending/device.ts'
import type { DeviceCatalog } from './vending/device-catalog.ts'
import type { DeviceRegistry } from './vending/device-registry.ts'
import { fulfil, operate } from './vending/operate.ts'
import { reconcile } from './vending/reconcile.ts'
import type { Products } from './vending/product.ts'
import type { ReconcileReport, ReconcileRequest, ReconcileStep } from './vending/reconcile-run.ts'
import { type Registered, type Registration, register } from './vending/register.ts'
import type { TokenHasher } from './vending/registration-token.ts'
import type { UnfinishedDevices } from './vending/unfinished-devices.ts'
import { type Batch, openBatch } from './vending/vend-batch.ts'
import type { VendDeps, VendRequest, Vended } from './vending/vend-steps.ts'
import { finish, vend } from './vending/vend.ts'

interface Parts {
  config: Config
  log: Logger
  audit: Audit
  metrics: Metrics
  registry: DeviceRegistry
  devices: UnfinishedDevices
  catalog: Pick<DeviceCatalog, 'findByCertificate'>
  /** Where devices and operators go first, and where reconcile has time. */
  forDevices: ControlPlane
  forBulk: ControlPlane
  admitLine: (way: Way, stop: AbortSignal) => Promise<() => void>
  hashToken: TokenHasher
  products: Products
}

/** The use cases with their settings and a clock, and with eyes on them: metrics, and security events. */
export function observedUseCases (parts: Parts) {
  const deps = vendDeps(parts)
  return {
    register: observedRegister(parts),
    vend: observedVend(parts, deps),
    openBatch: observedBatch(parts, deps),
    operate: observedOperate(parts, deps),
    reconcile: observedReconcile(parts, deps)
  }
}

function vendDeps ({ config, log, metrics, registry, forDevices, hashToken, products }: Parts): VendDeps {
  return {
    registry,
    controlPlane: forDevices,
    hashToken,
    now: Date.now,
    newClaimId: randomUUID,
    deadline: () => AbortSignal.timeout(config.VEND_DEADLINE_MS),
    claimLifetimeMs: config.CLAIM_LIFETIME_MS,
    products,
    onStep: (step, durationMs, ok) => metrics.stepSeconds.observe({ step, result: ok ? 'ok' : 'failed' }, durationMs / 1000),
    onLeftover (what, requestId, cause) {
      metrics.leftovers.inc({ what })
      log.warn({ what, requestId, cause: (cause as Error).name }, 'left to reconcile')
    }
  }
}

/** Where a request comes from, and whose it is where that is not the device itself. */
interface Author { address: string, actor?: string, role?: string }

function observedVend ({ audit, metrics }: Parts, deps: VendDeps) {
  return async ({ address, actor, role, ...request }: VendRequest & Author): Promise<Vended> => {
    const way = request.certificateSigningRequest === undefined ? 'keys' : 'csr'
    const { requestId, serialNumber } = request
    const who = { actor, role, address }
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

/** A failure that the caller must mend, as against one of the service. */
function isRefused (cause: unknown): cause is CvmError {
  return cause instanceof CvmError && ERRORS[cause.code].status < 500
}

function newToken (): string {
  return randomBytes(32).toString('base64url')
}

/** Who registers a device, and in which request. */
interface Registrar { requestId: string, actor: string, role: string }

function observedRegister ({ audit, registry, hashToken, products }: Parts) {
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

/** The lines of a batch are vended and registered as the line's, with time to wait. */
function observedBatch (parts: Parts, vendDeps: VendDeps) {
  const { audit, registry, hashToken, products, forBulk, admitLine } = parts
  const vendLine = observedVend(parts, { ...vendDeps, controlPlane: forBulk })
  const deps = { registry, hashToken, products, newToken, now: Date.now }
  return ({ requestId, ...author }: Required<Author> & { requestId: string }): Batch => openBatch(requestId, {
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

interface Wish {
  serialNumber: string
  operation: Operation
  actor: string
  role: string
  reason: string
  requestId: string
  /** For `reset`: the new token. */
  registrationToken?: string
  /** Only while the device is at this revision. */
  revision?: number
}

const OPERATED = {
  reset: 'device-reset', revoke: 'device-revoked', disable: 'device-disabled', enable: 'device-enabled', decommission: 'device-decommissioned'
} as const satisfies Record<Operation, AuditEvent>

function observedOperate ({ audit, hashToken }: Parts, deps: VendDeps) {
  return async ({ serialNumber, operation, actor, role, reason, requestId, registrationToken, revision }: Wish): Promise<Device> => {
    const token = registrationToken === undefined ? {} : { tokenHash: hashToken(serialNumber, registrationToken) }
    const pending = { operation, operationId: randomUUID(), actor, reason, ...token }
    const facts = { event: OPERATED[operation], requestId, actor, role, reason }
    try {
      const device = await operate(serialNumber, pending, requestId, deps, revision)
      const done = device.history.findLast(entry => entry.requestId === requestId)
      const certificateId = done?.certificateId ?? device.certificate?.certificateId
      audit({ ...facts, outcome: done ? 'done' : 'unchanged', serialNumber, certificateId })
      return device
    } catch (cause) {
      const failure = toFailure(cause)
      // What is no serial number of ours may be anything.
      const device = failure.code === 'device-not-found' ? {} : { serialNumber }
      audit({ ...facts, outcome: isRefused(cause) ? 'refused' : 'failed', ...device, code: failure.code }, isRefused(cause) ? cause : undefined)
      throw cause
    }
  }
}

function toFailure (cause: unknown): { code: string } {
  return cause instanceof CvmError ? cause : { code: 'internal-error' }
}

/** The events of what reconcile does; all else is a device reconciled. */
const RECONCILED: Readonly<Partial<Record<ReconcileStep, AuditEvent>>> = {
  'dispose-retired': 'certificate-disposed', 'delete-orphan': 'certificate-disposed', 'report-drift': 'drift-found'
}

interface ReconcileWish extends Omit<ReconcileRequest, 'compareSince'> {
  /** Who asked for it; nobody where it is its time. */
  caller?: { name: string, role: string } | null
}

function observedReconcile ({ config, audit, metrics, devices, catalog, forBulk }: Parts, vendDeps: VendDeps) {
  const deps = { ...vendDeps, controlPlane: forBulk }
  let comparedAt = Date.now()
  return async ({ caller, ...request }: ReconcileWish): Promise<ReconcileReport> => {
    const startedAt = Date.now()
    const { requestId, dryRun } = request
    const requested = { event: 'reconcile-requested', requestId, actor: caller?.name, role: caller?.role, reason: dryRun ? 'dry-run' : undefined } as const
    const report = await reconcile({ ...request, compareSince: comparedAt }, {
      devices,
      catalog,
      controlPlane: forBulk,
      finish: (device, requestId) => finish(device, requestId, deps),
      fulfil: (device, requestId) => fulfil(device, requestId, deps),
      now: Date.now,
      deadline: deps.deadline,
      claimLifetimeMs: config.CLAIM_LIFETIME_MS,
      batch: config.RECONCILE_BATCH,
      maxPages: config.RECONCILE_MAX_PAGES
    }).catch((cause: unknown) => {
      if (caller) audit({ ...requested, outcome: 'failed', code: toFailure(cause).code })
      throw cause
    })
    if (caller) audit({ ...requested, outcome: 'done' })
    for (const { step, outcome, detail: reason, ...facts } of report.actions) {
      if (outcome === 'would') continue
      metrics.reconcileActions.inc({ step, outcome })
      audit({ event: RECONCILED[step] ?? 'device-reconciled', outcome, requestId, step, reason, ...facts })
    }
    if (dryRun) return report
    metrics.reconcileBacklog.set(report.backlog)
    metrics.drift.set(report.drift)
    metrics.reconcileLastRun.set(startedAt / 1000)
    if (report.complete) comparedAt = startedAt
    return report
  }
}

/** Events that somebody should look at. */
function isAlarming ({ event, outcome }: AuditRecord): boolean {
  return outcome === 'failed' || event === 'drift-found'
}

/** Where security events go: to the log, at any level but `silent`. Knows the failures that are told there already. */
export function auditLog (log: Logger): { audit: Audit, isAudited: (failure: Error) => boolean } {
  const told = new WeakSet<Error>()
  const lines = log.child({}, { level: log.level === 'silent' ? 'silent' : 'info' })
  return {
    audit (record, failure) {
      if (failure) told.add(failure)
      lines[isAlarming(record) ? 'warn' : 'info'](auditLine(record), 'audit')
    },
    isAudited: failure => told.has(failure)
  }
}
