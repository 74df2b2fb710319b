import { createHash } from 'node:crypto'
import { CvmError } from '../errors.ts'
import type { ControlPlane, ListedCertificate } from './control-plane.ts'
import type { DeviceCatalog, ListedDevice } from './device-catalog.ts'
import { CERTIFICATE_STATUS, agrees } from './drift.ts'
import type { SweepPosition } from './drift-findings.ts'
import { type DriftRun, judge } from './drift-run.ts'
import { note, textOf } from './reconcile-run.ts'
import type { SeenCertificates } from './seen-certificates.ts'
import { ignoreUnreadable } from './unreadable-device.ts'

/** Each device's thing and policies are looked at in one of so many passes. */
export const SAMPLE_PASSES = 7

/** Devices in a page, as many as AWS IoT lists certificates. */
const PAGE_SIZE = 250

/** Certificates that are looked up side by side: few enough to leave the table to the vends. */
const AT_ONCE = 16

/** How often a page is tried again where a device in it fails, before the sweep goes on without that device. */
const TRIES = 3

/** Failures that pass: the same page is tried again, for a bounded number of times where they may be about one device. */
const PASSING: readonly string[] = ['aws-iot-unavailable', 'registry-unavailable', 'deadline-exceeded']

export interface SweepRun extends DriftRun {
  controlPlane: ControlPlane
  catalog: Pick<DeviceCatalog, 'findByCertificate' | 'list'>
  intervalMs: number
  /** What AWS IoT has listed in this pass; kept between runs. */
  seen: SeenCertificates
  /** How often the present page has failed; kept between runs. */
  stuck: { revision: number, tries: number }
  /** Told how many certificates or devices were looked at. */
  onLooked: (count: number) => void
}

/**
 * Goes on with the sweep over the whole fleet for at most `pages` pages, from where it was left by whichever replica; a new pass begins an
 * interval after the last one began, or at once where it is asked for. A pass lists all of the account's certificates and looks each one
 * up in the registry, then lists the registry's devices for certificates that AWS IoT has no more, then looks at accepted findings again.
 * The thing, the policies and the other certificates of a device are looked at where its certificate was made since the pass before, where
 * something differs, and for one device of {@link SAMPLE_PASSES} in turn. Findings are kept as they are made. Safe to run twice at once:
 * of two runs one moves the position. Answers with the position. Throws what the ports throw; a later run goes on at the same page.
 */
export async function sweep (run: SweepRun, pages: number, isWanted = false): Promise<SweepPosition> {
  const last = await run.findings.position()
  let position = last && (last.phase !== 'rest' || !isDue(last, run, isWanted)) ? last : await run.findings.move(nextPass(last, run.now()))
  for (let page = 0; page < pages && position && position.phase !== 'rest' && !run.request.stop?.aborted; page++) {
    const next: SweepPosition | undefined = await lookAtPage(run, position)
    position = next && await run.findings.move(next)
  }
  // Another replica moves it.
  return position ?? await run.findings.position() ?? nextPass(undefined, run.now())
}

function isDue ({ startedAt }: SweepPosition, { intervalMs, now }: SweepRun, isWanted: boolean): boolean {
  return isWanted || now() >= startedAt + intervalMs
}

function nextPass (last: SweepPosition | undefined, now: number): SweepPosition {
  const { revision = 0, pass = 0, startedAt: previousStartedAt = 0, endedAt, durationMs } = last ?? {}
  const lastPass = endedAt === undefined || durationMs === undefined ? {} : { endedAt, durationMs }
  return { revision, pass: pass + 1, startedAt: now, previousStartedAt, phase: 'certificates', looked: 0, ...lastPass }
}

/** Where to go on after this page; undefined where the run was stopped in it. */
async function lookAtPage (run: SweepRun, position: SweepPosition): Promise<SweepPosition | undefined> {
  const { cursor, phase } = position
  if (run.stuck.revision !== position.revision) run.stuck = { revision: position.revision, tries: 0 }
  run.stuck.tries += 1
  try {
    const { looked, next } = await LOOKS[phase as keyof typeof LOOKS](run, position)
    if (run.request.stop?.aborted) return undefined
    run.onLooked(looked)
    const moved = { ...position, looked: position.looked + looked }
    return next === undefined ? nextPhase(moved, run.now()) : { ...moved, cursor: next }
  } catch (cause) {
    // A cursor that AWS IoT or the registry takes no more: the part begins again.
    const isStale = cursor !== undefined && cause instanceof CvmError && ['aws-iot-refused', 'invalid-request'].includes(cause.code)
    if (!isStale) throw cause
    const { cursor: _stale, ...start } = position
    return start
  }
}

function nextPhase ({ cursor: _over, ...position }: SweepPosition, now: number): SweepPosition {
  const { phase, startedAt } = position
  if (phase === 'certificates') return { ...position, phase: 'devices' }
  if (phase === 'devices') return { ...position, phase: 'accepted' }
  return { ...position, phase: 'rest', endedAt: now, durationMs: now - startedAt }
}

interface Look { looked: number, next: string | undefined }

const LOOKS = { certificates: lookAtCertificates, devices: lookAtDevices, accepted: lookAtAccepted } as const

/** A page of AWS IoT's list. Certificates of no device are others', and left alone. */
async function lookAtCertificates (run: SweepRun, { pass, cursor, previousStartedAt }: SweepPosition): Promise<Look> {
  const { certificates, marker } = await run.controlPlane.listPage(cursor, run.deadline())
  const since = previousStartedAt === 0 ? Infinity : previousStartedAt
  for (let n = 0; n < certificates.length && !run.request.stop?.aborted; n += AT_ONCE) {
    const some = certificates.slice(n, n + AT_ONCE)
    const suspects = await Promise.all(some.map(certificate => suspectOf(run, certificate, since)))
    for (const serialNumber of suspects) if (serialNumber !== undefined) await lookClosely(run, serialNumber)
  }
  run.seen.add(pass, certificates.map(({ certificateId }) => certificateId))
  return { looked: certificates.length, next: marker }
}

/** The device to look at, where its certificate differs or is new. */
async function suspectOf (run: SweepRun, certificate: ListedCertificate, since: number): Promise<string | undefined> {
  const device = await run.catalog.findByCertificate(certificate.certificateId).catch(ignoreUnreadable)
  return device && (certificate.createdAt >= since || !agrees(device, certificate)) ? device.serialNumber : undefined
}

/** A page of the registry's devices, by its index. */
async function lookAtDevices (run: SweepRun, { pass, cursor }: SweepPosition): Promise<Look> {
  const { devices, nextCursor } = await run.catalog.list({ limit: PAGE_SIZE, ...(cursor !== undefined && { cursor }) })
  for (const device of devices) {
    if (run.request.stop?.aborted) break
    if (isSampled(device, pass) || isMissed(run, device, pass)) await lookClosely(run, device.serialNumber)
  }
  return { looked: 0, next: nextCursor }
}

/** What an operator accepted may have ended or changed. */
async function lookAtAccepted (run: SweepRun, { cursor }: SweepPosition): Promise<Look> {
  const { findings, nextCursor } = await run.findings.list(true, PAGE_SIZE, cursor)
  for (const serialNumber of new Set(findings.map(finding => finding.serialNumber))) {
    if (run.request.stop?.aborted) break
    await lookClosely(run, serialNumber, true)
  }
  return { looked: 0, next: nextCursor }
}

/** A device that fails again and again is reported, and keeps no others waiting. */
async function lookClosely (run: SweepRun, serialNumber: string, hasFindings = false): Promise<void> {
  try {
    await judge(run, serialNumber, hasFindings)
  } catch (cause) {
    const { code = '' } = cause as { code?: string }
    // The quota is needed elsewhere: that says nothing about the device.
    if (code === 'aws-iot-throttled' || (PASSING.includes(code) && run.stuck.tries < TRIES)) throw cause
    note(run, { step: 'report-drift', outcome: 'failed', serialNumber, detail: textOf(cause) })
  }
}

/** AWS IoT has not listed its certificate in this pass; or has, when another replica did the listing. */
function isMissed ({ seen }: SweepRun, { certificateId, state }: ListedDevice, pass: number): boolean {
  return certificateId !== undefined && CERTIFICATE_STATUS[state] !== undefined && state !== 'REVOKED' && !seen.has(pass, certificateId)
}

/** Each device in one of {@link SAMPLE_PASSES} passes, by its serial number's hash. */
function isSampled ({ serialNumber, state }: ListedDevice, pass: number): boolean {
  if (state === 'ISSUING' || state === 'ISSUED') return false
  return createHash('sha256').update(serialNumber).digest().readUInt32BE() % SAMPLE_PASSES === pass % SAMPLE_PASSES
}
