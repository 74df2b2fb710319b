import { join } from 'node:path'
import { makeKey } from '../x509/request.ts'
import { postUntilAnswered } from './back-off.ts'
import type { Patience, Reply } from './back-off.ts'
import type { Service } from './client.ts'
import { csrFor } from './private-key.ts'
import { FILES, openFolder, readFacts, readPrivateKey, removeLeftovers, writeCertificate, writePrivateKey } from './device-folder.ts'
import type { DeviceFacts } from './device-folder.ts'
import { EXIT, Failure } from './failure.ts'
import { withFolder } from './file-lock.ts'
import { checkVended, fingerprintOf } from './vended.ts'

export interface Enrolment {
  readonly service: Service
  readonly serialNumber: string
  readonly registrationToken: string
  readonly folder: string
  readonly keyType: 'ec' | 'rsa'
  readonly patience: Patience
}

export interface Enrolled extends DeviceFacts {
  /** False when the service gave the certificate that the device was given before. */
  readonly isNew: boolean
  readonly certificatePem: string
}

/** The private key is on disk and this is its CSR. */
export interface Prepared { readonly privateKeyPem: string, readonly csrPem: string, readonly isNewKey: boolean }

/**
 * Makes the key, or takes the one an earlier run left, and its CSR. The key is safe on disk when this returns: were it made but lost
 * after the service answered, the device would be locked out. Throws a `Failure`.
 */
export async function prepare (folder: string, serialNumber: string, keyType: 'ec' | 'rsa'): Promise<Prepared> {
  await openFolder(folder)
  await refuseOtherDevice(folder, serialNumber)
  const existing = await readPrivateKey(folder)
  const privateKeyPem = existing ?? (await makeKey(keyType)).export({ type: 'pkcs8', format: 'pem' }).toString()
  if (existing === undefined) await writePrivateKey(folder, privateKeyPem)
  const csrPem = await csrFor(privateKeyPem, serialNumber, join(folder, FILES.privateKey))
  return { privateKeyPem, csrPem, isNewKey: existing === undefined }
}

/** Vends with a CSR: the private key stays in the folder. Running it again is safe and gives the same certificate. Throws a `Failure`. */
export async function enroll (enrolment: Enrolment): Promise<Enrolled> {
  return await inFolder(enrolment.folder, async () => await enrollOwnKey(enrolment))
}

/** Vends with a key pair that AWS IoT makes. Not repeatable: its private key is in one answer only. Throws a `Failure`. */
export async function enrollWithServiceKey (enrolment: Enrolment): Promise<Enrolled> {
  return await inFolder(enrolment.folder, async () => await enrollGeneratedKey(enrolment))
}

async function inFolder (folder: string, work: () => Promise<Enrolled>): Promise<Enrolled> {
  await openFolder(folder)
  return await withFolder(folder, work)
}

async function enrollOwnKey (enrolment: Enrolment): Promise<Enrolled> {
  const { service, serialNumber, registrationToken, folder, patience } = enrolment
  const { privateKeyPem, csrPem } = await prepare(folder, serialNumber, enrolment.keyType)
  const message = { serialNumber, registrationToken, certificateSigningRequest: csrPem }
  const reply = await postUntilAnswered(service, 'v1/certificates', message, patience)
  return await store(folder, serialNumber, reply, privateKeyPem)
}

async function enrollGeneratedKey ({ service, serialNumber, registrationToken, folder, patience }: Enrolment): Promise<Enrolled> {
  await refuseOtherDevice(folder, serialNumber)
  if (await readPrivateKey(folder) !== undefined) {
    throw new Failure(EXIT.failed, `${folder} has a private key already: a second one has no place there`, { remedy: 'Use another --out' })
  }
  const reply = await postUntilAnswered(service, 'v1/keys-and-certificates', { serialNumber, registrationToken }, patience).catch(explainLostKey)
  const { keyPair } = reply.body
  const privateKeyPem = typeof keyPair === 'object' && keyPair !== null && 'privateKey' in keyPair ? keyPair.privateKey : undefined
  if (typeof privateKeyPem !== 'string') throw new Failure(EXIT.failed, 'the answer of the service holds no private key')
  checkVended(reply.body, serialNumber, fingerprintOf(privateKeyPem))
  await writePrivateKey(folder, privateKeyPem)
  return await store(folder, serialNumber, reply, privateKeyPem)
}

async function store (folder: string, serialNumber: string, reply: Reply, privateKeyPem: string): Promise<Enrolled> {
  const { certificatePem, rootCaPem, facts } = checkVended(reply.body, serialNumber, fingerprintOf(privateKeyPem))
  await writeCertificate(folder, certificatePem, rootCaPem, facts)
  await removeLeftovers(folder)
  return { ...facts, isNew: reply.status === 201, certificatePem }
}

/** A folder is for one device. Throws a `Failure` when it holds the facts of another one. */
export async function refuseOtherDevice (folder: string, serialNumber: string): Promise<void> {
  const facts = await readFacts(folder)
  if (facts === undefined || facts.serialNumber === serialNumber) return
  throw new Failure(EXIT.failed, `${folder} belongs to the device ${facts.serialNumber}`, { remedy: 'Use another --out: devices must not share a key' })
}

function explainLostKey (error: unknown): never {
  if (!(error instanceof Failure) || error.problem.code !== 'key-not-recoverable') throw error
  const detail = 'An earlier request made the key pair and its answer was lost on the way; neither AWS IoT nor the service keeps private keys.'
  throw new Failure(error.exitCode, error.message, { ...error.problem, detail }, error)
}
