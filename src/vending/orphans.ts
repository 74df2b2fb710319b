import { CvmError } from '../errors.ts'
import { readCertificate } from '../x509/certificate.ts'
import { type DescribedCertificate, LONGEST_CALL_MS, type ListedCertificate, isIssuedByAws } from './control-plane.ts'
import { type Device, GENERATED_KEY, waitsUntil } from './device.ts'
import { CLOCK_SKEW_MS, type ReconcileRun, note, textOf } from './reconcile-run.ts'
import type { OrphanSearch } from './unfinished-devices.ts'
import { UnreadableDevice, findOrFault, ignoreUnreadable } from './unreadable-device.ts'

/** The subject that AWS IoT gives to certificates with a key pair of its own making. */
const GENERATED_SUBJECT = 'CN=AWS IoT Certificate'

/**
 * Deletes certificates that were made for these devices and never recorded: INACTIVE, attached to nothing, and in no record. Where
 * AWS IoT has listed more newer ones than one run looks at, the next run goes on; until the search is over it is for the same devices.
 *
 * One made from a CSR is known by its public key. Nobody can record it any more, because its device is in nobody's hands. One
 * with a generated key carries no name, so it must also be older than a claim lives: recording needs a live claim, so no live worker
 * of any device can still record it.
 */
export async function findOrphans (run: ReconcileRun, suspected: readonly Device[]): Promise<{ complete: boolean }> {
  if (suspected.length === 0) return { complete: true }
  const kept = await resumed(run)
  const devices = kept?.devices ?? suspected
  // One moment for all: no device is cleared below while a certificate of its own was too young to be judged, or not yet made.
  const fresh = { startedAt: run.now(), since: sinceOf(suspected), isJudged: true, marker: undefined }
  const { startedAt, since, marker, isJudged } = kept?.search ?? fresh
  const { certificates, complete, marker: next } = await listed(run, since, marker)
  const owners = ownersOf(devices)
  let judged = isJudged
  const held = new Set<string>()
  for (const certificate of certificates.filter(({ status }) => status === 'INACTIVE')) {
    if (run.request.stop?.aborted) return { complete: false }
    judged = await judge(run, certificate, owners, startedAt, held) && judged
  }
  const free = devices.filter(({ serialNumber }) => !held.has(serialNumber))
  if (!run.request.dryRun) {
    const serialNumbers = free.map(({ serialNumber }) => serialNumber)
    const isOver = complete || next === undefined || free.length === 0
    const rest = isOver ? undefined : { startedAt, since, serialNumbers, marker: next, isJudged: judged }
    if (kept || rest) await run.devices.keepOrphanSearch(rest)
    if (kept || !complete) note(run, { step: 'search-orphans', outcome: complete ? 'done' : 'later' })
    if (complete && judged) await putOff(run, free, startedAt)
  }
  return { complete }
}

/** The search that an earlier run began, with those of its devices that are still suspected; a search that is for none is forgotten. */
async function resumed (run: ReconcileRun): Promise<{ search: OrphanSearch, devices: Device[] } | undefined> {
  const search = run.request.dryRun ? undefined : await run.devices.orphanSearch()
  if (!search) return undefined
  const rows = await Promise.all(search.serialNumbers.map(serialNumber => findOrFault(run.devices, serialNumber)))
  const devices = rows.flatMap(({ device }) => device?.suspicion ? [device] : [])
  return devices.length > 0 ? { search, devices } : undefined
}

function sinceOf (suspected: readonly Device[]): number {
  return Math.min(...suspected.map(({ suspicion }) => suspicion?.since ?? Infinity)) - CLOCK_SKEW_MS
}

/** A marker that AWS IoT does not take any more ends the search; the next run begins anew. */
async function listed (run: ReconcileRun, since: number, marker: string | undefined): ReturnType<ReconcileRun['controlPlane']['listRecent']> {
  try {
    return await run.controlPlane.listRecent(since, run.maxPages, run.deadline(), marker)
  } catch (cause) {
    if (marker === undefined || !(cause instanceof CvmError && cause.code === 'aws-iot-refused')) throw cause
    return { certificates: [], complete: false }
  }
}

/** Several devices may have asked for a key pair, and a key may have been asked for by several. */
function ownersOf (devices: readonly Device[]): Map<string, Device[]> {
  const owners = new Map<string, Device[]>()
  for (const device of devices) {
    for (const key of device.suspicion?.keys ?? []) owners.set(key, [...owners.get(key) ?? [], device])
  }
  return owners
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
 * Ends the suspicion of devices for which nothing can come any more: AWS IoT may carry out a call long after it was given up, and a
 * generated key's certificate must have come of age. AWS IoT's clock dates certificates, and may be ahead of the one that ended the
 * claim: hence twice the skew. The others are looked at again when that is so, and once before, because most calls that are given up are
 * carried out within a claim's life. Both writes are for the device as it was seen: any change since may be an attempt that has begun.
 */
async function putOff (run: ReconcileRun, devices: readonly Device[], startedAt: number): Promise<void> {
  for (const device of devices) {
    const mature = (device.suspicion?.until ?? 0) + run.claimLifetimeMs + 2 * CLOCK_SKEW_MS
    const next = [mature, mature + LONGEST_CALL_MS].find(at => at >= startedAt)
    if (next === undefined) {
      const cleared = await run.devices.clearSuspicion(device).catch(ignoreUnreadable)
      if (cleared?.applied) await run.devices.settle(cleared.device, run.looksAfter).catch(ignoreUnreadable)
    } else if (hasOnlyOrphans(device)) {
      const at = Math.min(next + 1, waitsUntil(device, run.looksAfter) ?? Infinity)
      if (at > run.looksAfter) await run.devices.postpone(device, at).catch(ignoreUnreadable)
    }
  }
}

/** Whether nothing else is to be done about the device soon. */
function hasOnlyOrphans ({ pending, retiring, renewal }: Device): boolean {
  return !pending && retiring.length === 0 && (!renewal || renewal.phase === 'issued')
}
