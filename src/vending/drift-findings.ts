/** The kinds of difference between the registry and AWS IoT. The README's table of repairs has them. */
export const FINDING_KINDS = [
  'status-differs', 'certificate-missing', 'other-certificate-active', 'thing-detached', 'policy-detached'
] as const
export type FindingKind = typeof FINDING_KINDS[number]

/** How AWS IoT and the registry differ about a device, as it was seen. */
export interface Difference {
  serialNumber: string
  kind: FindingKind
  product: string
  /** The certificate that it is about: the device's, or the first of those that are not the device's. */
  certificateId?: string
  /** What the registry says, in words. */
  registry: string
  /** What AWS IoT says, in words. */
  aws: string
}

/** A difference as it was just seen; `others` are the ids of all the certificates that it is about beside the device's. */
export interface SeenDifference extends Difference { others?: readonly string[] }

/** An operator has seen a finding and lets it be. */
export interface Acceptance { at: number, actor: string, reason: string }

/** A difference that has not ended. `foundAt` is when it was first seen as it is now; epoch milliseconds. */
export interface Finding extends Difference { foundAt: number, accepted?: Acceptance }

export interface FindingPage {
  findings: Finding[]
  /** Absent on the last page. */
  nextCursor?: string
}

/** What became of a difference that was reported: `known` where the same one is there already, accepted or not. */
export type Reported = 'new' | 'changed' | 'known'

/** Where the next run goes on with looking at open findings again; kept between runs. */
export interface Recheck { cursor?: string | undefined }

/** How far the sweep has come. Times in epoch milliseconds. */
export interface SweepPosition {
  /** Grows with every write, so that of two writers one is refused. */
  revision: number
  /** The number of the pass, from 1 on. */
  pass: number
  startedAt: number
  /** When the pass before began; 0 where there was none. */
  previousStartedAt: number
  /** The part of the pass, in this order; `rest`: the pass has ended. */
  phase: 'certificates' | 'devices' | 'accepted' | 'rest'
  /** Where to go on in the phase; absent at its start. */
  cursor?: string
  /** Certificates and devices looked at in this pass. */
  looked: number
  /** The end of the last full pass, and how long it took. */
  endedAt?: number
  durationMs?: number
}

/**
 * What is known of the differences between the registry and AWS IoT, and how far the sweep that looks for them has come. Each finding is
 * a record of its own, by device and kind, that stays until the difference has ended. Conditional writes of one item each; lists by an
 * index, never by a scan, which may lag a moment behind. Every method throws `CvmError('registry-unavailable')`.
 */
export interface DriftFindings {
  /** Keeps a difference. One that has changed is open again, also where it was accepted. Idempotent. */
  report (difference: Difference, now: number): Promise<Reported>

  /** Ends a finding, accepted or not. False where there is none. */
  end (serialNumber: string, kind: FindingKind, now: number): Promise<boolean>

  /** Accepts the finding as it was seen; false where it has changed or ended since. The same again replaces the acceptance. */
  accept (finding: Finding, acceptance: Acceptance): Promise<boolean>

  /** The findings of a device, accepted ones too. */
  of (serialNumber: string): Promise<Finding[]>

  /** A page of the open or of the accepted findings, the oldest first. Throws `CvmError('invalid-request')` for another list's cursor. */
  list (isAccepted: boolean, limit: number, cursor?: string): Promise<FindingPage>

  /** How many findings are open, by kind. */
  count (): Promise<Record<FindingKind, number>>

  /** How far the sweep has come; undefined before the first pass. */
  position (): Promise<SweepPosition | undefined>

  /** Writes the position in the place of the one with its `revision` (0: of none), at the next revision; undefined where that is gone. */
  move (position: SweepPosition): Promise<SweepPosition | undefined>
}

/** No findings of any kind. */
export function noFindings (): Record<FindingKind, number> {
  return { 'status-differs': 0, 'certificate-missing': 0, 'other-certificate-active': 0, 'thing-detached': 0, 'policy-detached': 0 }
}

/** A difference in a sentence. */
export function sentenceOf ({ registry, aws }: Pick<Difference, 'registry' | 'aws'>): string {
  return `the registry says ${registry}, AWS IoT says ${aws}`
}
