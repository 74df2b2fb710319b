import { revocationAt, revocationsIn, type Revocation } from './crl-entries.ts'
import { DerError, TAG, readDer, spanAt, type DerSpan, type DerValue } from './der.ts'
import { extensionsIn, readExtension, type Extension } from './extensions.ts'
import { KeyError } from './key-policy.ts'
import { nameAttributes } from './names.ts'
import { PemError, decodePem } from './pem.ts'
import { CrlError } from './refusals.ts'
import { ShapeError, algorithmOf, octetsOf, serialContentOf, timeOf, type Algorithm } from './shape.ts'
import { SignatureError, checkSignatureAlgorithm, verifies } from './signature-policy.ts'
import { publicKeyOf, type Certificate } from './strict-certificate.ts'

/** A revocation list whose signature is that of its issuer. Times are in milliseconds since 1970; whether it is stale is for the caller. */
export interface Crl {
  readonly thisUpdate: number
  /** When there will be a newer one, at the latest; some issuers do not say. */
  readonly nextUpdate?: number
  /** Decimal; it grows from list to list. */
  readonly number?: string
  /** How many certificates are revoked. */
  readonly size: number
  /** What the list says of a serial number, in hex as certificates give it. Throws a `RangeError` for any other text. */
  isRevoked (serialNumber: string): Revocation | undefined
}

interface Parts {
  readonly tbs: Buffer
  readonly signatureAlgorithm: Algorithm
  readonly signature: Buffer
  readonly issuerDer: Buffer
  readonly thisUpdate: number
  readonly nextUpdate: number | undefined
  readonly entries: DerSpan | undefined
  readonly extensions: ReadonlyMap<string, Extension>
  readonly isV2: boolean
}

const MAX_BYTES = 16 * 1024 * 1024
const MAX_CHARS = 24 * 1024 * 1024
const MAX_MEMBERS = 7
const EXTENSIONS = 0xa0
const [NUMBER, DELTA, DISTRIBUTION_POINT, AUTHORITY_KEY_ID] = ['2.5.29.20', '2.5.29.27', '2.5.29.28', '2.5.29.35']
const KNOWN = new Set([NUMBER, AUTHORITY_KEY_ID])

/**
 * Reads a complete revocation list, in DER or PEM, that `issuer` itself signed. Its entries are read once and kept as places in the
 * bytes; time and memory grow with its length. Whether the issuer's certificate is trusted and valid is not asked.
 * @throws {CrlError} with a `reason` from `CRL_REFUSALS`, and nothing else for any input. RFC 5280, sections 5 and 6.3.
 */
export function readCrl (input: Uint8Array | string, issuer: Certificate): Crl {
  const der = derOf(input)
  return explained(() => {
    const parts = partsOf(der)
    checkIssuer(parts, issuer)
    checkExtensions(parts.extensions)
    const entries = revocationsIn(der, parts.entries, parts.isV2)
    const number = parts.extensions.get(NUMBER)
    return {
      thisUpdate: parts.thisUpdate,
      ...(parts.nextUpdate !== undefined && { nextUpdate: parts.nextUpdate }),
      ...(number && { number: readExtension(NUMBER, number, numberOf) }),
      size: entries.size,
      isRevoked: serialNumber => {
        const at = entries.get(serialContentOf(serialNumber).toString('latin1'))
        return at === undefined ? undefined : revocationAt(der, at)
      }
    }
  })
}

function derOf (input: Uint8Array | string): Buffer {
  if (input.length > MAX_CHARS) throw new CrlError('crl-too-long')
  const bytes = typeof input === 'string' ? undefined : Buffer.from(input.buffer, input.byteOffset, input.length)
  const der = bytes?.[0] === TAG.sequence ? bytes : decoded(bytes?.toString('latin1') ?? String(input))
  if (der.length > MAX_BYTES) throw new CrlError('crl-too-long')
  return der
}

function decoded (text: string): Buffer {
  try {
    return decodePem(text, { labels: ['X509 CRL'], maxChars: MAX_CHARS })
  } catch (error) {
    throw error instanceof PemError ? new CrlError('crl-not-pem', error.message) : error
  }
}

function explained<T> (work: () => T): T {
  try {
    return work()
  } catch (error) {
    if (error instanceof DerError) throw new CrlError('crl-not-der', error.message)
    throw error instanceof ShapeError ? new CrlError('crl-malformed', error.message) : error
  }
}

/** Takes a CertificateList apart, all but its entries. RFC 5280, 5.1. */
function partsOf (der: Buffer): Parts {
  const root = spanAt(der, 0, der.length)
  if (root.stop !== der.length) throw new DerError('there are bytes after the value')
  const [tbs, outer, signature, ...more] = spansIn(der, root)
  if (tbs === undefined || outer === undefined || signature === undefined || more.length > 0) throw new ShapeError('it is not a sequence of 3')

  const members = spansIn(der, tbs)
  const value = (span: DerSpan | undefined): DerValue => {
    if (span === undefined) throw new ShapeError('TBSCertList is cut off')
    return readDer(der.subarray(span.start, span.stop))
  }
  const optional = (...tags: number[]): DerSpan | undefined => tags.includes(members[0]?.tag ?? 0) ? members.shift() : undefined

  const isV2 = isVersion2(optional(TAG.integer), value)
  const [algorithm, outerAlgorithm, issuer] = [value(members.shift()), value(outer), value(members.shift())]
  if (!algorithm.bytes.equals(outerAlgorithm.bytes)) throw new ShapeError('it names two signature algorithms')
  if (nameAttributes(issuer) === undefined) throw new ShapeError('the issuer is not a Name')
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
    issuerDer: issuer.bytes,
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

function checkIssuer ({ issuerDer, tbs, signatureAlgorithm, signature }: Parts, issuer: Certificate): void {
  if (!issuerDer.equals(issuer.subjectDer)) throw new CrlError('crl-issuer-mismatch')
  if (!(issuer.extensions.keyUsage?.has('cRLSign') ?? true)) throw new CrlError('crl-issuer-may-not-sign')
  try {
    const key = publicKeyOf(issuer)
    const digest = checkSignatureAlgorithm(signatureAlgorithm, issuer.keyType)
    if (!verifies(digest, tbs, key, signature)) throw new CrlError('crl-signature-invalid')
  } catch (error) {
    if (error instanceof SignatureError && error.fault === 'signature-algorithm-mismatch') throw new CrlError('crl-signature-invalid', error.message)
    if (error instanceof SignatureError || error instanceof KeyError) throw new CrlError('crl-signature-not-allowed', error.message || error.fault)
    throw error
  }
}

// Those that narrow down what the list is about are refused even where they are not critical: to read past them would be to miss some.
function checkExtensions (extensions: ReadonlyMap<string, Extension>): void {
  if (extensions.has(DELTA)) throw new CrlError('crl-is-delta')
  if (extensions.has(DISTRIBUTION_POINT)) throw new CrlError('crl-is-partial')
  for (const [oid, { critical }] of extensions) if (critical && !KNOWN.has(oid)) throw new CrlError('crl-critical-extension', oid)
}

function numberOf ({ tag, content }: DerValue): string {
  if (tag !== TAG.integer || content[0]! >= 0x80) throw new ShapeError('it is not a positive integer')
  return BigInt(`0x${content.toString('hex')}`).toString()
}
