import type { Socket } from 'node:net'
import type { Client } from 'aedes'
import type { Account } from './account.ts'
import type { Certificate } from './certificates.ts'
import { MqttAccess } from './mqtt-access.ts'

/** The live connections, and by certificate those that were let in. */
export class Sessions {
  readonly #account: Account
  readonly #open = new Set<Socket>()
  readonly #byCertificate = new Map<string, Set<Client['conn']>>()
  readonly #certificates = new WeakMap<object, Certificate>()

  constructor (account: Account) {
    this.#account = account
  }

  /** Remembers every connection from its first byte, so that one that never finishes its handshake cannot hold up the close. */
  track (socket: Socket): void {
    this.#open.add(socket)
    socket.once('close', () => { this.#open.delete(socket) })
  }

  /** From here on the connection acts for the certificate. */
  add (certificate: Certificate, connection: Client['conn']): void {
    const connections = this.#byCertificate.get(certificate.id) ?? new Set<Client['conn']>()
    this.#byCertificate.set(certificate.id, connections.add(connection))
    this.#certificates.set(connection, certificate)
    connection.once('close', () => {
      connections.delete(connection)
      if (connections.size === 0 && this.#byCertificate.get(certificate.id) === connections) this.#byCertificate.delete(certificate.id)
    })
  }

  certificateOf (client: Client): Certificate | undefined {
    return this.#certificates.get(client.conn)
  }

  accessOf (client: Client): MqttAccess | undefined {
    const certificate = this.certificateOf(client)
    return certificate === undefined ? undefined : new MqttAccess(this.#account, certificate, client.id, addressOf(client))
  }

  /** The connections that act for a certificate. */
  of ({ id }: Certificate): Array<Client['conn']> {
    return [...this.#byCertificate.get(id) ?? []]
  }

  endAll (): void {
    for (const socket of this.#open) socket.destroy()
  }
}

/** The address a client connects from; IPv4 in its own form also on a listener for both families. */
export function addressOf (client: Client): string {
  const { remoteAddress = '' } = client.conn as Socket
  return remoteAddress.replace(/^::ffff:(?=\d+\.)/, '')
}
