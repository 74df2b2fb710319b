import { CvmError } from '../errors.ts'

/** Every way a CSR can be refused, with what to do about it. The README and a test walk this list. */
export const CSR_REFUSALS = {
  'csr-too-long': 'The CSR is longer than the 4096 characters that AWS IoT takes; leave out attributes and extensions',
  'pem-not-one-block': 'Send exactly one PEM block, from -----BEGIN CERTIFICATE REQUEST----- to -----END CERTIFICATE REQUEST-----, and nothing else',
  'pem-wrong-label': 'The PEM block must be a CERTIFICATE REQUEST (or NEW CERTIFICATE REQUEST), never a key or a certificate',
  'pem-not-canonical': 'The PEM block must hold lines of at most 76 base64 characters, correctly padded, without headers or empty lines',
  'csr-not-der': 'The content is not strict DER, or there is something after it',
  'csr-not-pkcs10': 'The content is not a PKCS#10 certification request (RFC 2986, version 1)',
  'key-type-not-allowed': 'Use an RSA key (2048 to 4096 bits) or an EC key on P-256, P-384 or P-521',
  'key-not-valid': 'The public key is damaged: its numbers cannot be those of a key of its type',
  'rsa-key-too-small': 'The RSA key must have 2048 bits or more',
  'rsa-key-too-large': 'The RSA key must have 4096 bits or fewer',
  'rsa-exponent-not-allowed': 'The RSA public exponent must be odd, at least 65537 and below 2^32',
  'curve-not-allowed': 'The EC key must be on P-256, P-384 or P-521',
  'curve-parameters-explicit': 'The EC key must name its curve, not spell out its parameters',
  'ec-point-not-uncompressed': 'The EC public key must be an uncompressed point (0x04, X, Y)',
  'algorithm-parameters-wrong': 'Algorithm parameters must be NULL for RSA and absent for ECDSA signatures',
  'signature-algorithm-not-allowed': 'Sign the CSR with SHA-256, SHA-384 or SHA-512 and ECDSA or RSA (PKCS#1 v1.5)',
  'signature-algorithm-mismatch': 'The signature algorithm does not belong to the type of the public key',
  'signature-invalid': 'The signature does not verify with the public key of the CSR; sign it with the matching private key, last of all',
  'subject-not-readable': 'Each value in the subject must be a valid text string (UTF8String is best)',
  'subject-other-device': 'The common name must be the serial number of the device, or be left out'
} as const

/** The stable name of a broken rule: `reason` beside the code `csr-rejected`. */
export type CsrRefusal = keyof typeof CSR_REFUSALS

/** The error for a broken rule; `specifics` says what was found and must never hold unescaped text of the caller. */
export function refusal (reason: CsrRefusal, specifics?: string): CvmError {
  const advice = CSR_REFUSALS[reason]
  return new CvmError('csr-rejected', { reason, detail: specifics === undefined ? `${advice}.` : `${advice} (${specifics}).` })
}
