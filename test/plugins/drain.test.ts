// Graceful close: what was accepted is answered, and nothing keeps the process waiting.
import { once } from 'node:events'
import { type IncomingMessage, Agent as HttpAgent, request as httpRequest } from 'node:http'
import { Agent as HttpsAgent, request as httpsRequest } from 'node:https'
import type { Socket } from 'node:net'
import { text } from 'node:stream/consumers'
import { connect as tlsConnect } from 'node:tls'
import t, { type Test } from 'tap'
import { startFaultyProxy } from '../fixtures/faulty-proxy.ts'
import { gate } from '../fixtures/gate.ts'
import { type TestService, startService } from '../fixtures/service.ts'
import { until } from '../fixtures/until.ts'
import { CERTIFICATES, newDevice } from '../fixtures/vending.ts'
import { listen, open, rawPost } from '../fixtures/wire.ts'

const JSON_TYPE = { 'content-type': 'application/json' }

async function rig (t: Test, tls: boolean) {
  const iot = await startFaultyProxy(t)
  const service = await startService({ AWS_ENDPOINT_URL_IOT: iot.url, RATE_LIMIT_ADDRESS_MAX: '10000' }, { tls })
  iot.forwardTo(service.aws.iotUrl)
  const port = await listen(service)
  const agent = tls ? new HttpsAgent({ keepAlive: true, ca: service.aws.rootCaPem }) : new HttpAgent({ keepAlive: true })
  t.teardown(async () => { agent.destroy(); await service.close() })
  const post = async (body: object): Promise<{ status: number | undefined, connection: string | undefined, body: string }> => {
    const call = (tls ? httpsRequest : httpRequest)({ agent, port, host: 'localhost', path: CERTIFICATES, method: 'POST', headers: JSON_TYPE })
    call.end(JSON.stringify(body))
    const [answer] = await once(call, 'response') as [IncomingMessage]
    return { status: answer.statusCode, connection: answer.headers.connection, body: await text(answer) }
  }
  return { iot, service, port, agent, post, drain: service.app.service.drain }
}

for (const tls of [false, true]) {
  await t.test(`${tls ? 'HTTPS' : 'HTTP'}: requests in flight are answered, idle connections closed`, async t => {
    const { iot, service, port, post, drain } = await rig(t, tls)
    const devices = await Promise.all(Array.from({ length: 6 }, () => newDevice(service)))
    await Promise.all(Array.from({ length: 10 }, () => post({})))
    t.equal(await connections(service), 10, 'ten connections are kept alive')

    const hold = gate()
    iot.fail(operation => operation === 'CreateThing' ? hold.passed : undefined)
    const answers = devices.map(post)
    t.ok(await until(() => iot.seen.filter(operation => operation === 'CreateThing').length === 6), 'six requests are in flight')
    const drained = drain(0, 3_600_000)
    t.equal((await service.app.ops.inject('/readyz')).json().status, 'draining')
    t.equal((await service.app.ops.inject('/livez')).statusCode, 200)
    t.ok(await until(async () => await refuses(port)), 'nobody new is let in')
    t.ok(await until(async () => await connections(service) === 6), 'idle connections are closed')
    hold.open()
    for (const { status, connection } of await Promise.all(answers)) t.strictSame([status, connection], [201, 'close'])
    await drained
    t.equal(await connections(service), 0)
  })
}

await t.test('a body that is still arriving may arrive', async t => {
  const { service, port, drain } = await rig(t, false)
  const device = await newDevice(service)
  const bytes = rawPost(CERTIFICATES, JSON_TYPE, JSON.stringify(device))
  const socket = open(port)
  const begun = once(service.app.service.server, 'request')
  socket.write(bytes.subarray(0, -20))
  await begun
  const drained = drain(0, 3_600_000)
  t.ok(await until(async () => await refuses(port)))
  socket.write(bytes.subarray(-20))
  t.match(await text(socket), /^HTTP\/1.1 201 [^]*\r\nconnection: close\r\n/i)
  socket.destroy()
  await drained
})

await t.test('while the balancer looks elsewhere, requests are still served', async t => {
  const { service, post, drain } = await rig(t, false)
  const drained = drain(3_000, 3_600_000)
  t.equal((await service.app.ops.inject('/readyz')).statusCode, 503, 'unready at once')
  const { status, connection } = await post(await newDevice(service))
  t.strictSame([status, connection], [201, 'close'], 'a new connection is accepted')
  await drained
})

for (const tls of [false, true]) {
  await t.test(`${tls ? 'HTTPS' : 'HTTP'}: what does not end is cut in time`, async t => {
    const { iot, service, port, post, drain } = await rig(t, tls)
    iot.fail(operation => operation === 'CreateThing' ? 'silence' : undefined)
    const hanging = post(await newDevice(service))
    const silent = open(port)
    const shaken = tls ? tlsConnect({ port, host: 'localhost', ca: service.aws.rootCaPem }) : open(port)
    const cut = Promise.all([silent, shaken].map(closed))
    await Promise.all([once(silent, 'connect'), once(shaken, tls ? 'secureConnect' : 'connect')])
    t.ok(await until(() => iot.seen.includes('CreateThing')))
    t.ok(await until(async () => await connections(service) === 3), 'one hangs, one said nothing, one said hello only')
    const lost = t.rejects(hanging, 'cut off')
    await drain(0, 500)
    await Promise.all([cut, lost])
  })
}

function connections ({ app }: TestService): Promise<number> {
  return new Promise((resolve, reject) => app.service.server.getConnections((error, count) => error ? reject(error) : resolve(count)))
}

function closed (socket: Socket): Promise<void> {
  return new Promise(resolve => socket.on('error', () => {}).on('end', () => socket.end()).on('close', () => resolve()).resume())
}

async function refuses (port: number): Promise<boolean> {
  const socket = open(port)
  const refused = await new Promise<boolean>(resolve => socket.on('connect', () => resolve(false)).on('error', () => resolve(true)))
  socket.destroy()
  return refused
}
