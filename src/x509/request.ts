import 'reflect-metadata'
import { type KeyObject, createPublicKey, generateKeyPair } from 'node:crypto'
import { promisify } from 'node:util'
import { Name, Pkcs10CertificateRequestGenerator } from '@peculiar/x509'

const generate = promisify(generateKeyPair)

const CURVES: Readonly<Record<string, { namedCurve: string, hash: string }>> = {
  prime256v1: { namedCurve: 'P-256', hash: 'SHA-256' },
  secp384r1: { namedCurve: 'P-384', hash: 'SHA-384' },
  secp521r1: { namedCurve: 'P-521', hash: 'SHA-512' }
}

/** A new private key of a device: P-256, or RSA with 2048 bits; made in the thread pool. */
export async function makeKey (keyType: 'ec' | 'rsa'): Promise<KeyObject> {
  const { privateKey } = keyType === 'ec'
    ? await generate('ec', { namedCurve: 'prime256v1' })
    : await generate('rsa', { modulusLength: 2048 })
  return privateKey
}

/**
 * A CSR (RFC 2986) for a key that stays where it is; an empty subject without `commonName`. Throws a `RangeError` when the key is of
 * a kind that AWS IoT does not take.
 */
export async function makeCsr (privateKey: KeyObject, commonName?: string): Promise<string> {
  // As typed values, not as one string: a string would be parsed, and commas in a name would make new attributes.
  const name = new Name(commonName === undefined ? [] : [{ CN: [{ utf8String: commonName }] }])
  const csr = await Pkcs10CertificateRequestGenerator.create({ name, ...await signingKeys(privateKey) })
  return `${csr.toString('pem')}\n`
}

/** A key as @peculiar/x509 signs with. Throws as {@link makeCsr} does. */
export async function signingKeys (privateKey: KeyObject) {
  const signingAlgorithm = algorithmOf(privateKey)
  const { subtle } = globalThis.crypto
  const pkcs8 = privateKey.export({ type: 'pkcs8', format: 'der' })
  const spki = createPublicKey(privateKey).export({ type: 'spki', format: 'der' })
  const keys = {
    privateKey: await subtle.importKey('pkcs8', pkcs8, signingAlgorithm, false, ['sign']),
    publicKey: await subtle.importKey('spki', spki, signingAlgorithm, true, ['verify'])
  }
  return { signingAlgorithm, keys }
}

function algorithmOf ({ asymmetricKeyType, asymmetricKeyDetails }: KeyObject) {
  if (asymmetricKeyType === 'rsa') return { name: 'RSASSA-PKCS1-v1_5', hash: 'SHA-256' }
  const curve = CURVES[asymmetricKeyDetails?.namedCurve ?? '']
  if (curve) return { name: 'ECDSA', ...curve }
  throw new RangeError(`a CSR needs an RSA key, or an EC key on P-256, P-384 or P-521, not ${asymmetricKeyDetails?.namedCurve ?? asymmetricKeyType}`)
}
