import type { AuthorityMode, AuthoritySettings, AuthorityStatus, CaCertificate } from './authority.ts'

/** A CA to be registered. */
export interface NewCaCertificate {
  caCertificatePem: string
  /** Shows that whoever registers the CA has its key: needed for `DEFAULT`, not taken for `SNI_ONLY`. */
  verificationCertificatePem?: string
  mode: AuthorityMode
  status: AuthorityStatus
  autoRegistration: boolean
}

/** A page of a list of AWS IoT's, in its order: by the date of registration, newest first. */
export interface AwsPage<T> {
  items: T[]
  /** Absent on the last page. */
  nextCursor?: string
}

export interface PageRequest { limit: number, cursor?: string }

/** A device's certificate of an authority, as AWS IoT lists it. `createdAt` is when it was registered. */
export interface CertificateOfAuthority { certificateId: string, certificateArn: string, status: string, createdAt: number }

/**
 * The CA certificates that the account registered with AWS IoT, which is the truth about them. Failures as those of `ControlPlane`;
 * all may be repeated. A cursor that is not of the list raises `CvmError('invalid-request')`.
 */
export interface AuthorityRegistry {
  /** GetRegistrationCode: made at the first call, then the same. */
  registrationCode (signal: AbortSignal): Promise<string>

  /**
   * RegisterCACertificate; false where AWS IoT has this CA already, in whatever state. Raises `CvmError`: `authority-rejected` for what
   * AWS IoT does not take, `authority-limit-exceeded` for the eleventh of one subject.
   */
  register (ca: NewCaCertificate, signal: AbortSignal): Promise<boolean>

  /** DescribeCACertificate; undefined where there is none of that id. */
  describe (caCertificateId: string, signal: AbortSignal): Promise<CaCertificate | undefined>

  /** UpdateCACertificate; false where there is none of that id. */
  update (caCertificateId: string, change: Partial<Pick<CaCertificate, 'status' | 'autoRegistration'>>, signal: AbortSignal): Promise<boolean>

  /** ListCACertificates. */
  list (page: PageRequest, signal: AbortSignal): Promise<AwsPage<Pick<CaCertificate, 'caCertificateId' | 'status'>>>

  /** ListCertificatesByCA; empty where there is no such CA. */
  certificatesOf (caCertificateId: string, page: PageRequest, signal: AbortSignal): Promise<AwsPage<CertificateOfAuthority>>

  /** DeleteCACertificate; one that is gone counts as deleted. Raises `CvmError('authority-active')` for one that is ACTIVE. */
  delete (caCertificateId: string, signal: AbortSignal): Promise<void>
}

/** Settings as they are kept. The revision grows with every change; 0 where there are none. */
export interface KeptSettings extends AuthoritySettings { revision: number }

/** The settings of authorities: conditional writes of one row each. Raises `CvmError('registry-unavailable')`. */
export interface AuthoritySettingsStore {
  /** The rows as they stand (strongly consistent reads); the defaults where there is none. */
  find (caCertificateIds: readonly string[]): Promise<ReadonlyMap<string, KeptSettings>>

  /**
   * Applies while the row is at this revision; else tells the settings that stand there. A write whose answer was lost and that is
   * repeated does not apply, and finds its own settings there.
   */
  put (caCertificateId: string, settings: AuthoritySettings, revision: number): Promise<{ applied: boolean, settings: KeptSettings }>

  /** Back to the defaults. Nothing where there are none set. */
  reset (caCertificateId: string): Promise<void>
}
