import { randomUUID } from 'node:crypto'
import { AwsError, invalidRequest, notFound } from './aws-error.ts'
import { applied, same, type AttributeChange, type Attributes } from './attributes.ts'
import type { Store } from './state.ts'
import { TrackedMap, type Change } from './tracked-map.ts'

/** A static thing group; times are epoch milliseconds. */
export interface ThingGroup {
  readonly name: string
  readonly id: string
  readonly arn: string
  readonly parent?: string | undefined
  readonly description?: string | undefined
  readonly attributes: Attributes
  readonly createdAt: number
  readonly version: number
}

/** `thingGroupProperties`, as they are sent. */
export interface ThingGroupProperties { readonly description?: string | undefined, readonly attributes?: AttributeChange | undefined }

interface GroupChanges { readonly groups: Change<ThingGroup>[], readonly things: Change<string[]>[] }

// AWS's limits (aws-facts 2.5).
const MAX_DEPTH = 7
const MAX_CHILDREN = 100
const MAX_ATTRIBUTES = 50
const MAX_GROUPS_OF_THING = 10

/** The thing groups of one account, their hierarchy, and the names of the things in them. */
export class ThingGroups implements Store {
  readonly #byName = new TrackedMap<ThingGroup>()
  readonly #groups = new TrackedMap<Set<string>>()
  readonly #arnPrefix: string

  constructor (arnPrefix: string) {
    this.#arnPrefix = arnPrefix
  }

  /** Makes a group; the same again is a success that changes nothing, the name with another configuration 409. */
  create (name: string, { description, attributes: change }: ThingGroupProperties, parent?: string): ThingGroup {
    const attributes = change === undefined ? {} : applied({}, change)
    const kept = this.#byName.get(name)
    if (kept !== undefined) {
      if (kept.parent === parent && kept.description === description && same(kept.attributes, attributes)) return kept
      throw new AwsError('ResourceAlreadyExistsException', `Thing group ${name} already exists in account with different properties`, {
        resourceId: kept.id, resourceArn: kept.arn
      })
    }
    if (parent !== undefined) {
      // CreateThingGroup has no 404 in the API model.
      if (!this.#byName.has(parent)) throw invalidRequest(`Parent thing group ${parent} not found`)
      if (this.ancestorsOf(parent).length + 2 > MAX_DEPTH) throw invalidRequest(`A thing group hierarchy cannot be deeper than ${MAX_DEPTH}`)
      if (this.childrenOf(parent).length >= MAX_CHILDREN) throw invalidRequest(`A thing group cannot have more than ${MAX_CHILDREN} direct child groups`)
    }
    limit(attributes)
    const arn = `${this.#arnPrefix}:thinggroup/${name}`
    const group = { name, id: randomUUID(), arn, parent, description, attributes, createdAt: Date.now(), version: 1 }
    this.#byName.set(name, group)
    return group
  }

  /** The group of that name; 404 when there is none. */
  get (name: string): ThingGroup {
    const group = this.#byName.get(name)
    if (group === undefined) throw notFound(`Thing group ${name} not found`)
    return group
  }

  /** The group of that ARN; 404 when there is none, 400 when it is not the ARN of a thing group here. */
  getByArn (arn: string): ThingGroup {
    const prefix = `${this.#arnPrefix}:thinggroup/`
    if (!arn.startsWith(prefix)) throw invalidRequest(`Not the ARN of a thing group of this account: ${arn}`)
    return this.get(arn.slice(prefix.length))
  }

  /** All of them, sorted by name. */
  list (): ThingGroup[] {
    return [...this.#byName.values()].sort(byName)
  }

  /** The groups right below a group, sorted by name. */
  childrenOf (name: string): ThingGroup[] {
    return this.list().filter(({ parent }) => parent === name)
  }

  /** The groups above a group, the root first. */
  ancestorsOf (name: string): ThingGroup[] {
    const { parent } = this.get(name)
    return parent === undefined ? [] : [...this.ancestorsOf(parent), this.get(parent)]
  }

  /** Changes description and attributes; each update is a new version, which is given back. */
  update (name: string, { description, attributes: change }: ThingGroupProperties, expectedVersion?: number): number {
    const kept = this.get(name)
    checkVersion(kept, expectedVersion)
    const attributes = change === undefined ? kept.attributes : applied(kept.attributes, change)
    limit(attributes)
    const version = kept.version + 1
    this.#byName.set(name, { ...kept, description: description ?? kept.description, attributes, version })
    return version
  }

  /** Deletes; what was deleted, if it was there. 400 as long as there are groups below it; its things just leave it. */
  remove (name: string, expectedVersion?: number): ThingGroup | undefined {
    const kept = this.#byName.get(name)
    if (kept === undefined) return undefined
    checkVersion(kept, expectedVersion)
    if (this.childrenOf(name).length > 0) throw invalidRequest(`Cannot delete thing group ${name}: it has child groups`)
    for (const [thing, groups] of this.#groups) {
      if (groups.delete(name)) this.#groups.touch(thing)
    }
    this.#byName.delete(name)
    return kept
  }

  /** Puts a thing into a group; in it already, nothing changes. At most ten groups, and one of each hierarchy. */
  addThing (name: string, thing: string): void {
    const groups = this.#groups.get(thing) ?? new Set()
    if (groups.has(name)) return
    const root = this.#rootOf(name)
    const relative = [...groups].find(other => this.#rootOf(other) === root)
    if (relative !== undefined) throw invalidRequest(`Thing ${thing} is in group ${relative} of the same hierarchy already`)
    if (groups.size >= MAX_GROUPS_OF_THING) throw invalidRequest(`A thing cannot be in more than ${MAX_GROUPS_OF_THING} thing groups`)
    this.#groups.set(thing, groups.add(name))
  }

  /** Takes a thing out of a group; when it is not in it, nothing changes. */
  removeThing (name: string, thing: string): void {
    this.#groups.get(thing)?.delete(name)
    this.#groups.touch(thing)
  }

  /** Takes a thing that ceases to be out of all groups. */
  forget (thing: string): void {
    this.#groups.delete(thing)
  }

  /** The groups a thing was put into, sorted by name. */
  ofThing (thing: string): ThingGroup[] {
    return [...(this.#groups.get(thing) ?? [])].map(name => this.get(name)).sort(byName)
  }

  /** The things in a group, and with `recursive` in the groups below it, sorted. */
  thingsIn (name: string, recursive: boolean): string[] {
    const { name: wanted } = this.get(name)
    const inside = (group: string): boolean =>
      group === wanted || (recursive && this.ancestorsOf(group).some(({ name }) => name === wanted))
    return [...this.#groups].filter(([, groups]) => [...groups].some(inside)).map(([thing]) => thing).sort()
  }

  snapshot (): object {
    return { groups: [...this.#byName.values()], things: [...this.#groups].map(([thing, groups]) => [thing, [...groups]]) }
  }

  restore (kept: unknown): void {
    const { groups, things } = kept as { groups: ThingGroup[], things: Array<[string, string[]]> }
    this.apply({ groups: groups.map(group => [group.name, group]), things })
  }

  changes (): GroupChanges | undefined {
    const changes = { groups: this.#byName.take(group => group), things: this.#groups.take(groups => [...groups]) }
    return changes.groups.length + changes.things.length === 0 ? undefined : changes
  }

  apply (changes: unknown): void {
    const { groups, things } = changes as GroupChanges
    this.#byName.apply(groups, group => group)
    this.#groups.apply(things, names => new Set(names))
  }

  #rootOf (name: string): string {
    return this.ancestorsOf(name)[0]?.name ?? name
  }
}

function byName (one: ThingGroup, other: ThingGroup): number {
  return one.name < other.name ? -1 : 1
}

function checkVersion ({ name, version }: ThingGroup, expected: number | undefined): void {
  if (expected !== undefined && expected !== version) {
    throw new AwsError('VersionConflictException', `The version for thing group ${name} does not match the expected version ${expected}`)
  }
}

function limit (attributes: Attributes): void {
  if (Object.keys(attributes).length > MAX_ATTRIBUTES) throw invalidRequest(`A thing group cannot have more than ${MAX_ATTRIBUTES} attributes`)
}
