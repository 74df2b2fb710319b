import { AwsError } from './aws-error.ts'

/** AWS's default rates, requests per second, account and Region (aws-facts 3.1); what is not listed there has no published rate. */
const RATES: Readonly<Record<string, number>> = {
  CreateCertificateFromCsr: 15,
  CreateKeysAndCertificate: 10,
  AttachPolicy: 15,
  DetachPolicy: 15,
  ListAttachedPolicies: 15,
  AttachThingPrincipal: 100,
  DetachThingPrincipal: 100,
  CreateThing: 100,
  UpdateThing: 100,
  DeleteThing: 100,
  DescribeThing: 350,
  AddThingToThingGroup: 100,
  RemoveThingFromThingGroup: 100,
  CreateThingGroup: 25,
  DescribeThingGroup: 100,
  ListThingGroupsForThing: 100
}
const OTHER_RATE = 10

// "Device certificates that can be registered per second", all ways together (aws-facts 3.1).
const NEW_CERTIFICATE = new Set(['CreateCertificateFromCsr', 'CreateKeysAndCertificate', 'RegisterCertificate', 'RegisterCertificateWithoutCA'])
const NEW_CERTIFICATES_RATE = 15

/**
 * The account's request quotas: one token bucket per operation that holds one second's worth. `multiplier` 1 is AWS's default, 10 ten
 * times that, 0 no quotas at all. `now` is a clock in milliseconds that never goes back.
 */
export class Quotas {
  readonly #multiplier: number
  readonly #now: () => number
  readonly #buckets = new Map<string, { tokens: number, at: number }>()

  constructor (multiplier = 0, now: () => number = () => performance.now()) {
    this.#multiplier = multiplier
    this.#now = now
  }

  /** Spends one request of a control plane operation, or throws ThrottlingException. */
  takeOperation (name: string): void {
    this.take(name, RATES[name] ?? OTHER_RATE)
    if (NEW_CERTIFICATE.has(name)) this.take('new certificates', NEW_CERTIFICATES_RATE)
  }

  /** The same for any key and rate, as the data plane has them by thing; the dispatch makes a 429 of it there. */
  take (key: string, perSecond: number): void {
    if (this.#multiplier === 0) return
    const rate = perSecond * this.#multiplier
    const capacity = Math.max(rate, 1)
    const now = this.#now()
    const { tokens, at } = this.#buckets.get(key) ?? { tokens: capacity, at: now }
    const filled = Math.min(capacity, tokens + (now - at) / 1000 * rate)
    if (filled < 1) throw new AwsError('ThrottlingException', 'Rate exceeded')
    this.#buckets.set(key, { tokens: filled - 1, at: now })
  }
}
