import 'reflect-metadata'
import { hostname } from 'node:os'
import { ExtendedKeyUsageExtension, Name, SubjectAlternativeNameExtension, X509CertificateGenerator } from '@peculiar/x509'
import { makeKey, signingKeys } from './request.ts'

/** Longer than a process runs between two deployments. */
const VALID_MS = 825 * 24 * 3_600_000

/** For clocks that are behind. */
const BACKDATED_MS = 3_600_000

/**
 * A new key on P-256 and a certificate that it signed for itself, for a TLS server whose clients do not check certificates; both as PEM.
 * @param now Epoch milliseconds.
 */
export async function makeServerCertificate (now: number): Promise<{ cert: string, key: string }> {
  const privateKey = await makeKey('ec')
  const { signingAlgorithm, keys } = await signingKeys(privateKey)
  const made = await X509CertificateGenerator.createSelfSigned({
    name: new Name([{ CN: [{ utf8String: 'cvm' }] }]),
    notBefore: new Date(now - BACKDATED_MS),
    notAfter: new Date(now + VALID_MS),
    keys,
    signingAlgorithm,
    extensions: [
      new SubjectAlternativeNameExtension([{ type: 'dns', value: hostname() }]),
      // Of a TLS server: RFC 5280 section 4.2.1.12.
      new ExtendedKeyUsageExtension(['1.3.6.1.5.5.7.3.1'])
    ]
  })
  return { cert: `${made.toString('pem')}\n`, key: String(privateKey.export({ type: 'pkcs8', format: 'pem' })) }
}
