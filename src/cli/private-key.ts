import { type KeyObject, createPrivateKey } from 'node:crypto'
import { makeCsr } from '../x509/request.ts'
import { EXIT, Failure, codeOf } from './failure.ts'
import { isDer, kindOf, privateKeyInDer, textOf } from './file-kind.ts'

/**
 * Reads a private key in PEM or DER. `origin` is the file's name; the `Failure` says what the file is instead, and never quotes it.
 */
export function privateKeyOf (content: Buffer | string, origin: string, passphrase?: string): KeyObject {
  const bytes = Buffer.from(content)
  try {
    if (isDer(bytes)) return privateKeyInDer(bytes, passphrase)
    return createPrivateKey({ key: textOf(bytes), ...passphrase !== undefined && { passphrase } })
  } catch (error) {
    throw notAKey(bytes, origin, passphrase, error)
  }
}

function notAKey (bytes: Buffer, origin: string, passphrase: string | undefined, error: unknown): Failure {
  const kind = kindOf(bytes)
  const what = `the private key in ${origin} cannot be read`
  if (kind.startsWith('an encrypted private key')) {
    const wanted = 'Give the key unencrypted: openssl pkey -in FILE -out NEW-FILE'
    if (passphrase === undefined) return new Failure(EXIT.failed, what, { detail: `It is ${kind}`, remedy: wanted }, error)
    // One wrong passphrase in 200 decrypts to bytes with a right padding, and OpenSSL then names the content.
    const detail = /BAD_DECRYPT|BAD_PASSWORD/.test(codeOf(error)) ? 'the passphrase is wrong' : 'the passphrase is wrong, or the key is damaged'
    return new Failure(EXIT.failed, what, { detail, remedy: 'Check the passphrase' }, error)
  }
  const isDamaged = /^a private key in (?:PEM|DER)$/.test(kind)
  const detail = isDamaged ? `It is ${kind} that is damaged or of an unknown kind` : `It is ${kind}`
  return new Failure(EXIT.failed, what, { detail, remedy: 'Give a private key, RSA or EC, in PEM or DER' }, error)
}

/**
 * A CSR for the key in a device's folder, new or not: the service recognises a device that asks again by its public key. `origin` is the
 * key's file. Throws a `Failure` when the key cannot be read or is of a kind that AWS IoT does not take.
 */
export async function csrFor (privateKeyPem: string, commonName: string, origin: string): Promise<string> {
  const key = privateKeyOf(privateKeyPem, origin)
  try {
    return await makeCsr(key, commonName)
  } catch (error) {
    if (!(error instanceof RangeError)) throw error
    throw new Failure(EXIT.failed, `the private key in ${origin} is of a kind that AWS IoT does not take`, { detail: error.message }, error)
  }
}
