import type { X509Certificate } from 'node:crypto'
import type { TLSSocket } from 'node:tls'
import type { Account } from './account.ts'
import type { Certificate } from './certificates.ts'
import type { Log } from './log.ts'
import { Registration } from './registration.ts'
import { factsOf } from './x509.ts'

/** Who gets in: asked once after the TLS handshake, and again at the CONNECT packet, when just-in-time registration happens. */
export class Door {
  readonly #account: Account
  readonly #server: X509Certificate
  readonly #registration: Registration
  readonly #log: Log

  constructor (account: Account, server: X509Certificate, log: Log) {
    this.#account = account
    this.#server = server
    this.#registration = new Registration(account)
    this.#log = log
  }

  /** Whether the connection is worth a CONNECT packet. */
  opens (socket: TLSSocket): boolean {
    const leaf = socket.getPeerX509Certificate()
    const certificate = this.#registered(leaf)
    const { mode, status, notAfter } = certificate ?? this.#unregistered(leaf)
    const opens = (status === 'ACTIVE' || status === 'PENDING_ACTIVATION') && notAfter >= Date.now() &&
      (mode !== 'SNI_ONLY' || this.#named(socket))
    if (!opens) this.#log.info({ certificateId: certificate?.id, status, mode }, 'local MQTT connection refused')
    return opens
  }

  /** The ACTIVE certificate the client proved to hold; one that is pending is announced instead, and registered if need be. */
  admitted (socket: TLSSocket): Certificate | undefined {
    const leaf = socket.getPeerX509Certificate()
    const certificate = this.#registered(leaf) ?? (leaf === undefined ? undefined : this.#registration.register(leaf))
    if (certificate?.status === 'ACTIVE') return certificate
    if (certificate?.status === 'PENDING_ACTIVATION') this.#registration.announce(certificate)
    this.#log.info({ certificateId: certificate?.id, status: certificate?.status ?? 'not registered' }, 'local MQTT connection refused')
    return undefined
  }

  #registered (leaf: X509Certificate | undefined): Certificate | undefined {
    return leaf === undefined ? undefined : this.#account.certificates.find(factsOf(leaf).id)
  }

  /** What a certificate that is not registered yet would be. */
  #unregistered (leaf: X509Certificate | undefined): { status: string, notAfter: number, mode?: Certificate['mode'] } {
    const authority = leaf === undefined ? undefined : this.#registration.authorityFor(leaf)
    if (leaf === undefined || authority === undefined) return { status: 'not registered', notAfter: 0 }
    return { status: 'PENDING_ACTIVATION', notAfter: factsOf(leaf).notAfter, mode: authority.mode }
  }

  /** Whether the client named the endpoint in its handshake (SNI), under any name the server's certificate stands for. */
  #named (socket: TLSSocket & { servername?: unknown }): boolean {
    return typeof socket.servername === 'string' && this.#server.checkHost(socket.servername) !== undefined
  }
}
