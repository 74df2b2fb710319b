import type { Activated } from './activated.ts'
import { CLOCK_SKEW_MS, type ReconcileRun, note, textOf } from './reconcile-run.ts'

/** Judges the certificates that wait for their activation and that nobody judges: an event's work was cut off, or put off. */
export async function tendPending (run: ReconcileRun): Promise<void> {
  if (!run.activate) return
  for (const { certificateId } of await run.certificateHolds.list(run.now() - CLOCK_SKEW_MS, run.batch)) {
    if (run.request.stop?.aborted) return
    await activateOne(run, certificateId)
  }
}

/** Judges one that waits in AWS IoT; its event may never have arrived. */
export async function activateOne (run: ReconcileRun, certificateId: string): Promise<void> {
  const about = { step: 'activate-pending', certificateId } as const
  if (!run.activate) return
  if (run.request.dryRun) {
    note(run, { ...about, outcome: 'would' })
    return
  }
  try {
    const activated = await run.activate(certificateId, run.request.requestId)
    note(run, { ...about, outcome: activated.outcome === 'later' ? 'later' : 'done', ...factsOf(activated) })
  } catch (cause) {
    note(run, { ...about, outcome: 'failed', detail: textOf(cause) })
  }
}

/** When each of those that wait was first seen; of as many as one run judges. */
export async function pendingSince (run: ReconcileRun): Promise<number[]> {
  if (!run.activate) return []
  return (await run.certificateHolds.list(Number.MAX_SAFE_INTEGER, run.batch)).map(({ seenAt }) => seenAt)
}

function factsOf (activated: Activated): { serialNumber?: string, detail: string } {
  switch (activated.outcome) {
    case 'activated': return { serialNumber: activated.serialNumber, detail: 'activated' }
    case 'refused': return { ...activated.serialNumber !== undefined && { serialNumber: activated.serialNumber }, detail: activated.reason ?? activated.code }
    case 'ignored': return { detail: activated.status }
    case 'later': return { detail: activated.reason ?? activated.code }
  }
}
