import { EventEmitter } from 'node:events'

/** A message on its way through AWS IoT. */
export interface Message {
  readonly topic: string
  readonly payload: Buffer
  readonly qos?: 0 | 1
  readonly retain?: boolean
  /** The device that published it; both absent for what AWS and callers of the HTTPS API publish. */
  readonly clientId?: string
  readonly certificateId?: string
  /** How often rules have republished it. */
  readonly hops?: number
}

/**
 * Every message of the account passes here. Emits `published` with each one (rules and shadows listen), and `outgoing` with those that
 * MQTT subscribers have yet to get (the broker listens).
 */
export class Messages extends EventEmitter<{ outgoing: [Message], published: [Message] }> {
  /** From within AWS or over HTTPS. */
  publish (message: Message): void {
    this.emit('outgoing', message)
    this.emit('published', message)
  }

  /** From a device: the broker has given it to the subscribers already. */
  received (message: Message): void {
    this.emit('published', message)
  }

  /** An event or answer of AWS's own. */
  announce (topic: string, content: object): void {
    this.publish({ topic, payload: Buffer.from(JSON.stringify(content)) })
  }
}
