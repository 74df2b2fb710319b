import { randomBytes, randomUUID, X509Certificate } from 'node:crypto'
import { AwsError, notFound } from './aws-error.ts'
import type { Store } from './state.ts'
import { signedBy } from './x509.ts'

export type AuthorityStatus = 'ACTIVE' | 'INACTIVE'
export type AutoRegistration = 'ENABLE' | 'DISABLE'

/** What a CA's owner may have set for just-in-time provisioning; kept and shown, nothing is provisioned by it here. */
export interface RegistrationConfig { readonly templateBody?: string, readonly roleArn?: string, readonly templateName?: string }

/** A CA certificate that the account registered; times are epoch milliseconds. */
export interface Authority {
  readonly id: string
  readonly arn: string
  readonly pem: string
  readonly notBefore: number
  readonly notAfter: number
  readonly mode: 'DEFAULT' | 'SNI_ONLY'
  readonly generationId: string
  readonly createdAt: number
  /** Rises with each authority; the order of lists. */
  readonly sequence: number
  status: AuthorityStatus
  autoRegistration: AutoRegistration
  registrationConfig?: RegistrationConfig | undefined
  changedAt: number
  version: number
}

type NewAuthority = Pick<Authority, 'id' | 'pem' | 'notBefore' | 'notAfter' | 'mode' | 'status' | 'autoRegistration' | 'registrationConfig'>

/** What UpdateCACertificate can change; `registrationConfig: undefined` given by name removes it. */
type AuthorityChange = Partial<Pick<Authority, 'status' | 'autoRegistration' | 'registrationConfig'>>

// AWS's limit (aws-facts 2.3).
const MAX_PER_SUBJECT = 10

/** The registered CA certificates of one account (aws-facts 1.3, 2.3). */
export class Authorities implements Store {
  readonly #byId = new Map<string, Authority>()
  // Reading a PEM costs more than a signature check, and the broker asks at each unknown certificate.
  readonly #parsed = new WeakMap<Authority, X509Certificate>()
  readonly #arnPrefix: string
  #sequence = 0
  #registrationCode: string | undefined

  constructor (arnPrefix: string) {
    this.#arnPrefix = arnPrefix
  }

  /** The account's registration code, made when first asked for and then the same until it is deleted. */
  get registrationCode (): string {
    this.#registrationCode ??= randomBytes(32).toString('hex')
    return this.#registrationCode
  }

  /** Whether the text is the registration code; before there is one, nothing is. */
  isRegistrationCode (text: string | undefined): boolean {
    return this.#registrationCode !== undefined && text === this.#registrationCode
  }

  /** Deletes the code; 404 when there is none. */
  deleteRegistrationCode (): void {
    if (this.#registrationCode === undefined) throw notFound('The registration code was not found')
    this.#registrationCode = undefined
  }

  /** Registers; 409 when that certificate is registered, 410 when ten others have its subject. */
  add (authority: NewAuthority): Authority {
    const kept = this.#byId.get(authority.id)
    if (kept !== undefined) {
      throw new AwsError('ResourceAlreadyExistsException', 'The CA certificate is already registered', { resourceId: kept.id, resourceArn: kept.arn })
    }
    const { subject } = new X509Certificate(authority.pem)
    if (this.list().filter(other => this.certificateOf(other).subject === subject).length >= MAX_PER_SUBJECT) {
      throw new AwsError('LimitExceededException', `The maximum number of CA certificates with the same subject is ${MAX_PER_SUBJECT}`)
    }
    const now = Date.now()
    const added: Authority = {
      ...authority,
      arn: `${this.#arnPrefix}:cacert/${authority.id}`,
      generationId: randomUUID(),
      createdAt: now,
      sequence: ++this.#sequence,
      changedAt: now,
      version: 1
    }
    this.#byId.set(added.id, added)
    return added
  }

  /** The authority of that id, or undefined; ids are compared without regard to case. */
  find (id: string): Authority | undefined {
    return this.#byId.get(id.toLowerCase())
  }

  /** The authority of that id; 404 when there is none. */
  get (id: string): Authority {
    const authority = this.find(id)
    if (authority === undefined) throw notFound(`CA certificate not found: ${id}`)
    return authority
  }

  /** All of them, oldest first. */
  list (): Authority[] {
    return [...this.#byId.values()]
  }

  /** The authorities, whatever their status, whose key really signed the certificate; the name alone proves nothing. */
  issuersOf (certificate: X509Certificate): Authority[] {
    return this.list().filter(authority => signedBy(certificate, this.certificateOf(authority)))
  }

  /** The authorities, whatever their status, whose subject is the issuer that the certificate names. */
  namedBy (certificate: X509Certificate): Authority[] {
    return this.list().filter(authority => this.certificateOf(authority).subject === certificate.issuer)
  }

  certificateOf (authority: Authority): X509Certificate {
    const parsed = this.#parsed.get(authority) ?? new X509Certificate(authority.pem)
    this.#parsed.set(authority, parsed)
    return parsed
  }

  /** What is as it was is no change and leaves version and date alone. */
  update (authority: Authority, change: AuthorityChange): void {
    const before = JSON.stringify(authority)
    Object.assign(authority, change)
    if (JSON.stringify(authority) === before) return
    authority.changedAt = Date.now()
    authority.version++
  }

  /** Only an INACTIVE authority can go; the certificates it signed stay. */
  remove (authority: Authority): void {
    if (authority.status === 'ACTIVE') {
      throw new AwsError('CertificateStateException', `CA certificate must be deactivated (not ACTIVE) before deletion. Id: ${authority.id}`)
    }
    this.#byId.delete(authority.id)
  }

  snapshot (): object {
    return { registrationCode: this.#registrationCode, authorities: this.list() }
  }

  restore (kept: unknown): void {
    const { registrationCode, authorities } = kept as { registrationCode?: string, authorities: Authority[] }
    this.#registrationCode = registrationCode
    for (const authority of authorities) {
      this.#byId.set(authority.id, authority)
      this.#sequence = Math.max(this.#sequence, authority.sequence)
    }
  }
}
