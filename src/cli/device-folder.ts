import { randomUUID } from 'node:crypto'
import { constants } from 'node:fs'
import { copyFile, link, mkdir, open, readFile, readdir, rename, rm, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { EXIT, Failure, codeOf, messageOf, unreadable } from './failure.ts'
import { isDer, kindOf, textOf } from './file-kind.ts'
import { privateKeyOf } from './private-key.ts'

/** The files of an enrolled device, under the names that the old device kits look for. */
export const FILES = {
  certificate: 'iot-certificate.pem.crt',
  privateKey: 'iot-private.pem.key',
  rootCa: 'iot-root-ca.crt',
  device: 'iot-device.json'
} as const

/** What a device must remember next to its certificate; holds no secret. */
export interface DeviceFacts {
  readonly serialNumber: string
  readonly thingName: string
  readonly certificateId: string
  readonly endpoint: string
  readonly notAfter: string
  readonly renewAfter: string
}

/** Makes the folder (0700) when it is missing, and proves that files can be written there before anything irreversible is asked for. */
export async function openFolder (folder: string): Promise<void> {
  try {
    await mkdir(folder, { recursive: true, mode: 0o700 })
    await rm(await writeAside(folder, 'x'.repeat(8192), 0o600))
  } catch (error) {
    throw new Failure(EXIT.failed, `cannot write to the folder ${folder}`, { detail: messageOf(error) }, error)
  }
}

/**
 * The private key in the folder in PEM, or undefined when there is none. Throws a `Failure` when others on the machine may read it, or
 * when it is DER and no private key.
 */
export async function readPrivateKey (folder: string): Promise<string | undefined> {
  const file = join(folder, FILES.privateKey)
  const facts = await stat(file).catch(error => {
    if (codeOf(error) === 'ENOENT') return undefined
    throw unreadable(file, error)
  })
  if (facts === undefined) return undefined
  if (facts.isDirectory()) throw unreadable(file, { code: 'EISDIR' })
  if (process.platform !== 'win32' && (facts.mode & 0o077) !== 0) {
    throw new Failure(EXIT.failed, `${file} can be read by other users`, { remedy: `chmod 600 ${file}` })
  }
  const bytes = await readBytes(file)
  return isDer(bytes) ? privateKeyOf(bytes, file).export({ type: 'pkcs8', format: 'pem' }).toString() : textOf(bytes)
}

/**
 * Writes the private key for good: on disk (fsync) with mode 0600 when this returns. It appears whole or not at all, and a key that is
 * already there is never overwritten: that is a `Failure`.
 */
export async function writePrivateKey (folder: string, pem: string): Promise<void> {
  const file = join(folder, FILES.privateKey)
  const aside = await writeAside(folder, pem, 0o600)
  try {
    // A hard link fails when the name is taken, where a rename would replace it. FAT has no links: there an exclusive copy must do.
    await link(aside, file).catch(async error => {
      if (codeOf(error) === 'EEXIST') throw error
      await copyFile(aside, file, constants.COPYFILE_EXCL)
      await flush(file)
    })
    await flush(folder)
  } catch (error) {
    if (codeOf(error) !== 'EEXIST') throw error
    throw new Failure(EXIT.failed, `${file} exists and is not overwritten`, { remedy: 'Use another --out, or move the key away' }, error)
  } finally {
    await rm(aside, { force: true })
  }
}

/** Replaces the private key, at once, with mode 0600; it is on disk when this returns. */
export async function replacePrivateKey (folder: string, pem: string): Promise<void> {
  await rename(await writeAside(folder, pem, 0o600), join(folder, FILES.privateKey))
  await flush(folder)
}

/** Writes a file that appears whole or not at all. */
export async function writeFile (folder: string, name: string, text: string): Promise<void> {
  await rename(await writeAside(folder, text, 0o644), join(folder, name))
}

/** Replaces certificate, root CA and facts, each at once; the facts come last, so that their presence means a complete folder. */
export async function writeCertificate (folder: string, certificatePem: string, rootCaPem: string, facts: DeviceFacts): Promise<void> {
  const texts = [[FILES.certificate, certificatePem], [FILES.rootCa, rootCaPem], [FILES.device, `${JSON.stringify(facts, null, 2)}\n`]] as const
  for (const [name, text] of texts) {
    const aside = await writeAside(folder, text, 0o644)
    await rename(aside, join(folder, name))
  }
  await flush(folder)
}

/** Removes what a killed process left half written in the folder of a device that is complete: it may be a copy of the private key. */
export async function removeLeftovers (folder: string): Promise<void> {
  const names = (await readdir(folder)).filter(name => /^\.[0-9a-f-]{36}\.tmp$/.test(name))
  await Promise.all(names.map(name => rm(join(folder, name), { force: true })))
}

/** The facts of an enrolled device, or undefined when the folder has none (yet). */
export async function readFacts (folder: string): Promise<DeviceFacts | undefined> {
  const file = join(folder, FILES.device)
  const text = await readFile(file, 'utf8').catch(error => {
    if (codeOf(error) === 'ENOENT') return undefined
    throw unreadable(file, error)
  })
  return text === undefined ? undefined : factsOf(parsed(text, file), file)
}

/** Checks that a value from elsewhere has every fact; throws a `Failure` that names what is missing. */
export function factsOf (value: Record<string, unknown>, origin: string): DeviceFacts {
  const { serialNumber, thingName, certificateId, endpoint, notAfter, renewAfter } = value
  const facts = { serialNumber, thingName, certificateId, endpoint, notAfter, renewAfter }
  const missing = Object.entries(facts).filter(([, fact]) => typeof fact !== 'string' || fact === '').map(([name]) => name)
  if (missing.length > 0) throw new Failure(EXIT.failed, `${origin} lacks ${missing.join(', ')}`)
  return facts as DeviceFacts
}

/** For a look at what may not be there: false where it is not. Throws any other error. */
export function codeOfMissing (error: unknown): false {
  if (codeOf(error) === 'ENOENT') return false
  throw error
}

/** Reads a file; throws a `Failure` that names it. */
export async function readBytes (file: string): Promise<Buffer> {
  return await readFile(file).catch(error => {
    throw unreadable(file, error)
  })
}

/** Reads a text file, in UTF-8 or UTF-16; throws a `Failure` that names the file. */
export async function readText (file: string): Promise<string> {
  return textOf(await readBytes(file))
}

/** A secret of one word, such as a token, in a file. Throws a `Failure` that says what the file is instead, and never quotes it. */
export async function readSecret (file: string, what: string): Promise<string> {
  const bytes = await readBytes(file)
  const secret = textOf(bytes).trim()
  if (secret === '') throw new Failure(EXIT.usage, `${what} is empty`, { detail: file })
  if (/^[\x21-\x7e]+$/.test(secret)) return secret
  throw new Failure(EXIT.usage, `${what} in ${file} is not one word of ASCII characters`, { detail: `It is ${kindOf(bytes)}`, remedy: 'Check the file' })
}

/** Reads a JSON object. Its own words on a fault, because those of `JSON.parse` quote the text, which may hold a token. */
export function parsed (text: string, origin: string): Record<string, unknown> {
  try {
    const value: unknown = JSON.parse(text)
    if (typeof value === 'object' && value !== null) return { ...value }
  } catch {}
  throw new Failure(EXIT.failed, `${origin} is not a JSON object`, { detail: `It is ${kindOf(Buffer.from(text))}` })
}

async function writeAside (folder: string, text: string, mode: number): Promise<string> {
  const file = join(folder, `.${randomUUID()}.tmp`)
  const handle = await open(file, 'wx', mode)
  try {
    await handle.writeFile(text)
    await handle.sync()
  } catch (error) {
    await rm(file, { force: true })
    throw error
  } finally {
    await handle.close()
  }
  return file
}

/** Makes sure that what was written to a file or folder is on disk. */
export async function flush (path: string): Promise<void> {
  // Windows cannot open a folder; its file system keeps names in a journal of its own.
  if (process.platform === 'win32') return
  const handle = await open(path, 'r')
  try {
    await handle.sync()
  } finally {
    await handle.close()
  }
}
