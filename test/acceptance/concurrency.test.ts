// G1 and G2 under a crowd: 200 requests (80 in a sample) for one device at once, over as many connections, end in one certificate.
import { randomBytes } from 'node:crypto'
import type { Agent } from 'node:http'
import { setTimeout as delay } from 'node:timers/promises'
import t from 'tap'
import type { Test } from 'tap'
import { isWhole } from '../fixtures/proof-size.ts'
import { wholeOnly } from '../fixtures/whole-only.ts'
import { agentFor, post } from './requests.ts'
import { folder } from './processes.ts'
import { type Aws, onEachEngine, startLocalAws, startProduction, startService } from './service-process.ts'
import { type HttpAnswer, type Vended, keyAndCsr, vendBody } from './tools.ts'

t.setTimeout(900_000)

const CROWD = isWhole ? 200 : 80
/** Only what would turn the crowd away before it meets. */
const ADMIT_ALL = { MAX_IN_FLIGHT_ADDRESS: '512', RATE_LIMIT_ADDRESS_MAX: '100000', RATE_LIMIT_SERIAL_MAX: '100000' }

const codeOf = (answer: HttpAnswer) => (JSON.parse(answer.text) as { code?: string }).code
const idOf = (answer: HttpAnswer) => (JSON.parse(answer.text) as Vended).certificateId
const tally = (answers: HttpAnswer[]) => {
  const counts: Record<string, number> = {}
  for (const answer of answers) {
    const what = `${answer.status} ${codeOf(answer) ?? ''}`.trim()
    counts[what] = (counts[what] ?? 0) + 1
  }
  return counts
}

/** Sends all bodies at once, spread over the replicas, each on a connection of its own. */
async function crowd (t: Test, urls: string[], agent: Agent, bodies: string[]): Promise<HttpAnswer[]> {
  const began = performance.now()
  const answers = await Promise.all(bodies.map(async (body, i) => await post(agent, `${urls[i % urls.length]}/v1/certificates`, body)))
  t.comment(`${bodies.length} requests in ${Math.round(performance.now() - began)} ms: ${JSON.stringify(tally(answers))}`)
  return answers
}

/** The same request until there is an answer other than "later", waiting as it says. */
async function retried (url: string, agent: Agent, body: string, answer: HttpAnswer): Promise<HttpAnswer> {
  let last = answer
  for (const deadline = Date.now() + 600_000; last.headers['retry-after'] && Date.now() < deadline;) {
    await delay(Number(last.headers['retry-after']) * 1000)
    last = await post(agent, `${url}/v1/certificates`, body)
  }
  return last
}

async function holdsOneCertificate (t: Test, aws: Aws): Promise<string> {
  const certificates = await aws.certificates()
  t.strictSame(certificates.map(({ status }) => status), ['ACTIVE'], 'AWS IoT holds exactly one certificate, and it is ACTIVE')
  return certificates[0]?.certificateId ?? ''
}

async function sameRequest (t: Test, aws: Aws, urls: string[], agent: Agent): Promise<void> {
  const device = await aws.register()
  const { csr } = await keyAndCsr(folder(t), device.serialNumber)
  const body = vendBody(device, csr)
  const answers = await crowd(t, urls, agent, Array<string>(CROWD).fill(body))

  const served = answers.filter(({ status }) => status < 300)
  const later = answers.filter(({ status }) => status >= 300)
  t.equal(served.filter(({ status }) => status === 201).length, 1, 'one answer says 201')
  const certificateId = await holdsOneCertificate(t, aws)
  t.ok(served.every(answer => idOf(answer) === certificateId), `all ${served.length} answers with a certificate carry that one`)
  // On a machine with so little to give that the event loop stands for a second, some may be turned away before they meet.
  const expected = ['409 vend-in-progress', '503 overloaded', '503 registry-unavailable']
  t.strictSame(Object.keys(tally(later)).filter(answer => !expected.includes(answer)), [], `all other ${later.length} are 409 vend-in-progress`)
  t.ok(later.every(({ headers }) => Number(headers['retry-after']) >= 1), 'each of them with Retry-After')

  const settled = await Promise.all(later.map(async (answer, i) => await retried(urls[i % urls.length]!, agent, body, answer)))
  t.strictSame(tally(settled), later.length > 0 ? { 200: later.length } : {}, 'retrying as told, they all get 200')
  t.ok(settled.every(answer => idOf(answer) === certificateId), 'with the same certificate')
  t.equal(await holdsOneCertificate(t, aws), certificateId)
}

async function differentKeys (t: Test, aws: Aws, urls: string[], agent: Agent): Promise<void> {
  const device = await aws.register()
  const dir = folder(t)
  const bodies: string[] = []
  for (let i = 0; i < 20; i++) bodies.push(vendBody(device, (await keyAndCsr(dir, device.serialNumber)).csr))
  const answers = await crowd(t, urls, agent, Array.from({ length: CROWD }, (_, i) => bodies[i % bodies.length]!))
  const certificateId = await holdsOneCertificate(t, aws)
  t.ok(answers.every(answer => answer.status >= 400 || idOf(answer) === certificateId), 'whoever got a certificate got that one')
  const settled = await Promise.all(bodies.map(async (body, i) => await retried(urls[i % urls.length]!, agent, body, answers[i]!)))
  t.strictSame(settled.map(answer => codeOf(answer) ?? 'a certificate').sort(), ['a certificate', ...Array<string>(19).fill('already-vended')],
    'one key has it, the 19 others are told so')
  t.equal(await holdsOneCertificate(t, aws), certificateId)
}

await onEachEngine(t, async (t, engine) => {
  await t.test(`one service, the same request ${CROWD} times`, { skip: wholeOnly }, async t => {
    const service = await startService(t, engine, ADMIT_ALL)
    await sameRequest(t, service, [service.serviceUrl], agentFor(service.rootCa, {}))
  })

  await t.test(`one service, ${CROWD} requests with 20 different keys`, async t => {
    const service = await startService(t, engine, ADMIT_ALL)
    await differentKeys(t, service, [service.serviceUrl], agentFor(service.rootCa, {}))
  })

  await t.test(`two replicas in production mode, the same request ${CROWD / 2} times to each`, async t => {
    const aws = await startLocalAws(t, engine)
    const env = { ...ADMIT_ALL, TOKEN_PEPPER: randomBytes(32).toString('base64') }
    const replicas = [await startProduction(t, aws, env), await startProduction(t, aws, env)]
    await sameRequest(t, aws, replicas.map(({ serviceUrl }) => serviceUrl), agentFor(undefined, {}))
  })
})
