import { hash, type KeyObject } from 'node:crypto'
import { DerError, TAG, readDer, type DerValue } from './der.ts'
import { der as derValue } from './der-writer.ts'
import { readEcdsaSignature, type SignatureRepair } from './ecdsa-signature.ts'
import { KeyError, checkKey, type KeyType } from './key-policy.ts'
import { isCommonName, nameAttributes, type NameAttribute } from './names.ts'
import { PemError, decodePem, encodePem } from './pem.ts'
import { refusal, type CsrRefusal } from './refusals.ts'
import { ShapeError, algorithmOf, membersOf, octetsOf, publicKeyInfoOf, type Algorithm, type PublicKeyInfo } from './shape.ts'
import { SignatureError, checkSignatureAlgorithm, verifies } from './signature-policy.ts'

/** A certificate signing request that may be sent to AWS IoT. */
export interface Csr {
  /** The request in the one form that is sent on, whatever line ends and label it came with. */
  readonly pem: string
  /** SHA-256 of the SubjectPublicKeyInfo in DER, lower-case hex: the identity of the key. */
  readonly publicKeyFingerprint: string
  readonly keyType: KeyType
  readonly commonName?: string
  /** All of the subject, each with a text that can be read. */
  readonly subjectAttributes: readonly NameAttribute[]
  /** The request in DER as it came, which is what a device knows of it; differs from `pem` where there is a `repair`. */
  readonly der: Buffer
  /** How the signature was written, where `pem` has it written anew. */
  readonly repair?: SignatureRepair
}

/** `any`: a product's rules judge the common name later. */
export type CommonNameRule = 'serial-number-or-none' | 'any'

interface Request {
  readonly info: DerValue
  readonly subject: DerValue
  readonly publicKey: PublicKeyInfo
  /** The AlgorithmIdentifier of the signature as it came. */
  readonly algorithm: DerValue
  readonly signatureAlgorithm: Algorithm
  readonly signature: Buffer
}

/** The longest that AWS IoT takes. */
const MAX_CHARS = 4096
/** Of the text as it came, which may have more in it than the request. */
const MAX_TEXT_CHARS = 8192
const LABELS = ['CERTIFICATE REQUEST', 'NEW CERTIFICATE REQUEST'] as const
const ATTRIBUTES = 0xa0
const PEM_REASONS: Readonly<Record<PemError['fault'], CsrRefusal>> = {
  'too-long': 'csr-too-long',
  'not-one-block': 'pem-not-one-block',
  'wrong-label': 'pem-wrong-label',
  'not-canonical': 'pem-not-canonical'
}

/** The CSR in a text, in the one form that is sent on; only its PEM is judged. @throws {CvmError} `csr-rejected`. */
export function csrPemIn (text: string): string {
  return encodePem(LABELS[0], derOf(text))
}

/** The fingerprint of the public key in a CSR, as in `Csr`, before anything about it is checked. @throws {CvmError} `csr-rejected`. */
export function publicKeyFingerprintOf (pem: string): string {
  return hash('sha256', requestOf(derOf(pem)).publicKey.der, 'hex')
}

/** The common name that a CSR claims, before anything about it is checked. @throws {CvmError} `csr-rejected`. */
export function commonNameOf (pem: string): string | undefined {
  return nameAttributes(requestOf(derOf(pem)).subject)?.find(isCommonName)?.text
}

/**
 * Checks a CSR as far as it can be checked without a call to AWS: one PEM block of strict DER, whatever text is around it, key and
 * signature rules, subject, and proof of possession. Requested extensions are let through unread: AWS IoT is not known to copy any.
 * Attributes may be missing.
 * @throws {CvmError} `csr-rejected` with a `reason` from `CSR_REFUSALS`, and nothing else for any input.
 * RFC 2986; AWS IoT `CreateCertificateFromCsr`.
 */
export function checkCsr (
  pem: string, { serialNumber, commonName: rule = 'serial-number-or-none' }: { serialNumber: string, commonName?: CommonNameRule }
): Csr {
  const der = derOf(pem)
  const request = requestOf(der)
  const { keyType, publicKey, digest } = algorithmsOf(request)
  const subjectAttributes = checkSubject(request.subject, rule === 'any' ? undefined : serialNumber)
  const commonName = subjectAttributes.find(isCommonName)?.text
  // Over the bytes as they came: writing them anew could make another request of them.
  const isGood = (signature: Buffer) => verifies(digest, request.info.bytes, publicKey, signature)
  const repaired = isGood(request.signature) ? undefined : repairOf(request, keyType, isGood)

  const normalised = encodePem(LABELS[0], repaired?.der ?? der)
  if (normalised.length > MAX_CHARS) throw refusal('csr-too-long', `${normalised.length} in lines of 64`)
  const publicKeyFingerprint = hash('sha256', request.publicKey.der, 'hex')
  const more = { ...commonName !== undefined && { commonName }, ...repaired && { repair: repaired.repair } }
  return { pem: normalised, publicKeyFingerprint, keyType, ...more, subjectAttributes, der }
}

/** The request with the signature in DER that a chip wrote otherwise; it is no part of what is signed. Throws where it does not verify. */
function repairOf (request: Request, keyType: KeyType, isGood: (signature: Buffer) => boolean): { der: Buffer, repair: SignatureRepair } {
  const { info, algorithm, signature } = request
  const found = readEcdsaSignature(signature, keyType)
  if (!found && keyType.startsWith('EC')) {
    throw refusal('signature-invalid', `its ${signature.length} bytes are neither r and s in DER, nor r and s at full length one after the other`)
  }
  if (!found || found.form === 'der' || !isGood(found.inDer)) {
    throw refusal('signature-invalid', 'another key made it, or the request was changed after it was signed')
  }
  const bits = derValue(TAG.bitString, Buffer.alloc(1), found.inDer)
  return { der: derValue(TAG.sequence, info.bytes, algorithm.bytes, bits), repair: found.form }
}

function derOf (pem: string): Buffer {
  try {
    return decodePem(pem, { labels: LABELS, maxChars: MAX_TEXT_CHARS })
  } catch (error) {
    throw error instanceof PemError ? refusal(PEM_REASONS[error.fault], error.message) : error
  }
}

function requestOf (der: Buffer): Request {
  try {
    return partsOf(readDer(der))
  } catch (error) {
    if (error instanceof DerError) throw refusal('csr-not-der', error.message)
    throw error instanceof ShapeError ? refusal('csr-not-pkcs10', error.message) : error
  }
}

/** Takes a CertificationRequest apart. RFC 2986, section 4. */
function partsOf (value: DerValue): Request {
  const [info, algorithm, signature] = membersOf(value, 'CertificationRequest', 3)
  const [version, subject, spki, attributes, ...more] = membersOf(info, 'CertificationRequestInfo')
  if (more.length > 0 || spki === undefined) throw new ShapeError('CertificationRequestInfo is not a sequence of 3 or 4')
  checkVersion(version!)
  if (attributes) checkAttributes(attributes)
  return {
    info: info!,
    subject: subject!,
    publicKey: publicKeyInfoOf(spki),
    algorithm: algorithm!,
    signatureAlgorithm: algorithmOf(algorithm),
    signature: octetsOf(signature, 'the signature')
  }
}

function algorithmsOf ({ publicKey, signatureAlgorithm }: Request): { keyType: KeyType, publicKey: KeyObject, digest: string } {
  try {
    const checked = checkKey(publicKey)
    return { ...checked, digest: checkSignatureAlgorithm(signatureAlgorithm, checked.keyType) }
  } catch (error) {
    throw error instanceof KeyError || error instanceof SignatureError ? refusal(error.fault, error.message || undefined) : error
  }
}

/** PKCS#10 has version 0 alone; wolfSSL writes 2, and other tools 1. It changes neither the key nor what is signed. */
function checkVersion ({ tag, content }: DerValue): void {
  if (tag !== TAG.integer) throw new ShapeError('the version is not an integer')
  if (content.length !== 1 || content[0]! > 2) throw new ShapeError(`the version number is 0x${content.toString('hex', 0, 8)}; it must be 0, and 1 and 2 are taken`)
}

function checkAttributes (attributes: DerValue): void {
  const isAttribute = ({ tag, children: [type, values, ...rest] }: DerValue): boolean =>
    tag === TAG.sequence && type?.tag === TAG.oid && values?.tag === TAG.set && rest.length === 0
  if (attributes.tag !== ATTRIBUTES || !attributes.children.every(isAttribute)) throw new ShapeError('the attributes are malformed')
}

/** AWS IoT copies the subject into the certificate, and policies trust its common name: it may name this device or none. */
function checkSubject (subject: DerValue, serialNumber: string | undefined): NameAttribute[] {
  const attributes = nameAttributes(subject)
  if (attributes === undefined) throw refusal('csr-not-pkcs10', 'the subject is not a Name')
  for (const attribute of attributes) {
    if (attribute.text === undefined) throw refusal('subject-not-readable', `the value of ${attribute.oid} is not`)
    const isJudged = serialNumber !== undefined && isCommonName(attribute)
    if (isJudged && (attribute.text !== serialNumber || /\p{Cc}/u.test(attribute.text))) {
      throw refusal('subject-other-device', `it is ${quoted(attribute.text)}`)
    }
  }
  return attributes
}

/** Text of the caller for a message: cut, and in visible ASCII, so that it can hide nothing in a terminal or a log. */
export function quoted (text: string): string {
  return JSON.stringify(text.slice(0, 64)).replace(/[^ -~]/g, char => `\\u${char.charCodeAt(0).toString(16).padStart(4, '0')}`)
}
