import { randomUUID } from 'node:crypto'
import type { Messages } from './messages.ts'

/** Why a session ended, in AWS's words (developer guide, lifecycle events). */
type DisconnectReason = 'AUTH_ERROR' | 'CLIENT_ERROR' | 'CLIENT_INITIATED_DISCONNECT' | 'CONNECTION_LOST' | 'DUPLICATE_CLIENTID' |
  'MQTT_KEEP_ALIVE_TIMEOUT' | 'SERVER_INITIATED_DISCONNECT'

interface Visit {
  readonly clientId: string
  readonly sessionIdentifier: string
  readonly principalIdentifier: string
  readonly versionNumber: number
  reason?: DisconnectReason
}

/** Announces who comes and goes on `$aws/events/presence/…` (aws-facts 2.3). Sessions are known by the object that stands for them. */
export class Presence {
  readonly #messages: Messages
  readonly #visits = new Map<object, Visit>()
  readonly #versions = new Map<string, number>()

  constructor (messages: Messages) {
    this.#messages = messages
  }

  connected (session: object, clientId: string, certificateId: string, ipAddress: string): void {
    const versionNumber = (this.#versions.get(clientId) ?? -1) + 1
    this.#versions.set(clientId, versionNumber)
    const visit: Visit = { clientId, sessionIdentifier: randomUUID(), principalIdentifier: certificateId, versionNumber }
    this.#visits.set(session, visit)
    this.#announce('connected', visit, { ipAddress })
  }

  /** The reason to give when the session ends; the first one counts. */
  blame (session: object, reason: DisconnectReason): void {
    const visit = this.#visits.get(session)
    if (visit !== undefined) visit.reason ??= reason
  }

  /** A newcomer takes the client id over. */
  replaced (clientId: string): void {
    for (const [session, visit] of this.#visits) if (visit.clientId === clientId) this.blame(session, 'DUPLICATE_CLIENTID')
  }

  disconnected (session: object): void {
    const visit = this.#visits.get(session)
    if (visit === undefined) return
    this.#visits.delete(session)
    const disconnectReason = visit.reason ?? 'CONNECTION_LOST'
    this.#announce('disconnected', visit, {
      clientInitiatedDisconnect: disconnectReason === 'CLIENT_INITIATED_DISCONNECT', disconnectReason
    })
  }

  #announce (eventType: 'connected' | 'disconnected', visit: Visit, details: object): void {
    const { clientId, sessionIdentifier, principalIdentifier, versionNumber } = visit
    // AWS sends none for client ids that would be a filter.
    if (/[+#]/.test(clientId)) return
    this.#messages.announce(`$aws/events/presence/${eventType}/${clientId}`, {
      clientId, timestamp: Date.now(), eventType, sessionIdentifier, principalIdentifier, ...details, versionNumber
    })
  }
}
