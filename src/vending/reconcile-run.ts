import type { Activated } from './activated.ts'
import type { CertificateHolds } from './certificate-holds.ts'
import type { ControlPlane } from './control-plane.ts'
import type { Deferrals } from './deferrals.ts'
import type { Device } from './device.ts'
import type { DeviceCatalog } from './device-catalog.ts'
import type { DriftFindings, FindingKind, Recheck } from './drift-findings.ts'
import type { Products } from './product.ts'
import type { Renewals } from './renewals.ts'
import type { Author, UnfinishedDevices } from './unfinished-devices.ts'

/** How far the clocks of AWS IoT and of the replicas may differ. */
export const CLOCK_SKEW_MS = 2_000

/** What reconcile does about a device or a certificate. */
export const RECONCILE_STEPS = [
  'finish-operation', 'repair-certificate', 'undo-late-call', 'finish-issued', 'free-expired-claim', 'abandon-issued', 'mark-revoked',
  'finish-renewal', 'abandon-renewal', 'activate-pending', 'dispose-retired', 'search-orphans', 'delete-orphan', 'report-drift', 'repair-drift',
  'readmit-device'
] as const
export type ReconcileStep = typeof RECONCILE_STEPS[number]

/** One thing done, or to be done: `later` when AWS IoT or another worker was in the way, `would` in a dry run. */
export interface ReconcileAction {
  step: ReconcileStep
  outcome: 'done' | 'later' | 'failed' | 'would'
  serialNumber?: string
  certificateId?: string
  detail?: string
}

export interface ReconcileReport {
  actions: ReconcileAction[]
  /** Devices still waiting afterwards, up to the batch's size. */
  backlog: number
  /** Findings of drift that are open; 0 expected. */
  drift: number
  /** The same by kind. */
  findings: Record<FindingKind, number>
  /** Devices whose rows cannot be read; 0 expected. */
  quarantined: number
  /** When each certificate that waits for its activation was first seen, up to one batch; epoch milliseconds. */
  pendingSince: number[]
  /** False when the bound on pages ended the look at recent certificates. */
  complete: boolean
}

export interface ReconcileDeps {
  devices: UnfinishedDevices
  renewals: Renewals
  catalog: Pick<DeviceCatalog, 'findByCertificate'>
  certificateHolds: CertificateHolds
  controlPlane: ControlPlane
  /** Fulfils an operator's wish that was written down and not finished. */
  fulfil: (device: Device, requestId: string) => Promise<Device>
  /** Pauses a device that is still at the revision seen, as an operator does. */
  disable: (device: Device, requestId: string) => Promise<Device>
  findings: DriftFindings
  /** Which open findings come next; kept between runs. */
  recheck: Recheck
  products: Products
  /** Finishes a device in `ISSUED`; false when somebody else took it. */
  finish: (device: Device, requestId: string) => Promise<boolean>
  /** Finishes a renewal that was confirmed. */
  swap: (device: Device, requestId: string) => Promise<Device>
  /** Judges a certificate that waits for its activation; absent where that is not this service's. */
  activate: ((certificateId: string, requestId: string) => Promise<Activated>) | undefined
  /** Which devices could not be finished before; kept between runs. */
  deferrals: Deferrals
  newHoldId: () => string
  now: () => number
  deadline: () => AbortSignal
  claimLifetimeMs: number
  /** Most devices in one run. */
  batch: number
  /** Most pages of AWS IoT's list of certificates in one run. */
  maxPages: number
}

export interface ReconcileRequest {
  requestId: string
  dryRun: boolean
  /** Compares certificates made since then with the registry. */
  compareSince: number
  /** Aborted when the process stops: the run ends at the next device. */
  stop?: AbortSignal
}

/** What a run hands to its parts: deps, request, and where to note what was done. */
export interface ReconcileRun extends ReconcileDeps {
  /** By any replica's clock, the run's looks at AWS IoT are later than this. */
  looksAfter: number
  request: ReconcileRequest
  actions: ReconcileAction[]
}

/** Adds a line to the report. */
export function note (run: Pick<ReconcileRun, 'actions'>, action: ReconcileAction): void {
  run.actions.push(action)
}

/** What to say of a failure: never more than its name and code. */
export function textOf (cause: unknown): string {
  const { name, code } = cause as { name?: string, code?: string }
  return code ?? name ?? 'unknown'
}

/** Who is named in the history of what this run changes. */
export function author ({ request, now }: ReconcileRun): Author {
  return { now: now(), requestId: request.requestId }
}

/** Makes a change to a device, or says that it would; the changed device, or undefined where somebody came between. */
export async function write (
  run: ReconcileRun, step: ReconcileStep, device: Device, change: () => ReturnType<UnfinishedDevices['free']>
): Promise<Device | undefined> {
  const { certificateId } = device.certificate ?? {}
  const about = { step, serialNumber: device.serialNumber, ...(certificateId && { certificateId }) }
  if (run.request.dryRun) {
    note(run, { ...about, outcome: 'would' })
    return device
  }
  const result = await change()
  note(run, { ...about, outcome: result.applied ? 'done' : 'later' })
  return result.applied ? result.device : undefined
}
