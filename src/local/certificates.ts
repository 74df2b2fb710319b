import { EventEmitter } from 'node:events'
import { randomUUID } from 'node:crypto'
import { AwsError, invalidRequest, notFound } from './aws-error.ts'
import type { Store } from './state.ts'
import { TrackedMap, type Change } from './tracked-map.ts'

export type CertificateStatus = 'ACTIVE' | 'INACTIVE' | 'REVOKED' | 'PENDING_TRANSFER' | 'REGISTER_INACTIVE' | 'PENDING_ACTIVATION'

/** A certificate as AWS IoT keeps it; times are epoch milliseconds. */
export interface Certificate {
  readonly id: string
  readonly arn: string
  readonly pem: string
  readonly notBefore: number
  readonly notAfter: number
  readonly mode: 'DEFAULT' | 'SNI_ONLY'
  /** The registered CA that signed it; absent for AWS's own and for those registered without CA. */
  readonly caCertificateId?: string | undefined
  readonly generationId: string
  readonly createdAt: number
  /** Rises with each certificate; the order of lists, also among those of one millisecond. */
  readonly sequence: number
  status: CertificateStatus
  changedAt: number
  version: number
}

/** What the store needs to know about a new certificate; the mode is DEFAULT unless given. */
type NewCertificate = Pick<Certificate, 'id' | 'pem' | 'notBefore' | 'notAfter' | 'status' | 'caCertificateId'> & Partial<Pick<Certificate, 'mode'>>

/**
 * The certificates of one account and their states (aws-facts 2.1). Emits `changed` after each change of status and `removed` after a
 * deletion, both with the certificate, before the call that caused it returns.
 */
export class Certificates extends EventEmitter<{ changed: [Certificate], removed: [Certificate] }> implements Store {
  readonly #byId = new TrackedMap<Certificate>()
  readonly #arnPrefix: string
  #sequence = 0

  constructor (arnPrefix: string) {
    super()
    this.#arnPrefix = arnPrefix
  }

  /** Keeps a new certificate in any status, PENDING_ACTIVATION too; 409 when it is here already. */
  add (certificate: NewCertificate): Certificate {
    const kept = this.find(certificate.id)
    if (kept !== undefined) {
      throw new AwsError('ResourceAlreadyExistsException', 'The certificate is already provisioned or registered', {
        resourceId: kept.id, resourceArn: kept.arn
      })
    }
    const now = Date.now()
    const added: Certificate = {
      mode: 'DEFAULT',
      ...certificate,
      arn: `${this.#arnPrefix}:cert/${certificate.id}`,
      generationId: randomUUID(),
      createdAt: now,
      sequence: ++this.#sequence,
      changedAt: now,
      version: 1
    }
    this.#byId.set(added.id, added)
    return added
  }

  /** The certificate of that id, or undefined; ids are compared as AWS does, without regard to case. */
  find (id: string): Certificate | undefined {
    return this.#byId.get(id.toLowerCase())
  }

  /** The certificate of that id; 404 when there is none. */
  get (id: string): Certificate {
    const certificate = this.find(id)
    if (certificate === undefined) throw notFound(`Certificate not found: ${id}`)
    return certificate
  }

  /** The certificate of that ARN; 404 when there is none, 400 when it is not a certificate's ARN. */
  getByArn (arn: string): Certificate {
    const id = arn.startsWith(`${this.#arnPrefix}:cert/`) ? arn.slice(`${this.#arnPrefix}:cert/`.length) : undefined
    if (id === undefined) {
      // Well-formed, but of another account, Region or kind: there is no such principal here.
      if (/^arn:[\w-]+:iot:[\w-]+:\d{12}:[\w-]+\/.+$/.test(arn)) throw notFound(`Principal not found: ${arn}`)
      throw invalidRequest(`The principal is not the ARN of a certificate: ${arn}`)
    }
    return this.get(id)
  }

  /** All of them, oldest first. */
  list (): Certificate[] {
    return [...this.#byId.values()]
  }

  /** A repeated status is no change; REVOKED is for ever; the pending states belong to AWS alone. */
  setStatus (certificate: Certificate, status: CertificateStatus): void {
    if (status !== 'ACTIVE' && status !== 'INACTIVE' && status !== 'REVOKED') {
      throw new AwsError('CertificateStateException', `Not allowed to set the status of a certificate to ${status}. Id: ${certificate.id}`)
    }
    if (certificate.status === status) return
    if (certificate.status === 'REVOKED' || certificate.status === 'PENDING_TRANSFER') {
      throw new AwsError('CertificateStateException', `Cannot change a certificate that is ${certificate.status} to ${status}. Id: ${certificate.id}`)
    }
    certificate.status = status
    certificate.changedAt = Date.now()
    certificate.version++
    this.#byId.touch(certificate.id)
    this.emit('changed', certificate)
  }

  remove (certificate: Certificate): void {
    this.#byId.delete(certificate.id)
    this.emit('removed', certificate)
  }

  snapshot (): Certificate[] {
    return this.list()
  }

  restore (kept: unknown): void {
    this.apply((kept as Certificate[]).map((certificate): Change<Certificate> => [certificate.id, certificate]))
  }

  changes (): Change<Certificate>[] | undefined {
    const changes = this.#byId.take(certificate => certificate)
    return changes.length === 0 ? undefined : changes
  }

  apply (changes: unknown): void {
    this.#byId.apply(changes as Change<Certificate>[], certificate => {
      this.#sequence = Math.max(this.#sequence, certificate.sequence)
      return certificate
    })
  }
}
