import { type DriftDeps, type Inspected, inspect, keep } from './drift.ts'
import { type DriftFindings, type Recheck, type SeenDifference, sentenceOf } from './drift-findings.ts'
import { type RepairDeps, apply, remedyOf } from './drift-repair.ts'
import { type ReconcileRequest, type ReconcileRun, note, textOf } from './reconcile-run.ts'

/** What a run that looks for drift hands to its parts. */
export interface DriftRun extends RepairDeps, Pick<DriftDeps, 'products'>, Pick<ReconcileRun, 'actions'> {
  findings: DriftFindings
  request: Pick<ReconcileRequest, 'requestId' | 'dryRun' | 'stop'>
}

/** Findings that are looked at again in one run: few, because each costs calls at every run. */
const RECHECKED = 20

/** What fails for so many devices fails for others too: the next run goes on. */
const MOST_FAILURES = 3

/**
 * Looks at a device, keeps what differs, reports what is new and repairs it as its product says. Undefined: as with {@link inspect}.
 * `hasFindings`: the device is known to have some, which may have ended. Throws what the ports throw.
 */
export async function judge (run: DriftRun, serialNumber: string, hasFindings = false): Promise<Inspected | undefined> {
  const inspected = await inspect(serialNumber, run)
  if (!inspected) return undefined
  const { differences } = inspected
  const { fresh, open } = run.request.dryRun ? { fresh: differences, open: [] } : await keep(inspected, hasFindings, run)
  for (const difference of fresh) {
    const { certificateId } = difference
    const about = { serialNumber, ...(certificateId && { certificateId }) }
    note(run, { step: 'report-drift', outcome: 'later', ...about, detail: sentenceOf(difference) })
  }
  for (const difference of open) await repair(run, inspected, difference)
  return inspected
}

/** As {@link judge}, for a run that goes on with other devices: a failure is noted. */
export async function judgeOrNote (run: DriftRun, serialNumber: string, hasFindings = false): Promise<Inspected | undefined | 'failed'> {
  try {
    return await judge(run, serialNumber, hasFindings)
  } catch (cause) {
    note(run, { step: 'report-drift', outcome: 'failed', serialNumber, detail: textOf(cause) })
    return 'failed'
  }
}

/** A repair that fails leaves the finding as it is, for the next look. */
async function repair (run: DriftRun, inspected: Inspected, difference: SeenDifference): Promise<void> {
  const { device } = inspected
  const product = run.products.get(device.product)
  const remedy = product && remedyOf(difference, device, product)
  if (!remedy) return
  const { serialNumber, kind, certificateId } = difference
  const about = { step: 'repair-drift', serialNumber, ...(certificateId && { certificateId }) } as const
  try {
    const isDone = await apply(remedy, inspected, product, run.request.requestId, run)
    if (isDone) await run.findings.end(serialNumber, kind, run.now())
    note(run, { ...about, outcome: isDone ? 'done' : 'later', detail: remedy })
  } catch (cause) {
    note(run, { ...about, outcome: 'failed', detail: `${remedy}: ${textOf(cause)}` })
  }
}

/** Looks at some of the open findings again, in turn, so that one that has ended is closed soon. Throws what the ports throw. */
export async function recheckOpen (run: DriftRun, recheck: Recheck): Promise<void> {
  if (run.request.dryRun) return
  const { findings, nextCursor } = await run.findings.list(false, RECHECKED, recheck.cursor)
  recheck.cursor = nextCursor
  let failures = 0
  for (const serialNumber of new Set(findings.map(finding => finding.serialNumber))) {
    if (run.request.stop?.aborted || failures >= MOST_FAILURES) return
    if (await judgeOrNote(run, serialNumber, true) === 'failed') failures += 1
  }
}
