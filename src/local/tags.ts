import { AwsError, invalidRequest, notFound } from './aws-error.ts'
import type { Store } from './state.ts'

/** A tag as AWS sends and shows it. */
export interface Tag { readonly Key: string, readonly Value: string }

const MAX_TAGS = 50

/** The tags of everything that can have some; a resource is known here, by its ARN, from its creation to its deletion. */
export class Tags implements Store {
  readonly #byArn = new Map<string, Map<string, string>>()

  /** Makes a resource known, with its first tags; one that is known keeps what it has. */
  create (arn: string, tags: readonly Tag[] = []): void {
    if (!this.#byArn.has(arn)) this.#byArn.set(arn, limited(new Map(), tags))
  }

  /** Adds tags and gives new values to those of the same keys. */
  set (arn: string, tags: readonly Tag[]): void {
    this.#byArn.set(arn, limited(this.#get(arn), tags))
  }

  unset (arn: string, keys: readonly string[]): void {
    const tags = this.#get(arn)
    for (const key of keys) tags.delete(key)
  }

  /** The tags of a resource, sorted by key; 404 when there is no such resource. */
  of (arn: string): Tag[] {
    return [...this.#get(arn)].map(([Key, Value]) => ({ Key, Value })).sort((one, other) => one.Key < other.Key ? -1 : 1)
  }

  /** Forgets a resource that was deleted. */
  remove (arn: string): void {
    this.#byArn.delete(arn)
  }

  snapshot (): object {
    return [...this.#byArn].map(([arn, tags]) => [arn, [...tags]])
  }

  restore (kept: unknown): void {
    for (const [arn, tags] of kept as Array<[string, Array<[string, string]>]>) this.#byArn.set(arn, new Map(tags))
  }

  #get (arn: string): Map<string, string> {
    const tags = this.#byArn.get(arn)
    if (tags === undefined) throw notFound(`Resource not found: ${arn}`)
    return tags
  }
}

function limited (before: ReadonlyMap<string, string>, tags: readonly Tag[]): Map<string, string> {
  if (new Set(tags.map(({ Key }) => Key)).size < tags.length) throw invalidRequest('Duplicate tag keys found')
  if (tags.some(({ Key }) => Key.startsWith('aws:'))) throw invalidRequest('Tag keys must not start with aws:')
  const after = new Map([...before, ...tags.map(({ Key, Value }): [string, string] => [Key, Value])])
  if (after.size > MAX_TAGS) throw new AwsError('LimitExceededException', `A resource cannot have more than ${MAX_TAGS} tags`)
  return after
}
