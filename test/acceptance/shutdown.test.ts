// SIGTERM: what was accepted is answered, nobody new is let in, and the process ends in time.
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import type { Agent } from 'node:http'
import { join } from 'node:path'
import { type TLSSocket, connect } from 'node:tls'
import t from 'tap'
import type { Test } from 'tap'
import { wholeOnly } from '../fixtures/whole-only.ts'
import { keyAndRequest } from './key-and-request.ts'
import type { Exit } from './processes.ts'
import { Unanswered, agentFor, post } from './requests.ts'
import { type ServiceProcess, onEachEngine, startService } from './service-process.ts'

t.setTimeout(900_000)

/** However slow the machine is, each vend is finished; a service that waits for its time limit is too late for this test. */
const PATIENT = { SHUTDOWN_TIMEOUT_MS: '600000', VEND_DEADLINE_MS: '290000', CLAIM_LIFETIME_MS: '300000' }
const ADMIT_ALL = { ...PATIENT, MAX_IN_FLIGHT_ADDRESS: '512', RATE_LIMIT_ADDRESS_MAX: '100000', RATE_LIMIT_SERIAL_MAX: '100000' }
const PATH = '/v1/certificates'

/** Requests of as many new devices. */
async function vends (service: ServiceProcess, count: number): Promise<string[]> {
  return await Promise.all(Array.from({ length: count }, async () => (await keyAndRequest(await service.register())).body))
}

const keepAlive = (t: Test, service: ServiceProcess): Agent => {
  const agent = agentFor(service.rootCa, { keepAlive: true, maxSockets: 1 })
  t.teardown(() => agent.destroy())
  return agent
}

async function terminate (service: ServiceProcess): Promise<Exit> {
  service.signal('SIGTERM')
  return await service.ended
}

/** One client: request after request on the connection of the one before, until no new connection is let in. */
async function vendUntilRefused (agent: Agent, url: string, bodies: string[], onAnswer: () => void) {
  const statuses: number[] = []
  const broken: string[] = []
  for (let i = 0; ; i++) {
    try {
      statuses.push((await post(agent, url, bodies[i % bodies.length]!)).status)
      onAnswer()
    } catch (cause) {
      if (!(cause instanceof Unanswered)) throw cause
      if (cause.sent) broken.push(cause.message)
      else return { statuses, broken }
    }
  }
}

/** Something to wait for: that `count` has been called so many times. */
function counter (times: number): { reached: Promise<void>, count: () => void } {
  let count = () => {}
  const reached = new Promise<void>(resolve => {
    let left = times
    count = () => { if (--left === 0) resolve() }
  })
  return { reached, count }
}

await onEachEngine(t, async (t, engine) => {
  await t.test('under load, 40 clients vending on connections that they keep', async t => {
    const service = await startService(t, engine, ADMIT_ALL)
    const bodies = await vends(service, 200)
    const { reached, count } = counter(120)
    const clients = Promise.all(Array.from({ length: 40 }, async (_, i) =>
      await vendUntilRefused(keepAlive(t, service), service.serviceUrl + PATH, bodies.slice(i * 5, i * 5 + 5), count)))
    await reached
    const exit = await terminate(service)
    const told = await clients
    const statuses = told.flatMap(({ statuses }) => statuses)
    t.equal(exit, 0)
    t.strictSame(told.flatMap(({ broken }) => broken), [], 'no request that was sent stayed without an answer')
    t.strictSame(statuses.filter(status => status !== 201 && status !== 200), [], `${statuses.length} requests were answered, all with a certificate`)
    t.equal(service.output().match(/"msg":"answered"/g)?.length, statuses.length, 'the service counts as many answers as its clients')
  })
})

// What follows is about connections, not about the table: one engine will do.
await t.test('connections at the end', async t => {
  const engine = { name: 'dynalite' }

  await t.test('requests that arrive in the same moment as the signal, on connections that were idle', async t => {
    const service = await startService(t, engine, ADMIT_ALL)
    const bodies = await vends(service, 20)
    const agents = bodies.map(() => keepAlive(t, service))
    await Promise.all(bodies.map(async (body, i) => await post(agents[i]!, service.serviceUrl + PATH, body)))
    // While it is stopped, the kernel takes the requests for it: when it goes on, they and the signal are there at once.
    service.signal('SIGSTOP')
    const { reached: allSent, count } = counter(bodies.length)
    const answers = Promise.allSettled(bodies.map(async (body, i) => await post(agents[i]!, service.serviceUrl + PATH, body, count)))
    await allSent
    service.signal('SIGTERM')
    service.signal('SIGCONT')
    const outcomes = (await answers).map(answer => answer.status === 'fulfilled' ? answer.value.status : (answer.reason as Error).message)
    t.strictSame(outcomes, bodies.map(() => 200), 'all are answered')
    t.equal(await service.ended, 0)
  })

  // In a sample, test/plugins/drain.test.ts tries this and the delay below in one process.
  await t.test('a request that is half sent at the signal is answered when the rest comes, and its connection closed', { skip: wholeOnly }, async t => {
    const service = await startService(t, engine, PATIENT)
    const [body] = await vends(service, 1)
    const socket = await connection(t, service)
    const head = `POST ${PATH} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: ${body!.length}\r\n\r\n`
    await new Promise(resolve => socket.write(head + body!.slice(0, 100), resolve))
    // Whatever is answered after this was read after the half request.
    await fetch(`${service.opsUrl}/livez`)
    service.signal('SIGTERM')
    await service.said(output => output.includes('stopping on SIGTERM') || undefined)
    let answer = ''
    socket.setEncoding('utf8').on('data', chunk => { answer += chunk })
    socket.write(body!.slice(100))
    await once(socket, 'close')
    t.match(answer, /^HTTP\/1\.1 201 /)
    t.match(answer, /\r\nconnection: close\r\n/i)
    t.equal(await service.ended, 0)
  })

  await t.test('connections that are idle, and those that never asked for anything, do not hold it up', async t => {
    const service = await startService(t, engine, PATIENT)
    const [body] = await vends(service, 1)
    for (let i = 0; i < 20; i++) t.ok((await post(keepAlive(t, service), service.serviceUrl + PATH, body!)).status < 500)
    for (let i = 0; i < 5; i++) await connection(t, service)
    t.equal(await terminate(service), 0)
  })

  await t.test('with DRAIN_DELAY_MS it is unready first, and still serves', { skip: wholeOnly }, async t => {
    const service = await startService(t, engine, { ...PATIENT, DRAIN_DELAY_MS: '5000' })
    const [body] = await vends(service, 1)
    service.signal('SIGTERM')
    await service.said(output => output.includes('stopping on SIGTERM') || undefined)
    const ready = await fetch(`${service.opsUrl}/readyz`)
    t.match([ready.status, await ready.json()], [503, { status: 'draining' }])
    const answer = await post(keepAlive(t, service), service.serviceUrl + PATH, body!)
    t.match([answer.status, answer.headers.connection], [201, 'close'])
    t.equal(await service.ended, 0)
  })
})

/** A TLS connection by hand. */
async function connection (t: Test, { serviceUrl, dir }: ServiceProcess): Promise<TLSSocket> {
  const socket = connect({ host: '127.0.0.1', port: Number(new URL(serviceUrl).port), servername: 'localhost', ca: readFileSync(join(dir, 'root-ca.pem')) })
  t.teardown(() => socket.destroy())
  await once(socket, 'secureConnect')
  socket.on('error', () => {})
  return socket
}
