import { open, readdir } from 'node:fs/promises'
import path from 'node:path'
import process from 'node:process'
import { syncFolder } from './journal.ts'

/**
 * Brings to the disk what LevelDB has written to its logs. LevelDB hands each write to the operating system before it confirms it, and
 * waits for the disk only where the caller asks, which dynalite does not. Tables and manifest it syncs itself.
 */
export class LevelLog {
  readonly #dir: string
  #next: Promise<void> | undefined
  #syncing: Promise<void> = Promise.resolve()
  #known = ''

  constructor (dir: string) {
    this.#dir = dir
  }

  /** Resolves once all writes confirmed before the call are on the disk; calls of one moment share a sync. Rejects where it failed. */
  async synced (): Promise<void> {
    // Windows lets nobody open a file that LevelDB writes.
    if (process.platform === 'win32') return
    if (this.#next === undefined) {
      const next: Promise<void> = this.#syncing.catch(() => {}).then(async () => {
        this.#next = undefined
        this.#syncing = next
        await this.#sync()
      })
      this.#next = next
    }
    await this.#next
  }

  async #sync (): Promise<void> {
    const logs = (await readdir(this.#dir)).filter(name => name.endsWith('.log')).sort()
    for (const name of logs) {
      try {
        const handle = await open(path.join(this.#dir, name), 'r')
        try {
          await handle.datasync()
        } finally {
          await handle.close()
        }
      } catch (error) {
        // A log goes once its content is in a table, which LevelDB has synced.
        if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error
      }
    }
    if (logs.join() === this.#known) return
    await syncFolder(this.#dir)
    this.#known = logs.join()
  }
}
