import type { ListedCertificate } from './control-plane.ts'
import { agrees } from './drift.ts'
import { judgeOrNote } from './drift-run.ts'
import { activateOne } from './pending-activation.ts'
import { CLOCK_SKEW_MS, type ReconcileRun } from './reconcile-run.ts'
import { ignoreUnreadable } from './unreadable-device.ts'

/** Certificates that are looked up side by side: few enough to leave the table to the vends. */
const AT_ONCE = 16

/**
 * Compares certificates made since the last run with the devices that have them. What is younger than a claim lives may be in the
 * middle of a vend and is left to the next run. A certificate of no device belongs to another system, and is no drift.
 */
export async function compareRecent (run: ReconcileRun): Promise<{ differing: number, complete: boolean }> {
  const until = run.now() - run.claimLifetimeMs - CLOCK_SKEW_MS
  const since = run.request.compareSince - run.claimLifetimeMs - CLOCK_SKEW_MS
  const { certificates, complete } = await run.controlPlane.listRecent(since, run.maxPages, run.deadline())
  const mature = certificates.filter(({ createdAt }) => createdAt <= until)
  let differing = 0
  let hasFailed = false
  for (let n = 0; n < mature.length; n += AT_ONCE) {
    if (run.request.stop?.aborted) return { differing, complete: false }
    const found = await Promise.all(mature.slice(n, n + AT_ONCE).map(certificate => compare(run, certificate)))
    differing += found.filter(outcome => outcome === 'differs').length
    hasFailed ||= found.includes('failed')
  }
  return { differing, complete: complete && !hasFailed }
}

/** Compares one; `failed`: it is to be compared again. Judges one of whose registration no event was heard. */
async function compare (run: ReconcileRun, certificate: ListedCertificate): Promise<'agrees' | 'differs' | 'failed'> {
  const { certificateId, status } = certificate
  if (status === 'PENDING_ACTIVATION') return activateOne(run, certificateId).then(() => 'agrees')
  // A row that cannot be read says nothing to compare with; it is counted as quarantined.
  const device = await run.catalog.findByCertificate(certificateId).catch(ignoreUnreadable)
  if (!device || agrees(device, certificate)) return 'agrees'
  const inspected = await judgeOrNote(run, device.serialNumber)
  return inspected === 'failed' ? 'failed' : inspected && inspected.differences.length > 0 ? 'differs' : 'agrees'
}
