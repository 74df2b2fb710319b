import type { Turn } from './deferrals.ts'
import type { Device } from './device.ts'
import type { WriteResult } from './device-registry.ts'
import type { RowFault } from './unreadable-device.ts'

/** Who changes a row, and when; goes into its history. */
export interface Author { now: number, requestId: string }

/** Rows in quarantine: those that cannot be read still, and those that were mended since. */
export interface QuarantinePage {
  faults: RowFault[]
  readable: Device[]
  /** Absent on the last page. */
  nextCursor?: string
}

/** A search for orphans that needs more than one run: AWS IoT's list, newest first, has been judged down to `marker`. */
export interface OrphanSearch {
  /** What AWS IoT has made since is not in the list. */
  startedAt: number
  /** How far back the search goes. */
  since: number
  /** The devices that it is for; what later ones left is looked for by the next search. */
  serialNumbers: string[]
  marker: string
  /** Whether every certificate so far could be judged. */
  isJudged: boolean
}

/**
 * The devices that somebody must finish, and the writes that finish them. The promises of `DeviceRegistry` hold here too: every write
 * applies only to the device as it was seen, so that a worker or an operator who came between wins.
 */
export interface UnfinishedDevices {
  /**
   * Devices whose claim has expired and which are not finished, longest waiting first; those whose turn is `last` after all others, and
   * those whose turn is `not-yet` not at all. Found by a sparse index, up to a bound: no scan.
   */
  list (now: number, limit: number, turnOf?: (serialNumber: string) => Turn): Promise<Device[]>

  /** A page of the rows that cannot be read, which no other list holds. Throws `CvmError('invalid-request')` for another list's cursor. */
  quarantined (limit: number, cursor?: string): Promise<QuarantinePage>

  /** Takes a row that can be read again out of quarantine, into the list of unfinished devices. */
  readmit (device: Device): Promise<WriteResult>

  /** The row as it stands (strongly consistent read). */
  find (serialNumber: string): Promise<Device | undefined>

  /** How many are waiting, up to `limit`. */
  count (now: number, limit: number): Promise<number>

  /** `ISSUING` under the expired claim seen → `REGISTERED`. */
  free (device: Device, author: Author): Promise<WriteResult>

  /**
   * `ISSUED` under the expired claim seen → `REGISTERED`; its certificate, which nobody was given, joins `retiring`. One that was made
   * elsewhere does not: it is gone, or somebody has judged it.
   */
  abandon (device: Device, author: Author): Promise<WriteResult>

  /** `ISSUED`, `ACTIVE` or `DISABLED` with the certificate seen, which is not being swapped → `REVOKED`: what AWS IoT says is final. */
  revoked (device: Device, author: Author): Promise<WriteResult>

  /** The search that the suspicion seen asked for is done; does not apply when the device has changed in any way since. */
  clearSuspicion (device: Device): Promise<WriteResult>

  /** Lists the device again then and not before; does not apply when it has changed in any way since, or is being vended. */
  postpone (device: Device, until: number): Promise<WriteResult>

  /** The search for orphans that is under way. */
  orphanSearch (): Promise<OrphanSearch | undefined>

  /** Remembers how far a search has come, or that it is over. */
  keepOrphanSearch (search: OrphanSearch | undefined): Promise<void>

  /** A certificate of `retiring` is gone from AWS IoT. */
  disposed (device: Device, certificateId: string, author: Author): Promise<WriteResult>

  /**
   * Takes the device out of the list when nothing is left to do about it; until its time is over where a renewal waits to be confirmed, or
   * until its `recheckAt` where that is after `comparedAt`, when its certificate's status was compared last.
   */
  settle (device: Device, comparedAt: number): Promise<WriteResult>

  /**
   * Takes or renews the lease of a name for `owner` until `expiresAt`. False while another owner's has not expired.
   * Saves work only: everything done under it is safe to do twice.
   */
  lease (name: string, owner: string, now: number, expiresAt: number): Promise<boolean>
}
