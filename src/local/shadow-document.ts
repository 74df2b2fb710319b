import { isDeepStrictEqual } from 'node:util'

export type Json = null | boolean | number | string | readonly Json[] | JsonObject
export interface JsonObject { readonly [name: string]: Json }

/** `desired` or `reported`: the values, and for each leaf when it was set, epoch seconds. */
export interface Section { readonly state: JsonObject, readonly metadata: JsonObject }

export const EMPTY: Section = { state: {}, metadata: {} }

export function isObject (value: Json | undefined): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

/** The section after a change (aws-facts 1.6): objects merge deeply, null deletes, anything else replaces, lists whole. */
export function merged (before: Section, change: JsonObject, timestamp: number): Section {
  const state = new Map(Object.entries(before.state))
  const metadata = new Map(Object.entries(before.metadata))
  for (const [name, value] of Object.entries(change)) {
    if (value === null) {
      state.delete(name)
      metadata.delete(name)
    } else if (isObject(value)) {
      const inner = merged(within(before, name), value, timestamp)
      state.set(name, inner.state)
      metadata.set(name, inner.metadata)
    } else {
      state.set(name, value)
      metadata.set(name, stamped(value, timestamp))
    }
  }
  // Made of entries, so that a member named __proto__ is a member like any other.
  return { state: Object.fromEntries(state), metadata: Object.fromEntries(metadata) }
}

/** What of `desired` is missing from `reported` or different there; lists are compared whole. */
export function difference (desired: Section, reported: JsonObject): Section {
  const state: Array<[string, Json]> = []
  const metadata: Array<[string, Json]> = []
  for (const [name, wanted] of Object.entries(desired.state)) {
    const actual = member(reported, name)
    if (isObject(wanted) && isObject(actual)) {
      const inner = difference(within(desired, name), actual)
      if (isEmpty(inner)) continue
      state.push([name, inner.state])
      metadata.push([name, inner.metadata])
    } else if (!isDeepStrictEqual(wanted, actual)) {
      state.push([name, wanted])
      metadata.push([name, member(desired.metadata, name) ?? {}])
    }
  }
  return { state: Object.fromEntries(state), metadata: Object.fromEntries(metadata) }
}

export function isEmpty ({ state }: Section): boolean {
  return Object.keys(state).length === 0
}

/** Whether more than `levels` objects or lists lie in each other. */
export function deeperThan (value: Json, levels: number): boolean {
  if (typeof value !== 'object' || value === null) return false
  const inner = Object.values(value)
  return inner.length > 0 && (levels === 0 || inner.some(item => deeperThan(item, levels - 1)))
}

/** Whether a list holds null, which no shadow can keep. */
export function listsNull (value: Json): boolean {
  if (Array.isArray(value)) return value.some(item => item === null || listsNull(item))
  return isObject(value) && Object.values(value).some(listsNull)
}

function within (section: Section, name: string): Section {
  const [state, metadata] = [member(section.state, name), member(section.metadata, name)]
  return isObject(state) && isObject(metadata) ? { state, metadata } : EMPTY
}

function member (object: JsonObject, name: string): Json | undefined {
  return Object.hasOwn(object, name) ? object[name] : undefined
}

function stamped (value: Json, timestamp: number): Json {
  if (Array.isArray(value)) return value.map(item => stamped(item, timestamp))
  return isObject(value) ? merged(EMPTY, value, timestamp).metadata : { timestamp }
}
