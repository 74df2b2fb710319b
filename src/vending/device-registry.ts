import type { Certificate, Device, DeviceEvent, DeviceState, PendingOperation, VendWay } from './device.ts'

/** What a worker must present to take a claim. */
export interface ClaimRequest {
  serialNumber: string
  /** Compared only with rows of the old services, which it is then replaced in by `tokenHash`. */
  registrationToken: string
  tokenHash: string
  claimId: string
  way: VendWay
  /** Absent when AWS IoT is to make the key. */
  publicKeyFingerprint: string | undefined
  now: number
  claimExpiresAt: number
  requestId: string
  /** A device of one of these products is not claimed. */
  refusingProducts: readonly string[]
}

/** A device to be registered. */
export type NewDevice = Pick<Device, 'serialNumber' | 'product' | 'tokenHash' | 'tokenExpiresAt'>

/** A claim on a device whose token has been checked. */
export type NewClaim = Pick<ClaimRequest, 'claimId' | 'claimExpiresAt' | 'now' | 'requestId'>

/** What an operator's wish makes of a device. */
export interface Fulfilment {
  to: DeviceState
  /** Absent where the device is so already. */
  event?: DeviceEvent
  /** The certificate joins `retiring` and is no longer the device's. */
  retiresCertificate: boolean
  stateBefore?: DeviceState
  tokenHash?: string
  tokenExpiresAt?: number
  /** See {@link Device.recheckAt}; what was owed before is not owed any more. */
  recheckAt?: number
}

/** The outcome of a conditional write: it applied, or it did not and this is the row that was in the way. */
export type WriteResult =
  | { applied: true, device: Device }
  | { applied: false, device: Device | undefined }

/** A fenced write: applies only while the device is in the worker's hands. */
export interface FencedWrite {
  device: Device
  claimId: string
  now: number
  requestId: string
}

/**
 * The registry of devices: one row a device, changed only by conditional writes that apply wholly or not at all.
 *
 * Every method is linearizable per device, gives up within the adapter's time limit, and raises
 * `CvmError('registry-unavailable')` when it cannot tell whether the write applied. A caller that repeats a write after that
 * finds its own `claimId` or certificate in `device`, which tells it that the first one had applied.
 */
export interface DeviceRegistry {
  /** The row as it stands (strongly consistent read). */
  find (serialNumber: string): Promise<Device | undefined>

  /** Adds a device in `REGISTERED`; does not apply where one exists, whatever its state. */
  register (device: NewDevice, author: { now: number, requestId: string, actor?: string }): Promise<WriteResult>

  /**
   * `REGISTERED`, or `ISSUING` under an expired claim → `ISSUING` under this claim, where the token is the device's and has
   * not expired. A token that expired after its key's vend had begun still finishes that vend.
   * Does not apply to devices of the products that refuse the request.
   */
  claim (request: ClaimRequest): Promise<WriteResult>

  /** `ISSUED` under an expired claim → the same, under a new claim, to finish what another worker began. */
  resume (device: Device, claim: NewClaim): Promise<WriteResult>

  /** `ISSUED` under an expired claim → `ISSUING` for another key; the certificate never handed out joins `retiring`. */
  supersede (device: Device, claim: NewClaim & Pick<ClaimRequest, 'way' | 'publicKeyFingerprint'>): Promise<WriteResult>

  /**
   * `ACTIVE` with the certificate seen since the commit seen, no operator's wish pending, and the token the device's and not expired →
   * `ISSUING` for another key; the certificate, which may be in use, joins `retiring`.
   */
  revend (device: Device, request: ClaimRequest): Promise<WriteResult>

  /**
   * `ISSUING` under this claim, which has not expired → `ISSUED` with this certificate. Ends the suspicion that this claim began; one
   * that an earlier claim left stays.
   */
  record (write: FencedWrite, certificate: Certificate): Promise<WriteResult>

  /** `ISSUED` under this claim → `ACTIVE`; the token is spent. A device whose `recheckAt` is set stays in the list. */
  commit (write: FencedWrite): Promise<WriteResult>

  /**
   * Lets this claim expire at once, so that a retry need not wait for it; the state stays, for the next worker or reconcile. Ends the
   * suspicion that this claim began where AWS IoT has `certainlyNothing` of it.
   */
  release (write: FencedWrite, certainlyNothing: boolean): Promise<WriteResult>

  /**
   * Writes down an operator's wish, whatever the state; a later wish replaces one that is not yet fulfilled. With `revision`: only
   * while the device is at that one.
   */
  intend (device: Device, pending: PendingOperation, moment: { expiresAt: number, revision?: number }): Promise<WriteResult>

  /** Fulfils the wish seen: applies only to the device exactly as seen, by state, claim and certificate. */
  fulfil (device: Device, change: Fulfilment, author: { now: number, requestId: string }): Promise<WriteResult>
}
