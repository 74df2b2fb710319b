import type { X509Certificate } from 'node:crypto'
import type { Account } from './account.ts'
import type { Authority } from './authorities.ts'
import { AwsError } from './aws-error.ts'
import type { Certificate, CertificateStatus } from './certificates.ts'
import { CERTIFICATE_PEM, CERTIFICATE_STATUS, flag, optionalText, text } from './constraints.ts'
import type { Call, Operations } from './operation.ts'
import { factsOf, invalid, readCertificate, signedBy } from './x509.ts'

const REGISTRABLE: ReadonlySet<string> = new Set(['ACTIVE', 'INACTIVE', 'REVOKED'])

/** Certificates that AWS did not issue: AWS IoT API model 1.2, semantics 2.1 and 2.3 of aws-facts. */
export function registerOperations ({ authorities, certificates }: Account): Operations {
  const keep = (certificate: X509Certificate, { body }: Call, status: CertificateStatus, of: Pick<Certificate, 'mode' | 'caCertificateId'>): object => {
    // What was sent is what DescribeCertificate shows, to the byte.
    const { arn, id } = certificates.add({ ...factsOf(certificate), pem: String(body['certificatePem']), status, ...of })
    return { certificateArn: arn, certificateId: id }
  }

  /** The registered CA that signed it: the one sent along, or else the only one of the issuer's name. */
  const issuerOf = (certificate: X509Certificate, caPem: string | undefined): Authority => {
    const named = authorities.namedBy(certificate)
    if (caPem === undefined && named.length > 1) {
      throw new AwsError('CertificateConflictException', 'More than one registered CA certificate has the subject that issued the certificate; send caCertificatePem')
    }
    const authority = caPem === undefined ? named[0] : authorities.find(factsOf(readCertificate(caPem, 'CA certificate')).id)
    if (authority === undefined) throw invalid('The CA certificate that signed the certificate is not registered')
    if (!signedBy(certificate, authorities.certificateOf(authority))) throw invalid('The certificate was not signed by the CA certificate')
    if (authority.status !== 'ACTIVE') throw new AwsError('CertificateStateException', `The CA certificate is not active. Id: ${authority.id}`)
    return authority
  }

  return {
    RegisterCertificate: {
      method: 'POST',
      url: '/certificate/register',
      run: call => {
        const pem = text(call.body['certificatePem'], 'certificatePem', CERTIFICATE_PEM)
        const caPem = optionalText(call.body['caCertificatePem'], 'caCertificatePem', CERTIFICATE_PEM)
        const status = statusIn(call, flag(call.query['setAsActive'], 'setAsActive') ? 'ACTIVE' : 'INACTIVE')
        const certificate = readCertificate(pem, 'certificate')
        const { id, mode } = issuerOf(certificate, caPem)
        return keep(certificate, call, status, { mode, caCertificateId: id })
      }
    },
    RegisterCertificateWithoutCA: {
      method: 'POST',
      url: '/certificate/register-no-ca',
      run: call => {
        const pem = text(call.body['certificatePem'], 'certificatePem', CERTIFICATE_PEM)
        return keep(readCertificate(pem, 'certificate'), call, statusIn(call, 'INACTIVE'), { mode: 'SNI_ONLY' })
      }
    }
  }
}

function statusIn ({ body }: Call, fallback: CertificateStatus): CertificateStatus {
  const status = optionalText(body['status'], 'status', CERTIFICATE_STATUS) ?? fallback
  if (!REGISTRABLE.has(status)) throw new AwsError('CertificateStateException', `Not allowed to register certificate with ${status} status`)
  return status as CertificateStatus
}
