import { hash } from 'node:crypto'
import { DerError, readDer, type DerValue } from './der.ts'
import { keyTypeIn, type KeyType } from './key-policy.ts'
import { nameAttributes, nameText, type NameAttribute } from './names.ts'
import { PemError, decodePem } from './pem.ts'
import { ShapeError, membersOf, publicKeyInfoOf, serialNumberOf, timeOf } from './shape.ts'

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
const VERSION = 0xa0

/**
 * The facts of a PEM text that holds exactly one certificate.
 * @throws {Error} with a plain text for anything else; the caller decides what that means. RFC 5280; RFC 7468, section 5.
 */
export function readCertificate (pem: string): CertificateFacts {
  const der = derOf(pem)
  try {
    const root = readDer(der)
    return factsOf(root, fieldsOf(root))
  } catch (cause) {
    throw cause instanceof DerError || cause instanceof ShapeError ? new Error(`The PEM block does not hold exactly one X.509 certificate in DER: ${cause.message}`, { cause }) : cause
  }
}

/** The fields of a TBSCertificate; what may follow them is in `optional`. RFC 5280, 4.1. */
export interface CertificateFields {
  readonly version: DerValue | undefined
  readonly serial: DerValue
  readonly algorithm: DerValue
  readonly issuer: DerValue
  readonly validity: DerValue
  readonly subject: DerValue
  readonly spki: DerValue
  readonly optional: readonly DerValue[]
}

/** @throws {ShapeError} for what is no certificate. */
export function fieldsOf (root: DerValue): CertificateFields {
  const [tbs] = membersOf(root, 'Certificate', 3)
  const members = membersOf(tbs, 'TBSCertificate')
  const version = members[0]?.tag === VERSION ? members[0] : undefined
  const [serial, algorithm, issuer, validity, subject, spki, ...optional] = version ? members.slice(1) : members
  if (spki === undefined) throw new ShapeError('TBSCertificate is cut off')
  return { version, serial: serial!, algorithm: algorithm!, issuer: issuer!, validity: validity!, subject: subject!, spki, optional }
}

/** @throws {ShapeError} for fields of a wrong kind. */
export function factsOf (root: DerValue, { serial, issuer, validity, subject, spki }: CertificateFields): CertificateFacts {
  const [notBefore, notAfter] = membersOf(validity, 'Validity', 2).map(timeOf)
  for (const name of [issuer, subject]) namesIn(name)
  return {
    certificateId: hash('sha256', root.bytes, 'hex'),
    der: root.bytes,
    publicKeyFingerprint: hash('sha256', spki.bytes, 'hex'),
    subject: nameText(subject),
    issuer: nameText(issuer),
    serialNumber: serialNumberOf(serial),
    notBefore: notBefore!,
    notAfter: notAfter!,
    keyType: keyTypeIn(publicKeyInfoOf(spki)) ?? 'other'
  }
}

/** The attributes of issuer or subject. @throws {ShapeError} */
export function namesIn (name: DerValue): NameAttribute[] {
  const attributes = nameAttributes(name)
  if (attributes === undefined) throw new ShapeError('issuer or subject is not a Name')
  return attributes
}

function derOf (pem: string): Buffer {
  try {
    return decodePem(pem, { labels: ['CERTIFICATE'], maxChars: MAX_CHARS })
  } catch (cause) {
    throw cause instanceof PemError ? new Error(`The text is not exactly one PEM certificate: ${cause.message}`, { cause }) : cause
  }
}
