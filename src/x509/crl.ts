import { verify, type KeyObject } from 'node:crypto'
import { revocationsIn, type Revocation } from './crl-entries.ts'
import { decodeCrlPem } from './crl-pem.ts'
import { gapOf, scopeOf } from './crl-scope.ts'
import { DerError, TAG, readDer, spanAt, type DerSpan, type DerValue } from './der.ts'
import { authorityKeyIdOf, extensionsIn, readExtension, type Extension } from './extensions.ts'
import { KeyError } from './key-policy.ts'
import { nameAttributes } from './names.ts'
import { CrlError } from './refusals.ts'
import { ShapeError, algorithmOf, octetsOf, serialContentOf, timeOf, type Algorithm } from './shape.ts'
import { SignatureError, checkSignatureAlgorithm } from './signature-policy.ts'
import { publicKeyOf, type Certificate } from './strict-certificate.ts'
import { endTurn as endTurnOfLoop, type EndTurn } from './turns.ts'

/** A revocation list whose signature is that of its issuer. Times are in milliseconds since 1970; whether it is stale is for the caller. */
export interface Crl {
  readonly thisUpdate: number
  /** When there will be a newer one, at the latest; some issuers do not say. */
  readonly nextUpdate?: number
  /** It grows from list to list. */
  readonly number?: bigint
  /** Of a delta: the number of the complete list that it continues. */
  readonly baseNumber?: bigint
  /** How many certificates are revoked. */
  readonly size: number
  /** What the list says of a serial number, in hex as certificates give it. Throws a `RangeError` for any other text. */
  isRevoked (serialNumber: string): Revocation | undefined
  /** Why the list, set by that address, does not say all about a certificate of its issuer; undefined where it does. */
  gapFor (certificate: Certificate, setUrl: string): string | undefined
}

/** How a list is read. */
export interface CrlReading {
  /** Certificates of other keys of the issuer, which it has certified itself: a list may be signed with one of them. */
  otherKeys?: readonly Certificate[]
  /** Ends a turn of the event loop; injected for tests. */
  endTurn?: EndTurn
}

interface Parts {
  readonly tbs: Buffer
  readonly signatureAlgorithm: Algorithm
  readonly signature: Buffer
  readonly thisUpdate: number
  readonly nextUpdate: number | undefined
  readonly entries: DerSpan | undefined
  readonly extensions: ReadonlyMap<string, Extension>
  readonly isV2: boolean
}

const MAX_BYTES = 16 * 1024 * 1024
const MAX_CHARS = 24 * 1024 * 1024
const MAX_MEMBERS = 7
// Of all members but the entries: what is read as a value is read in one turn of the event loop.
const MAX_MEMBER_BYTES = 65_536
const EXTENSIONS = 0xa0
const [NUMBER, DELTA, DISTRIBUTION_POINT, AUTHORITY_KEY_ID] = ['2.5.29.20', '2.5.29.27', '2.5.29.28', '2.5.29.35']
const KNOWN = new Set([NUMBER, DELTA, DISTRIBUTION_POINT, AUTHORITY_KEY_ID])
// Microsoft's CAs write it into lists ([MS-WCCE], szOID_CERTSRV_CA_VERSION) and keep one list for each key.
const CA_VERSION = '1.3.6.1.4.1.311.21.1'

/**
 * The DER of a list that may be PEM.
 * @throws {CrlError} `crl-too-long` or `crl-not-pem`.
 */
export async function crlDerOf (input: Buffer, endTurn: EndTurn = endTurnOfLoop): Promise<Buffer> {
  if (input.length > MAX_CHARS) throw new CrlError('crl-too-long')
  const der = input[0] === TAG.sequence ? input : await decodeCrlPem(input, endTurn)
  if (der.length > MAX_BYTES) throw new CrlError('crl-too-long')
  return der
}

/**
 * Reads a revocation list, in DER, that `issuer` signed. Its entries are read once and kept as places in the bytes. The signature is
 * verified on a thread of the pool and the entries are read in slices, so that a long list does not hold the event loop. Whether the
 * issuer's certificate is trusted and valid is not asked.
 * @throws {CrlError} with a `reason` from `CRL_REFUSALS`, and nothing else for any input. RFC 5280, sections 5 and 6.3.
 */
export async function readCrl (der: Buffer, issuer: Certificate, reading: CrlReading = {}): Promise<Crl> {
  const { otherKeys = [], endTurn = endTurnOfLoop } = reading
  return await explained(async () => {
    const parts = partsOf(der, issuer)
    const { extensions, thisUpdate, nextUpdate } = parts
    const signer = await signerOf(parts, issuer, otherKeys)
    if (signer !== issuer && extensions.has(CA_VERSION)) throw new CrlError('crl-of-another-key', 'it is about the certificates of its key alone')
    for (const [oid, { critical }] of extensions) if (critical && !KNOWN.has(oid)) throw new CrlError('crl-critical-extension', oid)
    const read = <T>(oid: string, reader: (value: DerValue) => T): T | undefined => {
      const extension = extensions.get(oid)
      return extension && readExtension(oid, extension, reader)
    }
    const [number, baseNumber, scope = {}] = [read(NUMBER, numberOf), read(DELTA, numberOf), read(DISTRIBUTION_POINT, scopeOf)]
    const revocations = await revocationsIn(der, parts.entries, parts.isV2, endTurn)
    return {
      thisUpdate,
      ...nextUpdate !== undefined && { nextUpdate },
      ...number !== undefined && { number },
      ...baseNumber !== undefined && { baseNumber },
      size: revocations.size,
      isRevoked: serialNumber => revocations.find(serialContentOf(serialNumber)),
      gapFor: (certificate, setUrl) => gapOf(scope, certificate, setUrl)
    }
  })
}

async function explained<T> (work: () => Promise<T>): Promise<T> {
  try {
    return await work()
  } catch (error) {
    if (error instanceof DerError) throw new CrlError('crl-not-der', error.message)
    throw error instanceof ShapeError ? new CrlError('crl-malformed', error.message) : error
  }
}

/** Takes a CertificateList of that issuer apart, all but its entries. RFC 5280, 5.1. */
function partsOf (der: Buffer, { subjectDer }: Certificate): Parts {
  const root = spanAt(der, 0, der.length)
  if (root.stop !== der.length) throw new DerError('there are bytes after the value')
  const [tbs, outer, signature, ...more] = spansIn(der, root)
  if (tbs === undefined || outer === undefined || signature === undefined || more.length > 0) throw new ShapeError('it is not a sequence of 3')

  const members = spansIn(der, tbs)
  const value = (span: DerSpan | undefined): DerValue => {
    if (span === undefined) throw new ShapeError('TBSCertList is cut off')
    if (span.stop - span.start > MAX_MEMBER_BYTES) throw new ShapeError(`a member is longer than ${MAX_MEMBER_BYTES} bytes`)
    return readDer(der.subarray(span.start, span.stop))
  }
  const optional = (...tags: number[]): DerSpan | undefined => tags.includes(members[0]?.tag ?? 0) ? members.shift() : undefined

  const isV2 = isVersion2(optional(TAG.integer), value)
  const [algorithm, outerAlgorithm, issuer] = [value(members.shift()), value(outer), value(members.shift())]
  if (!algorithm.bytes.equals(outerAlgorithm.bytes)) throw new ShapeError('it names two signature algorithms')
  if (nameAttributes(issuer) === undefined) throw new ShapeError('the issuer is not a Name')
  if (!issuer.bytes.equals(subjectDer)) throw new CrlError('crl-issuer-mismatch')
  const thisUpdate = timeOf(value(members.shift()))
  const next = optional(TAG.utcTime, TAG.generalizedTime)
  const entries = optional(TAG.sequence)
  const extensions = isV2 ? optional(EXTENSIONS) : undefined
  if (members.length > 0) throw new ShapeError('there is more than its version allows')
  const list = extensions && value(extensions).children
  if (list && list.length !== 1) throw new ShapeError('the extensions are malformed')
  const nextUpdate = next && timeOf(value(next))
  if (nextUpdate !== undefined && nextUpdate < thisUpdate) throw new ShapeError('nextUpdate is before thisUpdate')
  return {
    tbs: der.subarray(tbs.start, tbs.stop),
    signatureAlgorithm: algorithmOf(outerAlgorithm),
    signature: octetsOf(value(signature), 'the signature'),
    thisUpdate,
    nextUpdate,
    entries,
    extensions: list ? extensionsIn(list[0]!) : new Map<string, Extension>(),
    isV2
  }
}

function spansIn (der: Buffer, { tag, at, stop }: DerSpan): DerSpan[] {
  if (tag !== TAG.sequence) throw new ShapeError('it is not a sequence')
  const spans: DerSpan[] = []
  for (let next = at; next < stop;) {
    const span = spanAt(der, next, stop)
    if (spans.push(span) > MAX_MEMBERS) throw new ShapeError('it has too many members')
    next = span.stop
  }
  return spans
}

function isVersion2 (version: DerSpan | undefined, value: (span: DerSpan) => DerValue): boolean {
  if (version === undefined) return false
  const { content } = value(version)
  if (content.length !== 1 || content[0] !== 1) throw new ShapeError('the version is neither 2, nor 1 and left out')
  return true
}

/** Whose key the signature is of: the issuer's, else one of its other keys. Key identifiers are hints, so each key is tried. */
async function signerOf (parts: Parts, issuer: Certificate, otherKeys: readonly Certificate[]): Promise<Certificate> {
  const faults: CrlError[] = []
  for (const signer of [issuer, ...otherKeys]) {
    const fault = await faultOfSigner(signer, parts)
    if (!fault) return signer
    faults.push(fault)
  }
  const keyId = parts.extensions.get(AUTHORITY_KEY_ID)
  const named = keyId && readExtension(AUTHORITY_KEY_ID, keyId, authorityKeyIdOf)
  const { subjectKeyId } = issuer.extensions
  const isOfAnother = named !== undefined && subjectKeyId !== undefined && named !== subjectKeyId
  throw isOfAnother ? new CrlError('crl-of-another-key', `its authorityKeyIdentifier is ${named.slice(0, 64)}`) : faults[0]!
}

async function faultOfSigner (signer: Certificate, parts: Parts): Promise<CrlError | undefined> {
  try {
    return await hasSigned(signer, parts) ? undefined : new CrlError('crl-signature-invalid')
  } catch (error) {
    if (error instanceof CrlError) return error
    throw error
  }
}

async function hasSigned (signer: Certificate, { tbs, signatureAlgorithm, signature }: Parts): Promise<boolean> {
  if (!(signer.extensions.keyUsage?.has('cRLSign') ?? true)) throw new CrlError('crl-issuer-may-not-sign')
  try {
    const key = publicKeyOf(signer)
    const digest = checkSignatureAlgorithm(signatureAlgorithm, signer.keyType)
    return await verifiesOnThread(digest, tbs, key, signature)
  } catch (error) {
    if (error instanceof SignatureError && error.fault === 'signature-algorithm-mismatch') throw new CrlError('crl-signature-invalid', error.message)
    if (error instanceof SignatureError || error instanceof KeyError) throw new CrlError('crl-signature-not-allowed', error.message || error.fault)
    throw error
  }
}

/** As `verifies`, on a thread of the pool: to hash a long list takes as long as hundreds of requests. */
function verifiesOnThread (digest: string, data: Buffer, key: KeyObject, signature: Buffer): Promise<boolean> {
  return new Promise(resolve => {
    verify(digest, data, key, signature, (error, isRight) => resolve(error === null && isRight))
  })
}

function numberOf ({ tag, content }: DerValue): bigint {
  if (tag !== TAG.integer || content[0]! >= 0x80) throw new ShapeError('it is not a positive integer')
  return BigInt(`0x${content.toString('hex')}`)
}
