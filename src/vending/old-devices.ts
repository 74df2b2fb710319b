import type { Certificate, Device, DeviceState } from './device.ts'
import type { WriteResult } from './device-registry.ts'
import type { UnreadableDevice } from './unreadable-device.ts'

/** A row that an old service was the last to change. */
export interface OldRow {
  /** The device, as far as the row says something. */
  device: Device
  /** Where the row cannot be read; `device` then says no more than the serial number. */
  unreadable?: UnreadableDevice
  /** For the adapter: how to tell whether the row is still the one seen. */
  seen: Readonly<Record<string, unknown>>
  /** Goes on after this row. */
  cursor: string
}

/** What becomes of a row. */
export interface Takeover {
  state: DeviceState
  stateBefore?: DeviceState
  tokenHash: string | undefined
  certificate: Certificate | undefined
}

/** The rows of the old services: in the registry's own table, or in another one that is only read. */
export interface OldDevices {
  /**
   * Up to `limit` rows from the cursor on, in the table's order. A scan, of a bounded part of the table at each call; there is more while
   * there is a `nextCursor`. Raises `CvmError`: `invalid-request` for a table that is not there, has another key or may not be read, and
   * for a cursor of another table; `registry-unavailable`.
   */
  page (query: { table?: string | undefined, cursor?: string | undefined, limit: number }): Promise<{ rows: OldRow[], nextCursor?: string }>

  /**
   * Makes the row a device of ours. Applies only to the row as seen, so that it loses against any request of the device; a row of another
   * table is copied, where there is no device of this serial number yet.
   */
  takeOver (row: OldRow, as: Takeover, author: { now: number, requestId: string, actor: string }, table?: string): Promise<WriteResult>
}
