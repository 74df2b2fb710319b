import { mkdir, open, readFile, rename } from 'node:fs/promises'
import path from 'node:path'
import { Journal, syncFolder } from './journal.ts'
import type { Log } from './log.ts'

/** A part of the account that is kept across restarts; snapshots and changes are what JSON can hold. */
export interface Store {
  snapshot (): unknown
  /** Takes what `snapshot` gave, into an empty store; may throw on anything else. */
  restore (kept: unknown): void
  /**
   * Of a store that grows with the devices: what changed since the last call, undefined for nothing. The first call begins to watch. A
   * store without it is written whole when it has changed.
   */
  changes? (): unknown
  /** Takes over what `changes` gave. */
  apply? (changes: unknown): void
}

type Stores = Readonly<Record<string, Store>>
type Snapshots = Record<string, unknown>
interface Content { readonly format: 1, readonly regions: Record<string, Snapshots>, readonly generations?: Record<string, number> }

/** One line of the journal: stores written whole, and changes of those that are not. */
interface Entry { readonly whole?: Snapshots, readonly changes?: Record<string, unknown> }

const FILE = 'aws-iot.json'
/** A journal shorter than that is read faster than a snapshot is written. */
const MIN_COMPACTED_BYTES = 4 * 1024 * 1024

/**
 * The account on disk, readable by its owner only, for it holds the issuer's key: a snapshot, `aws-iot.json`, and a journal of what
 * changed since for each Region, `aws-iot.REGION.journal`. Nothing that `settled` has waited for is lost, neither to SIGKILL nor to a
 * power failure. Each Region has its own account.
 */
export class StateFile {
  readonly #file: string
  readonly #region: string
  readonly #log: Log
  readonly #regions: Record<string, Snapshots>
  readonly #generations: Record<string, number>
  readonly #journal: Journal
  readonly #entries: readonly Entry[]
  #stores: Stores | undefined
  /** The stores that are written whole, as they were written last. */
  readonly #written = new Map<string, string>()
  /** A record that could not be written yet. */
  #pending: string | undefined
  #snapshotBytes: number
  #next: Promise<void> | undefined
  #writing: Promise<void> = Promise.resolve()

  private constructor (
    file: string, region: string, log: Log, { content, bytes }: Snapshot, journal: Journal, entries: readonly Entry[]
  ) {
    const { regions, generations = {} } = content
    this.#file = file
    this.#region = region
    this.#log = log
    this.#regions = regions
    this.#generations = generations
    this.#journal = journal
    this.#entries = entries
    this.#snapshotBytes = bytes
  }

  /** Reads what an earlier run left in `dir`; rejects with an error that names the file when that cannot be understood. */
  static async read (dir: string, region: string, log: Log): Promise<StateFile> {
    await mkdir(dir, { recursive: true, mode: 0o700 })
    const file = path.join(dir, FILE)
    const snapshot = await readSnapshot(file)
    const journalFile = journalOf(file, region)
    const journal = new Journal(journalFile)
    try {
      const entries = await journal.read(snapshot.content.generations?.[region] ?? 0) as Entry[]
      return new StateFile(file, region, log, snapshot, journal, entries)
    } catch (error) {
      throw unusable(journalFile, error)
    }
  }

  /** Fills the stores with what was kept, and keeps them from here on. */
  restore (stores: Stores): void {
    const whole: Snapshots = {}
    for (const entry of this.#entries) Object.assign(whole, entry.whole)
    try {
      for (const [name, store] of Object.entries(stores)) {
        const kept = whole[name] ?? this.#regions[this.#region]?.[name]
        if (kept !== undefined) store.restore(kept)
        store.changes?.()
        if (store.changes === undefined && kept !== undefined) this.#written.set(name, JSON.stringify(kept))
      }
    } catch (error) {
      throw unusable(this.#file, error)
    }
    try {
      for (const { changes = {} } of this.#entries) {
        for (const [name, change] of Object.entries(changes)) stores[name]?.apply?.(change)
      }
    } catch (error) {
      throw unusable(journalOf(this.#file, this.#region), error)
    }
    this.#stores = stores
  }

  /** To be called after every change; the changes of one moment are written together. */
  touch (): void {
    if (this.#next !== undefined) return
    const before = this.#writing
    // One write after the other, and one that failed is no reason not to try the next.
    const next = before.catch(() => {}).then(async () => {
      this.#next = undefined
      this.#writing = next
      await this.#write()
    })
    this.#next = next
    next.catch((error: unknown) => { this.#log.error({ err: error }, 'local state not kept') })
  }

  /** Resolves once all that was touched is on the disk; rejects when it could not be written, and the next call tries again. */
  async settled (): Promise<void> {
    if (this.#pending !== undefined) this.touch()
    await (this.#next ?? this.#writing)
  }

  /** Writes what is not written yet, and leaves a snapshot without a journal. */
  async close (): Promise<void> {
    this.touch()
    // A failure is in the log; the snapshot holds what the journal lacks.
    await Promise.allSettled([this.settled()])
    try {
      if (this.#stores !== undefined && (this.#journal.size > 0 || this.#pending !== undefined)) await this.#compact(this.#stores)
    } finally {
      await this.#journal.close()
    }
  }

  async #write (): Promise<void> {
    // A start that failed before the stores were filled has nothing to add.
    if (this.#stores === undefined) return
    const entry = this.#changes(this.#stores)
    const records = [this.#pending, entry].filter(record => record !== undefined)
    if (records.length === 0) return
    this.#pending = records.join('\n')
    await this.#journal.append(this.#pending)
    this.#pending = undefined
    if (this.#journal.size <= Math.max(MIN_COMPACTED_BYTES, this.#snapshotBytes)) return
    await this.#compact(this.#stores).catch((error: unknown) => { this.#log.error({ err: error }, 'local state not compacted; the journal grows') })
  }

  /** What changed since the last call, as a line of the journal. */
  #changes (stores: Stores): string | undefined {
    const whole: string[] = []
    const changes: Record<string, unknown> = {}
    for (const [name, store] of Object.entries(stores)) {
      if (store.changes === undefined) {
        const text = JSON.stringify(store.snapshot())
        if (text === this.#written.get(name)) continue
        this.#written.set(name, text)
        whole.push(`${JSON.stringify(name)}:${text}`)
      } else {
        const changed = store.changes()
        if (changed !== undefined) changes[name] = changed
      }
    }
    if (whole.length === 0 && Object.keys(changes).length === 0) return undefined
    return `{"whole":{${whole.join(',')}},"changes":${JSON.stringify(changes)}}`
  }

  /** Writes a snapshot of everything; the journal then begins anew. */
  async #compact (stores: Stores): Promise<void> {
    const snapshots = Object.fromEntries(Object.entries(stores).map(([name, store]) => [name, store.snapshot()]))
    const regions = { ...this.#regions, [this.#region]: snapshots }
    const generation = (this.#generations[this.#region] ?? 0) + 1
    const generations = { ...this.#generations, [this.#region]: generation }
    const text = JSON.stringify({ format: 1, regions, generations } satisfies Content)
    const fresh = `${this.#file}.new`
    const handle = await open(fresh, 'w', 0o600)
    try {
      await handle.writeFile(text)
      await handle.sync()
    } finally {
      await handle.close()
    }
    await rename(fresh, this.#file)
    await syncFolder(path.dirname(this.#file))
    this.#generations[this.#region] = generation
    this.#snapshotBytes = Buffer.byteLength(text)
    await this.#journal.restart(generation)
  }
}

interface Snapshot { readonly content: Content, readonly bytes: number }

async function readSnapshot (file: string): Promise<Snapshot> {
  try {
    const text = await readFile(file)
    const content = JSON.parse(text.toString()) as Partial<Content>
    if (content.format !== 1 || typeof content.regions !== 'object') throw new Error('it is not of the format this version writes')
    return { content: content as Content, bytes: text.length }
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return { content: { format: 1, regions: {} }, bytes: 0 }
    throw unusable(file, error)
  }
}

function journalOf (file: string, region: string): string {
  return path.join(path.dirname(file), `aws-iot.${region}.journal`)
}

function unusable (file: string, cause: unknown): Error {
  return new Error(`The local AWS cannot go on from ${file}: ${(cause as Error).message}; remove the file to start anew`, { cause })
}
