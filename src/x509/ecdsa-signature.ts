import { der } from './der-writer.ts'
import { TAG } from './der.ts'

/**
 * How an ECDSA signature was written that is not DER: `raw` r and s of full length one after the other, as PKCS#11 and secure elements give
 * it; `integers` in the form of DER, with numbers that are padded or lack the octet of their sign, or with longer lengths than needed.
 */
export type SignatureRepair = 'raw' | 'integers'

const COORDINATE_BYTES: Readonly<Record<string, number>> = { 'EC-P256': 32, 'EC-P384': 48, 'EC-P521': 66 }

/**
 * The two numbers of an ECDSA signature in DER, and how they were written; `undefined` for what is in none of these forms, and for keys of
 * other types. Whether the signature verifies is for the caller. RFC 3279, 2.2.3; PKCS#11, 2.3.1; X.690, 8.3.
 */
export function readEcdsaSignature (signature: Buffer, keyType: string): { inDer: Buffer, form: 'der' | SignatureRepair } | undefined {
  const size = COORDINATE_BYTES[keyType]
  if (size === undefined) return undefined
  const isRaw = signature.length === 2 * size
  const numbers = isRaw ? [signature.subarray(0, size), signature.subarray(size)] : numbersIn(signature, size)
  if (!numbers) return undefined
  const inDer = der(TAG.sequence, ...numbers.map(integer))
  if (inDer.equals(signature)) return { inDer, form: 'der' }
  return { inDer, form: isRaw ? 'raw' : 'integers' }
}

/** r and s of an ECDSA signature in DER, or written as it by a chip, at full length one after the other. RFC 7518, 3.4. */
export function rawSignature (signature: Buffer, size: number): Buffer | undefined {
  const numbers = numbersIn(signature, size)
  return numbers && Buffer.concat(numbers.map(number => Buffer.concat([Buffer.alloc(size - number.length), number])))
}

/** The magnitudes of the two INTEGERs, read as numbers that are never negative. */
function numbersIn (signature: Buffer, size: number): [r: Buffer, s: Buffer] | undefined {
  const sequence = valueAt(signature, 0, TAG.sequence)
  const r = sequence && valueAt(sequence, 0, TAG.integer)
  const s = r && valueAt(sequence, r.byteOffset - sequence.byteOffset + r.length, TAG.integer)
  const isWhole = s && s.byteOffset + s.length === signature.byteOffset + signature.length
  const numbers = isWhole ? [r, s].map(magnitudeOf) as [Buffer, Buffer] : undefined
  return numbers?.every(({ length }) => length > 0 && length <= size) ? numbers : undefined
}

/** The content of the value of this tag at `at`; a length may be one octet longer than needed. */
function valueAt (bytes: Buffer, at: number, tag: number): Buffer | undefined {
  const isLong = bytes[at + 1] === 0x81
  const length = bytes[isLong ? at + 2 : at + 1]
  const start = at + (isLong ? 3 : 2)
  const isThere = bytes[at] === tag && length !== undefined && (isLong || length < 0x80) && start + length <= bytes.length
  return isThere ? bytes.subarray(start, start + length) : undefined
}

function magnitudeOf (number: Buffer): Buffer {
  const first = number.findIndex(octet => octet !== 0)
  return first < 0 ? number.subarray(number.length) : number.subarray(first)
}

function integer (magnitude: Buffer): Buffer {
  const number = magnitudeOf(magnitude)
  return der(TAG.integer, number[0] === undefined || number[0] >= 0x80 ? Buffer.alloc(1) : Buffer.alloc(0), number)
}
