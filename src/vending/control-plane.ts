import { CvmError } from '../errors.ts'

/**
 * How long after a call was given up AWS IoT may still carry it out. AWS refuses a request that arrives more than five minutes after it
 * was signed (Signature Version 4); a minute more is for the work itself.
 */
export const LONGEST_CALL_MS = 360_000

/** A certificate as AWS IoT hands it out. */
export interface IssuedCertificate {
  certificateId: string
  certificateArn: string
  certificatePem: string
}

/** The key pair of `CreateKeysAndCertificate`. Held in memory for one answer, never stored or logged. */
export interface KeyPair {
  publicKey: string
  privateKey: string
}

/** AWS IoT will not move the certificate to the state asked for: it is REVOKED or deleted. */
export class CertificateStateConflict extends Error {
  override name = 'CertificateStateConflict'
}

/** A certificate cannot be bound, because AWS IoT does not have the thing, or not the certificate any more. */
export class ThingNotFound extends CvmError {
  constructor (thingName: string, cause: unknown) {
    super('aws-iot-refused', { detail: `AWS IoT does not have the thing ${thingName}, or not the certificate any more`, cause })
  }
}

/** A device's thing, as AWS IoT is to hold it. */
export interface Thing {
  thingName: string
  thingType: string | undefined
  thingGroups: readonly string[]
  attributes: Readonly<Record<string, string>>
}

/** A certificate that was made elsewhere, as AWS IoT knows it from now on. */
export interface RegisteredCertificate { certificateArn: string }

/** What AWS IoT says of a certificate. `createdAt` in epoch milliseconds. */
export interface DescribedCertificate {
  status: string
  certificateArn: string
  certificatePem: string
  createdAt: number
  /** The registered CA that signed it; AWS IoT's own certificates have none. */
  caCertificateId: string | undefined
  certificateMode: string
}

/** Those that AWS IoT issued itself have no CA of the account's, and need no SNI. */
export function isIssuedByAws ({ caCertificateId, certificateMode }: DescribedCertificate): boolean {
  return caCertificateId === undefined && certificateMode !== 'SNI_ONLY'
}

/** A line of AWS IoT's list of certificates. */
export interface ListedCertificate { certificateId: string, status: string, createdAt: number }

/** A page of that list; `marker` is absent on the last one. */
export interface CertificatePage { certificates: ListedCertificate[], marker?: string }

/**
 * The part of AWS IoT's control plane that vending needs.
 *
 * Every method ends within the adapter's time limit or when `signal` aborts. Failures are `CvmError`s:
 * `aws-iot-throttled` (over quota, nothing was done), `aws-iot-unavailable` (no answer: it may or may not have been done),
 * `aws-iot-refused` (a set-up fault that a retry does not cure). All but the two `create…` of certificates may be repeated.
 */
export interface ControlPlane {
  /**
   * CreateCertificateFromCsr: a new INACTIVE certificate at **every** call, so it is never retried here.
   * Raises `CvmError('csr-rejected')` where AWS IoT refuses the CSR.
   */
  createCertificateFromCsr (csrPem: string, signal: AbortSignal): Promise<IssuedCertificate>

  /** CreateKeysAndCertificate: a new INACTIVE certificate with a new RSA-2048 key pair at **every** call. */
  createKeysAndCertificate (signal: AbortSignal): Promise<IssuedCertificate & { keyPair: KeyPair }>

  /**
   * RegisterCertificate with its CA, or RegisterCertificateWithoutCA: a certificate that was made elsewhere, INACTIVE. Undefined where
   * AWS IoT has it already, in whatever state. Never retried here, so that an answer that is lost is not taken for that.
   * Raises `CvmError('certificate-rejected')` where AWS IoT refuses the certificate or its CA.
   */
  registerCertificate (
    certificatePem: string, caCertificatePem: string | undefined, signal: AbortSignal
  ): Promise<RegisteredCertificate | undefined>

  /** CreateThing, then AddThingToThingGroup; a thing of that name that exists already keeps its type and attributes. */
  ensureThing (thing: Thing, signal: AbortSignal): Promise<void>

  /**
   * AttachPolicy ∥ AttachThingPrincipal (exclusive: the certificate belongs to this thing alone). Throws {@link ThingNotFound}, and
   * `CvmError('aws-iot-refused')` that names the policy where AWS IoT does not have it.
   */
  bind (certificateArn: string, to: { thingName: string, policyName: string }, signal: AbortSignal): Promise<void>

  /** UpdateCertificate ACTIVE. Raises {@link CertificateStateConflict}. */
  activate (certificateId: string, signal: AbortSignal): Promise<void>

  /** UpdateCertificate INACTIVE. Raises {@link CertificateStateConflict}. */
  deactivate (certificateId: string, signal: AbortSignal): Promise<void>

  /** UpdateCertificate REVOKED, which is final in AWS IoT; a certificate that is gone counts as revoked. */
  revoke (certificateId: string, signal: AbortSignal): Promise<void>

  /** DeleteCertificate of an INACTIVE certificate that nothing is attached to; one that is gone counts as deleted. */
  deleteUnbound (certificateId: string, signal: AbortSignal): Promise<void>

  /**
   * ListCertificates, newest first, from `marker` on, back to `since` or for `maxPages` pages; `complete` tells which of the two ended it.
   * A list that is not complete goes on at its `marker`, for as long as AWS IoT takes it; otherwise throws `aws-iot-refused`.
   */
  listRecent (
    since: number, maxPages: number, signal: AbortSignal, marker?: string
  ): Promise<{ certificates: ListedCertificate[], complete: boolean, marker?: string }>

  /** ListCertificates: one page of all of the account's, oldest first, after the page that had this `marker`. */
  listPage (marker: string | undefined, signal: AbortSignal): Promise<CertificatePage>

  /** DescribeCertificate; undefined when AWS IoT has none of that id. */
  describe (certificateId: string, signal: AbortSignal): Promise<DescribedCertificate | undefined>

  /** ListThingPrincipals: the ids of the certificates that a thing has; none where there is no such thing. */
  certificatesOf (thingName: string, signal: AbortSignal): Promise<string[]>

  /** ListAttachedPolicies: the names of the policies that a certificate has; none where there is no such certificate. */
  policiesOf (certificateArn: string, signal: AbortSignal): Promise<string[]>

  /** Detaches things and policies from a certificate; one that is gone has none. */
  unbind (certificateId: string, signal: AbortSignal): Promise<void>

  /**
   * Ends a certificate for good, in AWS's order: REVOKED, things and policies detached, deleted. May be repeated at any point.
   * One that was made elsewhere stays, REVOKED: if it were gone, it could be registered again, by its device's next connection even.
   * False when AWS IoT is not ready to delete it yet, because detaching takes it some seconds; one that is gone counts as deleted.
   */
  dispose (certificateId: string, signal: AbortSignal): Promise<boolean>

  /** The account's `iot:Data-ATS` endpoint; asked for once. */
  endpoint (): Promise<string>

  /** One cheap call that rejects when AWS IoT does not answer. */
  checkReachable (): Promise<void>
}
