import { AwsError } from './aws-error.ts'
import type { Account } from './account.ts'
import type { Certificate, CertificateStatus } from './certificates.ts'
import { CERTIFICATE_ID, CERTIFICATE_STATUS, CSR, flag, text } from './constraints.ts'
import type { Issued } from './issuer.ts'
import { epochSeconds, type Call, type Operations } from './operation.ts'
import { datedPage } from './page.ts'

/** Certificates: AWS IoT API model 1.2, semantics 2.1 and 2.2 of aws-facts. */
export function certificateOperations (account: Account): Operations {
  const { certificates, issuer, things, policies } = account
  const named = ({ params }: Call): Certificate => certificates.get(text(params['certificateId'], 'certificateId', CERTIFICATE_ID))

  const keep = ({ id, pem, notBefore, notAfter }: Issued, active: boolean): object => {
    const status = active ? 'ACTIVE' : 'INACTIVE'
    const kept = certificates.add({ id, pem, notBefore: notBefore.getTime(), notAfter: notAfter.getTime(), status })
    return { certificateArn: kept.arn, certificateId: kept.id, certificatePem: kept.pem }
  }

  return {
    CreateCertificateFromCsr: {
      method: 'POST',
      url: '/certificates',
      run: async ({ query, body }) => {
        const active = flag(query['setAsActive'], 'setAsActive')
        return keep(await issuer.fromCsr(text(body['certificateSigningRequest'], 'certificateSigningRequest', CSR)), active)
      }
    },
    CreateKeysAndCertificate: {
      method: 'POST',
      url: '/keys-and-certificate',
      run: async ({ query }) => {
        const active = flag(query['setAsActive'], 'setAsActive')
        const issued = await issuer.withNewKey()
        return { ...keep(issued, active), keyPair: { PublicKey: issued.publicKey, PrivateKey: issued.privateKey } }
      }
    },
    DescribeCertificate: {
      method: 'GET',
      url: '/certificates/:certificateId',
      run: call => ({ certificateDescription: description(named(call), account.id) })
    },
    UpdateCertificate: {
      method: 'PUT',
      url: '/certificates/:certificateId',
      run: call => {
        const status = text(call.query['newStatus'], 'newStatus', CERTIFICATE_STATUS) as CertificateStatus
        certificates.setStatus(named(call), status)
        return {}
      }
    },
    DeleteCertificate: {
      method: 'DELETE',
      url: '/certificates/:certificateId',
      run: call => {
        const force = flag(call.query['forceDelete'], 'forceDelete')
        const certificate = named(call)
        const { id, arn, status } = certificate
        if (status === 'ACTIVE') {
          throw new AwsError('CertificateStateException', `Certificate must be deactivated (not ACTIVE) before deletion. Id: ${id}`)
        }
        if (things.ofPrincipal(arn).length > 0) {
          throw new AwsError('DeleteConflictException', `Things must be detached before deletion (arn: ${arn})`)
        }
        if (policies.of(arn).length > 0 && !force) {
          throw new AwsError('DeleteConflictException', `Certificate policies must be detached before deletion (arn: ${arn})`)
        }
        policies.detachAll(arn)
        certificates.remove(certificate)
        return {}
      }
    },
    ListCertificates: {
      method: 'GET',
      url: '/certificates',
      run: call => listed(certificates.list(), call)
    },
    ListCertificatesByCA: {
      // The model knows no 404 here: of a CA that is not registered there are no certificates.
      method: 'GET',
      url: '/certificates-by-ca/:caCertificateId',
      run: call => {
        const id = text(call.params['caCertificateId'], 'caCertificateId', CERTIFICATE_ID).toLowerCase()
        return listed(certificates.list().filter(({ caCertificateId }) => caCertificateId === id), call)
      }
    }
  }
}

function listed (oldestFirst: readonly Certificate[], call: Call): object {
  const { items, next } = datedPage(oldestFirst, call)
  return { certificates: items.map(summary), nextMarker: next }
}

function summary ({ arn, id, status, mode, createdAt }: Certificate): object {
  return { certificateArn: arn, certificateId: id, status, certificateMode: mode, creationDate: epochSeconds(createdAt) }
}

function description (certificate: Certificate, owner: string): object {
  return {
    ...summary(certificate),
    caCertificateId: certificate.caCertificateId,
    certificatePem: certificate.pem,
    ownedBy: owner,
    lastModifiedDate: epochSeconds(certificate.changedAt),
    customerVersion: certificate.version,
    generationId: certificate.generationId,
    transferData: {},
    validity: { notBefore: epochSeconds(certificate.notBefore), notAfter: epochSeconds(certificate.notAfter) }
  }
}
