import type { Device } from './device.ts'
import { CLOCK_SKEW_MS, type ReconcileRun, author, note, write } from './reconcile-run.ts'

/**
 * Brings a renewal to its end where that is due: one that was confirmed is finished, one that nobody is issuing any more or that was not
 * confirmed in time is given up. One that still waits for its device is let be. Undefined where somebody came between.
 */
export async function tendRenewal (run: ReconcileRun, device: Device): Promise<Device | undefined> {
  const { renewal, serialNumber } = device
  if (!renewal) return device
  if (renewal.phase === 'swapping') {
    const { certificateId = '' } = renewal.certificate ?? {}
    note(run, { step: 'finish-renewal', outcome: run.request.dryRun ? 'would' : 'done', serialNumber, certificateId })
    return run.request.dryRun ? device : run.swap(device, run.request.requestId)
  }
  if (renewal.expiresAt + CLOCK_SKEW_MS > run.now()) return device
  return write(run, 'abandon-renewal', device, () => run.renewals.abandon(device, author(run)))
}
