import { readFile, rm, writeFile } from 'node:fs/promises'
import { EXIT, Failure, codeOf } from './failure.ts'

/**
 * Keeps a second process of this machine away from a file, by a file beside it that names this process. What a killed process left is
 * taken over. Returns what gives the file free. Throws a `Failure` when another process has it.
 */
export async function lock (file: string): Promise<() => Promise<void>> {
  const sign = `${file}.lock`
  for (let isSecond = false; ; isSecond = true) {
    try {
      await writeFile(sign, `${process.pid}\n`, { flag: 'wx', mode: 0o600 })
      return async () => await rm(sign, { force: true })
    } catch (error) {
      if (codeOf(error) !== 'EEXIST') throw error
    }
    const pid = Number(await readFile(sign, 'utf8').catch(() => ''))
    if (isSecond || isAlive(pid)) {
      throw new Failure(EXIT.failed, `${file} is being written by another process`, { remedy: `Wait for process ${pid}; if there is none, remove ${sign}` })
    }
    await rm(sign, { force: true })
  }
}

function isAlive (pid: number): boolean {
  if (!Number.isSafeInteger(pid) || pid < 1) return false
  try {
    process.kill(pid, 0)
    return true
  } catch (error) {
    return codeOf(error) === 'EPERM'
  }
}
