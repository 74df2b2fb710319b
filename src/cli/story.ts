import { randomBytes } from 'node:crypto'
import { readFile, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { serviceUrl } from './client.ts'
import { FILES } from './device-folder.ts'
import { enroll, prepare } from './enroll.ts'
import type { Enrolled, Enrolment } from './enroll.ts'
import { EXIT, Failure } from './failure.ts'
import { readCredentials } from './local-mode.ts'
import type { Endpoints } from './local-mode.ts'
import { publish } from './publish.ts'
import type { Hello } from './publish.ts'
import { makeStranger } from './stranger.ts'

const TIMEOUT_MS = 30_000

/**
 * Takes the sample device of a local service through its first day. Each line is said only after what it says was checked; the first
 * thing that is not so ends the story with a `Failure`.
 */
export async function tellStory (folder: string, endpoints: Endpoints, say: (line: string) => void, signal: AbortSignal): Promise<void> {
  const enrolment = await meetDevice(folder, endpoints, signal)
  say(`The service is up at ${endpoints.serviceUrl}. In its registry is the device ${enrolment.serialNumber}, with a one-time registration token.`)
  await makeKey(enrolment)
  say(`The device made its private key (${FILES.privateKey}, readable by its owner only) and a CSR. The key never leaves this machine.`)
  const device = await vend(enrolment)
  say(`It sent serial number, token and CSR: 201, certificate ${device.certificateId.slice(0, 12)}… for the thing ${device.thingName}.`)
  await vendAgain(enrolment, device)
  say('It sent the same request again, as after a lost answer: 200, the identical certificate. Nothing new was made.')
  await refused(enroll({ ...enrolment, folder: join(folder, 'other-key') }), 'already-vended')
  say('Somebody with the right token but another key asked: refused, 409 already-vended. One device, one certificate.')
  await refused(enroll({ ...enrolment, registrationToken: randomBytes(24).toString('base64url') }), 'device-not-authorized')
  say('Somebody with a wrong token asked: refused, 401 device-not-authorized, without saying what was wrong.')
  const hello = await greeting(enrolment, device)
  await publish(hello)
  say(`The device connected to ${hello.endpoint} over MQTT with its certificate and published to ${hello.topic}: acknowledged.`)
  const { certificate, privateKey, ...stranger } = hello
  await refused(publish(stranger))
  say('A client without a certificate tried the same: refused by the broker.')
  await refused(publish({ ...stranger, ...await makeStranger(device.thingName) }))
  say('A client with a certificate it had signed itself, under the same name: refused by the broker.')
  await publish(hello)
  say('The device connected once more: its certificate still works.')
}

async function meetDevice (folder: string, endpoints: Endpoints, signal: AbortSignal): Promise<Enrolment> {
  const credentials = await readCredentials(join(folder, 'demo-device.json'))
  return {
    service: { url: serviceUrl(endpoints.serviceUrl), ca: await readFile(join(folder, 'root-ca.pem'), 'utf8') },
    ...credentials,
    folder: join(folder, 'device'),
    keyType: 'ec',
    patience: { timeoutMs: TIMEOUT_MS, sleep: ms => delay(ms, undefined, { signal }) }
  }
}

async function makeKey ({ folder, serialNumber, keyType }: Enrolment): Promise<void> {
  await prepare(folder, serialNumber, keyType)
  const { mode } = await stat(join(folder, FILES.privateKey))
  hold(process.platform === 'win32' || (mode & 0o777) === 0o600, 'the private key can be read by others')
}

async function vend (enrolment: Enrolment): Promise<Enrolled> {
  const device = await enroll(enrolment)
  hold(device.isNew, 'the first answer was not 201')
  return device
}

async function vendAgain (enrolment: Enrolment, first: Enrolled): Promise<void> {
  const again = await enroll(enrolment)
  hold(!again.isNew, 'the second answer was not 200')
  hold(again.certificatePem === first.certificatePem, 'the second answer held another certificate')
}

async function greeting ({ folder }: Enrolment, { endpoint, thingName }: Enrolled): Promise<Required<Hello>> {
  const [certificate, privateKey, ca] = await Promise.all([FILES.certificate, FILES.privateKey, FILES.rootCa]
    .map(async name => await readFile(join(folder, name), 'utf8'))) as [string, string, string]
  const topic = `devices/${thingName}/hello`
  return { endpoint, ca, certificate, privateKey, clientId: thingName, topic, message: 'hello', timeoutMs: TIMEOUT_MS }
}

/** Waits for a refusal, for the right reason; any other end, success above all, is a failure. */
async function refused (attempt: Promise<unknown>, code?: string): Promise<void> {
  const outcome = await attempt.then(() => undefined, (error: unknown) => error)
  if (outcome instanceof Failure && outcome.exitCode === EXIT.refused && (code === undefined || outcome.problem.code === code)) return
  if (outcome !== undefined) throw outcome
  throw new Failure(EXIT.failed, `something was accepted that had to be refused${code === undefined ? ' by the broker' : ` with ${code}`}`)
}

function hold (condition: boolean, otherwise: string): void {
  if (!condition) throw new Failure(EXIT.failed, `the demo went wrong: ${otherwise}`)
}
