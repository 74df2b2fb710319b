import { X509Certificate, createHash, type KeyObject } from 'node:crypto'
import { keyTypeOf, type KeyType } from './key-policy.ts'
import { PemError, decodePem } from './pem.ts'

/** What a certificate says about itself. Nothing here is verified. */
export interface CertificateFacts {
  /** SHA-256 of the DER, lower-case hex: AWS IoT's certificateId. */
  readonly certificateId: string
  readonly der: Buffer
  /** SHA-256 of the SubjectPublicKeyInfo in DER, lower-case hex; equals that of the CSR it was made from. */
  readonly publicKeyFingerprint: string
  /** In the order of the certificate, `CN=…, O=…`, special characters escaped by a backslash; empty when it has none. */
  readonly subject: string
  readonly issuer: string
  /** Upper-case hex, as openssl and node write it. */
  readonly serialNumber: string
  /** Milliseconds since 1970. */
  readonly notBefore: number
  readonly notAfter: number
  readonly keyType: KeyType | 'other'
}

// The longest that AWS IoT's Register* calls take.
const MAX_CHARS = 65_536

/**
 * The facts of a PEM text that holds exactly one certificate.
 * @throws {Error} with a plain text for anything else; the caller decides what that means. RFC 5280; RFC 7468, section 5.
 */
export function readCertificate (pem: string): CertificateFacts {
  const der = derOf(pem)
  const certificate = parse(der)
  return {
    certificateId: createHash('sha256').update(der).digest('hex'),
    der,
    publicKeyFingerprint: createHash('sha256').update(certificate.key.export({ type: 'spki', format: 'der' })).digest('hex'),
    subject: oneLine(certificate.x509.subject),
    issuer: oneLine(certificate.x509.issuer),
    serialNumber: certificate.x509.serialNumber,
    notBefore: epochMs(certificate.x509.validFrom),
    notAfter: epochMs(certificate.x509.validTo),
    keyType: keyTypeOf(certificate.key) ?? 'other'
  }
}

function derOf (pem: string): Buffer {
  try {
    return decodePem(pem, { labels: ['CERTIFICATE'], maxChars: MAX_CHARS })
  } catch (cause) {
    throw cause instanceof PemError ? new Error(`The text is not exactly one PEM certificate: ${cause.message}`, { cause }) : cause
  }
}

function parse (der: Buffer): { x509: X509Certificate, key: KeyObject } {
  try {
    const x509 = new X509Certificate(der)
    // Node also reads BER, PEM inside PEM, and stops where the first value ends; the id would then be of other bytes than it read.
    if (x509.raw.equals(der)) return { x509, key: x509.publicKey }
  } catch (cause) {
    throw new Error('The PEM block does not hold an X.509 certificate with a known kind of key', { cause })
  }
  throw new Error('The PEM block holds something else than exactly one X.509 certificate in DER')
}

// Node separates attributes by line feeds, which it escapes inside values; it types an empty name as text but gives undefined.
function oneLine (name: string | undefined): string {
  return name?.split('\n').join(', ') ?? ''
}

function epochMs (date: string): number {
  const ms = Date.parse(date)
  if (Number.isNaN(ms)) throw new Error('The certificate has a date that cannot be read')
  return ms
}
