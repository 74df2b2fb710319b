import { randomUUID } from 'node:crypto'
import { isDeepStrictEqual } from 'node:util'
import { AwsError, invalidRequest, notFound } from './aws-error.ts'
import type { Store } from './state.ts'

/** The members of `thingTypeProperties`, as they are sent and shown. */
export interface ThingTypeProperties {
  readonly thingTypeDescription?: string | undefined
  readonly searchableAttributes?: readonly string[] | undefined
}

/** A thing type; times are epoch milliseconds. */
export interface ThingType {
  readonly name: string
  readonly id: string
  readonly arn: string
  readonly properties: ThingTypeProperties
  readonly createdAt: number
  deprecatedAt?: number | undefined
}

/** AWS keeps a deprecated type that long before it lets go of it. */
const DELETABLE_AFTER_MS = 5 * 60_000

/** The thing types of one account. `now` is the clock that the wait between deprecation and deletion goes by. */
export class ThingTypes implements Store {
  readonly #byName = new Map<string, ThingType>()
  readonly #arnPrefix: string
  readonly #now: () => number

  constructor (arnPrefix: string, now: () => number = Date.now) {
    this.#arnPrefix = arnPrefix
    this.#now = now
  }

  /** Makes a type; the same again is a success that changes nothing, the name with other properties 409. */
  create (name: string, properties: ThingTypeProperties): ThingType {
    const kept = this.#byName.get(name)
    if (kept !== undefined) {
      if (isDeepStrictEqual(kept.properties, properties)) return kept
      throw new AwsError('ResourceAlreadyExistsException', `Thing type ${name} already exists in account with different properties`, {
        resourceId: kept.id, resourceArn: kept.arn
      })
    }
    const type = { name, id: randomUUID(), arn: `${this.#arnPrefix}:thingtype/${name}`, properties, createdAt: this.#now() }
    this.#byName.set(name, type)
    return type
  }

  /** The type of that name; 404 when there is none. */
  get (name: string): ThingType {
    const type = this.#byName.get(name)
    if (type === undefined) throw notFound(`Thing type ${name} not found`)
    return type
  }

  /** The same for a thing that is to have it; 400 when the type is deprecated. */
  getUsable (name: string): ThingType {
    const type = this.get(name)
    if (type.deprecatedAt !== undefined) throw invalidRequest(`Can not associate a thing with deprecated thing type ${name}`)
    return type
  }

  /** All of them, sorted by name. */
  list (): ThingType[] {
    return [...this.#byName.values()].sort((one, other) => one.name < other.name ? -1 : 1)
  }

  /** Deprecates or takes that back; a repetition keeps the first date. */
  deprecate (name: string, undo: boolean): void {
    const type = this.get(name)
    type.deprecatedAt = undo ? undefined : type.deprecatedAt ?? this.#now()
  }

  /** Deletes a type that has been deprecated for five minutes and that no thing has (`inUse`); 400 otherwise. */
  remove (name: string, inUse: boolean): ThingType {
    const type = this.get(name)
    if (type.deprecatedAt === undefined) throw invalidRequest(`Cannot delete thing type ${name}: it must be deprecated first`)
    if (inUse) throw invalidRequest(`Cannot delete thing type ${name}: things are associated with it`)
    if (this.#now() - type.deprecatedAt < DELETABLE_AFTER_MS) {
      throw invalidRequest(`Cannot delete thing type ${name}: please wait for 5 minutes after deprecation and then retry`)
    }
    this.#byName.delete(name)
    return type
  }

  snapshot (): ThingType[] {
    return this.list()
  }

  restore (kept: unknown): void {
    for (const type of kept as ThingType[]) this.#byName.set(type.name, type)
  }
}
