import type { KeyObject } from 'node:crypto'
import { factsOf, fieldsOf, namesIn, type CertificateFacts } from './certificate.ts'
import { DerError, TAG, readDer, type DerValue } from './der.ts'
import { certificateExtensions, extensionsIn, type CertificateExtensions } from './extensions.ts'
import { KeyError, checkKey } from './key-policy.ts'
import type { NameAttribute } from './names.ts'
import { PemError, decodePem, decodePems } from './pem.ts'
import { certificateRefusal, type CertificateRefusal } from './refusals.ts'
import { ShapeError, algorithmOf, membersOf, octetsOf, publicKeyInfoOf, type Algorithm, type PublicKeyInfo } from './shape.ts'

/** A certificate that somebody else made, read strictly by our own reader. Nothing here is verified. */
export interface Certificate extends CertificateFacts {
  /** What is signed, byte for byte. */
  readonly tbs: Buffer
  readonly signatureAlgorithm: Algorithm
  readonly signature: Buffer
  /** The Names in DER, by which certificates are chained. */
  readonly issuerDer: Buffer
  readonly subjectDer: Buffer
  readonly subjectAttributes: readonly NameAttribute[]
  readonly publicKeyInfo: PublicKeyInfo
  readonly extensions: CertificateExtensions
}

// The longest text that AWS IoT's Register* calls take; a chain has to fit, too.
const MAX_CHARS = 65_536
/** A device's certificate and the intermediates above it. */
const MAX_CERTIFICATES = 11
const PEM = { labels: ['CERTIFICATE'], maxChars: MAX_CHARS } as const
const PEM_REASONS: Readonly<Record<PemError['fault'], CertificateRefusal>> = {
  'too-long': 'certificate-too-long',
  'not-one-block': 'pem-not-one-block',
  'wrong-label': 'pem-wrong-label',
  'not-canonical': 'pem-not-canonical'
}
const NO_EXTENSIONS: CertificateExtensions = { isCa: false, oids: [], critical: [] }
const [ISSUER_ID, SUBJECT_ID, EXTENSIONS] = [0x81, 0x82, 0xa3]

/**
 * The certificate of a device in a PEM text that holds nothing else, with the key rules of a CSR and a readable subject.
 * @throws {CvmError} `certificate-rejected` with a `reason` from `CERTIFICATE_REFUSALS`, and nothing else for any input.
 */
export function checkCertificate (pem: string): Certificate {
  return checkDevice(parseCertificate(derOf(() => decodePem(pem, PEM))))
}

/**
 * The certificates of a PEM text, at least one and at most 11, in the order they stand there; text between the blocks is skipped, as
 * openssl writes some. Keys and subjects are not judged.
 * @throws {CvmError} `certificate-rejected`, as `checkCertificate` does.
 */
export function readCertificates (pem: string): Certificate[] {
  const blocks = derOf(() => decodePems(pem, PEM))
  if (blocks.length > MAX_CERTIFICATES) throw certificateRefusal('too-many-certificates', `there are ${blocks.length}`)
  return blocks.map(parseCertificate)
}

/** The rules for a device's certificate that need no issuer: the key's, and a readable subject. Throws as `checkCertificate`. */
export function checkDevice (certificate: Certificate): Certificate {
  try {
    publicKeyOf(certificate)
  } catch (error) {
    throw error instanceof KeyError ? certificateRefusal(error.fault, error.message || undefined) : error
  }
  const unreadable = certificate.subjectAttributes.find(({ text }) => text === undefined)
  if (unreadable) throw certificateRefusal('subject-not-readable', `the value of ${unreadable.oid} is not`)
  return certificate
}

const keys = new WeakMap<Certificate, KeyObject>()

/** The public key, imported once. @throws {KeyError} when it breaks the key rules, which are those of a CSR for every certificate. */
export function publicKeyOf (certificate: Certificate): KeyObject {
  const key = keys.get(certificate) ?? checkKey(certificate.publicKeyInfo).publicKey
  keys.set(certificate, key)
  return key
}

function derOf<T> (decode: () => T): T {
  try {
    return decode()
  } catch (error) {
    throw error instanceof PemError ? certificateRefusal(PEM_REASONS[error.fault], error.message) : error
  }
}

/** One certificate in DER. @throws {CvmError} `certificate-rejected`. RFC 5280, 4.1. */
export function parseCertificate (der: Buffer): Certificate {
  try {
    return partsOf(readDer(der))
  } catch (error) {
    if (error instanceof DerError) throw certificateRefusal('certificate-not-der', error.message)
    throw error instanceof ShapeError ? certificateRefusal('certificate-not-x509', error.message) : error
  }
}

function partsOf (root: DerValue): Certificate {
  const [tbs, outer, signature] = membersOf(root, 'Certificate', 3)
  const fields = fieldsOf(root)
  const { version, algorithm, issuer, subject, spki, optional } = fields
  if (!algorithm.bytes.equals(outer!.bytes)) throw new ShapeError('it names two signature algorithms')
  const subjectAttributes = namesIn(subject)
  const issuerAttributes = namesIn(issuer)
  if (issuerAttributes.length === 0) throw new ShapeError('the issuer is empty')
  if (issuerAttributes.some(({ text }) => text === undefined)) throw new ShapeError('a value of the issuer is not a valid text string')
  return {
    ...factsOf(root, fields),
    tbs: tbs!.bytes,
    signatureAlgorithm: algorithmOf(outer),
    signature: octetsOf(signature, 'the signature'),
    issuerDer: issuer.bytes,
    subjectDer: subject.bytes,
    subjectAttributes,
    publicKeyInfo: publicKeyInfoOf(spki),
    extensions: extensionsOf(optional, versionOf(version))
  }
}

/** 1 when it is not said. */
function versionOf (field: DerValue | undefined): number {
  if (field === undefined) return 1
  const [number, ...rest] = field.children
  const isKnown = number?.tag === TAG.integer && number.content.length === 1 && rest.length === 0
  const version = isKnown ? number.content[0]! + 1 : 0
  if (version !== 2 && version !== 3) throw new ShapeError('the version is neither 2 nor 3, or 1 and left out')
  return version
}

function extensionsOf (optional: readonly DerValue[], version: number): CertificateExtensions {
  const rest = [...optional]
  if (version > 1 && rest[0]?.tag === ISSUER_ID) rest.shift()
  if (version > 1 && rest[0]?.tag === SUBJECT_ID) rest.shift()
  const field = version === 3 && rest[0]?.tag === EXTENSIONS ? rest.shift() : undefined
  if (rest.length > 0 || (field && field.children.length !== 1)) throw new ShapeError('there is more than its version allows')
  return field ? certificateExtensions(extensionsIn(field.children[0]!)) : NO_EXTENSIONS
}
