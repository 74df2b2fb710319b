import { TAG, oidOf, type DerValue } from './der.ts'

/** What a value is not, though it is DER; the message is for a human. */
export class ShapeError extends Error {
  override readonly name = 'ShapeError'
}

/** An AlgorithmIdentifier: the algorithm's object identifier and its parameters, if any. RFC 5280, 4.1.1.2. */
export interface Algorithm { readonly oid: string, readonly parameters: DerValue | undefined }

/** A SubjectPublicKeyInfo: its bytes as they came, and what they say. RFC 5280, 4.1.2.7. */
export interface PublicKeyInfo { readonly der: Buffer, readonly algorithm: Algorithm, readonly key: Buffer }

/** The members of a sequence, as many as `count` says. Throws a `ShapeError`, as all here do. */
export function membersOf (value: DerValue | undefined, what: string, count?: number): readonly DerValue[] {
  if (value?.tag !== TAG.sequence) throw new ShapeError(`${what} is not a sequence`)
  if (count !== undefined && value.children.length !== count) throw new ShapeError(`${what} is not a sequence of ${count}`)
  return value.children
}

export function algorithmOf (value: DerValue | undefined): Algorithm {
  const [oid, parameters, ...rest] = membersOf(value, 'an AlgorithmIdentifier')
  if (oid?.tag !== TAG.oid || rest.length > 0) throw new ShapeError('an AlgorithmIdentifier is malformed')
  return { oid: oidOf(oid), parameters }
}

export function publicKeyInfoOf (value: DerValue | undefined): PublicKeyInfo {
  const [algorithm, key] = membersOf(value, 'SubjectPublicKeyInfo', 2)
  return { der: value!.bytes, algorithm: algorithmOf(algorithm), key: octetsOf(key, 'the public key') }
}

/** The bytes of a bit string that holds whole ones, as keys and signatures do. */
export function octetsOf (value: DerValue | undefined, what: string): Buffer {
  if (value?.tag !== TAG.bitString || value.content[0] !== 0) throw new ShapeError(`${what} is not a bit string of whole bytes`)
  return value.content.subarray(1)
}

/**
 * Upper-case hex of an INTEGER, as node writes serial numbers: whole bytes, but `0`; after a minus sign when it is negative, as some
 * who take random bytes for it let it be. RFC 5280, 4.1.2.2.
 */
export function serialNumberOf ({ tag, content }: DerValue): string {
  if (tag !== TAG.integer) throw new ShapeError('the serial number is not an integer')
  if (content[0]! >= 0x80) return `-${wholeBytes(-BigInt.asIntN(content.length * 8, BigInt(`0x${content.toString('hex')}`)))}`
  return content.toString('hex', content[0] === 0 ? 1 : 0).toUpperCase() || '0'
}

/** The content of the INTEGER that a serial number in hex stands for, leading zeros or not. Throws a `RangeError` for any other text. */
export function serialContentOf (serialNumber: string): Buffer {
  const [, sign, digits] = /^(-?)([0-9A-Fa-f]+)$/.exec(serialNumber) ?? []
  if (digits === undefined) throw new RangeError('a serial number is written in hex')
  const value = BigInt(`0x${digits}`)
  const magnitude = Buffer.from(wholeBytes(value), 'hex')
  if (sign === '') return magnitude[0]! < 0x80 ? magnitude : Buffer.concat([Buffer.alloc(1), magnitude])
  const octets = wholeBytes(2n * value - 1n).length / 2
  return Buffer.from(wholeBytes(BigInt.asUintN(octets * 8, -value)).padStart(octets * 2, 'F'), 'hex')
}

function wholeBytes (value: bigint): string {
  const digits = value.toString(16).toUpperCase()
  return digits.length % 2 === 0 ? digits : `0${digits}`
}

/** A small INTEGER that is not negative; what is beyond 2^31 is all the same to a limit. */
export function countOf ({ tag, content }: DerValue, what: string): number {
  if (tag !== TAG.integer || content[0]! >= 0x80) throw new ShapeError(`${what} is not a positive integer`)
  return content.length > 4 ? Infinity : content.readUIntBE(0, content.length)
}

const TIME = /^(\d{2}|\d{4})(\d{2})(\d{2})(\d{2})(\d{2})(\d{2})Z$/

/** Milliseconds since 1970 of a UTCTime or GeneralizedTime, to the second and in UTC. RFC 5280, 4.1.2.5. */
export function timeOf ({ tag, content }: Pick<DerValue, 'tag' | 'content'>): number {
  const [, digits = '', ...rest] = TIME.exec(content.toString('latin1')) ?? []
  const [month = 0, day = 0, hour = 0, minute = 0, second = 0] = rest.map(Number)
  if ((tag !== TAG.utcTime || digits.length !== 2) && (tag !== TAG.generalizedTime || digits.length !== 4)) throw new ShapeError('a date is malformed')
  const year = digits.length === 4 ? Number(digits) : Number(digits) + (Number(digits) < 50 ? 2000 : 1900)
  const date = new Date(0)
  date.setUTCFullYear(year, month - 1, day)
  date.setUTCHours(hour, minute, second)
  // A 31st of April would have become a first of May.
  if (date.getUTCMonth() !== month - 1 || date.getUTCDate() !== day || hour > 23 || minute > 59 || second > 59) throw new ShapeError('a date does not exist')
  return date.getTime()
}
