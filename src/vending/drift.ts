import type { Device } from './device.ts'
import { CLOCK_SKEW_MS, type ReconcileRun, author, note, write } from './reconcile-run.ts'

/** The state of a certificate in AWS IoT that goes with a device's state; other states go with any. */
export const CERTIFICATE_STATUS: Readonly<Partial<Record<Device['state'], string>>> = { ACTIVE: 'ACTIVE', REVOKED: 'REVOKED', DISABLED: 'INACTIVE' }

/**
 * Compares certificates made since the last run with the devices that have them. What is younger than a claim lives may be in the
 * middle of a vend and is left to the next run. A certificate of no device is somebody else's, and no drift.
 */
export async function compareRecent (run: ReconcileRun): Promise<{ drift: number, complete: boolean }> {
  const until = run.now() - run.claimLifetimeMs - CLOCK_SKEW_MS
  const since = run.request.compareSince - run.claimLifetimeMs - CLOCK_SKEW_MS
  const { certificates, complete } = await run.controlPlane.listRecent(since, run.maxPages, run.deadline())
  let drift = 0
  for (const { certificateId, status, createdAt } of certificates) {
    if (run.request.stop?.aborted) return { drift, complete: false }
    if (createdAt > until) continue
    const device = await run.devices.findByCertificate(certificateId)
    const expected = device && CERTIFICATE_STATUS[device.state]
    if (!expected || device.certificate?.certificateId !== certificateId || expected === status) continue
    drift++
    const detail = `the registry says ${device.state}, AWS IoT says ${status}`
    // AWS IoT is the truth about what is final: a restored table cannot bring a certificate back.
    if (status === 'REVOKED' && device.state === 'ACTIVE') await write(run, 'mark-revoked', device, () => run.devices.revoked(device, author(run)))
    note(run, { step: 'report-drift', outcome: 'later', serialNumber: device.serialNumber, certificateId, detail })
  }
  return { drift, complete }
}
