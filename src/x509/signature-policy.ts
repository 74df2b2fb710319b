import { verify, type KeyObject } from 'node:crypto'
import { TAG } from './der.ts'
import type { KeyType } from './key-policy.ts'
import type { Algorithm } from './shape.ts'

/** Which rule the algorithm of a signature broke; the message says what was found. */
export class SignatureError extends Error {
  override readonly name = 'SignatureError'
  readonly fault: 'signature-algorithm-not-allowed' | 'signature-algorithm-mismatch' | 'algorithm-parameters-wrong'

  constructor (fault: SignatureError['fault'], message: string) {
    super(message)
    this.fault = fault
  }
}

const SIGNATURES: Readonly<Record<string, { family: 'RSA' | 'EC', digest: string }>> = {
  '1.2.840.113549.1.1.11': { family: 'RSA', digest: 'sha256' },
  '1.2.840.113549.1.1.12': { family: 'RSA', digest: 'sha384' },
  '1.2.840.113549.1.1.13': { family: 'RSA', digest: 'sha512' },
  '1.2.840.10045.4.3.2': { family: 'EC', digest: 'sha256' },
  '1.2.840.10045.4.3.3': { family: 'EC', digest: 'sha384' },
  '1.2.840.10045.4.3.4': { family: 'EC', digest: 'sha512' }
}

// MD2, MD4, MD5, SHA-1 and SHA-224 with RSA; SHA-1 and SHA-224 with ECDSA; SHA-1 with DSA.
const WEAK = new Set([
  '1.2.840.113549.1.1.2', '1.2.840.113549.1.1.3', '1.2.840.113549.1.1.4', '1.2.840.113549.1.1.5', '1.3.14.3.2.29', '1.2.840.113549.1.1.14',
  '1.2.840.10045.4.1', '1.2.840.10045.4.3.1', '1.2.840.10040.4.3'
])

/**
 * The digest of an allowed signature algorithm: SHA-2 of 256 bits or more with RSASSA-PKCS1-v1_5 or ECDSA, fit for the key. Its
 * parameters may be absent or NULL in both families: RFC 4055 demands that for RSA; mbedTLS before 2.28.5 and tpm2-openssl write NULL for
 * ECDSA, against RFC 5758. Neither changes what is signed or how it is verified.
 * @throws {SignatureError} for any other. RFC 4055, section 5; RFC 5758, 3.2.
 */
export function checkSignatureAlgorithm ({ oid, parameters }: Algorithm, keyType: KeyType | 'other'): string {
  const algorithm = SIGNATURES[oid]
  if (algorithm === undefined) throw new SignatureError('signature-algorithm-not-allowed', `it is signed with ${oid}`)
  if (!keyType.startsWith(algorithm.family)) throw new SignatureError('signature-algorithm-mismatch', `the key is ${keyType}`)
  if (parameters !== undefined && parameters.tag !== TAG.null) {
    throw new SignatureError('algorithm-parameters-wrong', `those of the signature algorithm are a value with tag 0x${parameters.tag.toString(16)}`)
  }
  return algorithm.digest
}

/** Whether an algorithm is not allowed because of its digest. */
export function isWeak ({ oid }: Algorithm): boolean {
  return WEAK.has(oid)
}

/** Whether a signature is that of the key over the data; one that OpenSSL cannot work with is not. */
export function verifies (digest: string, data: Buffer, key: KeyObject, signature: Buffer): boolean {
  try {
    return verify(digest, data, key, signature)
  } catch {
    return false
  }
}
