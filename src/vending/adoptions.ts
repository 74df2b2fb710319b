import type { AdoptedWay, Device, HistoryEntry } from './device.ts'
import type { NewClaim, WriteResult } from './device-registry.ts'

/** What a worker must present to claim a device for a certificate that was made elsewhere. */
export interface AdoptionClaim extends NewClaim {
  serialNumber: string
  certificateId: string
  publicKeyFingerprint: string
  way: AdoptedWay
  /** A device of one of these products is not claimed. */
  refusingProducts: readonly string[]
}

/** The writes of the registry that adoption needs beside those of vending; the promises of `DeviceRegistry` hold here too. */
export interface Adoptions {
  /**
   * `REGISTERED`, or `ISSUING` under an expired claim → `ISSUING` under this claim, whatever the token: somebody else vouches for the
   * certificate. Begins a suspicion where AWS IoT is to be asked for it, which for `jitr` it has it already. Does not apply to
   * devices of the products that refuse it, nor while this very certificate is being ended.
   */
  claim (request: AdoptionClaim): Promise<WriteResult>

  /** Adds a line to the history of the device exactly as seen. */
  tell (device: Device, entry: HistoryEntry): Promise<WriteResult>
}
