import { createReadStream, createWriteStream } from 'node:fs'
import { open, realpath, rename, rm, stat } from 'node:fs/promises'
import type { FileHandle } from 'node:fs/promises'
import { dirname } from 'node:path'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { parse } from 'csv-parse'
import { flush } from './device-folder.ts'
import { EXIT, Failure, messageOf, printable } from './failure.ts'
import { lock } from './file-lock.ts'

/** What a file of rows is: its columns, and its words for people. */
export interface Kind<Column extends string> {
  readonly columns: readonly Column[]
  /** As in "is not a result file of `cvm devices import`". */
  readonly name: string
  /** As in "cannot write the results to". */
  readonly content: string
}

export type Row<Column extends string> = Readonly<Partial<Record<Column, string | undefined>>> & { readonly serialNumber: string }

// No row is longer: the input's records are bounded, and so is what `printable` lets through.
const LONGEST_ROW = 65_536

/** A CSV file for its owner only, to which rows about devices are added by one process at a time, each on disk before the next step. */
export class RowFile<Column extends string, R extends Row<Column>> {
  /** Where it is. */
  readonly path: string
  readonly #kind: Kind<Column>
  readonly #handle: FileHandle
  readonly #release: () => Promise<void>

  private constructor (path: string, kind: Kind<Column>, handle: FileHandle, release: () => Promise<void>) {
    this.path = path
    this.#kind = kind
    this.#handle = handle
    this.#release = release
  }

  /**
   * Makes the file, or goes on with the one that an earlier run left and tells its rows to `remember`; a row that a crash cut short is
   * dropped. Throws a `Failure` when the file cannot be written, is something else, or is being written by another process.
   */
  static async open<Column extends string, R extends Row<Column>> (
    path: string, kind: Kind<Column>, remember: (row: R) => void): Promise<RowFile<Column, R>> {
    const file = await realpath(path).catch(() => path)
    let release = async () => {}
    let handle: FileHandle | undefined
    try {
      if (!((await stat(file).catch(() => undefined))?.isFile() ?? true)) throw foreign(path, kind)
      release = await lock(file)
      handle = await open(file, 'a+', 0o600)
      const rows = new RowFile<Column, R>(file, kind, handle, release)
      await rows.#repair()
      for await (const row of rows.#read()) remember(row)
      return rows
    } catch (error) {
      await handle?.close()
      await release()
      throw error instanceof Failure ? error : unwritable(path, kind, error)
    }
  }

  /** Adds rows; they are on disk (fsync) when this returns. Throws a `Failure`. */
  async append (rows: readonly R[]): Promise<void> {
    try {
      await this.#handle.appendFile(rows.map(row => this.#lineOf(row)).join(''))
      await this.#handle.sync()
    } catch (error) {
      throw unwritable(this.path, this.#kind, error)
    }
  }

  /**
   * Leaves one row for each device, the last one that `counts` against the one before; the file is replaced at once or not at all.
   * Throws a `Failure`.
   */
  async tidy (counts: (row: R, before: R) => boolean = () => true): Promise<void> {
    const kept = new Map<string, { index: number, row: R }>()
    let index = 0
    for await (const row of this.#read()) {
      const before = kept.get(row.serialNumber)
      if (before === undefined || counts(row, before.row)) kept.set(row.serialNumber, { index, row })
      index++
    }
    if (kept.size === index) return
    const aside = `${this.path}.tmp`
    try {
      await rm(aside, { force: true })
      await pipeline(Readable.from(this.#rowsThatCount(kept)), createWriteStream(aside, { flags: 'wx', mode: 0o600, flush: true }))
      await rename(aside, this.path)
      await flush(dirname(this.path))
    } catch (error) {
      await rm(aside, { force: true })
      throw unwritable(this.path, this.#kind, error)
    }
  }

  /** Closes the file and gives it free. */
  async close (): Promise<void> {
    await this.#handle.close()
    await this.#release()
  }

  async #repair (): Promise<void> {
    const handle = this.#handle
    const header = this.#header()
    const { size } = await handle.stat()
    const head = await bytes(handle, 0, Math.min(size, header.length))
    // A file that is not ours must not be cut.
    if (head.length < header.length ? !header.startsWith(head) : head !== header) throw foreign(this.path, this.#kind)
    await handle.chmod(0o600)
    const start = Math.max(0, size - LONGEST_ROW)
    const end = (await bytes(handle, start, size - start)).lastIndexOf('\n') + 1
    if (end === 0 && start > 0) throw foreign(this.path, this.#kind)
    if (start + end < size) await handle.truncate(start + end)
    if (start + end === 0) await handle.appendFile(header)
    await handle.sync()
    await flush(dirname(this.path))
  }

  async * #read (): AsyncGenerator<R> {
    const parser = parse({ columns: true, max_record_size: LONGEST_ROW })
    const source = createReadStream(this.path)
    source.on('error', error => parser.destroy(error))
    let line = 1
    try {
      for await (const record of source.pipe(parser)) {
        line++
        yield record
      }
    } catch (error) {
      throw new Failure(EXIT.failed, `${this.path} is damaged after line ${line}`, { remedy: 'Give another --out, and keep this file: it may hold tokens' }, error)
    }
  }

  async * #rowsThatCount (kept: ReadonlyMap<string, { index: number }>): AsyncGenerator<string> {
    yield this.#header()
    let index = 0
    for await (const row of this.#read()) {
      if (kept.get(row.serialNumber)?.index === index) yield this.#lineOf(row)
      index++
    }
  }

  #header (): string {
    return `${this.#kind.columns.join(',')}\n`
  }

  #lineOf (row: R): string {
    return `${this.#kind.columns.map(name => field((row as Row<Column>)[name] ?? '')).join(',')}\n`
  }
}

/** A field on one line: a row that was cut short must be recognisable by its missing end of line. */
function field (text: string): string {
  const safe = printable(text)
  return /[",]|^\s|\s$/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe
}

async function bytes (handle: FileHandle, position: number, length: number): Promise<string> {
  const { buffer, bytesRead } = await handle.read(Buffer.alloc(length), 0, length, position)
  return buffer.toString('latin1', 0, bytesRead)
}

function foreign (path: string, { name }: Kind<string>): Failure {
  return new Failure(EXIT.usage, `${path} is not a ${name}`, { remedy: 'Give another --out' })
}

function unwritable (path: string, { content }: Kind<string>, error: unknown): Failure {
  const remedy = 'Make room or give another folder, then run the same command again with the same --out: nothing is lost'
  return new Failure(EXIT.failed, `cannot write the ${content} to ${path}`, { detail: messageOf(error), remedy }, error)
}
