import 'reflect-metadata'
import { type KeyObject, X509Certificate as NodeCertificate } from 'node:crypto'
import { BasicConstraintsExtension, Name, X509Certificate, X509CertificateGenerator } from '@peculiar/x509'
import { makeKey, signingKeys } from './request.ts'

/** Long enough to be carried from a machine that is off the network. */
const VALID_MS = 7 * 24 * 3_600_000

/** For clocks that are behind. */
const BACKDATED_MS = 3_600_000

/**
 * The verification certificate of `RegisterCACertificate`: the account's registration code (`code`), signed by the CA, for a key that is
 * thrown away. Throws a `RangeError` when the key is not the CA's, or of a kind that AWS IoT does not take; any other error when the
 * text is no certificate.
 */
export async function makeVerificationCertificate (caPem: string, caKey: KeyObject, code: string, now: number): Promise<string> {
  const ca = new X509Certificate(caPem)
  if (!new NodeCertificate(Buffer.from(ca.rawData)).checkPrivateKey(caKey)) throw new RangeError('the key is not that of the CA certificate')
  const { signingAlgorithm, keys: { privateKey: signingKey } } = await signingKeys(caKey)
  const { keys: { publicKey } } = await signingKeys(await makeKey('ec'))
  const made = await X509CertificateGenerator.create({
    subject: new Name([{ CN: [{ utf8String: code }] }]),
    issuer: ca.subjectName,
    notBefore: new Date(now - BACKDATED_MS),
    notAfter: new Date(now + VALID_MS),
    publicKey,
    signingKey,
    signingAlgorithm,
    extensions: [new BasicConstraintsExtension(false, undefined, true)]
  })
  return `${made.toString('pem')}\n`
}
