/**
 * Works on the items of a source, so many at a time, each as soon as it comes. After a failure nothing more is begun; what was begun is
 * waited for, and then the first failure is thrown. `onFailure` is told at once, so that it can end what the others wait for.
 */
export async function workThrough<T> (
  source: AsyncGenerator<T>, workers: number, work: (item: T) => Promise<void>, onFailure: (error: unknown) => void): Promise<void> {
  const failures: unknown[] = []
  const worker = async () => {
    try {
      while (failures.length === 0) {
        const { done, value } = await source.next()
        if (done === true) return
        await work(value)
      }
    } catch (error) {
      failures.push(error)
      onFailure(error)
    }
  }
  await Promise.all(Array.from({ length: workers }, worker))
  if (failures.length === 0) return
  await source.return?.(undefined)
  throw failures[0]
}
