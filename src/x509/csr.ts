import { createHash, verify, type KeyObject } from 'node:crypto'
import { DerError, TAG, oidOf, readDer, type DerValue } from './der.ts'
import { checkKey, checkSignatureAlgorithm, type Algorithm, type KeyType } from './key-policy.ts'
import { isCommonName, nameAttributes } from './names.ts'
import { PemError, decodePem, encodePem } from './pem.ts'
import { refusal, type CsrRefusal } from './refusals.ts'

/** A certificate signing request that may be sent to AWS IoT. */
export interface Csr {
  /** The request in the one form that is sent on, whatever line ends and label it came with. */
  readonly pem: string
  /** SHA-256 of the SubjectPublicKeyInfo in DER, lower-case hex: the identity of the key. */
  readonly publicKeyFingerprint: string
  readonly keyType: KeyType
  readonly commonName?: string
}

interface Request {
  readonly info: DerValue
  readonly subject: DerValue
  readonly spki: DerValue
  readonly keyAlgorithm: Algorithm
  readonly key: Buffer
  readonly signatureAlgorithm: Algorithm
  readonly signature: Buffer
}

const MAX_CHARS = 4096
const LABELS = ['CERTIFICATE REQUEST', 'NEW CERTIFICATE REQUEST'] as const
const ATTRIBUTES = 0xa0
const PEM_REASONS: Readonly<Record<PemError['fault'], CsrRefusal>> = {
  'too-long': 'csr-too-long',
  'not-one-block': 'pem-not-one-block',
  'wrong-label': 'pem-wrong-label',
  'not-canonical': 'pem-not-canonical'
}

/**
 * Checks a CSR as far as it can be checked without asking anybody: strict PEM and DER, key and signature rules, subject, and proof
 * of possession. Requested extensions are let through unread: AWS IoT is not known to copy any.
 * @throws {CvmError} `csr-rejected` with a `reason` from `CSR_REFUSALS`, and nothing else for any input.
 * RFC 2986; AWS IoT `CreateCertificateFromCsr`.
 */
export function checkCsr (pem: string, { serialNumber }: { serialNumber: string }): Csr {
  const der = derOf(pem)
  const request = partsOf(der)
  const { keyType, publicKey } = checkKey(request.keyAlgorithm, request.key)
  const digest = checkSignatureAlgorithm(request.signatureAlgorithm, keyType)
  const commonName = checkSubject(request.subject, serialNumber)
  // Over the bytes as they came: writing them anew could make another request of them.
  if (!verifies(digest, request.info.bytes, publicKey, request.signature)) throw refusal('signature-invalid')

  const normalised = encodePem(LABELS[0], der)
  if (normalised.length > MAX_CHARS) throw refusal('csr-too-long', `${normalised.length} in lines of 64`)
  const publicKeyFingerprint = createHash('sha256').update(request.spki.bytes).digest('hex')
  return { pem: normalised, publicKeyFingerprint, keyType, ...(commonName !== undefined && { commonName }) }
}

function derOf (pem: string): Buffer {
  try {
    return decodePem(pem, { labels: LABELS, maxChars: MAX_CHARS })
  } catch (error) {
    throw error instanceof PemError ? refusal(PEM_REASONS[error.fault], error.message) : error
  }
}

/** Takes a CertificationRequest apart. RFC 2986, section 4. */
function partsOf (der: Buffer): Request {
  const [info, signatureAlgorithm, signature] = membersOf(rootOf(der), 3, 'CertificationRequest')
  const [version, subject, spki, attributes] = membersOf(info, 4, 'CertificationRequestInfo')
  if (version!.tag !== TAG.integer || version!.content.length !== 1 || version!.content[0] !== 0) {
    throw refusal('csr-not-pkcs10', 'the version is not 0')
  }
  checkAttributes(attributes!)
  const [keyAlgorithm, key] = membersOf(spki, 2, 'SubjectPublicKeyInfo')
  return {
    info: info!,
    subject: subject!,
    spki: spki!,
    keyAlgorithm: algorithmOf(keyAlgorithm!),
    key: octetsOf(key!, 'the public key'),
    signatureAlgorithm: algorithmOf(signatureAlgorithm!),
    signature: octetsOf(signature!, 'the signature')
  }
}

function rootOf (der: Buffer): DerValue {
  try {
    return readDer(der)
  } catch (error) {
    throw error instanceof DerError ? refusal('csr-not-der', error.message) : error
  }
}

function membersOf (value: DerValue | undefined, count: number, what: string): readonly DerValue[] {
  if (value?.tag !== TAG.sequence || value.children.length !== count) throw refusal('csr-not-pkcs10', `${what} is not a sequence of ${count}`)
  return value.children
}

function algorithmOf ({ tag, children: [oid, parameters, ...rest] }: DerValue): Algorithm {
  if (tag !== TAG.sequence || oid?.tag !== TAG.oid || rest.length > 0) throw refusal('csr-not-pkcs10', 'an AlgorithmIdentifier is malformed')
  return { oid: oidOf(oid), parameters }
}

function octetsOf ({ tag, content }: DerValue, what: string): Buffer {
  if (tag !== TAG.bitString || content[0] !== 0) throw refusal('csr-not-pkcs10', `${what} is not a bit string of whole bytes`)
  return content.subarray(1)
}

function checkAttributes (attributes: DerValue): void {
  const isAttribute = ({ tag, children: [type, values, ...rest] }: DerValue): boolean =>
    tag === TAG.sequence && type?.tag === TAG.oid && values?.tag === TAG.set && values.children.length > 0 && rest.length === 0
  if (attributes.tag !== ATTRIBUTES || !attributes.children.every(isAttribute)) throw refusal('csr-not-pkcs10', 'the attributes are malformed')
}

/** AWS IoT copies the subject into the certificate, and policies trust its common name: it may name this device or none. */
function checkSubject (subject: DerValue, serialNumber: string): string | undefined {
  const attributes = nameAttributes(subject)
  if (attributes === undefined) throw refusal('csr-not-pkcs10', 'the subject is not a Name')
  for (const attribute of attributes) {
    if (attribute.text === undefined) throw refusal('subject-not-readable', `the value of ${attribute.oid} is not`)
    if (isCommonName(attribute) && (attribute.text !== serialNumber || /\p{Cc}/u.test(attribute.text))) {
      throw refusal('subject-other-device', `it is ${quoted(attribute.text)}`)
    }
  }
  return attributes.find(isCommonName)?.text
}

/** Text of the caller for a message: cut, and in visible ASCII, so that it can hide nothing in a terminal or a log. */
function quoted (text: string): string {
  return JSON.stringify(text.slice(0, 64)).replace(/[^ -~]/g, char => `\\u${char.charCodeAt(0).toString(16).padStart(4, '0')}`)
}

function verifies (digest: string, data: Buffer, key: KeyObject, signature: Buffer): boolean {
  try {
    return verify(digest, data, key, signature)
  } catch {
    return false
  }
}
