import { CvmError } from '../errors.ts'

export const AUTHORITY_STATUSES = ['ACTIVE', 'INACTIVE'] as const
export type AuthorityStatus = typeof AUTHORITY_STATUSES[number]

/** `DEFAULT`: one account of a Region has the CA, and has shown that it holds its key. `SNI_ONLY`: several may; devices must send SNI. */
export const AUTHORITY_MODES = ['DEFAULT', 'SNI_ONLY'] as const
export type AuthorityMode = typeof AUTHORITY_MODES[number]

/** What becomes of a certificate while nobody can tell whether it is revoked: a CRL is missing, stale or not set. */
export const WITHOUT_CRL = ['refuse', 'accept'] as const

/** A customer CA that is registered with AWS IoT, as AWS IoT holds it. Times are epoch milliseconds. */
export interface CaCertificate {
  /** SHA-256 of the DER in lower-case hex, as for every certificate. */
  caCertificateId: string
  caCertificateArn: string
  caCertificatePem: string
  status: AuthorityStatus
  /** Whether AWS IoT registers an unknown certificate of this CA at its first connection (JITR). */
  autoRegistration: boolean
  mode: AuthorityMode
  createdAt: number
  notBefore: number
  notAfter: number
}

/** What AWS IoT does not hold of an authority, and the registry's table does. */
export interface AuthoritySettings {
  /** The CA certificates between the authority and its devices' (PEM), if there are any. */
  intermediatesPem: string | undefined
  /** Where the revocation lists of the authority and its intermediates are: http(s) URLs, and names of files in `CRL_DIR`. */
  crls: readonly string[]
  whenCrlUnavailable: typeof WITHOUT_CRL[number]
  /** The products that its certificates may be for; all of them when absent. */
  products: readonly string[] | undefined
}

/** An authority: AWS IoT says that it is one, the settings what it may do here. */
export interface Authority extends CaCertificate, AuthoritySettings {
  /** Of its settings; 0 while nobody has set any. */
  revision: number
}

/**
 * The settings of a CA that was registered without us, by the AWS CLI or Terraform. It fails closed: nothing it signs is taken before
 * somebody says where its CRL is, or that there need not be one.
 */
export const DEFAULT_SETTINGS: AuthoritySettings = { intermediatesPem: undefined, crls: [], whenCrlUnavailable: 'refuse', products: undefined }

/** Why an authority's certificate may not be that of a device of this product; undefined where it may. */
export function refusalByAuthority ({ products }: Pick<AuthoritySettings, 'products'>, product: string): CvmError | undefined {
  return products === undefined || products.includes(product) ? undefined : new CvmError('authority-not-for-product')
}
