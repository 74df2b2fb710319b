import { rm, stat } from 'node:fs/promises'
import { join } from 'node:path'
import {
  FILES, codeOfMissing, flush, readFacts, readPrivateKey, readText, removeLeftovers, replacePrivateKey, writeCertificate, writeFile
} from './device-folder.ts'
import { withFolder } from './file-lock.ts'

/** The new files beside the old ones, and the word that the new ones are in force. */
const NEXT = 'next'
const CONFIRMED = 'confirmed'

/**
 * How a renewal lies on disk, so that a crash at any point leaves a pair that works: the new pair grows in `next`, beside the working
 * one. Once it is confirmed, a file there says so; from then on the new one is the one that works, and is copied over the old one,
 * file by file, as often as it takes.
 */
export function nextFolder (folder: string): string {
  return join(folder, NEXT)
}

/** Says that the new pair is in force, for good. */
export async function markConfirmed (folder: string): Promise<void> {
  await writeFile(nextFolder(folder), CONFIRMED, '')
  await flush(nextFolder(folder))
}

/** Does what `takeOver` does, with the lock of the folder where there is a pair to put in its place. Throws a `Failure`. */
export async function takeOverAlone (folder: string): Promise<boolean> {
  if (!await exists(join(nextFolder(folder), CONFIRMED))) return false
  return await withFolder(folder, async () => await takeOver(folder))
}

/** Puts a pair that is in force in the place of the old one, for a process that has the lock of the folder. True when there was one. */
export async function takeOver (folder: string): Promise<boolean> {
  const next = nextFolder(folder)
  if (!await exists(join(next, CONFIRMED))) return false
  const [facts, privateKey] = [await readFacts(next), await readPrivateKey(next)]
  // Removing it was cut off: what it held is in its place already.
  if (facts !== undefined && privateKey !== undefined) {
    const [certificate, rootCa] = await Promise.all([FILES.certificate, FILES.rootCa].map(name => readText(join(next, name))))
    await replacePrivateKey(folder, privateKey)
    await writeCertificate(folder, certificate as string, rootCa as string, facts)
  }
  await discardNext(folder)
  await removeLeftovers(folder)
  return true
}

/** Gives the new pair up: its facts first, without which it is none, and the word that it is in force last. */
async function discardNext (folder: string): Promise<void> {
  const next = nextFolder(folder)
  if (!await exists(next)) return
  const { device, ...others } = FILES
  for (const name of [device, ...Object.values(others)]) await rm(join(next, name), { force: true })
  await flush(next)
  await rm(next, { recursive: true })
  await flush(folder)
}

/** Whether there is anything under this path. Throws any other error than that there is not. */
export async function exists (path: string): Promise<boolean> {
  return await stat(path).then(() => true, codeOfMissing)
}
