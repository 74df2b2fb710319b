import { createHash } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { FILES } from './device-folder.ts'
import { codeOf, unreadable } from './failure.ts'
import { RowFile } from './row-file.ts'

const COLUMNS = ['serialNumber', 'status', 'certificateId', 'code', 'detail', 'certificateSha256', 'privateKeySha256', 'rootCaSha256', 'deviceSha256'] as const

type Column = typeof COLUMNS[number]

/** How a line ended, and the SHA-256 (hex) of each file of its device, by the names in `FILES`. */
export type Entry = Readonly<Partial<Record<Column, string>>> & { readonly serialNumber: string, readonly status: Outcome }

export type Outcome = 'vended' | 'replayed' | 'refused' | 'failed'

const KIND = { columns: COLUMNS, name: 'manifest of `cvm line vend`', content: 'manifest' } as const

/** What became of every device of a run: `manifest.csv` beside their folders; of several rows of a device the last one counts. */
export class Manifest {
  readonly path: string
  readonly #rows: RowFile<Column, Entry>
  readonly #last: Map<string, Entry>
  #waiting: Entry[] = []
  #writing: Promise<void> = Promise.resolve()

  private constructor (rows: RowFile<Column, Entry>, last: Map<string, Entry>) {
    this.path = rows.path
    this.#rows = rows
    this.#last = last
  }

  /** Makes the manifest, or goes on with the one that an earlier run left. Throws a `Failure` as `RowFile.open` does. */
  static async open (folder: string): Promise<Manifest> {
    const last = new Map<string, Entry>()
    const rows = await RowFile.open<Column, Entry>(join(folder, 'manifest.csv'), KIND, entry => last.set(entry.serialNumber, entry))
    return new Manifest(rows, last)
  }

  /** Adds a row; it is on disk (fsync) when this returns. Rows that come together share one write. Throws a `Failure`. */
  async append (entry: Entry): Promise<void> {
    this.#waiting.push(entry)
    this.#writing = this.#writing.then(async () => {
      const entries = this.#waiting.splice(0)
      if (entries.length > 0) await this.#rows.append(entries)
    })
    await this.#writing
  }

  /** Whether an earlier run finished the device, and its files in `folder` are still the ones it wrote. */
  async isComplete (serialNumber: string, folder: string): Promise<boolean> {
    const entry = this.#last.get(serialNumber)
    if (entry?.status !== 'vended' && entry?.status !== 'replayed') return false
    return Object.entries(await hashesOf(folder)).every(([column, hash]) => (entry[column as Column] ?? '') === hash)
  }

  /** Leaves one row for each device; the file is replaced at once or not at all. Throws a `Failure`. */
  async tidy (): Promise<void> {
    await this.#rows.tidy()
  }

  /** Closes the manifest and gives it free. */
  async close (): Promise<void> {
    await this.#writing.catch(() => {})
    await this.#rows.close()
  }
}

/** SHA-256 of each file of a device, empty for one that is not there. Throws a `Failure`. */
export async function hashesOf (folder: string): Promise<Record<string, string>> {
  const hashes = Object.entries(FILES).map(async ([name, file]) => [`${name}Sha256`, await hashOf(join(folder, file))] as const)
  return Object.fromEntries(await Promise.all(hashes))
}

async function hashOf (file: string): Promise<string> {
  try {
    return createHash('sha256').update(await readFile(file)).digest('hex')
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return ''
    throw unreadable(file, error)
  }
}
