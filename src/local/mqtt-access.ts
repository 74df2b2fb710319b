import type { Account } from './account.ts'
import { certificateVariables } from './certificate-variables.ts'
import type { Certificate } from './certificates.ts'
import { allows } from './policy.ts'
import type { Variables } from './policy-pattern.ts'
import type { Thing } from './things.ts'
import { isEvent, publishable, wellFormed } from './topic.ts'

const MAX_CLIENT_ID_BYTES = 128

/** What one MQTT session may do: its certificate's policies with the variables of its connection. Asked anew at each step. */
export class MqttAccess {
  readonly certificate: Certificate
  readonly #account: Account
  readonly #clientId: string
  readonly #sourceIp: string

  constructor (account: Account, certificate: Certificate, clientId: string, sourceIp: string) {
    this.certificate = certificate
    this.#account = account
    this.#clientId = clientId
    this.#sourceIp = sourceIp
  }

  mayConnect (): boolean {
    return this.certificate.status === 'ACTIVE' && Buffer.byteLength(this.#clientId) <= MAX_CLIENT_ID_BYTES &&
      this.#allows('iot:Connect', `client/${this.#clientId}`)
  }

  mayPublish (topic: string, retain: boolean): boolean {
    return publishable(topic) && !isEvent(topic) && this.#allows('iot:Publish', `topic/${topic}`) &&
      (!retain || this.#allows('iot:RetainPublish', `topic/${topic}`))
  }

  maySubscribe (filter: string): boolean {
    return wellFormed(filter) && this.#allows('iot:Subscribe', `topicfilter/${filter}`)
  }

  mayReceive (topic: string): boolean {
    return this.#allows('iot:Receive', `topic/${topic}`)
  }

  #allows (action: string, resource: string): boolean {
    const { policies, arnPrefix } = this.#account
    const thing = this.#thing()
    const attached = [this.certificate.arn, ...this.#groupsOf(thing)].flatMap(target => policies.of(target))
    return allows(attached.map(({ document }) => document), action, `${arnPrefix}:${resource}`, this.#variables(thing))
  }

  /**
   * A connection speaks for the thing whose name is its client id, if this certificate is attached to it (aws-facts 2.5); a certificate
   * that belongs to one thing exclusively speaks for that one under any client id (developer guide, thing policy variables).
   */
  #thing (): Thing | undefined {
    const { things } = this.#account
    const { arn } = this.certificate
    const name = things.ofPrincipal(arn).find(thing => thing === this.#clientId || things.attachmentOf(thing, arn) === 'EXCLUSIVE_THING')
    return name === undefined ? undefined : things.find(name)
  }

  /** The ARNs of the groups whose policies the thing has: its own and those above them. */
  #groupsOf (thing: Thing | undefined): string[] {
    const { thingGroups } = this.#account
    const groups = thing === undefined ? [] : thingGroups.ofThing(thing.name)
    return [...new Set(groups.flatMap(group => [group, ...thingGroups.ancestorsOf(group.name)]).map(({ arn }) => arn))]
  }

  #variables (thing: Thing | undefined): Variables {
    const variables = new Map([
      ...fromCertificate(this.certificate),
      ['iot:ClientId', this.#clientId],
      ['aws:SourceIp', this.#sourceIp],
      ['iot:Connection.Thing.IsAttached', String(thing !== undefined)]
    ])
    if (thing === undefined) return variables
    variables.set('iot:Connection.Thing.ThingName', thing.name)
    if (thing.typeName !== undefined) variables.set('iot:Connection.Thing.ThingTypeName', thing.typeName)
    for (const [name, value] of Object.entries(thing.attributes)) variables.set(`iot:Connection.Thing.Attributes[${name}]`, value)
    return variables
  }
}

// A certificate never changes, and the broker asks at each packet.
const read = new WeakMap<Certificate, Variables>()

function fromCertificate (certificate: Certificate): Variables {
  const variables = read.get(certificate) ?? certificateVariables(certificate.pem)
  read.set(certificate, variables)
  return variables
}
