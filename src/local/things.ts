import { randomUUID } from 'node:crypto'
import { AwsError, invalidRequest, notFound } from './aws-error.ts'
import type { Store } from './state.ts'

/** A thing of the registry. */
export interface Thing {
  readonly name: string
  readonly id: string
  readonly arn: string
  readonly attributes: Readonly<Record<string, string>>
  readonly version: number
}

export type AttachmentType = 'EXCLUSIVE_THING' | 'NON_EXCLUSIVE_THING'

/** AWS's limit for a thing without a thing type (aws-facts 2.5). */
const MAX_ATTRIBUTES = 3

/** The things of one account, and which principals (certificate ARNs) are attached to them. */
export class Things implements Store {
  readonly #byName = new Map<string, Thing>()
  // Both directions are kept: the broker asks by principal on each message.
  readonly #principals = new Map<string, Map<string, AttachmentType>>()
  readonly #things = new Map<string, Set<string>>()
  readonly #arnPrefix: string

  constructor (arnPrefix: string) {
    this.#arnPrefix = arnPrefix
  }

  /** Makes a thing; the same name with the same configuration is a success that changes nothing, with another one 409. */
  create (name: string, attributes: Readonly<Record<string, string>>): Thing {
    const kept = this.#byName.get(name)
    if (kept !== undefined) {
      if (same(kept.attributes, attributes)) return kept
      throw new AwsError('ResourceAlreadyExistsException', `Thing ${name} already exists in account with different attributes`, {
        resourceId: kept.id, resourceArn: kept.arn
      })
    }
    if (Object.keys(attributes).length > MAX_ATTRIBUTES) {
      throw invalidRequest(`A thing without a thing type cannot have more than ${MAX_ATTRIBUTES} attributes`)
    }
    const thing = { name, id: randomUUID(), arn: `${this.#arnPrefix}:thing/${name}`, attributes, version: 1 }
    this.#byName.set(name, thing)
    return thing
  }

  find (name: string): Thing | undefined {
    return this.#byName.get(name)
  }

  /** The thing of that name; 404 when there is none. */
  get (name: string): Thing {
    const thing = this.#byName.get(name)
    if (thing === undefined) throw notFound(`Thing ${name} not found`)
    return thing
  }

  /** Attaches; the same again changes nothing. A principal attached exclusively belongs to that one thing (400 otherwise). */
  attach (name: string, principal: string, type: AttachmentType | undefined): void {
    const { name: thing } = this.get(name)
    const attached = this.#principals.get(thing) ?? new Map<string, AttachmentType>()
    const before = attached.get(principal)
    if (before !== undefined) {
      if (type !== undefined && type !== before) throw invalidRequest(`Principal is already attached to thing ${thing} as ${before}`)
      return
    }
    const others = this.ofPrincipal(principal)
    const owner = others.find(other => this.#principals.get(other)?.get(principal) === 'EXCLUSIVE_THING')
    if (owner !== undefined) throw invalidRequest(`Principal is attached exclusively to thing ${owner}`)
    if (type === 'EXCLUSIVE_THING' && others.length > 0) {
      throw invalidRequest(`Principal cannot be attached exclusively to thing ${thing}: it is attached to other things`)
    }
    this.#principals.set(thing, attached.set(principal, type ?? 'NON_EXCLUSIVE_THING'))
    this.#things.set(principal, (this.#things.get(principal) ?? new Set()).add(thing))
  }

  /** Detaches; when nothing is attached, nothing changes. */
  detach (name: string, principal: string): void {
    this.#principals.get(this.get(name).name)?.delete(principal)
    const things = this.#things.get(principal)
    things?.delete(name)
    if (things?.size === 0) this.#things.delete(principal)
  }

  /** The principals of a thing, sorted. */
  principalsOf (name: string): string[] {
    return [...(this.#principals.get(this.get(name).name)?.keys() ?? [])].sort()
  }

  /** The names of the things a principal is attached to, sorted. */
  ofPrincipal (principal: string): string[] {
    return [...(this.#things.get(principal) ?? [])].sort()
  }

  snapshot (): object {
    return { things: [...this.#byName.values()], principals: [...this.#principals].map(([name, attached]) => [name, [...attached]]) }
  }

  restore (kept: unknown): void {
    const { things, principals } = kept as { things: Thing[], principals: Array<[string, Array<[string, AttachmentType]>]> }
    for (const thing of things) this.#byName.set(thing.name, thing)
    for (const [name, attached] of principals) for (const [principal, type] of attached) this.attach(name, principal, type)
  }
}

function same (one: Readonly<Record<string, string>>, other: Readonly<Record<string, string>>): boolean {
  const names = Object.keys(one)
  return names.length === Object.keys(other).length && names.every(name => one[name] === other[name])
}
