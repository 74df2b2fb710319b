import { createPublicKey, type KeyObject } from 'node:crypto'
import { DerError, TAG, oidOf, readDer, type DerValue } from './der.ts'
import { refusal } from './refusals.ts'

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
const CURVE_OF_NODE: Readonly<Record<string, CurveName>> = { prime256v1: 'EC-P256', secp384r1: 'EC-P384', secp521r1: 'EC-P521' }
const SIGNATURES: Readonly<Record<string, { family: 'RSA' | 'EC', digest: string }>> = {
  '1.2.840.113549.1.1.11': { family: 'RSA', digest: 'sha256' },
  '1.2.840.113549.1.1.12': { family: 'RSA', digest: 'sha384' },
  '1.2.840.113549.1.1.13': { family: 'RSA', digest: 'sha512' },
  '1.2.840.10045.4.3.2': { family: 'EC', digest: 'sha256' },
  '1.2.840.10045.4.3.3': { family: 'EC', digest: 'sha384' },
  '1.2.840.10045.4.3.4': { family: 'EC', digest: 'sha512' }
}

/** An AlgorithmIdentifier: the algorithm's object identifier and its parameters, if any. RFC 5280, 4.1.1.2. */
export interface Algorithm { readonly oid: string, readonly parameters: DerValue | undefined }

/**
 * The type and the imported form of a public key that passes the key rules: RSA of 2048 to 4096 bits with a sane exponent, or a
 * named NIST curve. Compressed points are refused: whether AWS IoT takes them is not documented, and the same key in two spellings
 * would have two fingerprints, so that a retry would look like another key.
 * @throws {CvmError} `csr-rejected`. RFC 3279, 2.3.1; RFC 5480, section 2; AWS IoT `CreateCertificateFromCsr`.
 */
export function checkKey (spki: Buffer, { oid, parameters }: Algorithm, key: Buffer): { keyType: KeyType, publicKey: KeyObject } {
  const keyType = oid === RSA_KEY ? rsaType(parameters, key) : oid === EC_KEY ? ecType(parameters, key) : undefined
  if (keyType === undefined) throw refusal('key-type-not-allowed', `the key has the algorithm ${oid}`)
  try {
    return { keyType, publicKey: createPublicKey({ key: spki, format: 'der', type: 'spki' }) }
  } catch {
    throw refusal('key-not-valid', 'it cannot be imported')
  }
}

/**
 * The digest of an allowed signature algorithm: SHA-2 of 256 bits or more with RSASSA-PKCS1-v1_5 or ECDSA, fit for the key.
 * @throws {CvmError} `csr-rejected`. RFC 4055, section 5; RFC 5758, 3.2.
 */
export function checkSignatureAlgorithm ({ oid, parameters }: Algorithm, keyType: KeyType): string {
  const algorithm = SIGNATURES[oid]
  if (algorithm === undefined) throw refusal('signature-algorithm-not-allowed', `it is signed with ${oid}`)
  if (!keyType.startsWith(algorithm.family)) throw refusal('signature-algorithm-mismatch', `the key is ${keyType}`)
  const wanted = algorithm.family === 'RSA' ? TAG.null : undefined
  if (parameters?.tag !== wanted) throw refusal('algorithm-parameters-wrong', 'in the signature algorithm')
  return algorithm.digest
}

/** The type of any public key, by the same names; `undefined` for one that no CSR may carry because of its kind or curve. */
export function keyTypeOf ({ asymmetricKeyType, asymmetricKeyDetails }: KeyObject): KeyType | undefined {
  if (asymmetricKeyType === 'rsa') return `RSA-${asymmetricKeyDetails?.modulusLength ?? 0}`
  return asymmetricKeyType === 'ec' ? CURVE_OF_NODE[asymmetricKeyDetails?.namedCurve ?? ''] : undefined
}

function rsaType (parameters: DerValue | undefined, key: Buffer): KeyType {
  if (parameters?.tag !== TAG.null) throw refusal('algorithm-parameters-wrong', 'in the public key')
  const [modulus, exponent] = rsaNumbers(key)
  const bits = bitLength(modulus)
  if (bits < 2048) throw refusal('rsa-key-too-small', `it has ${bits}`)
  if (bits > 4096) throw refusal('rsa-key-too-large', `it has ${bits}`)
  if (isEven(modulus)) throw refusal('key-not-valid', 'the RSA modulus is even')
  const exponentBits = bitLength(exponent)
  // 65537 is the smallest odd number of 17 bits.
  if (exponentBits < 17 || exponentBits > 32 || isEven(exponent)) throw refusal('rsa-exponent-not-allowed')
  return `RSA-${bits}`
}

function rsaNumbers (key: Buffer): [modulus: Buffer, exponent: Buffer] {
  try {
    const { tag, children } = readDer(key)
    const [modulus, exponent] = children
    const whole = tag === TAG.sequence && children.length === 2 && modulus?.tag === TAG.integer && exponent?.tag === TAG.integer
    if (whole && modulus.content[0]! < 0x80 && exponent.content[0]! < 0x80) return [modulus.content, exponent.content]
  } catch (error) {
    if (!(error instanceof DerError)) throw error
  }
  throw refusal('key-not-valid', 'it is not an RSAPublicKey with two positive numbers')
}

function ecType (parameters: DerValue | undefined, point: Buffer): KeyType {
  if (parameters?.tag === TAG.sequence) throw refusal('curve-parameters-explicit')
  const oid = parameters?.tag === TAG.oid ? oidOf(parameters) : undefined
  const curve = oid === undefined ? undefined : CURVES[oid]
  if (curve === undefined) throw refusal('curve-not-allowed', oid === undefined ? 'no curve is named' : `it is on ${oid}`)
  if (point[0] !== 0x04) throw refusal('ec-point-not-uncompressed')
  if (point.length !== 1 + 2 * curve.coordinateBytes) throw refusal('key-not-valid', `${point.length} bytes are no point on ${curve.name}`)
  return curve.name
}

/** Of a positive INTEGER's content in DER, which has at most one leading zero byte. */
function bitLength (content: Buffer): number {
  const magnitude = content[0] === 0 ? content.subarray(1) : content
  return magnitude.length === 0 ? 0 : magnitude.length * 8 - (Math.clz32(magnitude[0]!) - 24)
}

function isEven (content: Buffer): boolean {
  return (content.at(-1)! & 1) === 0
}
