import {
  AddThingToThingGroupCommand, AttachPolicyCommand, AttachThingPrincipalCommand, type Certificate, CreateCertificateFromCsrCommand,
  CreateKeysAndCertificateCommand, CreateThingCommand, DeleteCertificateCommand, DescribeCertificateCommand, DescribeEndpointCommand,
  DetachPolicyCommand, DetachThingPrincipalCommand, type IoTClient, ListCertificatesCommand, RegisterCertificateCommand,
  RegisterCertificateWithoutCACommand, UpdateCertificateCommand,
  paginateListAttachedPolicies, paginateListPrincipalThings, paginateListThingPrincipals
} from '@aws-sdk/client-iot'
import { CvmError } from '../errors.ts'
import {
  type CertificatePage, CertificateStateConflict, type ControlPlane, type DescribedCertificate, isIssuedByAws, type IssuedCertificate,
  type KeyPair, type ListedCertificate, type RegisteredCertificate, type Thing, ThingNotFound
} from '../vending/control-plane.ts'
import { RETRY_AFTER_MS, failing, failureOf, nameOf } from './iot-failures.ts'

interface IotSettings {
  /** Never retries. */
  issuing: IoTClient
  /** Retries within bounds, also for what is not there yet. */
  binding: IoTClient
  /** Retries within bounds. */
  tending: IoTClient
  /** A fixed endpoint for devices; asked of AWS IoT when absent. */
  endpoint: string | undefined
}

/** What AWS IoT says of a certificate that it does not take: by itself, or because of its CA. */
const REFUSES_CERTIFICATE: ReadonlySet<string> = new Set([
  'CertificateValidationException', 'CertificateConflictException', 'CertificateStateException', 'InvalidRequestException'
])

/** The most that AWS IoT lists at a time. */
const PAGE_SIZE = 250

/** AWS IoT's control plane through the SDK. */
export class IotControlPlane implements ControlPlane {
  readonly #settings: IotSettings
  #endpoint: Promise<string> | undefined

  constructor (settings: IotSettings) {
    this.#settings = settings
    if (settings.endpoint) this.#endpoint = Promise.resolve(settings.endpoint)
  }

  async createCertificateFromCsr (csrPem: string, signal: AbortSignal): Promise<IssuedCertificate> {
    const command = new CreateCertificateFromCsrCommand({ certificateSigningRequest: csrPem, setAsActive: false })
    try {
      return issuedOf(await this.#settings.issuing.send(command, { abortSignal: signal }))
    } catch (cause) {
      if (nameOf(cause) !== 'InvalidRequestException') throw failureOf(cause)
      throw new CvmError('csr-rejected', { reason: 'refused-by-aws-iot', detail: 'AWS IoT refused the CSR', cause })
    }
  }

  async createKeysAndCertificate (signal: AbortSignal): Promise<IssuedCertificate & { keyPair: KeyPair }> {
    const command = new CreateKeysAndCertificateCommand({ setAsActive: false })
    const answer = await failing(this.#settings.issuing.send(command, { abortSignal: signal }))
    const { PublicKey, PrivateKey } = answer.keyPair ?? {}
    if (!PublicKey || !PrivateKey) throw new CvmError('aws-iot-unavailable', { detail: 'AWS IoT sent no key pair', retryAfterMs: RETRY_AFTER_MS })
    return { ...issuedOf(answer), keyPair: { publicKey: PublicKey, privateKey: PrivateKey } }
  }

  async registerCertificate (
    certificatePem: string, caCertificatePem: string | undefined, signal: AbortSignal
  ): Promise<RegisteredCertificate | undefined> {
    const options = { abortSignal: signal }
    const { issuing } = this.#settings
    try {
      // Without its CA's PEM, AWS IoT could not tell one of several CAs with the same subject.
      const { certificateArn } = caCertificatePem === undefined
        ? await issuing.send(new RegisterCertificateWithoutCACommand({ certificatePem, status: 'INACTIVE' }), options)
        : await issuing.send(new RegisterCertificateCommand({ certificatePem, caCertificatePem, status: 'INACTIVE' }), options)
      if (!certificateArn) throw new CvmError('aws-iot-unavailable', { detail: 'AWS IoT named no certificate', retryAfterMs: RETRY_AFTER_MS })
      return { certificateArn }
    } catch (cause) {
      if (nameOf(cause) === 'ResourceAlreadyExistsException') return undefined
      if (!REFUSES_CERTIFICATE.has(nameOf(cause))) throw failureOf(cause)
      throw new CvmError('certificate-rejected', { reason: 'refused-by-aws-iot', detail: 'AWS IoT refused the certificate, or its CA is not ACTIVE there', cause })
    }
  }

  async ensureThing ({ thingName, thingType, thingGroups, attributes }: Thing, signal: AbortSignal): Promise<void> {
    const { binding } = this.#settings
    const payload = Object.keys(attributes).length > 0 && { attributePayload: { attributes: { ...attributes } } }
    try {
      const command = new CreateThingCommand({ thingName, ...(thingType && { thingTypeName: thingType }), ...payload })
      await binding.send(command, { abortSignal: signal })
    } catch (cause) {
      if (nameOf(cause) !== 'ResourceAlreadyExistsException') throw failureOf(cause)
    }
    await failing(Promise.all(thingGroups.map(thingGroupName =>
      binding.send(new AddThingToThingGroupCommand({ thingName, thingGroupName }), { abortSignal: signal }))))
  }

  async bind (certificateArn: string, to: { thingName: string, policyName: string }, signal: AbortSignal): Promise<void> {
    const { binding } = this.#settings
    const { thingName, policyName } = to
    const principal = { thingName, principal: certificateArn, thingPrincipalType: 'EXCLUSIVE_THING' as const }
    const withPolicy = binding.send(new AttachPolicyCommand({ policyName, target: certificateArn }), { abortSignal: signal })
    const withThing = binding.send(new AttachThingPrincipalCommand(principal), { abortSignal: signal })
    await Promise.all([
      withPolicy.catch((cause: unknown) => {
        if (nameOf(cause) !== 'ResourceNotFoundException') throw failureOf(cause)
        const detail = `AWS IoT does not have the policy ${policyName}, or not the certificate any more`
        throw new CvmError('aws-iot-refused', { detail, cause })
      }),
      withThing.catch((cause: unknown) => {
        throw nameOf(cause) === 'ResourceNotFoundException' ? new ThingNotFound(thingName, cause) : failureOf(cause)
      })
    ])
  }

  activate (certificateId: string, signal: AbortSignal): Promise<void> {
    return this.#update(certificateId, 'ACTIVE', signal)
  }

  deactivate (certificateId: string, signal: AbortSignal): Promise<void> {
    return this.#update(certificateId, 'INACTIVE', signal)
  }

  async revoke (certificateId: string, signal: AbortSignal): Promise<void> {
    try {
      await this.#update(certificateId, 'REVOKED', signal)
    } catch (cause) {
      if (!(cause instanceof CertificateStateConflict)) throw cause
    }
  }

  async deleteUnbound (certificateId: string, signal: AbortSignal): Promise<void> {
    try {
      await this.#settings.tending.send(new DeleteCertificateCommand({ certificateId }), { abortSignal: signal })
    } catch (cause) {
      if (nameOf(cause) !== 'ResourceNotFoundException') throw failureOf(cause)
    }
  }

  async listRecent (since: number, maxPages: number, signal: AbortSignal, from?: string) {
    const certificates: ListedCertificate[] = []
    let marker = from
    for (let page = 0; page < maxPages; page++) {
      const command = new ListCertificatesCommand({ pageSize: PAGE_SIZE, ascendingOrder: false, ...(marker && { marker }) })
      const answer = await failing(this.#settings.tending.send(command, { abortSignal: signal }))
      for (const certificate of (answer.certificates ?? []).map(listedOf)) {
        if (certificate.createdAt < since) return { certificates, complete: true }
        certificates.push(certificate)
      }
      marker = answer.nextMarker
      if (!marker) return { certificates, complete: true }
    }
    return { certificates, complete: false, ...(marker && { marker }) }
  }

  async listPage (marker: string | undefined, signal: AbortSignal): Promise<CertificatePage> {
    const command = new ListCertificatesCommand({ pageSize: PAGE_SIZE, ascendingOrder: true, ...(marker && { marker }) })
    const { certificates = [], nextMarker } = await failing(this.#settings.tending.send(command, { abortSignal: signal }))
    return { certificates: certificates.map(listedOf), ...(nextMarker && { marker: nextMarker }) }
  }

  async describe (certificateId: string, signal: AbortSignal): Promise<DescribedCertificate | undefined> {
    try {
      const command = new DescribeCertificateCommand({ certificateId })
      const { certificateDescription: found = {} } = await this.#settings.tending.send(command, { abortSignal: signal })
      const { status = '', certificateArn = '', certificatePem = '', creationDate, caCertificateId, certificateMode = '' } = found
      return { status, certificateArn, certificatePem, createdAt: creationDate?.getTime() ?? 0, caCertificateId, certificateMode }
    } catch (cause) {
      if (nameOf(cause) === 'ResourceNotFoundException') return undefined
      throw failureOf(cause)
    }
  }

  async certificatesOf (thingName: string, signal: AbortSignal): Promise<string[]> {
    const found: string[] = []
    const pages = paginateListThingPrincipals({ client: this.#settings.tending }, { thingName }, { abortSignal: signal })
    try {
      for await (const { principals = [] } of pages) {
        found.push(...principals.flatMap(principal => /:cert\/([0-9a-f]{64})$/.exec(principal)?.[1] ?? []))
      }
      return found
    } catch (cause) {
      if (nameOf(cause) === 'ResourceNotFoundException') return []
      throw failureOf(cause)
    }
  }

  async policiesOf (certificateArn: string, signal: AbortSignal): Promise<string[]> {
    const found: string[] = []
    try {
      const pages = paginateListAttachedPolicies({ client: this.#settings.tending }, { target: certificateArn }, { abortSignal: signal })
      for await (const { policies = [] } of pages) found.push(...policies.flatMap(({ policyName }) => policyName ?? []))
      return found
    } catch (cause) {
      if (nameOf(cause) === 'ResourceNotFoundException') return []
      throw failureOf(cause)
    }
  }

  async unbind (certificateId: string, signal: AbortSignal): Promise<void> {
    const principal = (await this.describe(certificateId, signal))?.certificateArn
    try {
      if (principal) await this.#detachAll(principal, signal)
    } catch (cause) {
      if (nameOf(cause) !== 'ResourceNotFoundException') throw failureOf(cause)
    }
  }

  async dispose (certificateId: string, signal: AbortSignal): Promise<boolean> {
    const { tending } = this.#settings
    const known = await this.describe(certificateId, signal)
    if (!known) return true
    const options = { abortSignal: signal }
    try {
      await tending.send(new UpdateCertificateCommand({ certificateId, newStatus: 'REVOKED' }), options)
      await this.#detachAll(known.certificateArn, signal)
      if (isIssuedByAws(known)) await tending.send(new DeleteCertificateCommand({ certificateId }), options)
      return true
    } catch (cause) {
      if (nameOf(cause) === 'ResourceNotFoundException') return true
      if (['DeleteConflictException', 'CertificateStateException'].includes(nameOf(cause))) return false
      throw failureOf(cause)
    }
  }

  async #detachAll (principal: string, signal: AbortSignal): Promise<void> {
    const { tending } = this.#settings
    const options = { abortSignal: signal }
    for await (const { things = [] } of paginateListPrincipalThings({ client: tending }, { principal }, options)) {
      for (const thingName of things) await tending.send(new DetachThingPrincipalCommand({ thingName, principal }), options)
    }
    for await (const { policies = [] } of paginateListAttachedPolicies({ client: tending }, { target: principal }, options)) {
      for (const { policyName } of policies) await tending.send(new DetachPolicyCommand({ policyName, target: principal }), options)
    }
  }

  endpoint (): Promise<string> {
    this.#endpoint ??= this.#describeEndpoint().catch((cause: unknown) => {
      this.#endpoint = undefined
      throw cause
    })
    return this.#endpoint
  }

  async checkReachable (): Promise<void> {
    await this.#describeEndpoint()
  }

  async #describeEndpoint (): Promise<string> {
    const { endpointAddress } = await failing(this.#settings.binding.send(new DescribeEndpointCommand({ endpointType: 'iot:Data-ATS' })))
    if (!endpointAddress) throw new CvmError('aws-iot-unavailable', { detail: 'AWS IoT named no endpoint', retryAfterMs: RETRY_AFTER_MS })
    return endpointAddress
  }

  async #update (certificateId: string, newStatus: 'ACTIVE' | 'INACTIVE' | 'REVOKED', signal: AbortSignal): Promise<void> {
    try {
      await this.#settings.binding.send(new UpdateCertificateCommand({ certificateId, newStatus }), { abortSignal: signal })
    } catch (cause) {
      if (['CertificateStateException', 'ResourceNotFoundException'].includes(nameOf(cause))) {
        throw new CertificateStateConflict(`certificate ${certificateId} cannot become ${newStatus}`, { cause })
      }
      throw failureOf(cause)
    }
  }
}

function listedOf ({ certificateId = '', status, creationDate }: Certificate): ListedCertificate {
  return { certificateId, status: status ?? '', createdAt: creationDate?.getTime() ?? 0 }
}

function issuedOf (answer: { [K in keyof IssuedCertificate]?: string | undefined }): IssuedCertificate {
  const { certificateId, certificateArn, certificatePem } = answer
  if (!certificateId || !certificateArn || !certificatePem) throw new CvmError('aws-iot-unavailable', { detail: 'AWS IoT sent no certificate', retryAfterMs: RETRY_AFTER_MS })
  return { certificateId, certificateArn, certificatePem }
}
