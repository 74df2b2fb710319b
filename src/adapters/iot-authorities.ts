import {
  DeleteCACertificateCommand, DescribeCACertificateCommand, GetRegistrationCodeCommand, type IoTClient, ListCACertificatesCommand,
  ListCertificatesByCACommand, RegisterCACertificateCommand, UpdateCACertificateCommand
} from '@aws-sdk/client-iot'
import { CvmError } from '../errors.ts'
import type { AuthorityStatus, CaCertificate } from '../vending/authority.ts'
import type { AuthorityRegistry, AwsPage, CertificateOfAuthority, NewCaCertificate, PageRequest } from '../vending/authority-registry.ts'
import { RETRY_AFTER_MS, failing, failureOf, nameOf } from './iot-failures.ts'

/** What AWS IoT says of a CA certificate, or of its verification certificate, that it does not take; each with what to look at. */
const REFUSALS: Readonly<Record<string, string>> = {
  RegistrationCodeValidationException: 'the common name of the verification certificate is not the registration code of the account',
  CertificateValidationException: 'it takes neither the CA certificate nor the verification certificate as they are',
  InvalidRequestException: 'it takes no CA certificate like this'
}

/** The registered CA certificates through the SDK. */
export class IotAuthorities implements AuthorityRegistry {
  readonly #client: IoTClient

  /** A client that retries within bounds. */
  constructor (client: IoTClient) {
    this.#client = client
  }

  async registrationCode (signal: AbortSignal): Promise<string> {
    const { registrationCode } = await failing(this.#client.send(new GetRegistrationCodeCommand({}), { abortSignal: signal }))
    return registrationCode ?? missing('registration code')
  }

  async register (ca: NewCaCertificate, signal: AbortSignal): Promise<boolean> {
    const { caCertificatePem, verificationCertificatePem, mode, status, autoRegistration } = ca
    try {
      await this.#client.send(new RegisterCACertificateCommand({
        caCertificate: caCertificatePem,
        ...(verificationCertificatePem !== undefined && { verificationCertificate: verificationCertificatePem }),
        certificateMode: mode,
        setAsActive: status === 'ACTIVE',
        allowAutoRegistration: autoRegistration
      }), { abortSignal: signal })
      return true
    } catch (cause) {
      if (nameOf(cause) === 'ResourceAlreadyExistsException') return false
      if (nameOf(cause) === 'LimitExceededException') throw new CvmError('authority-limit-exceeded', { cause })
      const refusal = REFUSALS[nameOf(cause)]
      throw refusal === undefined ? failureOf(cause) : new CvmError('authority-rejected', { reason: 'refused-by-aws-iot', detail: `AWS IoT refused: ${refusal}`, cause })
    }
  }

  async describe (caCertificateId: string, signal: AbortSignal): Promise<CaCertificate | undefined> {
    const command = new DescribeCACertificateCommand({ certificateId: caCertificateId })
    const answer = await unlessGone(this.#client.send(command, { abortSignal: signal }))
    if (answer === undefined) return undefined
    const { certificateDescription: ca = {} } = answer
    return {
      caCertificateId,
      caCertificateArn: ca.certificateArn ?? missing('ARN of the CA'),
      caCertificatePem: ca.certificatePem ?? missing('CA certificate'),
      status: statusOf(ca.status),
      autoRegistration: ca.autoRegistrationStatus === 'ENABLE',
      mode: ca.certificateMode === 'SNI_ONLY' ? 'SNI_ONLY' : 'DEFAULT',
      createdAt: msOf(ca.creationDate),
      notBefore: msOf(ca.validity?.notBefore),
      notAfter: msOf(ca.validity?.notAfter)
    }
  }

  async update (caCertificateId: string, change: Parameters<AuthorityRegistry['update']>[1], signal: AbortSignal): Promise<boolean> {
    const { status, autoRegistration } = change
    const command = new UpdateCACertificateCommand({
      certificateId: caCertificateId,
      ...(status && { newStatus: status }),
      ...(autoRegistration !== undefined && { newAutoRegistrationStatus: autoRegistration ? 'ENABLE' : 'DISABLE' })
    })
    return await unlessGone(this.#client.send(command, { abortSignal: signal })) !== undefined
  }

  async list (page: PageRequest, signal: AbortSignal): Promise<AwsPage<Pick<CaCertificate, 'caCertificateId' | 'status'>>> {
    const answer = await paged(page, this.#client.send(new ListCACertificatesCommand(pageOf(page)), { abortSignal: signal }))
    const items = (answer.certificates ?? []).map(({ certificateId = '', status }) => ({ caCertificateId: certificateId, status: statusOf(status) }))
    return { items, ...nextOf(answer) }
  }

  async certificatesOf (caCertificateId: string, page: PageRequest, signal: AbortSignal): Promise<AwsPage<CertificateOfAuthority>> {
    const command = new ListCertificatesByCACommand({ caCertificateId, ...pageOf(page) })
    const answer = await paged(page, this.#client.send(command, { abortSignal: signal }))
    const items = (answer.certificates ?? []).map(({ certificateId = '', certificateArn = '', status = '', creationDate }) =>
      ({ certificateId, certificateArn, status, createdAt: msOf(creationDate) }))
    return { items, ...nextOf(answer) }
  }

  async delete (caCertificateId: string, signal: AbortSignal): Promise<void> {
    try {
      await this.#client.send(new DeleteCACertificateCommand({ certificateId: caCertificateId }), { abortSignal: signal })
    } catch (cause) {
      if (nameOf(cause) === 'CertificateStateException') throw new CvmError('authority-active', { cause })
      if (nameOf(cause) !== 'ResourceNotFoundException') throw failureOf(cause)
    }
  }
}

/** AWS's markers are base64, whose characters mean something in a URL. */
function pageOf ({ limit, cursor }: PageRequest) {
  return { pageSize: limit, ascendingOrder: false, ...(cursor !== undefined && { marker: Buffer.from(cursor, 'base64url').toString('base64') }) }
}

function nextOf ({ nextMarker }: { nextMarker?: string | undefined }): { nextCursor?: string } {
  return nextMarker ? { nextCursor: Buffer.from(nextMarker, 'base64').toString('base64url') } : {}
}

/** Of a page, a cursor is all that a caller can get wrong. */
async function paged<T> ({ cursor }: PageRequest, call: Promise<T>): Promise<T> {
  try {
    return await call
  } catch (cause) {
    if (cursor === undefined || nameOf(cause) !== 'InvalidRequestException') throw failureOf(cause)
    throw new CvmError('invalid-request', { detail: 'the cursor is not of this list', cause })
  }
}

async function unlessGone<T> (call: Promise<T>): Promise<T | undefined> {
  try {
    return await call
  } catch (cause) {
    if (nameOf(cause) === 'ResourceNotFoundException') return undefined
    throw failureOf(cause)
  }
}

/** Whatever AWS IoT may come to say besides ACTIVE is not active. */
function statusOf (status: string | undefined): AuthorityStatus {
  return status === 'ACTIVE' ? 'ACTIVE' : 'INACTIVE'
}

function msOf (date: Date | undefined): number {
  return date?.getTime() ?? 0
}

function missing (what: string): never {
  throw new CvmError('aws-iot-unavailable', { detail: `AWS IoT sent no ${what}`, retryAfterMs: RETRY_AFTER_MS })
}
