import { createHash, type X509Certificate } from 'node:crypto'

/** What AWS IoT keeps of a certificate it is given: its id is the SHA-256 of the DER in lower-case hex. Times are epoch milliseconds. */
export function factsOf (certificate: X509Certificate): { id: string, pem: string, notBefore: number, notAfter: number } {
  return {
    id: createHash('sha256').update(certificate.raw).digest('hex'),
    pem: `${certificate.toString().trimEnd()}\n`,
    notBefore: Date.parse(certificate.validFrom),
    notAfter: Date.parse(certificate.validTo)
  }
}

/** Whether `issuer` signed `certificate`: names and key identifiers belong together, and the signature verifies with the issuer's key. */
export function signedBy (certificate: X509Certificate, issuer: X509Certificate): boolean {
  try {
    return certificate.checkIssued(issuer) && certificate.verify(issuer.publicKey)
  } catch {
    return false // a key or signature OpenSSL cannot work with proves nothing
  }
}
