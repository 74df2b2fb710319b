// An observer who sees every call to AWS and its answer, and nothing else: whose certificate is whose, and which are ACTIVE when.
import type { AwsAnswer, AwsCall, Decider } from './aws-proxy.ts'

export class Observer {
  /** What must never be, in words. */
  readonly violations: string[] = []
  /** How often a certificate was made ACTIVE. */
  activations = 0
  readonly #serialByCsr = new Map<string, string>()
  readonly #owners = new Map<string, string>()
  readonly #made = new Set<string>()
  readonly #active = new Map<string, Set<string>>()

  /** A device that will come with this CSR. */
  expect (serialNumber: string, csr: string): void {
    this.#serialByCsr.set(csr, serialNumber)
  }

  /** The ids of the certificates of a device that are ACTIVE now. */
  activeOf (serialNumber: string): readonly string[] {
    return [...this.#active.get(serialNumber) ?? []]
  }

  /** The device of a certificate, once that could be seen. */
  ownerOf (certificateId: string): string | undefined {
    return this.#owners.get(certificateId)
  }

  /** The device that a call is about; undefined for what names none, such as a call for the account. */
  deviceOf ({ operation, path, headers, body }: AwsCall): string | undefined {
    const key = body['Key'] as { serialNumber?: { S?: string } } | undefined
    const parts = path.split('/').map(decodeURIComponent)
    switch (operation) {
      case 'UpdateItem':
      case 'GetItem':
      case 'PutItem': return ownerOfKey(body) ?? key?.serialNumber?.S
      case 'CreateCertificateFromCsr': return this.#serialByCsr.get(String(body['certificateSigningRequest']))
      case 'CreateThing':
      case 'AttachThingPrincipal': return parts[2]
      case 'AttachPolicy': return this.ownerOf(idIn(String(body['target'])))
      case 'DescribeCertificate':
      case 'UpdateCertificate':
      case 'DeleteCertificate': return this.ownerOf(parts[2] ?? '')
      default: return idIn(String(headers['x-amzn-principal'])) ? this.ownerOf(idIn(String(headers['x-amzn-principal']))) : undefined
    }
  }

  /** Learns from a call that AWS is about to get: a row that is told a certificate names its device. */
  sent (call: AwsCall): void {
    const { operation, headers, body } = call
    const serialNumber = this.deviceOf(call)
    if (!serialNumber) return
    const values = operation === 'UpdateItem' ? Object.values((body['ExpressionAttributeValues'] ?? {}) as Record<string, { S?: string }>) : []
    const told = operation === 'AttachThingPrincipal' ? [idIn(String(headers['x-amzn-principal']))] : values.map(({ S = '' }) => S)
    for (const id of told) if (this.#made.has(id) && !this.#owners.has(id)) this.#owners.set(id, serialNumber)
  }

  /** Learns from AWS's answer, before the caller does. */
  answered (call: AwsCall, { status, body }: AwsAnswer): void {
    if (status !== 200) return
    const { operation, path, query } = call
    if (operation === 'CreateCertificateFromCsr' || operation === 'CreateKeysAndCertificate') {
      const id = String(body['certificateId'])
      const serialNumber = this.deviceOf(call)
      this.#made.add(id)
      if (serialNumber) this.#owners.set(id, serialNumber)
    }
    if (operation === 'UpdateCertificate') this.#changed(path.split('/')[2] ?? '', query.get('newStatus') ?? '')
    if (operation === 'DeleteCertificate') this.#changed(path.split('/')[2] ?? '', 'DELETED')
  }

  #changed (id: string, status: string): void {
    const serialNumber = this.ownerOf(id)
    if (!serialNumber) {
      if (status === 'ACTIVE') this.violations.push(`certificate ${id} became ACTIVE and belongs to no device`)
      return
    }
    const active = this.#active.get(serialNumber) ?? new Set()
    this.#active.set(serialNumber, active)
    if (status !== 'ACTIVE') {
      active.delete(id)
      return
    }
    this.activations++
    active.add(id)
    if (active.size > 1) this.violations.push(`device ${serialNumber} has ${active.size} ACTIVE certificates: ${[...active].join(', ')}`)
  }
}

/** The device that a row of a public key is written for. */
function ownerOfKey (body: AwsCall['body']): string | undefined {
  const { ':holder': holder } = (body['ExpressionAttributeValues'] ?? {}) as Record<string, { S?: string }>
  const { serialNumber } = (body['Key'] ?? {}) as { serialNumber?: { S?: string } }
  return serialNumber?.S?.startsWith('#key/') ? holder?.S : undefined
}

/** Lets everything pass, and the observer see it. */
export function watchedBy (observer: Observer): Decider {
  return {
    before (call) {
      observer.sent(call)
      return 'pass'
    },
    after (call, answer) {
      observer.answered(call, answer)
      return 'pass'
    }
  }
}

/** The certificate id in an ARN; empty when there is none. */
function idIn (arn: string): string {
  return /:cert\/([0-9a-f]{64})$/.exec(arn)?.[1] ?? ''
}
