import 'reflect-metadata'
import { Name, X509CertificateGenerator } from '@peculiar/x509'
import { makeKey, signingKeys } from '../x509/request.ts'

const DAY_MS = 86_400_000

/** A key with a certificate that it signed itself under any name: what somebody can make who was given nothing. */
export async function makeStranger (commonName: string): Promise<{ privateKey: string, certificate: string }> {
  const key = await makeKey('ec')
  const certificate = await X509CertificateGenerator.createSelfSigned({
    name: new Name([{ CN: [{ utf8String: commonName }] }]),
    notBefore: new Date(Date.now() - DAY_MS),
    notAfter: new Date(Date.now() + DAY_MS),
    ...await signingKeys(key)
  })
  return { privateKey: key.export({ type: 'pkcs8', format: 'pem' }).toString(), certificate: certificate.toString('pem') }
}
