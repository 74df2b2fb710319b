/** The outcome of one step: the next item, or a result. */
type Step<T, R> = { item: IteratorResult<T, unknown> } | { cause: unknown } | { id: number, result: R }

/**
 * Works on at most so many items at once and yields the results as they are ready. Takes no item from the source and begins nothing while
 * nobody asks for a result, nor after `stop`. When the source fails, what was begun is finished and yielded, then its error is thrown.
 * `work` must not reject.
 */
export async function * asTheyFinish<T, R> (
  source: AsyncIterable<T>, atOnce: number, stop: AbortSignal, work: (item: T) => Promise<R>
): AsyncGenerator<R, void> {
  const items = source[Symbol.asyncIterator]()
  const working = new Map<number, Promise<Step<T, R>>>()
  let taking: Promise<Step<T, R>> | undefined
  let isOver = false
  let failure: { cause: unknown } | undefined
  let begun = 0
  try {
    while (true) {
      if (!isOver && working.size < atOnce) taking ??= items.next().then(item => ({ item }), (cause: unknown) => ({ cause }))
      if (!taking && working.size === 0) break
      const step = await Promise.race([...working.values(), ...taking ? [taking] : []])
      if ('result' in step) {
        working.delete(step.id)
        yield step.result
        continue
      }
      taking = undefined
      if ('cause' in step) failure = step
      isOver = stop.aborted || 'cause' in step || step.item.done === true
      if (isOver || 'cause' in step) continue
      const id = ++begun
      working.set(id, work(step.item.value as T).then(result => ({ id, result })))
    }
    if (failure) throw failure.cause
  } finally {
    await items.return?.()
  }
}
