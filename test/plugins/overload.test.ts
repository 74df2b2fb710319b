// More than the service can work on at once is turned away early, and counted right whatever becomes of it.
import fastify from 'fastify'
import t from 'tap'
import type { CvmError } from '../../src/errors.ts'
import { overload } from '../../src/plugins/overload.ts'
import { startFaultyProxy } from '../fixtures/faulty-proxy.ts'
import { gate } from '../fixtures/gate.ts'
import { isProblem } from '../fixtures/problems.ts'
import { scrape } from '../fixtures/scrape.ts'
import { startService } from '../fixtures/service.ts'
import { until } from '../fixtures/until.ts'
import { CERTIFICATES, newDevice, vend } from '../fixtures/vending.ts'
import { listen, open, rawPost } from '../fixtures/wire.ts'

const iot = await startFaultyProxy(t)
const service = await startService({ AWS_ENDPOINT_URL_IOT: iot.url, MAX_IN_FLIGHT: '2', MAX_EVENT_LOOP_DELAY_MS: '30000' })
t.teardown(() => service.close())
iot.forwardTo(service.aws.iotUrl)
const port = await listen(service)
const ready = async () => (await service.app.ops.inject('/readyz')).json().status
const inFlight = async () => (await scrape(service)).find(({ name }) => name === 'cvm_http_requests_in_flight')?.value

await t.test('one request too many is turned away until another is done', async t => {
  const hold = gate()
  iot.fail(operation => operation === 'CreateThing' ? hold.passed : undefined)
  const devices = await Promise.all([newDevice(service), newDevice(service), newDevice(service)])
  const [first, second] = devices.map(device => vend(service, device))
  t.ok(await until(async () => await inFlight() === 2), 'two are worked on')
  t.equal(await ready(), 'overloaded')
  for (let i = 0; i < 3; i++) {
    const refused = await vend(service, devices[2]!)
    isProblem(t, refused, 'overloaded')
    t.match(refused.headers['retry-after'], /^[1-9]\d*$/)
    t.equal(await inFlight(), 2, 'it does not stay counted')
  }
  hold.open()
  t.strictSame((await Promise.all([first, second])).map(answer => answer?.statusCode), [201, 201], 'those that were accepted are answered')
  t.ok(await until(async () => await inFlight() === 0))
  t.equal(await ready(), 'ready')
  t.equal((await vend(service, devices[2]!)).statusCode, 201, 'and the third is served now')
})

await t.test('clients that go away are not counted for ever', async t => {
  const hold = gate()
  iot.fail(operation => operation === 'CreateThing' ? hold.passed : undefined)
  const device = await newDevice(service)
  const ways = {
    'while it is worked on': rawPost(CERTIFICATES, { 'content-type': 'application/json' }, JSON.stringify(device)),
  }
  for (const [when, bytes] of Object.entries(ways)) {
    const socket = open(port)
    socket.on('error', () => {}).write(bytes)
    t.ok(await until(async () => await inFlight() === 1), `${when}: counted`)
    socket.resetAndDestroy()
    t.ok(await until(async () => await inFlight() === 0), `${when}: no longer`)
  }
  hold.open()
  t.ok(await until(async () => (await vend(service, device)).statusCode < 300), 'the device gets its certificate when it asks again')
  t.ok(await until(async () => await inFlight() === 0))
})

await t.test('while the event loop is late, fewer are worked on at once, and as many as before when it is not', async t => {
  const app = fastify()
  t.teardown(() => app.close())
  let [worked, delayMs] = [0, 0]
  const limits = { maxInFlight: 40, maxOfAddress: 40, maxBatchesOfCaller: 1, maxEventLoopDelayMs: 600_000, meanDelayMs: () => delayMs }
  await app.register(overload, { ...limits, onInFlight: count => { worked = count } })
  const hold = gate()
  app.get('/held', async () => { await hold.passed })
  app.get('/', async () => 'done')
  app.setErrorHandler((error: CvmError, _request, reply) => reply.code(error.code === 'overloaded' ? 503 : 500).send())
  const held = Array.from({ length: 30 }, () => app.inject('/held'))
  t.ok(await until(() => worked === 30), 'thirty are worked on')
  const oneMore = async () => (await app.inject('/')).statusCode
  t.equal(await oneMore(), 200)
  delayMs = 600_000 / 40 + 1
  t.ok(await until(async () => await oneMore() === 503), 'one more is turned away')
  t.equal(app.isOverloaded(), false, 'and the balancer goes on sending others')
  delayMs = 0
  hold.open()
  t.strictSame([...new Set((await Promise.all(held)).map(({ statusCode }) => statusCode))], [200], 'those that were accepted are answered')
  t.ok(await until(async () => await oneMore() === 200), 'and one more is, too')
})

await t.test('one caller has a bound for lists and lines, one address for all; single items and others are served', async t => {
  const app = fastify()
  t.teardown(() => app.close())
  let worked = 0
  app.decorateRequest('caller', null as never)
  app.addHook('onRequest', async request => { request.caller = { name: String(request.headers['x-caller']), role: 'line' } })
  const limits = { maxInFlight: 40, maxOfAddress: 3, maxBatchesOfCaller: 1, maxEventLoopDelayMs: 600_000, meanDelayMs: () => 0 }
  await app.register(overload, { ...limits, onInFlight: count => { worked = count } })
  app.setErrorHandler((error: CvmError, _request, reply) => reply.code(error.code === 'rate-limited' ? 429 : 500).send(error.message))
  let hold = gate()
  app.post('/', { config: { lines: true } as object }, async () => { await hold.passed })
  const post = (payload: object, caller = 'line', remoteAddress = '192.0.2.1') =>
    app.inject({ method: 'POST', url: '/', payload, remoteAddress, headers: { 'x-caller': caller } })

  const held = [post([{}]), post({}), post({})]
  t.ok(await until(() => worked === 3), 'a list and two single items of one caller')
  t.match(await post([{}], 'line', '192.0.2.2'), { statusCode: 429, body: 'the caller has 1 batches at work already' })
  t.match(await post({}), { statusCode: 429, body: 'the address has 3 requests at work already' })
  const others = [post([{}], 'other', '192.0.2.2'), post({}, 'line', '192.0.2.2')]
  t.ok(await until(() => worked === 5), 'another caller, and another address')
  hold.open()
  t.strictSame((await Promise.all([...held, ...others])).map(({ statusCode }) => statusCode), [200, 200, 200, 200, 200])
  hold = gate()
  hold.open()
  t.equal((await post([{}])).statusCode, 200, 'and the caller\'s next one')
  t.equal(worked, 0)
})

await t.test('a busy event loop turns requests away, and recovers', async t => {
  const busy = await startService({ MAX_EVENT_LOOP_DELAY_MS: '1' })
  t.teardown(() => busy.close())
  const device = await newDevice(busy)
  const stall = setInterval(() => { for (const end = Date.now() + 40; Date.now() < end;); }, 1)
  t.ok(await until(() => busy.app.service.isOverloaded()), 'overloaded')
  const refused = await vend(busy, device)
  clearInterval(stall)
  isProblem(t, refused, 'overloaded')
  t.match(refused.headers['retry-after'], /^[1-9]\d*$/)
  t.equal((await busy.app.ops.inject('/livez')).statusCode, 200, 'alive all the same')
})
