import { open, readFile, rm, type FileHandle } from 'node:fs/promises'
import path from 'node:path'
import process from 'node:process'

interface Header { readonly format: 1, readonly generation: number }

/**
 * Records appended to a file, one line of JSON each, on the disk before `append` resolves. The first line tells which snapshot the
 * records come after, so that a crash between a new snapshot and the end of the old journal does no harm.
 */
export class Journal {
  readonly #file: string
  #handle: FileHandle | undefined
  #generation = 0
  #size = 0
  /** True after a write that may have left half a record. */
  #isTorn = false

  constructor (file: string) {
    this.#file = file
  }

  /** Bytes of records since the snapshot. */
  get size (): number {
    return this.#size
  }

  /**
   * The records that come after the snapshot `generation`, oldest first; further ones are appended to them. A last line without an end
   * was never confirmed to anybody and is dropped. Throws where another line cannot be read.
   */
  async read (generation: number): Promise<unknown[]> {
    const content = await readFile(this.#file).catch((error: NodeJS.ErrnoException) => {
      if (error.code === 'ENOENT') return Buffer.alloc(0)
      throw error
    })
    const end = content.lastIndexOf('\n') + 1
    const [header, ...records] = content.subarray(0, end).toString().split('\n').slice(0, -1).map(line => JSON.parse(line) as unknown)
    this.#generation = generation
    if (header === undefined || (header as Header).generation !== generation) return []
    if ((header as Header).format !== 1) throw new Error('it is not of the format this version writes')
    this.#size = end
    this.#isTorn = end < content.length
    return records
  }

  /** Resolves once the record is on the disk; after a rejection it may be tried again. */
  async append (record: string): Promise<void> {
    const isNew = this.#size === 0
    const header: Header = { format: 1, generation: this.#generation }
    const bytes = Buffer.from(`${isNew ? `${JSON.stringify(header)}\n` : ''}${record}\n`)
    const handle = this.#handle ??= await open(this.#file, isNew ? 'w' : 'r+', 0o600)
    if (this.#isTorn) await handle.truncate(this.#size)
    this.#isTorn = true
    for (let written = 0; written < bytes.length;) {
      written += (await handle.write(bytes, written, bytes.length - written, this.#size + written)).bytesWritten
    }
    await handle.datasync()
    if (isNew) await syncFolder(path.dirname(this.#file))
    this.#isTorn = false
    this.#size += bytes.length
  }

  /** Forgets all records, which the snapshot `generation` has taken in. */
  async restart (generation: number): Promise<void> {
    this.#generation = generation
    this.#size = 0
    this.#isTorn = false
    await this.close()
    await rm(this.#file, { force: true })
  }

  async close (): Promise<void> {
    const handle = this.#handle
    this.#handle = undefined
    await handle?.close()
  }
}

/** Resolves once the names in a folder are on the disk; Windows, which cannot be asked for it, sees to it by itself. */
export async function syncFolder (dir: string): Promise<void> {
  if (process.platform === 'win32') return
  const handle = await open(dir, 'r')
  try {
    await handle.sync()
  } finally {
    await handle.close()
  }
}
