import type { X509Certificate } from 'node:crypto'
import type { Account } from './account.ts'
import type { Authority, AuthorityStatus, AutoRegistration, RegistrationConfig } from './authorities.ts'
import { AwsError, invalidRequest } from './aws-error.ts'
import {
  AUTO_REGISTRATION, CA_STATUS, CERTIFICATE_ID, CERTIFICATE_MODE, CERTIFICATE_PEM, flag, optionalFlag, optionalObject, optionalText,
  ROLE_ARN, TEMPLATE_BODY, TEMPLATE_NAME, text
} from './constraints.ts'
import { epochSeconds, type Call, type Operations } from './operation.ts'
import { datedPage } from './page.ts'
import { tagList } from './tag-operations.ts'
import { commonNameOf, factsOf, invalid, readCertificate, signedBy } from './x509.ts'

/** CA certificates and the registration code: AWS IoT API model 1.3, semantics 2.3 of aws-facts. */
export function authorityOperations (account: Account): Operations {
  const { id: owner, authorities, tags } = account
  const named = ({ params }: Call): Authority => authorities.get(text(params['caCertificateId'], 'caCertificateId', CERTIFICATE_ID))

  /** The verification certificate shows that whoever registers the CA has its key: the CA signed the code that only this account knows. */
  const verify = (pem: string, ca: X509Certificate): void => {
    const verification = readCertificate(pem, 'verification certificate')
    if (!signedBy(verification, ca)) throw invalid('The verification certificate was not signed by the CA certificate')
    if (!authorities.isRegistrationCode(commonNameOf(verification))) {
      throw new AwsError('RegistrationCodeValidationException', 'The common name of the verification certificate is not the registration code of this account')
    }
  }

  return {
    GetRegistrationCode: {
      method: 'GET',
      url: '/registrationcode',
      run: () => {
        const { registrationCode } = authorities
        account.touch() // of all that is read, only this comes to be by being read
        return { registrationCode }
      }
    },
    DeleteRegistrationCode: {
      method: 'DELETE',
      url: '/registrationcode',
      run: () => {
        authorities.deleteRegistrationCode()
        return {}
      }
    },
    RegisterCACertificate: {
      method: 'POST',
      url: '/cacertificate',
      run: ({ query, body }) => {
        const pem = text(body['caCertificate'], 'caCertificate', CERTIFICATE_PEM)
        const mode = (optionalText(body['certificateMode'], 'certificateMode', CERTIFICATE_MODE) ?? 'DEFAULT') as Authority['mode']
        const verification = optionalText(body['verificationCertificate'], 'verificationCertificate', CERTIFICATE_PEM)
        const status = flag(query['setAsActive'], 'setAsActive') ? 'ACTIVE' : 'INACTIVE'
        const autoRegistration = flag(query['allowAutoRegistration'], 'allowAutoRegistration') ? 'ENABLE' : 'DISABLE'
        const registrationConfig = configIn(body['registrationConfig'])
        const tagged = tagList(body['tags'], 'tags')
        if (mode === 'SNI_ONLY' && verification !== undefined) throw invalidRequest('verificationCertificate must be empty when certificateMode is SNI_ONLY')
        if (mode === 'DEFAULT' && verification === undefined) throw invalidRequest('verificationCertificate is required when certificateMode is DEFAULT')

        const ca = readCertificate(pem, 'CA certificate')
        if (!ca.ca) throw invalid('The CA certificate is not the certificate of a CA: its basic constraints do not say so')
        if (verification !== undefined) verify(verification, ca)
        const { arn, id } = authorities.add({ ...factsOf(ca), pem, mode, status, autoRegistration, registrationConfig })
        tags.create(arn, tagged)
        return { certificateArn: arn, certificateId: id }
      }
    },
    DescribeCACertificate: {
      method: 'GET',
      url: '/cacertificate/:caCertificateId',
      run: call => {
        const authority = named(call)
        return { certificateDescription: description(authority, owner), registrationConfig: authority.registrationConfig }
      }
    },
    UpdateCACertificate: {
      method: 'PUT',
      url: '/cacertificate/:caCertificateId',
      run: call => {
        const status = optionalText(call.query['newStatus'], 'newStatus', CA_STATUS) as AuthorityStatus | undefined
        const automatic = optionalText(call.query['newAutoRegistrationStatus'], 'newAutoRegistrationStatus', AUTO_REGISTRATION)
        const removed = optionalFlag(call.body['removeAutoRegistration'], 'removeAutoRegistration') ?? false
        const registrationConfig = configIn(call.body['registrationConfig'])
        if (removed && registrationConfig !== undefined) throw invalidRequest('registrationConfig cannot be given with removeAutoRegistration')
        const autoRegistration = (automatic as AutoRegistration | undefined) ?? (removed ? 'DISABLE' : undefined)
        authorities.update(named(call), {
          ...(status === undefined ? {} : { status }),
          ...(autoRegistration === undefined ? {} : { autoRegistration }),
          ...(removed || registrationConfig !== undefined ? { registrationConfig } : {})
        })
        return {}
      }
    },
    ListCACertificates: {
      method: 'GET',
      url: '/cacertificates',
      run: call => {
        const template = optionalText(call.query['templateName'], 'templateName', TEMPLATE_NAME)
        const all = authorities.list()
        const named = template === undefined ? all : all.filter(({ registrationConfig }) => registrationConfig?.templateName === template)
        const { items, next } = datedPage(named, call)
        return { certificates: items.map(summary), nextMarker: next }
      }
    },
    DeleteCACertificate: {
      method: 'DELETE',
      url: '/cacertificate/:caCertificateId',
      run: call => {
        const authority = named(call)
        authorities.remove(authority)
        tags.remove(authority.arn)
        return {}
      }
    }
  }
}

function configIn (value: unknown): RegistrationConfig | undefined {
  const config = optionalObject(value, 'registrationConfig')
  if (config === undefined) return undefined
  const templateBody = optionalText(config['templateBody'], 'registrationConfig.templateBody', TEMPLATE_BODY)
  const roleArn = optionalText(config['roleArn'], 'registrationConfig.roleArn', ROLE_ARN)
  const templateName = optionalText(config['templateName'], 'registrationConfig.templateName', TEMPLATE_NAME)
  return {
    ...(templateBody === undefined ? {} : { templateBody }),
    ...(roleArn === undefined ? {} : { roleArn }),
    ...(templateName === undefined ? {} : { templateName })
  }
}

function summary ({ arn, id, status, createdAt }: Authority): object {
  return { certificateArn: arn, certificateId: id, status, creationDate: epochSeconds(createdAt) }
}

function description (authority: Authority, owner: string): object {
  return {
    ...summary(authority),
    certificatePem: authority.pem,
    ownedBy: owner,
    autoRegistrationStatus: authority.autoRegistration,
    lastModifiedDate: epochSeconds(authority.changedAt),
    customerVersion: authority.version,
    generationId: authority.generationId,
    validity: { notBefore: epochSeconds(authority.notBefore), notAfter: epochSeconds(authority.notAfter) },
    certificateMode: authority.mode
  }
}
