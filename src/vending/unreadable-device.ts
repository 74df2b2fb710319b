import { CvmError } from '../errors.ts'
import type { Certificate, Device } from './device.ts'
import type { DeviceRegistry } from './device-registry.ts'

/** What is wrong with a row of the registry; never a value of it. */
export interface RowFault {
  serialNumber: string
  /** The name of the attribute, with the way into it (`history.3.at`). */
  attribute: string
  /** What was found and what belongs there, in words. */
  detail: string
}

/** The attributes by which a device can prove who it is, as far as they can be read. */
export interface ReadableProofs extends Pick<Device, 'serialNumber' | 'tokenHash' | 'legacyToken'> { certificates: readonly Certificate[] }

/** The row of a device cannot be read (`device-unreadable`). No use case may act on it, because any part of it may be wrong. */
export class UnreadableDevice extends CvmError {
  readonly fault: RowFault
  readonly proofs: ReadableProofs

  constructor (fault: RowFault, proofs: ReadableProofs) {
    super('device-unreadable', { detail: fault.detail })
    this.fault = fault
    this.proofs = proofs
  }
}

/**
 * As `find`; a row that cannot be read is returned, and not thrown, for callers that must check a proof before they answer with it (G7).
 * Throws what the port throws.
 */
export async function findOrFault (
  registry: Pick<DeviceRegistry, 'find'>, serialNumber: string
): Promise<{ device: Device | undefined, unreadable: UnreadableDevice | undefined }> {
  try {
    return { device: await registry.find(serialNumber), unreadable: undefined }
  } catch (cause) {
    if (cause instanceof UnreadableDevice) return { device: undefined, unreadable: cause }
    throw cause
  }
}

/** For a worker that goes on with other devices: the row is in quarantine by then. Throws every other failure again. */
export function ignoreUnreadable (cause: unknown): undefined {
  if (cause instanceof UnreadableDevice) return undefined
  throw cause
}
