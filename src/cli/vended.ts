import { X509Certificate, createHash, createPublicKey } from 'node:crypto'
import { readCertificate } from '../x509/certificate.ts'
import { factsOf } from './device-folder.ts'
import type { DeviceFacts } from './device-folder.ts'
import { EXIT, Failure, messageOf } from './failure.ts'
import { privateKeyOf } from './private-key.ts'
import { hostAndPort } from './publish.ts'

/** What the service vended, found right. */
export interface Vended { readonly certificatePem: string, readonly rootCaPem: string, readonly facts: DeviceFacts }

/**
 * Trusts nothing in an answer: a certificate for another key or device would be found out only in the field. Throws a `Failure`.
 * `publicKeyFingerprint` is that of the key that was to be certified.
 */
export function checkVended (body: Record<string, unknown>, serialNumber: string, publicKeyFingerprint: string | undefined): Vended {
  const facts = factsOf(body, 'the answer of the service')
  const { certificatePem, rootCaPem } = body
  const wrong = (why: string) => new Failure(EXIT.failed, `the answer of the service is wrong: ${why}`, {
    remedy: 'Nothing of it was stored; report it to the operator'
  })
  if (typeof certificatePem !== 'string' || typeof rootCaPem !== 'string') throw wrong('certificatePem or rootCaPem is missing')
  const certificate = legible(() => readCertificate(certificatePem), wrong)
  legible(() => new X509Certificate(rootCaPem), wrong)
  hostAndPort(facts.endpoint)
  if (facts.serialNumber !== serialNumber) throw wrong('it is about another device')
  if (certificate.publicKeyFingerprint !== publicKeyFingerprint) throw wrong('the certificate carries another public key')
  if (certificate.certificateId !== facts.certificateId) throw wrong('certificateId belongs to another certificate')
  return { certificatePem, rootCaPem, facts }
}

/**
 * SHA-256 of the public key (SubjectPublicKeyInfo in DER) that belongs to a private key, lower-case hex. `origin` is where the key is from.
 * Throws a `Failure`.
 */
export function fingerprintOf (privateKeyPem: string, origin = 'the answer of the service'): string {
  const publicKey = createPublicKey(privateKeyOf(privateKeyPem, origin))
  return createHash('sha256').update(publicKey.export({ type: 'spki', format: 'der' })).digest('hex')
}

function legible<T> (read: () => T, wrong: (why: string) => Failure): T {
  try {
    return read()
  } catch (error) {
    throw wrong(`a certificate cannot be read (${messageOf(error)})`)
  }
}
