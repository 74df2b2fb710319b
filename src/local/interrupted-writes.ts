import { closeSync, ftruncateSync, openSync, readFileSync, writeSync } from 'node:fs'

interface Write { readonly id: number, readonly target: string, readonly body: string }

/**
 * The writes that the store is at. dynalite changes an item and its indexes one after the other; killed in between, an index would differ
 * from its table for ever. So each write is noted in a file before it begins, and one that was interrupted is made again at the next start:
 * the item is written last, so that its condition holds as it did. A write that was finished and not answered may be made twice.
 */
export class InterruptedWrites {
  readonly #file: string
  readonly #running = new Set<number>()
  #fd: number | undefined
  #last = 0

  constructor (file: string) {
    this.#file = file
  }

  /** Those that the last run was at, oldest first. */
  read (): Write[] {
    const found = new Map<number, Write>()
    let content = ''
    try {
      content = readFileSync(this.#file, 'utf8')
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error
    }
    // A last line without an end is a write that had not begun.
    for (const line of content.split('\n').slice(0, -1)) {
      const entry = JSON.parse(line) as Write | { done: number }
      if ('done' in entry) found.delete(entry.done)
      else found.set(entry.id, entry)
    }
    return [...found.values()]
  }

  /** To be called once those of the last run are made. */
  open (): void {
    this.#fd = openSync(this.#file, 'a', 0o600)
    ftruncateSync(this.#fd)
  }

  /** Notes a write that begins. */
  begin (target: string, body: string): number {
    const id = ++this.#last
    this.#running.add(id)
    this.#write({ id, target, body })
    return id
  }

  end (id: number): void {
    this.#running.delete(id)
    if (this.#fd !== undefined && this.#running.size === 0) ftruncateSync(this.#fd)
    else this.#write({ done: id })
  }

  close (): void {
    if (this.#fd !== undefined) closeSync(this.#fd)
    this.#fd = undefined
  }

  #write (entry: Write | { done: number }): void {
    // With the operating system it outlives this process, which is all that it is for.
    if (this.#fd !== undefined) writeSync(this.#fd, `${JSON.stringify(entry)}\n`)
  }
}
