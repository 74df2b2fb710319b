import { type KeyObject, createPrivateKey } from 'node:crypto'
import { makeCsr } from '../x509/request.ts'
import { EXIT, Failure, messageOf } from './failure.ts'

/** Reads a private key; the `Failure` names where it came from and never quotes it. */
export function privateKeyOf (pem: string, origin: string): KeyObject {
  try {
    return createPrivateKey(pem)
  } catch (error) {
    throw new Failure(EXIT.failed, `${origin} cannot be read`, { detail: messageOf(error), remedy: 'It must be an unencrypted PEM key' }, error)
  }
}

/**
 * A CSR for the key in a device's folder, new or not: the service recognises a device that asks again by its public key. Throws a
 * `Failure` when the key cannot be read or is of a kind that AWS IoT does not take.
 */
export async function csrFor (privateKeyPem: string, commonName: string): Promise<string> {
  const key = privateKeyOf(privateKeyPem, 'the private key in the folder')
  try {
    return await makeCsr(key, commonName)
  } catch (error) {
    if (!(error instanceof RangeError)) throw error
    throw new Failure(EXIT.failed, 'the private key in the folder is of a kind that AWS IoT does not take', { detail: error.message }, error)
  }
}
