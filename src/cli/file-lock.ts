import { readFile, readdir, rm, writeFile } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { EXIT, Failure, codeOf } from './failure.ts'

/** Two processes that begin in the same moment see each other and both step back; then they try again, each after a time of its own. */
const TRIES = 8
const LONGEST_PAUSE_MS = 40

/** The sign files of this process. One that is not among them is of an earlier process with the same number. */
const own = new Set<string>()

/**
 * Keeps a second process of this machine away from a file or folder. Each process puts up a sign file beside it, named after the
 * process, then looks for other signs: of two processes at least one sees the other. A killed process leaves its sign, which counts no
 * more and is removed; a stopped process keeps the lock. Returns its release. Throws a `Failure` that says `busy` when another process
 * has it.
 */
export async function lock (file: string, busy = `${file} is being written by another process`): Promise<() => Promise<void>> {
  const prefix = `${basename(file)}.lock-`
  const sign = join(dirname(file), `${prefix}${process.pid}-${await startOf(process.pid) ?? 0}`)
  const release = async () => {
    own.delete(sign)
    await rm(sign, { force: true })
  }
  for (let tries = 1; ; tries++) {
    if (own.has(sign)) throw inUse(busy, process.pid, sign)
    own.add(sign)
    try {
      await writeFile(sign, '', { mode: 0o600 })
    } catch (error) {
      own.delete(sign)
      throw error
    }
    const other = await otherHolder(dirname(file), prefix, basename(sign)).catch(async error => {
      await release()
      throw error
    })
    if (other === undefined) return release
    await release()
    if (tries === TRIES) throw inUse(busy, other.pid, join(dirname(file), other.name))
    await delay(Math.random() * LONGEST_PAUSE_MS)
  }
}

/** Runs `work` with the lock of a device folder that exists. Throws a `Failure` when another process has it, else what `work` throws. */
export async function withFolder<T> (folder: string, work: () => Promise<T>): Promise<T> {
  const release = await lock(join(folder, '.cvm'), `${folder} is in use by another cvm process`)
  return await work().finally(release)
}

function inUse (busy: string, pid: number, sign: string): Failure {
  const remedy = `Wait for process ${pid}, then run the same command again; if there is no such process, remove ${sign}`
  return new Failure(EXIT.failed, busy, { remedy })
}

async function otherHolder (folder: string, prefix: string, sign: string): Promise<{ name: string, pid: number } | undefined> {
  for (const name of await readdir(folder)) {
    if (!name.startsWith(prefix) || name === sign) continue
    const [pid = 0, start = 0] = name.slice(prefix.length).split('-').map(Number)
    if (await isRunning(pid, start)) return { name, pid }
    await rm(join(folder, name), { force: true })
  }
  return undefined
}

/** Whether the process that began at `start` runs; a container's processes get the same numbers each time. */
async function isRunning (pid: number, start: number): Promise<boolean> {
  if (!Number.isSafeInteger(pid) || pid < 1) return false
  try {
    process.kill(pid, 0)
  } catch (error) {
    if (codeOf(error) !== 'EPERM') return false
  }
  return [start, undefined].includes(await startOf(pid)) || start === 0
}

/** When a process began, in the kernel's ticks since boot (proc(5), field 22 of `stat`); undefined where the system does not say. */
async function startOf (pid: number): Promise<number | undefined> {
  const stat = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => '')
  // The name before the last `)` may hold anything.
  const start = Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19])
  return Number.isSafeInteger(start) && start > 0 ? start : undefined
}
