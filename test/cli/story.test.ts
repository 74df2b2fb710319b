// The demo's story on a stand-in for the service: it is told to its end only when everything is as it says.
import 'reflect-metadata'
import { createPublicKey } from 'node:crypto'
import { join } from 'node:path'
import { Pkcs10CertificateRequest } from '@peculiar/x509'
import t from 'tap'
import type { Test } from 'tap'
import type { Failure } from '../../src/cli/failure.ts'
import { tellStory } from '../../src/cli/story.ts'
import { Authority, vendAnswer } from './openssl-authority.ts'
import { problem, scriptedService } from './scripted-service.ts'
import type { Said } from './scripted-service.ts'
import { strictBroker } from './strict-broker.ts'

const servers = new Authority(t, 'Server authority')
const devices = new Authority(t, 'Device authority')
const LINES = 10

interface Flaws { acceptsWrongToken?: true, acceptsOtherKey?: true, forgets?: true, admitsAnyone?: true }

async function story (t: Test, flaws: Flaws = {}): Promise<{ lines: string[], error: Failure | undefined }> {
  const { endpoint } = await strictBroker(t, { servers, devices, ...flaws })
  const vended = new Map<string, Record<string, unknown>>()
  const vend = (request: Record<string, string>): Said => {
    if (request.registrationToken !== 'right' && !flaws.acceptsWrongToken) return problem(401, 'device-not-authorized')
    const key = publicKeyOf(request.certificateSigningRequest!)
    const known = vended.get(key)
    if (known !== undefined) return { status: 200, body: flaws.forgets ? answerTo(request, endpoint) : known }
    if (vended.size > 0 && !flaws.acceptsOtherKey) return problem(409, 'already-vended')
    vended.set(key, answerTo(request, endpoint))
    return { status: 201, body: vended.get(key) }
  }
  const service = await scriptedService(t, [vend], servers.issueServer())
  const folder = t.testdir({
    'root-ca.pem': servers.certificate,
    'demo-device.json': JSON.stringify({ serialNumber: '1', registrationToken: 'right' })
  })
  const lines: string[] = []
  const endpoints = { serviceUrl: service.url.href, mqttUrl: `mqtts://${endpoint}` }
  const error = await tellStory(folder, endpoints, line => lines.push(line), new AbortController().signal)
    .then(() => undefined, error => error as Failure)
  t.notMatch(lines.join(), /right"|PRIVATE/, join(folder, 'no secret is told'))
  return { lines, error }
}

function answerTo (request: Record<string, string>, endpoint: string): Record<string, unknown> {
  const answer = vendAnswer(devices, request.certificateSigningRequest!, request.serialNumber!)
  return { ...answer, rootCaPem: servers.certificate, endpoint }
}

function publicKeyOf (csr: string): string {
  const key = Buffer.from(new Pkcs10CertificateRequest(csr).publicKey.rawData)
  return createPublicKey({ key, format: 'der', type: 'spki' }).export({ type: 'spki', format: 'pem' }).toString()
}

await t.test('told to the end', async t => {
  const { lines, error } = await story(t)
  t.equal(error, undefined)
  t.equal(lines.length, LINES)
})

await t.test('ends at the first thing that is not so', async t => {
  const cases: Array<[Flaws, number, string]> = [
    [{ forgets: true }, 3, 'another certificate'],
    [{ acceptsOtherKey: true }, 4, 'already-vended'],
    [{ acceptsWrongToken: true }, 5, 'device-not-authorized'],
    [{ admitsAnyone: true }, 7, 'had to be refused by the broker']
  ]
  for (const [flaws, told, message] of cases) {
    const { lines, error } = await story(t, flaws)
    t.equal(lines.length, told, JSON.stringify(flaws))
    t.equal(error?.exitCode, 1)
    t.match(error?.message, message)
  }
})
