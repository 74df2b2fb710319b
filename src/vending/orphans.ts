import { CvmError } from '../errors.ts'
import { readCertificate } from '../x509/certificate.ts'
import { type DescribedCertificate, type ListedCertificate, isIssuedByAws } from './control-plane.ts'
import { type Device, GENERATED_KEY } from './device.ts'
import { CLOCK_SKEW_MS, type ReconcileRun, note, textOf } from './reconcile-run.ts'
import { UnreadableDevice, findOrFault, ignoreUnreadable } from './unreadable-device.ts'

/** The subject that AWS IoT gives to certificates with a key pair of its own making. */
const GENERATED_SUBJECT = 'CN=AWS IoT Certificate'

/**
 * Deletes certificates that were made for these devices and never recorded: INACTIVE, attached to nothing, and known to nobody.
 *
 * One made from a CSR is known by its public key. Nobody can record it any more, because its device is in nobody's hands. One
 * with a generated key carries no name, so it must also be older than a claim lives: recording needs a live claim, so no live worker
 * of any device can still record it.
 */
export async function findOrphans (run: ReconcileRun, suspected: readonly Device[]): Promise<{ complete: boolean }> {
  if (suspected.length === 0) return { complete: true }
  // One moment for all: nobody is cleared below while a certificate of theirs was too young to be judged, or not yet made.
  const now = run.now()
  const since = Math.min(...suspected.map(device => device.suspicion?.since ?? Infinity)) - CLOCK_SKEW_MS
  const { certificates, complete } = await run.controlPlane.listRecent(since, run.maxPages, run.deadline())
  // Several devices may have asked for a key pair, and a key may have been asked for by several.
  const owners = new Map<string, Device[]>()
  for (const device of suspected) {
    for (const key of device.suspicion?.keys ?? []) owners.set(key, [...owners.get(key) ?? [], device])
  }
  let judged = complete
  const held = new Set<string>()
  for (const listed of certificates.filter(({ status }) => status === 'INACTIVE')) {
    if (run.request.stop?.aborted) return { complete: false }
    judged = await judge(run, listed, owners, now, held) && judged
  }
  const free = suspected.filter(({ serialNumber }) => !held.has(serialNumber))
  if (judged && !run.request.dryRun) await clear(run, free, now)
  return { complete }
}

/**
 * False if the certificate could not be judged: then this run clears no device. Where a worker holds one of the devices that it may
 * be of, all of them are added to `held`: the claim may end before this run does, and leave the certificate behind.
 */
async function judge (
  run: ReconcileRun, listed: ListedCertificate, owners: ReadonlyMap<string, readonly Device[]>, now: number, held: Set<string>
): Promise<boolean> {
  const { certificateId } = listed
  try {
    const known = await run.controlPlane.describe(certificateId, run.deadline())
    if (known?.status !== 'INACTIVE') return true
    const { publicKeyFingerprint, subject } = readCertificate(known.certificatePem)
    const generated = isOldGenerated(run, listed, subject, now) ? owners.get(GENERATED_KEY) : undefined
    const ofKey = owners.get(publicKeyFingerprint) ?? generated ?? []
    // What is older than the suspicion was made by somebody else, who may have made it for the same key.
    const candidates = ofKey.filter(({ suspicion }) => listed.createdAt >= (suspicion?.since ?? 0) - CLOCK_SKEW_MS)
    if (candidates.length === 0) return true
    return await alone(run, certificateId, known, async () => {
      const rows = await Promise.all(candidates.map(({ serialNumber }) => findOrFault(run.devices, serialNumber)))
      if (rows.some(({ device, unreadable }) => unreadable || isHeld(run, device))) {
        for (const { serialNumber } of candidates) held.add(serialNumber)
        return
      }
      if (await isKnown(run, rows.flatMap(({ device }) => device ?? []), certificateId)) return
      const about = { step: 'delete-orphan', serialNumber: candidates[0]?.serialNumber ?? '', certificateId } as const
      if (!run.request.dryRun) await run.controlPlane.deleteUnbound(certificateId, run.deadline())
      note(run, { ...about, outcome: run.request.dryRun ? 'would' : 'done' })
    })
  } catch (cause) {
    // Another device has it, whose row cannot be read.
    if (cause instanceof UnreadableDevice) return true
    note(run, { step: 'delete-orphan', outcome: 'failed', certificateId, detail: textOf(cause) })
    // Refused, because something is attached to it: then it is somebody's.
    return cause instanceof CvmError && cause.code === 'aws-iot-refused'
  }
}

/** Another attempt at a certificate that was made elsewhere may find it, and record it: not while somebody else may decide about it. */
async function alone (run: ReconcileRun, certificateId: string, known: DescribedCertificate, work: () => Promise<void>): Promise<boolean> {
  if (isIssuedByAws(known) || run.request.dryRun) return work().then(() => true)
  const now = run.now()
  const hold = { certificateId, holdId: run.newHoldId(), now, expiresAt: now + run.claimLifetimeMs }
  const { taken } = await run.certificateHolds.take(hold, {})
  if (!taken) return false
  await work().finally(() => run.certificateHolds.release({ ...hold, now: run.now() }, true))
  return true
}

function isOldGenerated (run: ReconcileRun, { createdAt }: ListedCertificate, subject: string, now: number): boolean {
  return subject === GENERATED_SUBJECT && createdAt + run.claimLifetimeMs + CLOCK_SKEW_MS < now
}

/** Whether a worker may still record a certificate of the device. */
function isHeld (run: ReconcileRun, device: Device | undefined): boolean {
  const { claim, renewal } = device ?? {}
  const claimExpiresAt = claim?.claimExpiresAt ?? (renewal?.phase === 'issuing' ? renewal.expiresAt : 0)
  return claimExpiresAt + CLOCK_SKEW_MS > run.now()
}

/** Whether any device has it. The owners' rows are read after the list was made: until then it may have been recorded there. */
async function isKnown (run: ReconcileRun, owners: readonly Device[], certificateId: string): Promise<boolean> {
  const isIts = owners.some(({ certificate, renewal, retiring }) =>
    [certificate?.certificateId, renewal?.certificate?.certificateId, ...retiring].includes(certificateId))
  return isIts || await run.catalog.findByCertificate(certificateId) !== undefined
}

/**
 * A device stays under suspicion for one more claim's life: AWS IoT may still finish a call that was given up, and a generated key's
 * certificate may be too young to be judged in this run. AWS IoT's clock dates certificates, and may be ahead of the one that ended
 * the claim: hence twice the skew.
 */
async function clear (run: ReconcileRun, suspected: readonly Device[], now: number): Promise<void> {
  for (const device of suspected) {
    if ((device.lastClaimExpiresAt ?? 0) + run.claimLifetimeMs + 2 * CLOCK_SKEW_MS >= now) continue
    const cleared = await run.devices.clearSuspicion(device).catch(ignoreUnreadable)
    if (cleared?.applied) await run.devices.settle(cleared.device, run.looksAfter).catch(ignoreUnreadable)
  }
}
