import { randomUUID } from 'node:crypto'
import { AwsError, invalidRequest, notFound } from './aws-error.ts'
import { applied, same, type AttributeChange, type Attributes } from './attributes.ts'
import type { Store } from './state.ts'
import { TrackedMap, type Change } from './tracked-map.ts'
import type { ThingTypes } from './thing-types.ts'

/** A thing of the registry. */
export interface Thing {
  readonly name: string
  readonly id: string
  readonly arn: string
  readonly attributes: Attributes
  readonly typeName?: string | undefined
  readonly version: number
}

/** What UpdateThing asks for; `typeName: null` takes the type away. */
export interface ThingChange {
  readonly attributes?: AttributeChange | undefined
  readonly typeName?: string | null | undefined
  readonly expectedVersion?: number | undefined
}

export type AttachmentType = 'EXCLUSIVE_THING' | 'NON_EXCLUSIVE_THING'

interface ThingChanges { readonly things: Change<Thing>[], readonly principals: Change<Array<[string, AttachmentType]>>[] }

// AWS's limits (aws-facts 2.5).
const MAX_ATTRIBUTES = 3
const MAX_ATTRIBUTES_WITH_TYPE = 50

/** The things of one account, and which principals (certificate ARNs) are attached to them. */
export class Things implements Store {
  readonly #byName = new TrackedMap<Thing>()
  // Both directions are kept: the broker asks by principal on each message.
  readonly #principals = new TrackedMap<Map<string, AttachmentType>>()
  readonly #things = new Map<string, Set<string>>()
  readonly #arnPrefix: string
  readonly #types: ThingTypes

  constructor (arnPrefix: string, types: ThingTypes) {
    this.#arnPrefix = arnPrefix
    this.#types = types
  }

  /** Makes a thing; the same name with the same configuration is a success that changes nothing, with another one 409. */
  create (name: string, attributes: Attributes, typeName?: string): Thing {
    const kept = this.#byName.get(name)
    if (kept !== undefined) {
      if (same(kept.attributes, attributes) && kept.typeName === typeName) return kept
      const different = kept.typeName === typeName ? 'different attributes' : 'a different thing type'
      throw new AwsError('ResourceAlreadyExistsException', `Thing ${name} already exists in account with ${different}`, {
        resourceId: kept.id, resourceArn: kept.arn
      })
    }
    if (typeName !== undefined) this.#types.getUsable(typeName)
    limit(attributes, typeName)
    const thing = { name, id: randomUUID(), arn: `${this.#arnPrefix}:thing/${name}`, attributes, typeName, version: 1 }
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

  /** All of them, sorted by name. */
  list (): Thing[] {
    return [...this.#byName.values()].sort((one, other) => one.name < other.name ? -1 : 1)
  }

  /** Changes attributes and type; each update is a new version. 409 when another version than the expected one is there. */
  update (name: string, change: ThingChange): void {
    const kept = this.get(name)
    checkVersion(kept, change.expectedVersion)
    if (typeof change.typeName === 'string' && change.typeName !== kept.typeName) this.#types.getUsable(change.typeName)
    const typeName = change.typeName === undefined ? kept.typeName : change.typeName ?? undefined
    const attributes = change.attributes === undefined ? kept.attributes : applied(kept.attributes, change.attributes)
    limit(attributes, typeName)
    this.#byName.set(name, { ...kept, attributes, typeName, version: kept.version + 1 })
  }

  /** Deletes; true when it was there. 400 as long as a principal is attached, 409 for another version than the expected one. */
  remove (name: string, expectedVersion?: number): boolean {
    const kept = this.#byName.get(name)
    if (kept === undefined) return false
    checkVersion(kept, expectedVersion)
    if (this.principalsOf(name).length > 0) throw invalidRequest(`Cannot delete. Thing ${name} is still attached to one or more principals`)
    this.#principals.delete(name)
    return this.#byName.delete(name)
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
    const owner = others.find(other => this.attachmentOf(other, principal) === 'EXCLUSIVE_THING')
    if (owner !== undefined) throw invalidRequest(`Principal is attached exclusively to thing ${owner}`)
    if (type === 'EXCLUSIVE_THING' && others.length > 0) {
      throw invalidRequest(`Principal cannot be attached exclusively to thing ${thing}: it is attached to other things`)
    }
    this.#principals.set(thing, attached.set(principal, type ?? 'NON_EXCLUSIVE_THING'))
    this.#list(principal, thing)
  }

  /** Detaches; when nothing is attached, nothing changes. */
  detach (name: string, principal: string): void {
    this.#principals.get(this.get(name).name)?.delete(principal)
    this.#principals.touch(name)
    const things = this.#things.get(principal)
    things?.delete(name)
    if (things?.size === 0) this.#things.delete(principal)
  }

  /** How a principal is attached to a thing, if it is. */
  attachmentOf (name: string, principal: string): AttachmentType | undefined {
    return this.#principals.get(name)?.get(principal)
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
    this.apply({ things: things.map(thing => [thing.name, thing]), principals })
  }

  changes (): ThingChanges | undefined {
    const changes = { things: this.#byName.take(thing => thing), principals: this.#principals.take(attached => [...attached]) }
    return changes.things.length + changes.principals.length === 0 ? undefined : changes
  }

  apply (changes: unknown): void {
    const { things, principals } = changes as ThingChanges
    this.#byName.apply(things, thing => thing)
    for (const [name] of principals) this.#unlist(name)
    this.#principals.apply(principals, attached => new Map(attached))
    for (const [name] of principals) {
      for (const principal of this.#principals.get(name)?.keys() ?? []) this.#list(principal, name)
    }
  }

  #list (principal: string, thing: string): void {
    this.#things.set(principal, (this.#things.get(principal) ?? new Set()).add(thing))
  }

  /** Takes a thing off the lists of all its principals. */
  #unlist (thing: string): void {
    for (const principal of this.#principals.get(thing)?.keys() ?? []) {
      const things = this.#things.get(principal)
      things?.delete(thing)
      if (things?.size === 0) this.#things.delete(principal)
    }
  }
}

function checkVersion ({ name, version }: Thing, expected: number | undefined): void {
  if (expected !== undefined && expected !== version) {
    throw new AwsError('VersionConflictException', `The version for thing ${name} does not match the expected version ${expected}`)
  }
}

function limit (attributes: Attributes, typeName: string | undefined): void {
  const count = Object.keys(attributes).length
  if (typeName === undefined && count > MAX_ATTRIBUTES) {
    throw invalidRequest(`A thing without a thing type cannot have more than ${MAX_ATTRIBUTES} attributes`)
  }
  if (count > MAX_ATTRIBUTES_WITH_TYPE) throw invalidRequest(`A thing cannot have more than ${MAX_ATTRIBUTES_WITH_TYPE} attributes`)
}
