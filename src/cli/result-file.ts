import { RowFile } from './row-file.ts'

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

type Column = keyof Result

const KIND = {
  columns: ['serialNumber', 'status', 'product', 'registrationToken', 'code', 'detail'],
  name: 'result file of `cvm devices import`',
  content: 'results'
} as const

/** The results of an import: a CSV file for its owner only, to which rows are added; of several rows of a device the last one counts. */
export class ResultFile {
  readonly #rows: RowFile<Column, Result>
  readonly #memory: Memory

  private constructor (rows: RowFile<Column, Result>, memory: Memory) {
    this.#rows = rows
    this.#memory = memory
  }

  /** Makes the file, or goes on with the one that an earlier run left. Throws a `Failure` as `RowFile.open` does. */
  static async open (path: string): Promise<ResultFile> {
    const memory = new Memory()
    return new ResultFile(await RowFile.open<Column, Result>(path, KIND, result => memory.add(result)), memory)
  }

  /** Whether the device was registered by this run or an earlier one. */
  isDone (serialNumber: string): boolean {
    return this.#memory.done.has(serialNumber)
  }

  /** The token that an earlier run made for a device that is not known to be registered, because that run may have sent it. */
  tokenOf (serialNumber: string): string | undefined {
    return this.#memory.tokens.get(serialNumber)
  }

  /** Adds rows; they are on disk (fsync) when this returns. Throws a `Failure`. */
  async append (results: readonly Result[]): Promise<void> {
    if (results.length === 0) return
    await this.#rows.append(results)
    for (const result of results) this.#memory.add(result)
  }

  /** Leaves one row for each device, the one that counts; the file is replaced at once or not at all. Throws a `Failure`. */
  async tidy (): Promise<void> {
    await this.#rows.tidy((result, before) => isDone(result.status) || !isDone(before.status))
  }

  /** Closes the file and gives it free. */
  async close (): Promise<void> {
    await this.#rows.close()
  }
}

class Memory {
  readonly done = new Set<string>()
  readonly tokens = new Map<string, string>()

  add ({ serialNumber, status, registrationToken }: Result): void {
    if (isDone(status)) {
      this.done.add(serialNumber)
      this.tokens.delete(serialNumber)
    } else if (!registrationToken) {
      this.tokens.delete(serialNumber)
    } else if (!this.done.has(serialNumber)) {
      this.tokens.set(serialNumber, registrationToken)
    }
  }
}

function isDone (status: Status): boolean {
  return status === 'registered' || status === 'unchanged'
}
