import 'reflect-metadata'
import { createPrivateKey, createPublicKey } from 'node:crypto'
import { Name, X509CertificateGenerator } from '@peculiar/x509'
import { makeKeyAndCsr } from '../x509/request.ts'

const DAY_MS = 86_400_000

/** A key with a certificate that it signed itself under any name: what somebody can make who was given nothing. */
export async function makeStranger (commonName: string): Promise<{ privateKey: string, certificate: string }> {
  const { privateKeyPem } = await makeKeyAndCsr({ commonName, keyType: 'ec' })
  const algorithm = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' }
  const { subtle } = globalThis.crypto
  const key = createPrivateKey(privateKeyPem)
  const pkcs8 = key.export({ type: 'pkcs8', format: 'der' })
  const spki = createPublicKey(key).export({ type: 'spki', format: 'der' })
  const certificate = await X509CertificateGenerator.createSelfSigned({
    name: new Name([{ CN: [{ utf8String: commonName }] }]),
    notBefore: new Date(Date.now() - DAY_MS),
    notAfter: new Date(Date.now() + DAY_MS),
    signingAlgorithm: algorithm,
    keys: {
      privateKey: await subtle.importKey('pkcs8', pkcs8, algorithm, false, ['sign']),
      publicKey: await subtle.importKey('spki', spki, algorithm, true, ['verify'])
    }
  })
  return { privateKey: privateKeyPem, certificate: certificate.toString('pem') }
}
