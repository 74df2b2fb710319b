import type { ListedCertificate } from './control-plane.ts'
import type { Device } from './device.ts'
import { activateOne } from './pending-activation.ts'
import { CLOCK_SKEW_MS, type ReconcileRun, author, note, write } from './reconcile-run.ts'
import { ignoreUnreadable } from './unreadable-device.ts'

/** The state of a certificate in AWS IoT that goes with a device's state; other states go with any. */
export const CERTIFICATE_STATUS: Readonly<Partial<Record<Device['state'], string>>> = { ACTIVE: 'ACTIVE', REVOKED: 'REVOKED', DISABLED: 'INACTIVE' }

/** Certificates that are looked up side by side: few enough to leave the table to the vends. */
const AT_ONCE = 16

/**
 * Compares certificates made since the last run with the devices that have them. What is younger than a claim lives may be in the
 * middle of a vend and is left to the next run. A certificate of no device is somebody else's, and no drift.
 */
export async function compareRecent (run: ReconcileRun): Promise<{ drift: number, complete: boolean }> {
  const until = run.now() - run.claimLifetimeMs - CLOCK_SKEW_MS
  const since = run.request.compareSince - run.claimLifetimeMs - CLOCK_SKEW_MS
  const { certificates, complete } = await run.controlPlane.listRecent(since, run.maxPages, run.deadline())
  const mature = certificates.filter(({ createdAt }) => createdAt <= until)
  let drift = 0
  for (let n = 0; n < mature.length; n += AT_ONCE) {
    if (run.request.stop?.aborted) return { drift, complete: false }
    const differing = await Promise.all(mature.slice(n, n + AT_ONCE).map(certificate => compare(run, certificate)))
    drift += differing.filter(Boolean).length
  }
  return { drift, complete }
}

/** Whether AWS IoT and the registry differ about a certificate; notes it if so. Judges one of whose registration no event was heard. */
async function compare (run: ReconcileRun, { certificateId, status }: ListedCertificate): Promise<boolean> {
  if (status === 'PENDING_ACTIVATION') return activateOne(run, certificateId).then(() => false)
  // A row that cannot be read says nothing to compare with; it is counted as quarantined.
  const device = await run.catalog.findByCertificate(certificateId).catch(ignoreUnreadable)
  // In the middle of a swap AWS IoT may say anything of the two.
  const expected = device && device.renewal?.phase !== 'swapping' && CERTIFICATE_STATUS[device.state]
  if (!expected || device.certificate?.certificateId !== certificateId || expected === status) return false
  const detail = `the registry says ${device.state}, AWS IoT says ${status}`
  // AWS IoT is the truth about what is final: a restored table cannot bring a certificate back.
  if (status === 'REVOKED' && device.state === 'ACTIVE') await write(run, 'mark-revoked', device, () => run.devices.revoked(device, author(run)))
  note(run, { step: 'report-drift', outcome: 'later', serialNumber: device.serialNumber, certificateId, detail })
  return true
}
