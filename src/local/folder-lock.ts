import { mkdir, readFile, rm, writeFile } from 'node:fs/promises'
import path from 'node:path'
import process from 'node:process'

const FILE = 'lock'
/** Folders that this process holds; its own id in a lock file says nothing, a container's first process has the same one each time. */
const held = new Set<string>()

/**
 * Makes the local folder this process's own, since two that write the same state would destroy it. Rejects with an error that names the
 * process that has it; a lock left by a process that is no more does not count.
 */
export async function lockFolder (dir: string): Promise<{ close: () => Promise<void> }> {
  const folder = path.resolve(dir)
  const file = path.join(folder, FILE)
  await mkdir(folder, { recursive: true, mode: 0o700 })
  const owner = await ownerOf(file)
  if (held.has(folder) || (owner !== process.pid && alive(owner))) {
    throw new Error(`The local folder ${dir} is in use by process ${owner}; stop it, or set CVM_LOCAL_DIR to another folder`)
  }
  held.add(folder)
  await writeFile(file, String(process.pid), { mode: 0o600 })
  return {
    close: async () => {
      held.delete(folder)
      await rm(file, { force: true })
    }
  }
}

async function ownerOf (file: string): Promise<number> {
  try {
    return Number(await readFile(file, 'utf8'))
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return NaN
    throw error
  }
}

function alive (pid: number): boolean {
  if (!Number.isInteger(pid) || pid <= 0) return false
  try {
    process.kill(pid, 0)
    return true
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM'
  }
}
