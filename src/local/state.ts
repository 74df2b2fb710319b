import { mkdir, open, readFile, rename } from 'node:fs/promises'
import path from 'node:path'
import type { Log } from './log.ts'

/** A part of the account that is kept across restarts; a snapshot is what JSON can hold. */
export interface Store {
  snapshot (): unknown
  /** Takes what `snapshot` gave, into an empty store; may throw on anything else. */
  restore (kept: unknown): void
}

type Snapshots = Record<string, unknown>
interface Content { readonly format: 1, readonly regions: Record<string, Snapshots> }

const FILE = 'aws-iot.json'
const SOONEST_MS = 100
/** A large account takes long to write; so much of the time, one part in ten, may go into it. */
const IDLE_SHARE = 9

/**
 * The account in a file: `aws-iot.json` in the local folder, readable by its owner only, for it holds the issuer's key. Changes are
 * gathered for a moment and written to a new file that then takes the place of the old one, so a crash loses a moment at most and
 * never leaves half a file. Each Region has its own account.
 */
export class StateFile {
  readonly #file: string
  readonly #region: string
  readonly #log: Log
  readonly #regions: Record<string, Snapshots>
  #stores: Readonly<Record<string, Store>> | undefined
  #written: string | undefined
  #timer: NodeJS.Timeout | undefined
  #writing: Promise<void> = Promise.resolve()
  #pause = SOONEST_MS

  private constructor (file: string, region: string, log: Log, regions: Record<string, Snapshots>) {
    this.#file = file
    this.#region = region
    this.#log = log
    this.#regions = regions
  }

  /** Reads what an earlier run left in `dir`; rejects with an error that names the file when that cannot be understood. */
  static async read (dir: string, region: string, log: Log): Promise<StateFile> {
    await mkdir(dir, { recursive: true, mode: 0o700 })
    const file = path.join(dir, FILE)
    try {
      const content = JSON.parse(await readFile(file, 'utf8')) as Partial<Content>
      if (content.format !== 1 || typeof content.regions !== 'object') throw new Error('it is not of the format this version writes')
      return new StateFile(file, region, log, content.regions)
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return new StateFile(file, region, log, {})
      throw unusable(file, error)
    }
  }

  /** Fills the stores with what was kept, and keeps them from here on. */
  restore (stores: Readonly<Record<string, Store>>): void {
    try {
      for (const [name, store] of Object.entries(stores)) {
        const kept = this.#regions[this.#region]?.[name]
        if (kept !== undefined) store.restore(kept)
      }
    } catch (error) {
      throw unusable(this.#file, error)
    }
    this.#stores = stores
  }

  /** To be called after every change; many calls make one write. */
  touch (): void {
    this.#timer ??= setTimeout(() => {
      this.#flush().catch((error: unknown) => { this.#log.error({ err: error }, 'local state not kept') })
    }, this.#pause).unref()
  }

  /** Writes what is not written yet. */
  async close (): Promise<void> {
    await this.#flush()
  }

  async #flush (): Promise<void> {
    clearTimeout(this.#timer)
    this.#timer = undefined
    const before = this.#writing
    // One write after the other, and one that failed is no reason not to try the next.
    this.#writing = before.catch(() => {}).then(async () => { await this.#write() })
    await this.#writing
  }

  async #write (): Promise<void> {
    // A start that failed before the stores were filled must not take the place of what is kept.
    if (this.#stores === undefined) return
    const started = performance.now()
    const snapshots = Object.fromEntries(Object.entries(this.#stores).map(([name, store]) => [name, store.snapshot()]))
    const content: Content = { format: 1, regions: { ...this.#regions, [this.#region]: snapshots } }
    const text = JSON.stringify(content)
    if (text === this.#written) return
    const fresh = `${this.#file}.new`
    const handle = await open(fresh, 'w', 0o600)
    try {
      await handle.writeFile(text)
      await handle.sync()
    } finally {
      await handle.close()
    }
    await rename(fresh, this.#file)
    this.#written = text
    this.#pause = Math.max(SOONEST_MS, (performance.now() - started) * IDLE_SHARE)
  }
}

function unusable (file: string, cause: unknown): Error {
  return new Error(`The local AWS cannot go on from ${file}: ${(cause as Error).message}; remove the file to start anew`, { cause })
}
