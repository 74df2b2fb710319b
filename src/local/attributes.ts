import { ATTRIBUTE_NAME, ATTRIBUTE_VALUE, optionalFlag, optionalObject, text } from './constraints.ts'

/** The attributes of a thing or a thing group. */
export type Attributes = Readonly<Record<string, string>>

/** An `attributePayload`; without `merge` the attributes take the place of all there were. An empty value removes. */
export interface AttributeChange { readonly attributes: Attributes, readonly merge: boolean }

/** Reads an `attributePayload` member at the place named; undefined when it is absent. */
export function attributePayload (value: unknown, member: string): AttributeChange | undefined {
  const payload = optionalObject(value, member)
  if (payload === undefined) return undefined
  const attributes = optionalObject(payload['attributes'], `${member}.attributes`) ?? {}
  return {
    attributes: Object.fromEntries(Object.entries(attributes).map(([name, value]) => [
      text(name, `${member}.attributes`, ATTRIBUTE_NAME),
      text(value, `${member}.attributes.${name.slice(0, 128)}`, ATTRIBUTE_VALUE)
    ])),
    merge: optionalFlag(payload['merge'], `${member}.merge`) ?? false
  }
}

/** What the change leaves of the attributes. */
export function applied (before: Attributes, { attributes, merge }: AttributeChange): Attributes {
  return Object.fromEntries(Object.entries(merge ? { ...before, ...attributes } : attributes).filter(([, value]) => value !== ''))
}

/** Whether both have the same names with the same values, in whatever order. */
export function same (one: Attributes, other: Attributes): boolean {
  const names = Object.keys(one)
  return names.length === Object.keys(other).length && names.every(name => one[name] === other[name])
}
