import { CvmError, type ErrorCode } from '../errors.ts'

/** What a key must be, of whatever carries it. */
const KEY_REFUSALS = {
  'key-type-not-allowed': 'Use an RSA key (2048 to 4096 bits) or an EC key on P-256, P-384 or P-521',
  'key-not-valid': 'The public key is damaged: its numbers cannot be those of a key of its type',
  'rsa-key-too-small': 'The RSA key must have 2048 bits or more',
  'rsa-key-too-large': 'The RSA key must have 4096 bits or fewer',
  'rsa-exponent-not-allowed': 'The RSA public exponent must be odd, at least 65537 and below 2^32',
  'rsa-key-weak': 'The factors of the RSA key are easy to find; make a new key with another library or chip',
  'curve-not-allowed': 'The EC key must be on P-256, P-384 or P-521',
  'curve-parameters-explicit': 'The EC key must name its curve, not spell out its parameters',
  'ec-point-not-uncompressed': 'The EC public key must be an uncompressed point (0x04, X, Y)',
  'algorithm-parameters-wrong': 'The parameters of a signature algorithm must be absent or NULL, and those of an RSA public key NULL'
} as const

/** The stable name of a key rule. */
export type KeyRefusal = keyof typeof KEY_REFUSALS

/** Every way a CSR can be refused, with what to do about it. The README and a test walk this list. */
export const CSR_REFUSALS = {
  'csr-too-long': 'The CSR is longer than the 4096 characters that AWS IoT takes, or the text around it than 8192; leave out attributes, extensions and text',
  'pem-not-one-block': 'Send exactly one PEM block, from -----BEGIN CERTIFICATE REQUEST----- to -----END CERTIFICATE REQUEST-----',
  'pem-wrong-label': 'The PEM block must be a CERTIFICATE REQUEST (or NEW CERTIFICATE REQUEST), never a key or a certificate',
  'pem-not-canonical': 'The PEM block must hold base64, correctly padded, without headers',
  'csr-not-der': 'The content is not strict DER, or there is something after it',
  'csr-not-pkcs10': 'The content is not a PKCS#10 certification request (RFC 2986)',
  ...KEY_REFUSALS,
  'signature-algorithm-not-allowed': 'Sign the CSR with SHA-256, SHA-384 or SHA-512 and ECDSA or RSA (PKCS#1 v1.5)',
  'signature-algorithm-mismatch': 'The signature algorithm does not belong to the type of the public key',
  'signature-invalid': 'The signature must verify with the public key of the CSR: sign it with the matching private key, last of all',
  'subject-not-readable': 'Each value in the subject must be a valid text string (UTF8String is best)',
  'subject-other-device': 'The common name must be the serial number of the device, or be left out'
} as const

/** The stable name of a broken rule: `reason` beside the code `csr-rejected`. */
export type CsrRefusal = keyof typeof CSR_REFUSALS

/** Every way the text of a certificate can be refused before anybody asks who signed it. The README and a test walk this list. */
export const CERTIFICATE_REFUSALS = {
  'certificate-too-long': 'The text is longer than the 65536 characters that AWS IoT takes',
  'too-many-certificates': 'Send at most 11 certificates: the device\'s and the intermediates above it',
  'pem-not-one-block': 'Send whole PEM blocks, from -----BEGIN CERTIFICATE----- to -----END CERTIFICATE-----; one where one certificate is asked for',
  'pem-wrong-label': 'Each PEM block must be a CERTIFICATE, never a key or a request',
  'pem-not-canonical': 'Each PEM block must hold base64, correctly padded, without headers',
  'certificate-not-der': 'The content is not strict DER, or there is something after it',
  'certificate-not-x509': 'The content is not an X.509 certificate as RFC 5280 has it',
  ...KEY_REFUSALS,
  'subject-not-readable': 'Each value in the subject must be a valid text string (UTF8String is best)'
} as const

/** The stable name of a broken rule: `reason` beside the code `certificate-rejected`. */
export type CertificateRefusal = keyof typeof CERTIFICATE_REFUSALS

/** Every way a certificate can fail to lead to the authority it is said to be of. The README and a test walk this list. */
export const CHAIN_REFUSALS = {
  'issuer-name-mismatch': 'The issuer of the certificate must be, byte for byte, the subject of the authority or of an intermediate that was given',
  'signature-invalid': 'The signature must verify with the key of the authority or intermediate; another CA of the same name proves nothing',
  'not-yet-valid': 'The certificate is not valid yet; compare the clocks',
  expired: 'The certificate has expired',
  'leaf-is-a-ca': 'A device\'s certificate must not be that of a CA (basicConstraints, or keyCertSign in keyUsage)',
  'leaf-not-for-clients': 'If it has a keyUsage there must be digitalSignature in it, and clientAuth in an extendedKeyUsage',
  'issuer-not-yet-valid': 'The certificate of the authority, or of an intermediate, is not valid yet',
  'issuer-expired': 'The certificate of the authority, or of an intermediate, has expired',
  'issuer-not-a-ca': 'The certificate of the authority, and of each intermediate, must say that it is a CA\'s (basicConstraints)',
  'issuer-may-not-sign': 'If the authority, or an intermediate, has a keyUsage, there must be keyCertSign in it',
  'issuer-not-for-clients': 'If the authority, or an intermediate, has an extendedKeyUsage, there must be clientAuth in it',
  'path-too-long': 'There are more intermediates than 4, or than the path length of a CA above them allows',
  'signature-too-weak': 'Each certificate below the authority must be signed with SHA-256, SHA-384 or SHA-512',
  'signature-algorithm-not-allowed': 'Each certificate below the authority must be signed with SHA-256, SHA-384 or SHA-512 and ECDSA or RSA (PKCS#1 v1.5)',
  'algorithm-parameters-wrong': 'The parameters of a signature algorithm must be absent or NULL',
  'key-too-weak': 'Each RSA key in the path must have 2048 bits or more, and no known weakness (ROCA, neighbouring primes)',
  'key-not-allowed': 'Each key in the path must be RSA (2048 to 4096 bits) or EC on P-256, P-384 or P-521',
  'unknown-critical-extension': 'A certificate in the path has a critical extension that is not known here',
  'name-constraints-not-supported': 'A CA in the path limits the names below it, which is not checked here; use one without nameConstraints',
  'too-many-intermediates': 'Send at most 10 intermediates',
  'no-path': 'The intermediates do not lead from the certificate to the authority; send those that are missing'
} as const

/** The stable name of a broken rule: `reason` beside the code `certificate-not-trusted`. */
export type ChainRefusal = keyof typeof CHAIN_REFUSALS

/** Every way a certificate revocation list can be of no use. The README and a test walk this list. */
export const CRL_REFUSALS = {
  'crl-too-long': 'The CRL is longer than 16 MiB',
  'crl-not-pem': 'The CRL must be DER, or exactly one PEM block from -----BEGIN X509 CRL----- to -----END X509 CRL-----',
  'crl-not-der': 'The content is not strict DER, or there is something after it',
  'crl-malformed': 'The content is not a certificate revocation list as RFC 5280 has it',
  'crl-issuer-mismatch': 'The issuer of the CRL must be, byte for byte, the subject of the authority or intermediate whose certificates it is about',
  'crl-issuer-may-not-sign': 'If the authority, or the intermediate, has a keyUsage, there must be cRLSign in it',
  'crl-signature-not-allowed': 'The CRL must be signed with SHA-256, SHA-384 or SHA-512, and with a key that the key rules allow',
  'crl-signature-invalid': 'The signature must verify with the key of the authority or intermediate; another CA of the same name proves nothing',
  'crl-of-another-key': 'The CRL is signed with another key of the CA; set the CRL of this key too, or, where one list is for both, the CA certificate of the new key that the old key signed as an intermediate',
  'crl-is-partial': 'The CRL is about some of the certificates only, or those of other issuers (issuingDistributionPoint); give the complete one',
  'crl-critical-extension': 'The CRL, or one of its entries, has a critical extension that is not known here'
} as const

/** The stable name of what is wrong with a CRL. */
export type CrlRefusal = keyof typeof CRL_REFUSALS

/**
 * Why a certificate cannot be judged, where time alone cures nothing: its operator must publish or set another CRL. Reasons beside the
 * code `crl-unavailable`.
 */
export const LASTING_CRL_REASONS: ReadonlySet<string> = new Set([
  'crl-not-set', 'crl-folder-not-set', 'crl-too-large', 'crl-too-long', 'crl-malformed', 'crl-issuer-may-not-sign', 'crl-signature-not-allowed',
  'crl-of-another-key', 'crl-is-delta', 'crl-is-partial', 'crl-critical-extension', 'crl-missing-for-issuer'
])

/** What makes a revocation list useless. Whoever asked for it decides what that means; it is never the fault of a device. */
export class CrlError extends Error {
  override readonly name = 'CrlError'
  readonly reason: CrlRefusal

  constructor (reason: CrlRefusal, specifics?: string) {
    super(specifics === undefined ? `${CRL_REFUSALS[reason]}.` : `${CRL_REFUSALS[reason]} (${specifics}).`)
    this.reason = reason
  }
}

/** The error for a broken rule; `specifics` says what was found and must never hold unescaped text of the caller. */
export function refusal (reason: CsrRefusal, specifics?: string): CvmError {
  return errorOf('csr-rejected', reason, CSR_REFUSALS[reason], specifics)
}

/** As `refusal`, for the text of a certificate. */
export function certificateRefusal (reason: CertificateRefusal, specifics?: string): CvmError {
  return errorOf('certificate-rejected', reason, CERTIFICATE_REFUSALS[reason], specifics)
}

/** As `refusal`, for a certificate that is not trusted. */
export function chainRefusal (reason: ChainRefusal, specifics?: string): CvmError {
  return errorOf('certificate-not-trusted', reason, CHAIN_REFUSALS[reason], specifics)
}

function errorOf (code: ErrorCode, reason: string, advice: string, specifics: string | undefined): CvmError {
  return new CvmError(code, { reason, detail: specifics === undefined ? `${advice}.` : `${advice} (${specifics}).` })
}
