import 'reflect-metadata'
import { generateKeyPair } from 'node:crypto'
import { promisify } from 'node:util'
import { Name, Pkcs10CertificateRequestGenerator } from '@peculiar/x509'

interface RequestWish {
  /** Left out: a request with an empty subject. */
  commonName?: string
  /** P-256 or RSA with 2048 bits. */
  keyType: 'ec' | 'rsa'
}

const generate = promisify(generateKeyPair)
const ALGORITHMS = {
  ec: { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' },
  rsa: { name: 'RSASSA-PKCS1-v1_5', hash: 'SHA-256' }
} as const

/**
 * A new key (PKCS#8) and a CSR for it, as a device would make them; for the command line and for tests. The key is made in the
 * thread pool and goes nowhere but into the answer. RFC 2986; RFC 5958.
 */
export async function makeKeyAndCsr ({ commonName, keyType }: RequestWish): Promise<{ privateKeyPem: string, csrPem: string }> {
  const { privateKey, publicKey } = keyType === 'ec'
    ? await generate('ec', { namedCurve: 'prime256v1' })
    : await generate('rsa', { modulusLength: 2048 })
  const signingAlgorithm = ALGORITHMS[keyType]
  const { subtle } = globalThis.crypto
  const keys = {
    privateKey: await subtle.importKey('pkcs8', privateKey.export({ type: 'pkcs8', format: 'der' }), signingAlgorithm, false, ['sign']),
    publicKey: await subtle.importKey('spki', publicKey.export({ type: 'spki', format: 'der' }), signingAlgorithm, true, ['verify'])
  }
  // As typed values, not as one string: a string would be parsed, and commas in a name would make new attributes.
  const name = new Name(commonName === undefined ? [] : [{ CN: [{ utf8String: commonName }] }])
  const csr = await Pkcs10CertificateRequestGenerator.create({ name, keys, signingAlgorithm })
  return { privateKeyPem: privateKey.export({ type: 'pkcs8', format: 'pem' }).toString(), csrPem: `${csr.toString('pem')}\n` }
}
