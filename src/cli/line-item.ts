import { join } from 'node:path'
import { readCertificate } from '../x509/certificate.ts'
import { publicKeyFingerprintOf } from '../x509/csr.ts'
import { makeKey } from '../x509/request.ts'
import { readCsr } from './csr-file.ts'
import { FILES, openFolder, readPrivateKey, removeLeftovers, writeCertificate, writePrivateKey } from './device-folder.ts'
import { prepare, refuseOtherDevice } from './enroll.ts'
import { EXIT, Failure, codeOf, messageOf } from './failure.ts'
import { hashesOf } from './manifest.ts'
import { csrFor } from './private-key.ts'
import type { VendRequest } from './request-list.ts'
import { checkVended, fingerprintOf } from './vended.ts'

/** Who makes the keys of devices that come without a CSR; `nobody`: every device comes with one. */
export type Keys = 'nobody' | 'here' | 'aws'

const NO_ROOM = new Set(['ENOSPC', 'EDQUOT', 'EFBIG'])

/** Where devices' folders are, and what keys go into them. */
export interface Bench { readonly out: string, readonly keys: Keys, readonly keyType: 'ec' | 'rsa', readonly isDryRun: boolean }

/** A device that is ready to be sent: a key that was made for it is on disk. */
export interface Item {
  readonly line: number
  readonly folder: string
  /** What is sent. */
  readonly message: { serialNumber: string, registrationToken: string, certificateSigningRequest?: string, product?: string }
}

/**
 * Makes a device ready. The folder is there and can be written; a key that is made here is in it, and one that an earlier run left there,
 * also one by AWS IoT, is used again: the service recognises it and gives the certificate it gave before. A dry run writes nothing.
 * Throws a `Failure`.
 */
export async function itemOf (request: VendRequest, bench: Bench): Promise<Item> {
  const { line, serialNumber, registrationToken, csrFile, product } = request
  const folder = join(bench.out, serialNumber)
  const given = csrFile === undefined ? request.certificateSigningRequest : await readCsr(csrFile)
  const csr = given ?? await ownCsr(serialNumber, folder, bench).catch(explain(folder))
  if (given !== undefined && !bench.isDryRun) await openFor(serialNumber, folder, given)
  const more = { ...csr !== undefined && { certificateSigningRequest: csr }, ...product !== undefined && { product } }
  return { line, folder, message: { serialNumber, registrationToken, ...more } }
}

/**
 * Stores what was vended; all of it is on disk when this returns, the private key first. Returns certificate id and hashes for the
 * manifest. Throws a `WrongAnswer` when it is not for this device and key, another `Failure` when the folder cannot be written.
 */
export async function store (item: Item, answer: Record<string, unknown>): Promise<Record<string, string>> {
  const { folder, message } = item
  const { certificateSigningRequest: csr, serialNumber } = message
  const judge = () => checkVended(answer, serialNumber, csr !== undefined ? fingerprintIn(csr) : fingerprintOf(keyIn(answer)))
  const { certificatePem, rootCaPem, facts } = rightly(judge)
  await keepKey(item, answer)
  await writeCertificate(folder, certificatePem, rootCaPem, facts).catch(explain(folder))
  await removeLeftovers(folder)
  return { certificateId: facts.certificateId, ...await hashesOf(folder) }
}

/** Puts the private key of an answer on disk, where it has one: it is in no other answer. Throws as {@link store} does. */
export async function keepKey ({ folder, message }: Item, answer: Record<string, unknown>): Promise<void> {
  if (message.certificateSigningRequest !== undefined || answer.certificatePem === undefined) return
  const key = keyIn(answer)
  const certified = rightly(() => readCertificate(String(answer.certificatePem)).publicKeyFingerprint === fingerprintOf(key))
  if (!certified) throw new WrongAnswer(EXIT.failed, 'the answer of the service is wrong: its key pair is not that of the certificate')
  if (await readPrivateKey(folder) !== key) await writePrivateKey(folder, key).catch(explain(folder))
}

/** An answer that must not be stored. */
export class WrongAnswer extends Failure {}

async function ownCsr (serialNumber: string, folder: string, { keys, keyType, isDryRun }: Bench): Promise<string | undefined> {
  const isKeyThere = await readPrivateKey(folder) !== undefined
  if (keys === 'aws' && !isKeyThere) {
    if (!isDryRun) await openFolder(folder).then(() => refuseOtherDevice(folder, serialNumber))
    return undefined
  }
  if (!isDryRun) return (await prepare(folder, serialNumber, keyType)).csrPem
  const key = await readPrivateKey(folder) ?? (await makeKey(keyType)).export({ type: 'pkcs8', format: 'pem' }).toString()
  return await csrFor(key, serialNumber, join(folder, FILES.privateKey))
}

/** The folder of a device whose key is elsewhere. */
async function openFor (serialNumber: string, folder: string, csr: string): Promise<void> {
  await openFolder(folder)
  await refuseOtherDevice(folder, serialNumber)
  const key = await readPrivateKey(folder)
  if (key === undefined || fingerprintOf(key, join(folder, FILES.privateKey)) === fingerprintIn(csr)) return
  throw new Failure(EXIT.failed, `${folder} holds a private key that is not that of the certificate signing request`, { remedy: 'Use another --out' })
}

/** Undefined when it cannot be read: the service says why, and then there is no certificate. */
function fingerprintIn (csr: string): string | undefined {
  try {
    return publicKeyFingerprintOf(csr)
  } catch {
    return undefined
  }
}

function keyIn ({ keyPair }: Record<string, unknown>): string {
  const key = typeof keyPair === 'object' && keyPair !== null && 'privateKey' in keyPair ? keyPair.privateKey : undefined
  if (typeof key !== 'string') throw new WrongAnswer(EXIT.failed, 'the answer of the service holds no private key')
  return key
}

function rightly<T> (judge: () => T): T {
  try {
    return judge()
  } catch (error) {
    throw new WrongAnswer(EXIT.failed, messageOf(error), {}, error)
  }
}

function explain (folder: string): (error: unknown) => never {
  return error => {
    if (error instanceof Failure && !NO_ROOM.has(codeOf(error.cause))) throw error
    const remedy = 'Make room, then run the same command again with the same --out: what was vended is given again, with the same keys'
    const detail = messageOf(error instanceof Failure ? error.cause : error)
    throw new Failure(EXIT.failed, `cannot write to the folder ${folder}`, { detail, remedy }, error)
  }
}
