import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { readCertificateFile } from './certificate-file.ts'
import { isThisMachine, serviceUrl } from './client.ts'
import type { Service } from './client.ts'
import { parsed, readText } from './device-folder.ts'
import { EXIT, Failure } from './failure.ts'

/** Who asks to be vended. */
export interface Credentials { readonly serialNumber: string, readonly registrationToken: string }

/** Where the parts of a local service listen. */
export interface Endpoints { readonly serviceUrl: string, readonly mqttUrl: string }

/** The folder in which the local mode leaves its root CA and its sample device for the command line. */
export const localFolder = (): string => process.env.CVM_LOCAL_DIR || '.cvm'

/**
 * The service at `url`, or the local one when none is named. For an address of this machine the local root CA is trusted without
 * being asked for, and `say` is told; otherwise only `caFile` or Node's own roots are. Throws a `Failure`.
 */
export async function findService (url: string | undefined, caFile: string | undefined, say: (line: string) => void): Promise<Service> {
  const local = url === undefined ? await readEndpoints(localFolder()) : undefined
  const address = serviceUrl(url ?? local?.serviceUrl ?? 'https://localhost:8443')
  if (caFile !== undefined) return { url: address, ca: (await readCertificateFile(caFile)).map(certificate => certificate.toString()).join('') }
  if (address.protocol === 'http:' || !isThisMachine(address)) return { url: address }
  const file = join(localFolder(), 'root-ca.pem')
  const ca = await readFile(file, 'utf8').catch(() => undefined)
  if (ca === undefined) return { url: address }
  say(`trusting the local root CA in ${file}`)
  return { url: address, ca }
}

/** The addresses a local service wrote into its folder, or undefined while there are none. */
export async function readEndpoints (folder: string): Promise<Endpoints | undefined> {
  try {
    const { serviceUrl, mqttUrl } = parsed(await readFile(join(folder, 'endpoints.json'), 'utf8'), 'endpoints.json')
    return typeof serviceUrl === 'string' && typeof mqttUrl === 'string' ? { serviceUrl, mqttUrl } : undefined
  } catch {
    // Missing or half written: the service is about to start.
    return undefined
  }
}

/** Reads `{serialNumber, registrationToken}`. Throws a `Failure` that never quotes the file. */
export async function readCredentials (file: string): Promise<Credentials> {
  const { serialNumber, registrationToken } = parsed(await readText(file), file)
  if (typeof serialNumber === 'string' && typeof registrationToken === 'string') return { serialNumber, registrationToken }
  throw new Failure(EXIT.failed, `${file} must hold serialNumber and registrationToken, both text`)
}
