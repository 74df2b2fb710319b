import { createPublicKey, type KeyObject } from 'node:crypto'
import { DerError, TAG, oidOf, readDer, type DerValue } from './der.ts'
import { encodePem } from './pem.ts'
import type { KeyRefusal } from './refusals.ts'
import type { PublicKeyInfo } from './shape.ts'
import { weaknessOf } from './weak-keys.ts'

/** Which rule a key broke; the message says what was found. */
export class KeyError extends Error {
  override readonly name = 'KeyError'
  readonly fault: KeyRefusal

  constructor (fault: KeyRefusal, message?: string) {
    super(message)
    this.fault = fault
  }
}

/** The keys that AWS IoT certifies and this service lets through. */
export type KeyType = `RSA-${number}` | CurveName
type CurveName = 'EC-P256' | 'EC-P384' | 'EC-P521'

const RSA_KEY = '1.2.840.113549.1.1.1'
const EC_KEY = '1.2.840.10045.2.1'
const CURVES: Readonly<Record<string, { name: CurveName, coordinateBytes: number }>> = {
  '1.2.840.10045.3.1.7': { name: 'EC-P256', coordinateBytes: 32 },
  '1.3.132.0.34': { name: 'EC-P384', coordinateBytes: 48 },
  '1.3.132.0.35': { name: 'EC-P521', coordinateBytes: 66 }
}

/**
 * The type and the imported form of a public key that passes the key rules: RSA of 2048 to 4096 bits with a sane exponent and without
 * a known weakness, or a named NIST curve. Compressed points are refused: whether AWS IoT takes them is not documented, and the same key
 * in two spellings would have two fingerprints, so that a retry would look like another key.
 * @throws {KeyError} for any other. RFC 3279, 2.3.1; RFC 5480, section 2; AWS IoT `CreateCertificateFromCsr`.
 */
export function checkKey (info: PublicKeyInfo): { keyType: KeyType, publicKey: KeyObject } {
  const keyType = typeOf(info)
  const weakness = keyType.startsWith('RSA-') ? weaknessOf(rsaNumbers(info.key)[0]) : undefined
  if (weakness !== undefined) throw new KeyError('rsa-key-weak', weakness)
  try {
    // As PEM, because node:crypto imports that fastest: DER and JWK take about three times as long.
    return { keyType, publicKey: createPublicKey(encodePem('PUBLIC KEY', info.der)) }
  } catch {
    throw new KeyError('key-not-valid', `it is not a point on ${keyType}`)
  }
}

/** The type of a key that follows the rules as far as they can be seen without importing it; `undefined` for any other. */
export function keyTypeIn (info: PublicKeyInfo): KeyType | undefined {
  try {
    return typeOf(info)
  } catch (error) {
    if (error instanceof KeyError) return undefined
    throw error
  }
}

function typeOf ({ algorithm: { oid, parameters }, key }: PublicKeyInfo): KeyType {
  if (oid === RSA_KEY) return rsaKey(parameters, key)
  if (oid === EC_KEY) return ecKey(parameters, key)
  throw new KeyError('key-type-not-allowed', `the key has the algorithm ${oid}`)
}

function rsaKey (parameters: DerValue | undefined, key: Buffer): KeyType {
  // Other than in a signature, absent parameters are not taken: the same key in two spellings would have two fingerprints.
  if (parameters?.tag !== TAG.null) throw new KeyError('algorithm-parameters-wrong', `those of the public key are ${parameters ? 'another value' : 'absent'}`)
  const [modulus, exponent] = rsaNumbers(key)
  const bits = bitLength(modulus)
  if (bits < 2048) throw new KeyError('rsa-key-too-small', `it has ${bits}`)
  if (bits > 4096) throw new KeyError('rsa-key-too-large', `it has ${bits}`)
  if (isEven(modulus)) throw new KeyError('key-not-valid', 'the RSA modulus is even')
  const exponentBits = bitLength(exponent)
  // 65537 is the smallest odd number of 17 bits.
  if (exponentBits < 17 || exponentBits > 32 || isEven(exponent)) throw new KeyError('rsa-exponent-not-allowed')
  return `RSA-${bits}`
}

function rsaNumbers (key: Buffer): [modulus: Buffer, exponent: Buffer] {
  const { tag, children } = keySequence(key)
  const [modulus, exponent] = children.map(magnitudeOf)
  if (tag === TAG.sequence && children.length === 2 && modulus !== undefined && exponent !== undefined) return [modulus, exponent]
  throw new KeyError('key-not-valid', 'it is not an RSAPublicKey with two positive numbers')
}

function keySequence (key: Buffer): DerValue {
  try {
    return readDer(key)
  } catch (error) {
    throw error instanceof DerError ? new KeyError('key-not-valid', error.message) : error
  }
}

/** The bytes of a number without the leading zero that keeps it positive; `undefined` for what is no number, or negative. */
function magnitudeOf ({ tag, content }: DerValue): Buffer | undefined {
  if (tag !== TAG.integer || content[0]! >= 0x80) return undefined
  return content[0] === 0 ? content.subarray(1) : content
}

function ecKey (parameters: DerValue | undefined, point: Buffer): KeyType {
  if (parameters?.tag === TAG.sequence) throw new KeyError('curve-parameters-explicit')
  const oid = parameters?.tag === TAG.oid ? oidOf(parameters) : undefined
  const curve = oid === undefined ? undefined : CURVES[oid]
  if (curve === undefined) throw new KeyError('curve-not-allowed', oid === undefined ? 'no curve is named' : `it is on ${oid}`)
  if (point[0] !== 0x04) throw new KeyError('ec-point-not-uncompressed')
  if (point.length !== 1 + 2 * curve.coordinateBytes) throw new KeyError('key-not-valid', `${point.length} bytes are no point on ${curve.name}`)
  return curve.name
}

function bitLength (magnitude: Buffer): number {
  return magnitude.length === 0 ? 0 : magnitude.length * 8 - (Math.clz32(magnitude[0]!) - 24)
}

function isEven (magnitude: Buffer): boolean {
  return ((magnitude.at(-1) ?? 0) & 1) === 0
}
