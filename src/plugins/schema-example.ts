/** A JSON Schema as it is written in a route. */
export type Schema = Record<string, unknown>

/** A value that a schema describes: its own example, or one made of the examples of its parts. Raises where a part has none. */
export function exampleOf (schema: Schema, path = ''): unknown {
  const { type, examples, enum: values, const: only, properties, items } = schema as {
    type?: string, examples?: unknown[], enum?: unknown[], const?: unknown, properties?: Record<string, Schema>, items?: Schema
  }
  const given = examples?.[0] ?? only ?? values?.[0]
  if (given !== undefined) return given
  if (properties) return Object.fromEntries(Object.entries(properties).map(([name, part]) => [name, exampleOf(part, `${path}/${name}`)]))
  if (type === 'array' && items) return [exampleOf(items, `${path}/0`)]
  throw new Error(`the schema at ${path || '/'} has no example`)
}
