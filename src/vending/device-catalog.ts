import type { Device, DeviceState } from './device.ts'

/** Which devices to list; `cursor` is the `nextCursor` of the page before, asked for with the same filters. */
export interface DeviceQuery {
  product?: string
  state?: DeviceState
  /** Most devices in one page. */
  limit: number
  cursor?: string
}

/** What a list tells of a device. */
export interface ListedDevice extends Pick<Device, 'serialNumber' | 'product' | 'state'> {
  certificateId?: string
  /** Epoch milliseconds. */
  notAfter?: number
}

export interface DevicePage {
  devices: ListedDevice[]
  /** Absent on the last page. */
  nextCursor?: string
}

/**
 * Finds devices by something else than their serial number. By indexes alone, so that what it costs grows with what it returns and
 * never with the registry; an answer may lag a moment behind writes.
 */
export interface DeviceCatalog {
  /**
   * A page of devices, by product, state and serial number. Without a product: those of the products known, in their order. Rows of the old
   * services that nobody has changed since are in no index, and so in no list. Raises `CvmError`: `invalid-request` for a cursor that
   * is not of this list, `registry-unavailable`.
   */
  list (query: DeviceQuery): Promise<DevicePage>

  /** The device that has this certificate now, if any. */
  findByCertificate (certificateId: string): Promise<Device | undefined>
}
