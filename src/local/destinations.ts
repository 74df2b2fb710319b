import { EventEmitter } from 'node:events'
import { randomBytes, randomUUID } from 'node:crypto'
import { AwsError, invalidRequest } from './aws-error.ts'
import type { Store } from './state.ts'

export type DestinationStatus = 'ENABLED' | 'IN_PROGRESS' | 'DISABLED' | 'ERROR' | 'DELETING'

/** An HTTP endpoint that rules may send to once its owner has confirmed it; times are epoch milliseconds. */
export interface Destination {
  readonly arn: string
  readonly confirmationUrl: string
  readonly createdAt: number
  status: DestinationStatus
  statusReason: string
  changedAt: number
  token: string
  challengedAt: number
}

const MAX = 1000
const TOKEN_BYTES = 96
/** For how long a challenge can be answered (developer guide, topic rule destinations). */
const CHALLENGE_MS = 3 * 86_400_000

/** The topic rule destinations of an account (aws-facts 4). Emits `challenge` with a destination that is to be asked for confirmation. */
export class Destinations extends EventEmitter<{ challenge: [Destination] }> implements Store {
  readonly #byArn = new Map<string, Destination>()
  readonly #arnPrefix: string

  constructor (arnPrefix: string) {
    super()
    this.#arnPrefix = arnPrefix
  }

  /** Makes one and has it challenged; 409 when there is one of that URL, 400 for a URL that nothing may be sent to. */
  create (confirmationUrl: string): Destination {
    const kept = this.#of(confirmationUrl)
    if (kept !== undefined) {
      throw new AwsError('ResourceAlreadyExistsException', `A destination for ${confirmationUrl} already exists`, { resourceArn: kept.arn })
    }
    requireSendable(confirmationUrl)
    if (this.#byArn.size >= MAX) throw invalidRequest(`The maximum number of destinations is ${MAX}`)
    const now = Date.now()
    const made: Destination = {
      arn: `${this.#arnPrefix}:ruledestination/http/${randomUUID()}`,
      confirmationUrl,
      createdAt: now,
      status: 'IN_PROGRESS',
      statusReason: 'Awaiting confirmation. Confirmation message sent to the confirmation URL.',
      changedAt: now,
      token: '',
      challengedAt: now
    }
    this.#byArn.set(made.arn, made)
    this.#challenge(made)
    return made
  }

  /** As rules do it: what is there already is left alone. */
  ensure (confirmationUrl: string): void {
    if (this.#of(confirmationUrl) === undefined) this.create(confirmationUrl)
  }

  /** The destination of that ARN; 401 when there is none, as AWS has it. */
  get (arn: string): Destination {
    const destination = this.#byArn.get(arn)
    if (destination === undefined) throw new AwsError('UnauthorizedException', `Access to TopicRuleDestination '${arn}' was denied`)
    return expire(destination)
  }

  list (): Destination[] {
    return [...this.#byArn.values()].map(expire)
  }

  /** Answers a challenge. The link sent along enables; the API call confirms only, and whoever made it enables next. */
  confirm (token: string, status: 'ENABLED' | 'DISABLED'): void {
    const destination = this.list().find(candidate => candidate.token === token)
    if (destination === undefined) throw invalidRequest('The confirmation token is not valid')
    if (destination.status === 'IN_PROGRESS') change(destination, status, '')
    else if (destination.status === 'ERROR') throw invalidRequest('The confirmation token has expired')
  }

  /** ENABLED and DISABLED change into each other; IN_PROGRESS sends a new challenge. */
  update (arn: string, status: DestinationStatus): void {
    const destination = this.get(arn)
    const confirmed = destination.status === 'ENABLED' || destination.status === 'DISABLED'
    if (status === 'IN_PROGRESS') {
      change(destination, status, 'Awaiting confirmation. Confirmation message sent to the confirmation URL.')
      this.#challenge(destination)
    } else if (confirmed && (status === 'ENABLED' || status === 'DISABLED')) change(destination, status, '')
    else throw invalidRequest(`Cannot set the status of a destination that is ${destination.status} to ${status}`)
  }

  remove (arn: string): void {
    this.#byArn.delete(this.get(arn).arn)
  }

  /** Whether a rule may send there: an ENABLED destination's URL begins it. */
  allows (url: string): boolean {
    return this.list().some(({ status, confirmationUrl }) => status === 'ENABLED' && url.startsWith(confirmationUrl))
  }

  snapshot (): Destination[] {
    return [...this.#byArn.values()]
  }

  restore (kept: unknown): void {
    for (const destination of kept as Destination[]) this.#byArn.set(destination.arn, destination)
  }

  #of (confirmationUrl: string): Destination | undefined {
    return this.list().find(destination => destination.confirmationUrl === confirmationUrl)
  }

  #challenge (destination: Destination): void {
    destination.token = randomBytes(TOKEN_BYTES).toString('base64url')
    destination.challengedAt = Date.now()
    this.emit('challenge', destination)
  }
}

/** AWS sends over https only; here also over http, to this machine alone. */
export function requireSendable (url: string): void {
  const { protocol, hostname } = URL.canParse(url) ? new URL(url) : { protocol: '', hostname: '' }
  const loopback = /^(localhost|127(\.\d+){3}|\[::1\])$/.test(hostname)
  if (protocol !== 'https:' && !(protocol === 'http:' && loopback)) {
    throw invalidRequest(`The URL must be https, or http to this machine: ${url.slice(0, 256)}`)
  }
}

function change (destination: Destination, status: DestinationStatus, statusReason: string): void {
  Object.assign(destination, { status, statusReason, changedAt: Date.now() })
}

function expire (destination: Destination): Destination {
  const late = destination.status === 'IN_PROGRESS' && Date.now() - destination.challengedAt > CHALLENGE_MS
  if (late) change(destination, 'ERROR', 'Confirmation timed out')
  return destination
}
