import { Authorities } from './authorities.ts'
import { Certificates } from './certificates.ts'
import { Destinations } from './destinations.ts'
import { Messages } from './messages.ts'
import { Policies } from './policies.ts'
import { Quotas } from './quotas.ts'
import { Rules } from './rules.ts'
import { Shadows } from './shadows.ts'
import { Tags } from './tags.ts'
import { ThingGroups } from './thing-groups.ts'
import { ThingTypes } from './thing-types.ts'
import { Things } from './things.ts'
import type { DeviceIssuer } from './issuer.ts'
import type { StateFile, Store } from './state.ts'

/** Everything one AWS account holds in one Region: what the control plane changes and the broker reads. */
export class Account {
  readonly id = '000000000000'
  readonly arnPrefix: string
  readonly authorities: Authorities
  readonly certificates: Certificates
  readonly thingTypes: ThingTypes
  readonly things: Things
  readonly thingGroups: ThingGroups
  readonly policies: Policies
  readonly tags = new Tags()
  readonly issuer: DeviceIssuer
  readonly quotas: Quotas
  readonly messages = new Messages()
  readonly shadows = new Shadows()
  readonly destinations: Destinations
  readonly rules: Rules
  /** Where devices connect, as DescribeEndpoint says it; known once the broker listens. */
  endpoint = 'localhost'
  /** Where this account's API is served; known once it is. */
  apiUrl = ''
  /** Where the stores are kept; absent, in memory alone. */
  state: Pick<StateFile, 'touch' | 'settled'> | undefined

  constructor (region: string, issuer: DeviceIssuer, quotas = new Quotas()) {
    this.arnPrefix = `arn:aws:iot:${region}:${this.id}`
    this.authorities = new Authorities(this.arnPrefix)
    this.certificates = new Certificates(this.arnPrefix)
    this.thingTypes = new ThingTypes(this.arnPrefix)
    this.things = new Things(this.arnPrefix, this.thingTypes)
    this.thingGroups = new ThingGroups(this.arnPrefix)
    this.policies = new Policies(this.arnPrefix)
    this.destinations = new Destinations(this.arnPrefix)
    this.rules = new Rules(this.arnPrefix, this.destinations)
    this.issuer = issuer
    this.quotas = quotas
  }

  /** To be called when a store has changed, outside an HTTP operation. */
  touch (): void {
    this.state?.touch()
  }

  /** Runs `answer`, which tells of the stores, once what it tells is on the disk; at once where all is in memory. */
  afterKept (answer: () => void): void {
    if (this.state === undefined) answer()
    // The state file logs what could not be written; an answer would be a promise that is not kept.
    else this.state.settled().then(answer, () => {})
  }

  /** What is kept across restarts, by name; a store joins with one line here. */
  get stores (): Readonly<Record<string, Store>> {
    const { issuer, authorities, certificates, thingTypes, things, thingGroups, policies, tags, shadows, destinations, rules } = this
    return { issuer, authorities, certificates, thingTypes, things, thingGroups, policies, tags, shadows, destinations, rules }
  }
}
