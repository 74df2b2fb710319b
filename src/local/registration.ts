import type { X509Certificate } from 'node:crypto'
import type { Account } from './account.ts'
import type { Authority } from './authorities.ts'
import type { Certificate } from './certificates.ts'
import { factsOf } from './x509.ts'

/**
 * Just-in-time registration (aws-facts 2.3): a certificate nobody has registered, signed by a registered CA that is ACTIVE and
 * registers automatically, is taken in as PENDING_ACTIVATION.
 */
export class Registration {
  readonly #account: Account

  constructor (account: Account) {
    this.#account = account
  }

  /** The CA that would register the certificate now, if there is one. */
  authorityFor (leaf: X509Certificate): Authority | undefined {
    if (!valid(factsOf(leaf))) return undefined
    return this.#account.authorities.issuersOf(leaf).find(authority =>
      authority.status === 'ACTIVE' && authority.autoRegistration === 'ENABLE' && valid(authority))
  }

  /** Registers the certificate, unless its CA has ceased to. */
  register (leaf: X509Certificate): Certificate | undefined {
    const authority = this.authorityFor(leaf)
    if (authority === undefined) return undefined
    const { id, mode } = authority
    const added = this.#account.certificates.add({ ...factsOf(leaf), mode, caCertificateId: id, status: 'PENDING_ACTIVATION' })
    this.#account.touch()
    return added
  }

  /** Tells that a pending certificate has tried to connect: each time, so whoever activates it must stand repetition. */
  announce ({ id, status, caCertificateId }: Certificate): void {
    this.#account.messages.announce(`$aws/events/certificates/registered/${caCertificateId}`, {
      certificateId: id,
      caCertificateId,
      timestamp: Date.now(),
      certificateStatus: status,
      awsAccountId: this.#account.id,
      // The documentation shows a date; AWS was measured to send null.
      certificateRegistrationTimestamp: null
    })
  }
}

function valid ({ notBefore, notAfter }: { notBefore: number, notAfter: number }): boolean {
  const now = Date.now()
  return notBefore <= now && now < notAfter
}
