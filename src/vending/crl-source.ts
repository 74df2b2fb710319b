/** What was said of a list when it was fetched, so that it need not be sent again while it is the same. */
export interface Validators { etag?: string, lastModified?: string }

export interface Fetched { bytes: Buffer, validators: Validators }

/** Why a list could not be had. */
export type CrlFetchFault =
  | 'crl-timeout' | 'crl-too-large' | 'crl-http-status' | 'crl-redirected' | 'crl-unreachable' | 'crl-file-missing' | 'crl-folder-not-set'

/** A list could not be had. The message says why, and never where from: an address may hold a secret. */
export class CrlFetchError extends Error {
  override readonly name = 'CrlFetchError'
  readonly reason: CrlFetchFault

  constructor (reason: CrlFetchFault, message: string, cause?: unknown) {
    super(message, { cause })
    this.reason = reason
  }
}

/** Where revocation lists come from: http(s) URLs, and files of one folder. */
export interface CrlSource {
  /** The list as it is now; undefined where it is what the validators are of. Ends in bounded time. Raises {@link CrlFetchError}. */
  fetch (source: string, known: Validators): Promise<Fetched | undefined>
}
