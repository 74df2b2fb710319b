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

/** What is known of a device: `pending` is written before it is sent, so that a token made here outlives a crash. */
export interface Result {
  readonly serialNumber: string
  readonly status: Status
  readonly product?: string | undefined
  readonly registrationToken?: string | undefined
  readonly code?: string | undefined
  readonly detail?: string | undefined
}

export type Status = 'pending' | 'registered' | 'unchanged' | 'refused' | 'failed'

const COLUMNS = ['serialNumber', 'status', 'product', 'registrationToken', 'code', 'detail'] as const
const HEADER = `${COLUMNS.join(',')}\n`

// No row is longer: the input's records are bounded, and so is what `printable` lets through.
const LONGEST_ROW = 65_536

/** The results of an import: a CSV file for its owner only, to which rows are added; of several rows of a device the last one counts. */
export class ResultFile {
  /** Where it is. */
  readonly path: string
  readonly #handle: FileHandle
  readonly #release: () => Promise<void>
  readonly #done = new Set<string>()
  readonly #tokens = new Map<string, string>()

  private constructor (path: string, handle: FileHandle, release: () => Promise<void>) {
    this.path = path
    this.#handle = handle
    this.#release = release
  }

  /**
   * Makes the file, or goes on with the one that an earlier run left; a row that a crash cut short is dropped. Throws a `Failure` when
   * the file cannot be written, is something else, or is being written by another process.
   */
  static async open (path: string): Promise<ResultFile> {
    const file = await realpath(path).catch(() => path)
    let release = async () => {}
    let handle: FileHandle | undefined
    try {
      if (!((await stat(file).catch(() => undefined))?.isFile() ?? true)) throw foreign(path)
      release = await lock(file)
      handle = await open(file, 'a+', 0o600)
      const results = new ResultFile(file, handle, release)
      await results.#repair()
      for await (const result of read(file)) results.#remember(result)
      return results
    } catch (error) {
      await handle?.close()
      await release()
      throw error instanceof Failure ? error : unwritable(path, error)
    }
  }

  /** Whether the device was registered by this run or an earlier one. */
  isDone (serialNumber: string): boolean {
    return this.#done.has(serialNumber)
  }

  /** The token that an earlier run made for a device that is not known to be registered, because that run may have sent it. */
  tokenOf (serialNumber: string): string | undefined {
    return this.#tokens.get(serialNumber)
  }

  /** Adds rows; they are on disk (fsync) when this returns. Throws a `Failure`. */
  async append (results: readonly Result[]): Promise<void> {
    if (results.length === 0) return
    try {
      await this.#handle.appendFile(results.map(lineOf).join(''))
      await this.#handle.sync()
    } catch (error) {
      throw unwritable(this.path, error)
    }
    for (const result of results) this.#remember(result)
  }

  /** Leaves one row for each device, the one that counts; the file is replaced at once or not at all. Throws a `Failure`. */
  async tidy (): Promise<void> {
    const kept = new Map<string, { index: number, isDone: boolean }>()
    let index = 0
    for await (const { serialNumber, status } of read(this.path)) {
      if (isDone(status) || kept.get(serialNumber)?.isDone !== true) kept.set(serialNumber, { index, isDone: isDone(status) })
      index++
    }
    if (kept.size === index) return
    const aside = `${this.path}.tmp`
    try {
      await rm(aside, { force: true })
      await pipeline(Readable.from(rowsThatCount(this.path, kept)), createWriteStream(aside, { flags: 'wx', mode: 0o600, flush: true }))
      await rename(aside, this.path)
      await flush(dirname(this.path))
    } catch (error) {
      await rm(aside, { force: true })
      throw unwritable(this.path, error)
    }
  }

  /** Closes the file and gives it free. */
  async close (): Promise<void> {
    await this.#handle.close()
    await this.#release()
  }

  async #repair (): Promise<void> {
    const handle = this.#handle
    const { size } = await handle.stat()
    const head = await bytes(handle, 0, Math.min(size, HEADER.length))
    // A file that is not ours must not be cut.
    if (head.length < HEADER.length ? !HEADER.startsWith(head) : head !== HEADER) throw foreign(this.path)
    await handle.chmod(0o600)
    const start = Math.max(0, size - LONGEST_ROW)
    const end = (await bytes(handle, start, size - start)).lastIndexOf('\n') + 1
    if (end === 0 && start > 0) throw foreign(this.path)
    if (start + end < size) await handle.truncate(start + end)
    if (start + end === 0) await handle.appendFile(HEADER)
    await handle.sync()
    await flush(dirname(this.path))
  }

  #remember ({ serialNumber, status, registrationToken }: Result): void {
    if (isDone(status)) {
      this.#done.add(serialNumber)
      this.#tokens.delete(serialNumber)
    } else if (!registrationToken) {
      this.#tokens.delete(serialNumber)
    } else if (!this.#done.has(serialNumber)) {
      this.#tokens.set(serialNumber, registrationToken)
    }
  }
}

async function * read (file: string): AsyncGenerator<Result> {
  const parser = parse({ columns: true, max_record_size: LONGEST_ROW })
  const source = createReadStream(file)
  source.on('error', error => parser.destroy(error))
  let line = 1
  try {
    for await (const record of source.pipe(parser)) {
      line++
      yield record
    }
  } catch (error) {
    throw new Failure(EXIT.failed, `${file} is damaged after line ${line}`, { remedy: 'Give another --out, and keep this file: it may hold tokens' }, error)
  }
}

async function * rowsThatCount (file: string, kept: ReadonlyMap<string, { index: number }>): AsyncGenerator<string> {
  yield HEADER
  let index = 0
  for await (const result of read(file)) {
    if (kept.get(result.serialNumber)?.index === index) yield lineOf(result)
    index++
  }
}

function isDone (status: Status): boolean {
  return status === 'registered' || status === 'unchanged'
}

function lineOf (result: Result): string {
  return `${COLUMNS.map(name => field(result[name] ?? '')).join(',')}\n`
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

function foreign (path: string): Failure {
  return new Failure(EXIT.usage, `${path} is not a result file of \`cvm devices import\``, { remedy: 'Give another --out' })
}

function unwritable (path: string, error: unknown): Failure {
  const remedy = 'Make room or give another folder, then run the same command again with the same --out: nothing is lost'
  return new Failure(EXIT.failed, `cannot write the results to ${path}`, { detail: messageOf(error), remedy }, error)
}
