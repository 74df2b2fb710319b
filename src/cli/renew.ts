import { join } from 'node:path'
import { postUntilAnswered } from './back-off.ts'
import type { Patience } from './back-off.ts'
import type { Service } from './client.ts'
import { type DeviceFacts, FILES, readFacts, readPrivateKey, writeCertificate } from './device-folder.ts'
import { prepare } from './enroll.ts'
import { EXIT, Failure } from './failure.ts'
import { withFolder } from './file-lock.ts'
import { privateKeyOf } from './private-key.ts'
import { exists, markConfirmed, nextFolder, takeOver } from './renewal-folder.ts'
import { makeProof } from './renewal-proof.ts'
import { checkVended, fingerprintOf } from './vended.ts'

export interface Renewal {
  readonly service: Service
  readonly folder: string
  readonly patience: Patience
  /** What proofs are for, where it is not the endpoint of the device. */
  readonly audience?: string
  readonly now: () => number
}

/** The pair in the folder, which a proof is made with. */
interface Pair { readonly facts: DeviceFacts, readonly privateKeyPem: string }

/** The answers to a confirmation that no repetition of it changes. */
const GONE: ReadonlySet<string | undefined> = new Set(['renewal-gone', 'device-not-authorized'])

/**
 * Renews the certificate in a folder, with a new key: asks, stores, confirms with the new key, and puts the new files in the place of the
 * old ones. Running it again after a crash or a failure at any point goes on where it stopped. Throws a `Failure`, also where another
 * process of this machine is at it.
 */
export async function renew (renewal: Renewal): Promise<DeviceFacts> {
  return await withDevice(renewal.folder, async present => await finish(renewal, present))
}

/**
 * The same once `renewAfter` has come, or where an earlier run has stopped in the middle: the service may have ended the old certificate.
 * Throws a `Failure`.
 */
export async function renewIfDue (renewal: Renewal): Promise<{ isRenewed: boolean, facts: DeviceFacts }> {
  return await withDevice(renewal.folder, async present => {
    const isDue = Date.parse(present.facts.renewAfter) <= renewal.now() || await isRenewing(renewal.folder)
    return { isRenewed: isDue, facts: isDue ? await finish(renewal, present) : present.facts }
  })
}

/** Whether an earlier run has stopped between getting the new certificate and confirming it: the service may know it as confirmed. */
export async function isRenewing (folder: string): Promise<boolean> {
  return await readFacts(nextFolder(folder)) !== undefined
}

async function withDevice<T> (folder: string, work: (present: Pair) => Promise<T>): Promise<T> {
  const noDevice = () => new Failure(EXIT.failed, `${folder} holds no enrolled device`, { remedy: `cvm device enroll --out ${folder}` })
  if (!await exists(folder)) throw noDevice()
  return await withFolder(folder, async () => {
    // Confirmed before a crash: the new pair is the one that works.
    await takeOver(folder)
    const present = await pairIn(folder)
    if (!present) throw noDevice()
    return await work(present)
  })
}

async function finish (renewal: Renewal, present: Pair): Promise<DeviceFacts> {
  const { folder } = renewal
  if (await readFacts(nextFolder(folder)) === undefined) await ask(renewal, present)
  try {
    await confirm(renewal, present)
  } catch (error) {
    if (!(error instanceof Failure) || !GONE.has(error.problem.code)) throw error
    // A refusal alone does not show which certificate is in force: the new pair stays until the service has answered the working key with
    // another certificate for it.
    await ask(renewal, present)
    await confirm(renewal, present)
  }
  await markConfirmed(folder)
  await takeOver(folder)
  return (await pairIn(folder) as Pair).facts
}

/** Gets a certificate for the key in `next`, which it makes where there is none. */
async function ask (renewal: Renewal, { facts, privateKeyPem }: Pair): Promise<void> {
  const { service, folder, patience, now, audience = facts.endpoint } = renewal
  const { serialNumber, certificateId } = facts
  const next = nextFolder(folder)
  const key = privateKeyOf(privateKeyPem, join(folder, FILES.privateKey))
  const { csrPem, privateKeyPem: nextKeyPem } = await prepare(next, serialNumber, key.asymmetricKeyType === 'rsa' ? 'rsa' : 'ec')
  const proof = await makeProof({ key, certificateId, audience, now: now(), csrPem })
  const { body } = await postUntilAnswered(service, 'v1/certificates/renew', { serialNumber, certificateSigningRequest: csrPem, proof }, patience)
  const vended = checkVended(body, serialNumber, fingerprintOf(nextKeyPem))
  await writeCertificate(next, vended.certificatePem, vended.rootCaPem, vended.facts)
}

/** Puts the new certificate into force. The same again says the same, so that a lost answer does no harm. */
async function confirm (renewal: Renewal, present: Pair): Promise<void> {
  const { service, folder, patience, now, audience = present.facts.endpoint } = renewal
  const { facts: { certificateId, serialNumber }, privateKeyPem } = await pairIn(nextFolder(folder)) as Pair
  const key = privateKeyOf(privateKeyPem, join(nextFolder(folder), FILES.privateKey))
  const proof = await makeProof({ key, certificateId, audience, now: now() })
  await postUntilAnswered(service, 'v1/certificates/confirm', { serialNumber, proof }, patience)
}

async function pairIn (folder: string): Promise<Pair | undefined> {
  const [facts, privateKeyPem] = [await readFacts(folder), await readPrivateKey(folder)]
  return facts && privateKeyPem !== undefined ? { facts, privateKeyPem } : undefined
}
