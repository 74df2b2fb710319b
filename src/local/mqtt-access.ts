import type { Account } from './account.ts'
import type { Certificate } from './certificates.ts'
import { allows, type Variables } from './policy.ts'

// AWS IoT's limits: topics, filters and client ids in bytes of UTF-8, levels by slashes.
const MAX_TOPIC_BYTES = 256
const MAX_TOPIC_SLASHES = 7
const MAX_CLIENT_ID_BYTES = 128

/** What one MQTT session may do: its certificate's policies with the variables of its client id. Asked anew at each step. */
export class MqttAccess {
  readonly certificate: Certificate
  readonly #account: Account
  readonly #clientId: string

  constructor (account: Account, certificate: Certificate, clientId: string) {
    this.certificate = certificate
    this.#account = account
    this.#clientId = clientId
  }

  mayConnect (): boolean {
    return this.certificate.status === 'ACTIVE' && Buffer.byteLength(this.#clientId) <= MAX_CLIENT_ID_BYTES &&
      this.#allows('iot:Connect', `client/${this.#clientId}`)
  }

  mayPublish (topic: string, retain: boolean): boolean {
    // Events are AWS's to publish: no policy opens them to a device.
    return wellFormed(topic) && !topic.startsWith('$aws/events/') && this.#allows('iot:Publish', `topic/${topic}`) &&
      (!retain || this.#allows('iot:RetainPublish', `topic/${topic}`))
  }

  maySubscribe (filter: string): boolean {
    return wellFormed(filter) && this.#allows('iot:Subscribe', `topicfilter/${filter}`)
  }

  mayReceive (topic: string): boolean {
    return this.#allows('iot:Receive', `topic/${topic}`)
  }

  #allows (action: string, resource: string): boolean {
    const documents = this.#account.policies.of(this.certificate.arn).map(({ document }) => document)
    return allows(documents, action, `${this.#account.arnPrefix}:${resource}`, this.#variables())
  }

  /** Thing variables exist only where the client id is the name of a thing this certificate is attached to (aws-facts 2.5). */
  #variables (): Variables {
    const attached = this.#account.things.ofPrincipal(this.certificate.arn).includes(this.#clientId)
    const thing = attached ? this.#account.things.find(this.#clientId) : undefined
    const variables = new Map([['iot:ClientId', this.#clientId], ['iot:Connection.Thing.IsAttached', String(thing !== undefined)]])
    if (thing === undefined) return variables
    variables.set('iot:Connection.Thing.ThingName', thing.name)
    for (const [name, value] of Object.entries(thing.attributes)) variables.set(`iot:Connection.Thing.Attributes[${name}]`, value)
    return variables
  }
}

/** `$aws/` is the only reserved tree AWS has; the broker's own `$SYS` must not show. */
function wellFormed (topic: string): boolean {
  return Buffer.byteLength(topic) <= MAX_TOPIC_BYTES && topic.split('/').length - 1 <= MAX_TOPIC_SLASHES &&
    (!topic.startsWith('$') || topic.startsWith('$aws/'))
}
