import { AwsError, notFound } from './aws-error.ts'
import { difference, EMPTY, isEmpty, merged, type JsonObject, type Section } from './shadow-document.ts'
import type { ShadowRequest } from './shadow-request.ts'
import type { Store } from './state.ts'
import { TrackedMap, type Change } from './tracked-map.ts'

/** A shadow; deleted ones are remembered for their version. */
interface Shadow {
  readonly desired: Section
  readonly reported: Section
  readonly version: number
  /** Of the last change, epoch milliseconds. */
  readonly changedAt: number
  readonly deleted: boolean
}

/** What an update leads to: the answer to whoever asked, and what subscribers are told. */
interface ShadowUpdate { readonly accepted: object, readonly documents: object, readonly delta: object | undefined }

const MAX_BYTES = 8 * 1024
/** For how long a deleted shadow that is made again goes on counting. */
const VERSION_KEPT_MS = 48 * 3_600_000

/**
 * The shadows of an account by thing and name, `''` for the classic one (aws-facts 1.6). Whether the thing is in the registry does not
 * matter: AWS does not tie the two.
 */
export class Shadows implements Store {
  readonly #byThing = new TrackedMap<Map<string, Shadow>>()
  readonly #now: () => number

  constructor (now: () => number = Date.now) {
    this.#now = now
  }

  get (thing: string, name: string): object {
    const { desired, reported, version } = this.#kept(thing, name)
    const delta = difference(desired, reported.state)
    const { state, metadata } = written(desired, reported)
    return { state: isEmpty(delta) ? state : { ...state, delta: delta.state }, metadata, version, timestamp: this.#seconds() }
  }

  /** The first update makes the shadow. 409 when another version was expected, 413 when it would grow too large. */
  update (thing: string, name: string, request: ShadowRequest): ShadowUpdate {
    const kept = this.#find(thing, name)
    const token = request.clientToken === undefined ? {} : { clientToken: request.clientToken }
    const current = kept?.version ?? 0
    if (request.version !== undefined && request.version !== current) throw new AwsError('ConflictException', 'Version conflict', token)

    const timestamp = this.#seconds()
    const before = kept === undefined || kept.deleted ? { desired: EMPTY, reported: EMPTY } : kept
    const next = (section: 'desired' | 'reported'): Section => {
      const change = request[section]
      return change === undefined ? before[section] : change === null ? EMPTY : merged(before[section], change, timestamp)
    }
    const sections = { desired: next('desired'), reported: next('reported') }
    const shadow: Shadow = { ...sections, version: current + 1, changedAt: this.#now(), deleted: false }
    const after = written(shadow.desired, shadow.reported)
    if (Buffer.byteLength(JSON.stringify(after.state)) > MAX_BYTES) {
      throw new AwsError('RequestEntityTooLargeException', 'The payload exceeds the maximum size allowed', token)
    }
    this.#byThing.set(thing, (this.#byThing.get(thing) ?? new Map<string, Shadow>()).set(name, shadow))

    const delta = difference(shadow.desired, shadow.reported.state)
    const { version } = shadow
    const gone = kept === undefined || kept.deleted
    const previous = gone ? {} : { previous: { ...written(kept.desired, kept.reported), version: kept.version } }
    return {
      accepted: { ...asked(request, timestamp), version, timestamp, ...token },
      documents: { ...previous, current: { ...after, version }, timestamp, ...token },
      delta: isEmpty(delta) ? undefined : { ...delta, version, timestamp, ...token }
    }
  }

  remove (thing: string, name: string): object {
    const { version } = this.#kept(thing, name)
    const gone: Shadow = { desired: EMPTY, reported: EMPTY, version, changedAt: this.#now(), deleted: true }
    this.#byThing.get(thing)?.set(name, gone)
    this.#byThing.touch(thing)
    return { version, timestamp: this.#seconds() }
  }

  /** The names of a thing's named shadows, sorted. */
  namesOf (thing: string): string[] {
    return [...this.#byThing.get(thing) ?? []].filter(([name, { deleted }]) => name !== '' && !deleted).map(([name]) => name).sort()
  }

  snapshot (): Array<[string, Array<[string, Shadow]>]> {
    return [...this.#byThing].map(([thing, shadows]) => [thing, [...shadows]])
  }

  restore (kept: unknown): void {
    this.apply(kept)
  }

  changes (): Change<Array<[string, Shadow]>>[] | undefined {
    const changes = this.#byThing.take(shadows => [...shadows])
    return changes.length === 0 ? undefined : changes
  }

  apply (changes: unknown): void {
    this.#byThing.apply(changes as Change<Array<[string, Shadow]>>[], shadows => new Map(shadows))
  }

  #find (thing: string, name: string): Shadow | undefined {
    const shadow = this.#byThing.get(thing)?.get(name)
    return shadow?.deleted === true && this.#now() - shadow.changedAt > VERSION_KEPT_MS ? undefined : shadow
  }

  #kept (thing: string, name: string): Shadow {
    const shadow = this.#find(thing, name)
    if (shadow === undefined || shadow.deleted) throw notFound(`No shadow exists with name: '${name === '' ? thing : `${thing}~${name}`}'`)
    return shadow
  }

  #seconds (): number {
    return Math.floor(this.#now() / 1000)
  }
}

/** The sections that are there; an empty one is not. */
function written (desired: Section, reported: Section): { state: JsonObject, metadata: JsonObject } {
  const sections = Object.entries({ desired, reported }).filter(([, section]) => !isEmpty(section))
  return {
    state: Object.fromEntries(sections.map(([name, { state }]) => [name, state])),
    metadata: Object.fromEntries(sections.map(([name, { metadata }]) => [name, metadata]))
  }
}

/** Of the state only what was asked for, as it was asked, each value with its time. */
function asked (request: ShadowRequest, timestamp: number): { state: JsonObject, metadata: JsonObject } {
  const sections = (['desired', 'reported'] as const).flatMap(name => {
    const change = request[name]
    return change === undefined ? [] : [[name, change] as const]
  })
  return {
    state: Object.fromEntries(sections),
    metadata: Object.fromEntries(sections.flatMap(([name, change]) =>
      change === null ? [] : [[name, merged(EMPTY, change, timestamp).metadata]]))
  }
}
