/** An entry that changed, as JSON can hold it; null for one that is gone. */
export type Change<K = unknown> = [key: string, kept: K | null]

/** A map that remembers which entries changed, so that a journal writes those alone. */
export class TrackedMap<V> extends Map<string, V> {
  /** Undefined until changes are asked for: in memory there is nobody to take them. */
  #changed: Set<string> | undefined
  #removed: Set<string> | undefined

  override set (key: string, value: V): this {
    this.#changed?.add(key)
    return super.set(key, value)
  }

  override delete (key: string): boolean {
    this.#removed?.add(key)
    this.#changed?.delete(key)
    return super.delete(key)
  }

  /** To be called after the value of `key` was changed in place. */
  touch (key: string): void {
    if (this.has(key)) this.#changed?.add(key)
  }

  /** What changed since the last call, in the order in which to apply it; the first call begins to watch. */
  take <K> (keptOf: (value: V) => K): Change<K>[] {
    const removed = [...this.#removed ?? []].map((key): Change<K> => [key, null])
    const changed = [...this.#changed ?? []].map((key): Change<K> => [key, keptOf(super.get(key) as V)])
    this.#changed = new Set()
    this.#removed = new Set()
    return [...removed, ...changed]
  }

  /** Takes over what `take` gave. */
  apply <K> (changes: readonly Change<K>[], valueOf: (kept: K) => V): void {
    for (const [key, kept] of changes) {
      if (kept === null) super.delete(key)
      else super.set(key, valueOf(kept))
    }
  }
}
