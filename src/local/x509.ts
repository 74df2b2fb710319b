import { createHash, X509Certificate } from 'node:crypto'
import { AwsError } from './aws-error.ts'
import { content, elements } from './der.ts'

// AWS IoT's signing algorithms by OID (aws-facts 2.2): SHA-2 with RSA, with ECDSA, and SHA-256 with DSA.
const SIGNATURES = new Set(['2a864886f70d01010b', '2a864886f70d01010c', '2a864886f70d01010d', '2a8648ce3d040302', '2a8648ce3d040303',
  '2a8648ce3d040304', '608648016503040302'])
const CURVES = new Set<string | undefined>(['prime256v1', 'secp384r1', 'secp521r1'])

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

/** The one certificate in a PEM text, within its dates, key and signature as AWS IoT takes them; CertificateValidationException else. */
export function readCertificate (pem: string, what: string): X509Certificate {
  const certificate = parsed(pem, what)
  const { asymmetricKeyType, asymmetricKeyDetails } = certificate.publicKey
  const accepted = (asymmetricKeyType === 'rsa' && (asymmetricKeyDetails?.modulusLength ?? 0) >= 2048) ||
    (asymmetricKeyType === 'ec' && CURVES.has(asymmetricKeyDetails?.namedCurve))
  if (!accepted) throw invalid(`The key of the ${what} must be RSA of at least 2048 bits or an EC key on P-256, P-384 or P-521`)
  const algorithm = elements(content(certificate.raw))[1]
  const oid = algorithm === undefined ? undefined : elements(content(algorithm))[0]
  if (oid === undefined || !SIGNATURES.has(content(oid).toString('hex'))) throw invalid(`The signature algorithm of the ${what} is not supported`)
  const { notBefore, notAfter } = factsOf(certificate)
  if (notBefore > Date.now()) throw invalid(`The ${what} is not valid yet`)
  if (notAfter < Date.now()) throw invalid(`The ${what} has expired`)
  return certificate
}

/** The first common name of a certificate's subject. */
export function commonNameOf (certificate: X509Certificate): string | undefined {
  return /^CN=(.*)$/m.exec(certificate.subject)?.[1]
}

function parsed (pem: string, what: string): X509Certificate {
  if (pem.match(/-----BEGIN /g)?.length !== 1) throw invalid(`The ${what} is not one PEM certificate`)
  try {
    return new X509Certificate(pem)
  } catch {
    throw invalid(`The ${what} is not a PEM certificate`)
  }
}

export function invalid (message: string): AwsError {
  return new AwsError('CertificateValidationException', message)
}
