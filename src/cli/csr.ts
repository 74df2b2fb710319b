import 'reflect-metadata'
import { createPrivateKey, createPublicKey } from 'node:crypto'
import type { KeyObject } from 'node:crypto'
import { Name, Pkcs10CertificateRequestGenerator } from '@peculiar/x509'
import { EXIT, Failure, messageOf } from './failure.ts'

const CURVES: Readonly<Record<string, { namedCurve: string, hash: string }>> = {
  prime256v1: { namedCurve: 'P-256', hash: 'SHA-256' },
  secp384r1: { namedCurve: 'P-384', hash: 'SHA-384' },
  secp521r1: { namedCurve: 'P-521', hash: 'SHA-512' }
}

/**
 * A CSR for a key that exists already: the service recognises a device that asks again by its public key. Throws a `Failure` when
 * the key cannot be read or is of a kind that AWS IoT does not take.
 */
export async function makeCsr (privateKeyPem: string, commonName: string): Promise<string> {
  const key = privateKeyOf(privateKeyPem, 'the private key in the folder')
  const algorithm = algorithmOf(key)
  const { subtle } = globalThis.crypto
  const keys = {
    privateKey: await subtle.importKey('pkcs8', key.export({ type: 'pkcs8', format: 'der' }), algorithm, false, ['sign']),
    publicKey: await subtle.importKey('spki', createPublicKey(key).export({ type: 'spki', format: 'der' }), algorithm, true, ['verify'])
  }
  const name = new Name([{ CN: [{ utf8String: commonName }] }])
  const csr = await Pkcs10CertificateRequestGenerator.create({ name, keys, signingAlgorithm: algorithm })
  return `${csr.toString('pem')}\n`
}

/** Reads a private key; the `Failure` names where it came from and never quotes it. */
export function privateKeyOf (pem: string, origin: string): KeyObject {
  try {
    return createPrivateKey(pem)
  } catch (error) {
    throw new Failure(EXIT.failed, `${origin} cannot be read`, { detail: messageOf(error), remedy: 'It must be an unencrypted PEM key' }, error)
  }
}

function algorithmOf (key: KeyObject) {
  if (key.asymmetricKeyType === 'rsa') return { name: 'RSASSA-PKCS1-v1_5', hash: 'SHA-256' }
  const curve = CURVES[key.asymmetricKeyDetails?.namedCurve ?? '']
  if (curve !== undefined) return { name: 'ECDSA', ...curve }
  throw new Failure(EXIT.failed, 'the private key in the folder is of a kind that AWS IoT does not take', {
    detail: key.asymmetricKeyType ?? 'unknown', remedy: 'Use RSA, or EC with P-256, P-384 or P-521'
  })
}
