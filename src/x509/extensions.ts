import { DerError, TAG, oidOf, readDer, type DerValue } from './der.ts'
import { distributionUrlsOf } from './general-names.ts'
import { ShapeError, countOf, membersOf } from './shape.ts'

/** One extension; `value` is what stands in its octet string. */
export interface Extension { readonly critical: boolean, readonly value: Buffer }

/** What a certificate may be used for, in the order of the bits. RFC 5280, 4.2.1.3. */
const KEY_USAGES = [
  'digitalSignature', 'nonRepudiation', 'keyEncipherment', 'dataEncipherment', 'keyAgreement', 'keyCertSign', 'cRLSign', 'encipherOnly', 'decipherOnly'
] as const
type KeyUsage = typeof KEY_USAGES[number]

/** What the extensions of a certificate say. What it does not say is left out; then it forbids nothing. */
export interface CertificateExtensions {
  readonly isCa: boolean
  /** How many CA certificates may follow, those issued to itself not counted. RFC 5280, 4.2.1.9. */
  readonly pathLength?: number
  readonly keyUsage?: ReadonlySet<KeyUsage>
  /** Object identifiers. */
  readonly extendedKeyUsage?: readonly string[]
  /** Lower-case hex. Hints for finding an issuer; they prove nothing. */
  readonly subjectKeyId?: string
  readonly authorityKeyId?: string
  /** Where the issuer says that its CRLs are; none of them where the extension cannot be read, which is no fault of the certificate. */
  readonly crlUrls?: readonly string[]
  /** Object identifiers of all, and of the critical ones. */
  readonly oids: readonly string[]
  readonly critical: readonly string[]
}

/** Object identifiers of extensions that somebody here knows. */
export const EXTENSION = {
  subjectKeyId: '2.5.29.14',
  keyUsage: '2.5.29.15',
  subjectAltName: '2.5.29.17',
  issuerAltName: '2.5.29.18',
  basicConstraints: '2.5.29.19',
  nameConstraints: '2.5.29.30',
  crlDistributionPoints: '2.5.29.31',
  certificatePolicies: '2.5.29.32',
  authorityKeyId: '2.5.29.35',
  extendedKeyUsage: '2.5.29.37'
} as const

/**
 * A sequence of Extensions by object identifier; none may be there twice. An explicit `FALSE` is let through, though DER leaves it
 * out: many tools write it, and it can mean nothing else.
 * @throws {ShapeError} RFC 5280, 4.2.
 */
export function extensionsIn (list: DerValue): ReadonlyMap<string, Extension> {
  const extensions = new Map<string, Extension>()
  for (const entry of membersOf(list, 'Extensions')) {
    const [type, ...rest] = membersOf(entry, 'an Extension')
    const critical = rest.length === 2 ? rest[0]! : undefined
    const value = rest.at(-1)
    if (type?.tag !== TAG.oid || value?.tag !== TAG.octetString || rest.length > 2 || (critical && critical.tag !== TAG.boolean)) {
      throw new ShapeError('an extension is malformed')
    }
    const oid = oidOf(type)
    if (extensions.has(oid)) throw new ShapeError(`the extension ${oid} is there twice`)
    extensions.set(oid, { critical: critical?.content[0] === 0xff, value: value.content })
  }
  if (extensions.size === 0) throw new ShapeError('the list of extensions is empty')
  return extensions
}

/** The content of one extension as a value; every fault in it is a `ShapeError` that names it. */
export function readExtension<T> (oid: string, { value }: Extension, read: (value: DerValue) => T): T {
  try {
    return read(readDer(value))
  } catch (error) {
    if (!(error instanceof DerError || error instanceof ShapeError)) throw error
    throw new ShapeError(`the extension ${oid} is malformed: ${error.message}`)
  }
}

/** @throws {ShapeError} for an extension that is known and malformed. RFC 5280, 4.2.1. */
export function certificateExtensions (extensions: ReadonlyMap<string, Extension>): CertificateExtensions {
  const read = <T>(oid: string, reader: (value: DerValue) => T): T | undefined => {
    const extension = extensions.get(oid)
    return extension && readExtension(oid, extension, reader)
  }
  const keyUsage = read(EXTENSION.keyUsage, keyUsageOf)
  const extendedKeyUsage = read(EXTENSION.extendedKeyUsage, purposesOf)
  const subjectKeyId = read(EXTENSION.subjectKeyId, subjectKeyIdOf)
  const authorityKeyId = read(EXTENSION.authorityKeyId, authorityKeyIdOf)
  const crlPoints = extensions.get(EXTENSION.crlDistributionPoints)
  return {
    isCa: false,
    ...read(EXTENSION.basicConstraints, basicConstraintsOf),
    ...(keyUsage && { keyUsage }),
    ...(extendedKeyUsage && { extendedKeyUsage }),
    ...(subjectKeyId !== undefined && { subjectKeyId }),
    ...(authorityKeyId !== undefined && { authorityKeyId }),
    ...(crlPoints && { crlUrls: crlUrlsOf(crlPoints) }),
    oids: [...extensions.keys()],
    critical: [...extensions].filter(([, { critical }]) => critical).map(([oid]) => oid)
  }
}

function basicConstraintsOf (value: DerValue): { isCa: boolean, pathLength?: number } {
  const members = [...membersOf(value, 'it')]
  const isCa = members[0]?.tag === TAG.boolean && members.shift()!.content[0] === 0xff
  const limit = members.shift()
  if (members.length > 0) throw new ShapeError('it has too many members')
  if (limit === undefined) return { isCa }
  if (!isCa) throw new ShapeError('it limits the path of what is no CA')
  return { isCa, pathLength: countOf(limit, 'the path length') }
}

function keyUsageOf ({ tag, content }: DerValue): ReadonlySet<KeyUsage> {
  if (tag !== TAG.bitString || content.length > 3) throw new ShapeError('it is not a short bit string')
  const isSet = (bit: number): boolean => ((content[1 + (bit >> 3)] ?? 0) & (0x80 >> (bit & 7))) !== 0
  return new Set(KEY_USAGES.filter((_, bit) => isSet(bit)))
}

function purposesOf (value: DerValue): readonly string[] {
  const purposes = membersOf(value, 'it')
  if (purposes.length === 0 || purposes.some(({ tag }) => tag !== TAG.oid)) throw new ShapeError('it is not a list of object identifiers')
  return purposes.map(oidOf)
}

function subjectKeyIdOf ({ tag, content }: DerValue): string {
  if (tag !== TAG.octetString) throw new ShapeError('it is not an octet string')
  return content.toString('hex')
}

function crlUrlsOf (points: Extension): readonly string[] {
  try {
    return readExtension(EXTENSION.crlDistributionPoints, points, distributionUrlsOf)
  } catch (error) {
    if (error instanceof ShapeError) return []
    throw error
  }
}

const KEY_IDENTIFIER = 0x80

/** The key identifier in an authorityKeyIdentifier, in lower-case hex. RFC 5280, 4.2.1.1. Throws a `ShapeError`. */
export function authorityKeyIdOf (value: DerValue): string | undefined {
  return membersOf(value, 'it').find(({ tag }) => tag === KEY_IDENTIFIER)?.content.toString('hex')
}
