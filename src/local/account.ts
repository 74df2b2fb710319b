import { Authorities } from './authorities.ts'
import { Certificates } from './certificates.ts'
import { Policies } from './policies.ts'
import { Things } from './things.ts'
import type { DeviceIssuer } from './issuer.ts'

/** Everything one AWS account holds in one Region: what the control plane changes and the broker reads. */
export class Account {
  readonly id = '000000000000'
  readonly arnPrefix: string
  readonly authorities: Authorities
  readonly certificates: Certificates
  readonly things: Things
  readonly policies: Policies
  readonly issuer: DeviceIssuer
  /** Where devices connect, as DescribeEndpoint says it; known once the broker listens. */
  endpoint = 'localhost'

  constructor (region: string, issuer: DeviceIssuer) {
    this.arnPrefix = `arn:aws:iot:${region}:${this.id}`
    this.authorities = new Authorities(this.arnPrefix)
    this.certificates = new Certificates(this.arnPrefix)
    this.things = new Things(this.arnPrefix)
    this.policies = new Policies(this.arnPrefix)
    this.issuer = issuer
  }
}
