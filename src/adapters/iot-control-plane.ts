import {
  AddThingToThingGroupCommand, AttachPolicyCommand, AttachThingPrincipalCommand, CreateCertificateFromCsrCommand,
  CreateKeysAndCertificateCommand, CreateThingCommand, DeleteCertificateCommand, DescribeCertificateCommand, DescribeEndpointCommand,
  DetachPolicyCommand, DetachThingPrincipalCommand, type IoTClient, ListCertificatesCommand, UpdateCertificateCommand,
  paginateListAttachedPolicies, paginateListPrincipalThings
} from '@aws-sdk/client-iot'
import { CvmError } from '../errors.ts'
import {
  CertificateStateConflict, type ControlPlane, type IssuedCertificate, type KeyPair, type ListedCertificate, type Thing
} from '../vending/control-plane.ts'

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

const RETRY_AFTER_MS = 2_000

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
    await failing(Promise.all([
      binding.send(new AttachPolicyCommand({ policyName, target: certificateArn }), { abortSignal: signal }),
      binding.send(new AttachThingPrincipalCommand(principal), { abortSignal: signal })
    ]))
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

  async listRecent (since: number, maxPages: number, signal: AbortSignal) {
    const certificates: ListedCertificate[] = []
    let marker: string | undefined
    for (let page = 0; page < maxPages; page++) {
      const command = new ListCertificatesCommand({ pageSize: PAGE_SIZE, ascendingOrder: false, ...(marker && { marker }) })
      const answer = await failing(this.#settings.tending.send(command, { abortSignal: signal }))
      for (const { certificateId = '', status = '', creationDate } of answer.certificates ?? []) {
        const createdAt = creationDate?.getTime() ?? 0
        if (createdAt < since) return { certificates, complete: true }
        certificates.push({ certificateId, status, createdAt })
      }
      marker = answer.nextMarker
      if (!marker) return { certificates, complete: true }
    }
    return { certificates, complete: false }
  }

  async describe (certificateId: string, signal: AbortSignal): Promise<{ status: string, certificatePem: string } | undefined> {
    const description = await this.#describeCertificate(certificateId, signal)
    return description && { status: description.status ?? '', certificatePem: description.certificatePem ?? '' }
  }

  async dispose (certificateId: string, signal: AbortSignal): Promise<boolean> {
    const { tending } = this.#settings
    const principal = (await this.#describeCertificate(certificateId, signal))?.certificateArn
    if (!principal) return true
    const options = { abortSignal: signal }
    try {
      await tending.send(new UpdateCertificateCommand({ certificateId, newStatus: 'REVOKED' }), options)
      for await (const { things = [] } of paginateListPrincipalThings({ client: tending }, { principal }, options)) {
        for (const thingName of things) await tending.send(new DetachThingPrincipalCommand({ thingName, principal }), options)
      }
      for await (const { policies = [] } of paginateListAttachedPolicies({ client: tending }, { target: principal }, options)) {
        for (const { policyName } of policies) await tending.send(new DetachPolicyCommand({ policyName, target: principal }), options)
      }
      await tending.send(new DeleteCertificateCommand({ certificateId }), options)
      return true
    } catch (cause) {
      if (nameOf(cause) === 'ResourceNotFoundException') return true
      if (['DeleteConflictException', 'CertificateStateException'].includes(nameOf(cause))) return false
      throw failureOf(cause)
    }
  }

  async #describeCertificate (certificateId: string, signal: AbortSignal) {
    try {
      const command = new DescribeCertificateCommand({ certificateId })
      return (await this.#settings.tending.send(command, { abortSignal: signal })).certificateDescription
    } catch (cause) {
      if (nameOf(cause) === 'ResourceNotFoundException') return undefined
      throw failureOf(cause)
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

function issuedOf (answer: { [K in keyof IssuedCertificate]?: string | undefined }): IssuedCertificate {
  const { certificateId, certificateArn, certificatePem } = answer
  if (!certificateId || !certificateArn || !certificatePem) throw new CvmError('aws-iot-unavailable', { detail: 'AWS IoT sent no certificate', retryAfterMs: RETRY_AFTER_MS })
  return { certificateId, certificateArn, certificatePem }
}

async function failing<T> (call: Promise<T>): Promise<T> {
  try {
    return await call
  } catch (cause) {
    throw failureOf(cause)
  }
}

export function nameOf (cause: unknown): string {
  return cause instanceof Error ? cause.name : ''
}

/** Whether AWS refused a call for its quota and did nothing. By name before status: it throttles with 400 here and 429 there. */
export function isThrottled (cause: unknown): boolean {
  return /Throttl|TooManyRequests/.test(nameOf(cause)) || statusOf(cause) === 429
}

function statusOf (cause: unknown): number {
  return (cause as { $metadata?: { httpStatusCode?: number } }).$metadata?.httpStatusCode ?? 0
}

/** What a failure of the SDK's clients of AWS IoT means to a caller. */
export function failureOf (cause: unknown): CvmError {
  if (cause instanceof CvmError) return cause
  const name = nameOf(cause)
  const status = statusOf(cause)
  if (name === 'AbortError') return new CvmError('deadline-exceeded', { retryAfterMs: RETRY_AFTER_MS, cause })
  if (isThrottled(cause)) return new CvmError('aws-iot-throttled', { retryAfterMs: RETRY_AFTER_MS, cause })
  // A body that is no JSON, such as a proxy's page, reaches us as a SyntaxError with whatever status it came with.
  if (status >= 400 && status < 500 && name !== 'SyntaxError') return new CvmError('aws-iot-refused', { cause })
  return new CvmError('aws-iot-unavailable', { retryAfterMs: RETRY_AFTER_MS, cause })
}
