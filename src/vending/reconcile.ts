import { makeAwsAgree } from './agreement.ts'
import { type Device, certificateIdOf } from './device.ts'
import { CERTIFICATE_STATUS } from './drift.ts'
import { recheckOpen } from './drift-run.ts'
import { findOrphans } from './orphans.ts'
import { pendingSince, tendPending } from './pending-activation.ts'
import { compareRecent } from './recent-certificates.ts'
import { tendRenewal } from './renewal-leftovers.ts'
import {
  CLOCK_SKEW_MS, type ReconcileDeps, type ReconcileReport, type ReconcileRequest, type ReconcileRun, author, note, textOf, write
} from './reconcile-run.ts'
import { ignoreUnreadable } from './unreadable-device.ts'

/** Devices that are tended side by side: the pace of the calls to AWS IoT is kept behind the port. */
const AT_ONCE = 12

/**
 * Finishes or undoes what crashes left (DESIGN section 4), for devices whose claim has expired: finishes `ISSUED`, frees `ISSUING`,
 * ends certificates that were replaced, deletes certificates that were made and never recorded, judges those that wait for their
 * activation (JITR), and counts where AWS IoT and the registry differ. Its cost grows with unfinished work and recent certificates,
 * never with the table. Safe to run at any time and twice at once. Operators' wishes come first; a device that fails is reported, and
 * waits behind all others, for longer each time.
 */
export async function reconcile (request: ReconcileRequest, deps: ReconcileDeps): Promise<ReconcileReport> {
  const listedAt = deps.now()
  const run: ReconcileRun = { ...deps, request, actions: [], looksAfter: listedAt - CLOCK_SKEW_MS }
  const turnOf = (serialNumber: string) => run.deferrals.turnOf(serialNumber, listedAt)
  const unfinished = await run.devices.list(run.looksAfter, run.batch, turnOf)
  const suspected: Device[] = []
  // Those with an operator's wish begin first; a device is tended by one worker alone.
  const queue = [...unfinished.filter(({ pending }) => pending), ...unfinished.filter(({ pending }) => !pending)]
  await Promise.all(Array.from({ length: Math.min(AT_ONCE, queue.length) }, async () => {
    for (let device = queue.shift(); device && !request.stop?.aborted; device = queue.shift()) {
      const tended = await bringToRest(run, device)
      if (tended) suspected.push(tended)
    }
  }))
  const looked = await findOrphans(run, suspected)
  await tendPending(run)
  const compared = await compareRecent(run)
  await recheckOpen(run, run.recheck)
  const quarantined = await readmitReadable(run)
  const [backlog, waiting, findings] = await Promise.all([run.devices.count(run.now(), run.batch), pendingSince(run), run.findings.count()])
  const open = Object.values(findings).reduce((sum, count) => sum + count)
  const complete = looked.complete && compared.complete
  const drift = request.dryRun ? Math.max(open, compared.differing) : open
  return { actions: run.actions, backlog, drift, findings, quarantined, pendingSince: waiting, complete }
}

/** Tends a device and takes it out of the list; the device where certificates of it must be looked for first. */
async function bringToRest (run: ReconcileRun, device: Device): Promise<Device | undefined> {
  const tended = await tend(run, device)
  if (tended?.suspicion) {
    if (!run.request.dryRun) run.deferrals.left(device.serialNumber, run.now())
    return tended
  }
  if (tended && !run.request.dryRun) {
    const settled = await run.devices.settle(tended, run.looksAfter).catch(ignoreUnreadable)
    if (settled?.applied) run.deferrals.finished(device.serialNumber)
  }
  return undefined
}

/** Takes rows that were mended out of quarantine; how many cannot be read still. */
async function readmitReadable (run: ReconcileRun): Promise<number> {
  let unreadable = 0
  let cursor: string | undefined
  do {
    const page = await run.devices.quarantined(run.batch, cursor)
    unreadable += page.faults.length
    for (const device of page.readable) await write(run, 'readmit-device', device, () => run.devices.readmit(device))
    cursor = page.nextCursor
  } while (cursor !== undefined && !run.request.stop?.aborted)
  return unreadable
}

/** Brings one device to rest and ends its replaced certificates; undefined where it must be looked at again. */
async function tend (run: ReconcileRun, seen: Device): Promise<Device | undefined> {
  try {
    // The operator's own request is at it.
    if ((seen.pending?.until ?? 0) + CLOCK_SKEW_MS > run.now()) return undefined
    let device: Device | undefined = seen.pending ? await fulfil(run, seen) : seen
    if (device.state === 'ISSUING') device = await free(run, device)
    else if (device.state === 'ISSUED') device = await settleIssued(run, device)
    else device = await repair(run, await tendRenewal(run, device))
    for (const certificateId of device?.retiring ?? []) {
      if (device) device = await dispose(run, device, certificateId)
    }
    return device
  } catch (cause) {
    if (!run.request.dryRun) run.deferrals.failed(seen.serialNumber, run.now())
    const step = seen.state === 'ISSUED' ? 'finish-issued' : seen.renewal ? 'finish-renewal' : 'dispose-retired'
    note(run, { step, outcome: 'failed', serialNumber: seen.serialNumber, detail: textOf(cause) })
    return undefined
  }
}

async function fulfil (run: ReconcileRun, device: Device): Promise<Device> {
  const about = { step: 'finish-operation', serialNumber: device.serialNumber, ...(device.pending && { detail: device.pending.operation }) } as const
  note(run, { ...about, outcome: run.request.dryRun ? 'would' : 'done' })
  return run.request.dryRun ? device : await run.fulfil(device, run.request.requestId)
}

/**
 * A worker or an operator's request that was overtaken may have changed the certificate and died before putting it right; and AWS IoT
 * may have carried out a call that was given up, after an operator's wish was fulfilled.
 */
async function repair (run: ReconcileRun, device: Device | undefined): Promise<Device | undefined> {
  if (!device || device.renewal?.phase === 'swapping') return device
  const certificateId = certificateIdOf(device)
  const expected = CERTIFICATE_STATUS[device.state]
  if (!certificateId || !expected) return device
  const known = await run.controlPlane.describe(certificateId, run.deadline())
  // A certificate that is gone counts as revoked.
  if (known?.status === expected || (!known && expected === 'REVOKED')) return device
  // Of the certificate of an earlier service the row has only the id, which no write can go by.
  if (!device.certificate && known?.status !== 'ACTIVE' && known?.status !== 'INACTIVE') return device
  if (!known || known.status === 'REVOKED') return write(run, 'mark-revoked', device, () => run.devices.revoked(device, author(run)))
  const { serialNumber, recheckAt = Infinity } = device
  const step = recheckAt <= run.looksAfter ? 'undo-late-call' : 'repair-certificate'
  note(run, { step, outcome: run.request.dryRun ? 'would' : 'done', serialNumber, certificateId, detail: `to ${expected}` })
  if (!run.request.dryRun) await makeAwsAgree(certificateId, device, run.controlPlane, run.deadline())
  return device
}

function free (run: ReconcileRun, device: Device): Promise<Device | undefined> {
  return write(run, 'free-expired-claim', device, () => run.devices.free(device, author(run)))
}

/**
 * A CSR's certificate is finished for its device; a key pair that was lost with its process is of no use to anybody. What somebody else
 * took out of PENDING_ACTIVATION stays as they left it, bound to nothing.
 */
async function settleIssued (run: ReconcileRun, device: Device): Promise<Device | undefined> {
  const { certificateId = '', way } = device.certificate ?? {}
  const known = await run.controlPlane.describe(certificateId, run.deadline())
  if (known?.status === 'REVOKED') return write(run, 'mark-revoked', device, () => run.devices.revoked(device, author(run)))
  const isWithheld = way === 'jitr' && known?.status === 'INACTIVE'
  if (isWithheld && !run.request.dryRun) await run.controlPlane.unbind(certificateId, run.deadline())
  if (!known || way === 'keys' || isWithheld) return write(run, 'abandon-issued', device, () => run.devices.abandon(device, author(run)))
  if (run.request.dryRun) {
    note(run, { step: 'finish-issued', outcome: 'would', serialNumber: device.serialNumber, certificateId })
    return device
  }
  const finished = await run.finish(device, run.request.requestId)
  note(run, { step: 'finish-issued', outcome: finished ? 'done' : 'later', serialNumber: device.serialNumber, certificateId })
  return undefined
}

async function dispose (run: ReconcileRun, device: Device, certificateId: string): Promise<Device | undefined> {
  const step = { step: 'dispose-retired', serialNumber: device.serialNumber, certificateId } as const
  if (run.request.dryRun) {
    note(run, { ...step, outcome: 'would' })
    return device
  }
  if (!await run.controlPlane.dispose(certificateId, run.deadline())) {
    run.deferrals.left(device.serialNumber, run.now())
    note(run, { ...step, outcome: 'later', detail: 'AWS IoT is still detaching it' })
    return undefined
  }
  const result = await run.devices.disposed(device, certificateId, author(run))
  note(run, { ...step, outcome: 'done' })
  return result.device
}
