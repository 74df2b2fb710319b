// Fair limits (G9): per address before the body is read, per serial number once it is known to be one.
import t, { type Test } from 'tap'
import { isProblem } from '../fixtures/problems.ts'
import { awsCallsDuring, total } from '../fixtures/scrape.ts'
import { type TestService, startService } from '../fixtures/service.ts'
import { until } from '../fixtures/until.ts'
import { CERTIFICATES, KEYS, csrFor, newDevice, vend, vendKeys } from '../fixtures/vending.ts'

async function started (t: Test, settings: Record<string, string>): Promise<TestService> {
  const service = await startService(settings)
  t.teardown(() => service.close())
  return service
}

const WHEN = /^[1-9]\d*$/

await t.test('one serial number is limited while another is served', async t => {
  const service = await started(t, { RATE_LIMIT_SERIAL_MAX: '3', RATE_LIMIT_ADDRESS_MAX: '1000', RATE_LIMIT_WINDOW_MS: '600000' })
  const device = await newDevice(service)
  for (const status of [201, 200, 200]) t.equal((await vend(service, device)).statusCode, status)
  const calls = await awsCallsDuring(service, async () => {
    const refused = await vend(service, device)
    isProblem(t, refused, 'rate-limited', { detail: /serial number/ })
    t.match(refused.headers, { 'retry-after': WHEN, 'x-ratelimit-limit': 3, 'x-ratelimit-remaining': 0, 'x-ratelimit-reset': WHEN })
    t.ok(Number(refused.headers['retry-after']) <= 600, 'no longer than the window')
    isProblem(t, await vendKeys(service, device), 'rate-limited', {}, 'by the other route too')
    isProblem(t, await vend(service, { ...device, registrationToken: 'wrong' }), 'rate-limited', {}, 'with the wrong token too')
  })
  t.strictSame(calls, {}, 'refused requests reach neither registry nor AWS IoT')
  t.equal(await total(service, 'cvm_rate_limited_total', { limit: 'serial' }), 3)
  t.equal(await total(service, 'cvm_rate_limited_total', { limit: 'address' }), 0)
  const other = await vend(service, await newDevice(service))
  t.equal(other.statusCode, 201, 'another is served')
  t.match(other.headers, { 'x-ratelimit-limit': 1000, 'x-ratelimit-remaining': /^99\d$/ }, 'and told of the limit of its address')
  t.equal((await vend(service, await newDevice(service, { serialNumber: device.serialNumber.toUpperCase() }))).statusCode, 201, 'serial numbers are told apart by case')
})

await t.test('what is no vend request of a serial number does not count against it', async t => {
  const service = await started(t, { RATE_LIMIT_SERIAL_MAX: '1', RATE_LIMIT_ADDRESS_MAX: '1000' })
  const device = await newDevice(service)
  for (let i = 0; i < 5; i++) {
    isProblem(t, await vend(service, { ...device, extra: 1 }), 'invalid-request')
    isProblem(t, await vend(service, { ...device, registrationToken: 7 }), 'invalid-request')
    const broken = { method: 'POST', url: CERTIFICATES, headers: { 'content-type': 'application/json' }, payload: JSON.stringify(device).slice(1) } as const
    isProblem(t, await service.app.service.inject(broken), 'malformed-json')
  }
  t.equal((await vend(service, device)).statusCode, 201)
  isProblem(t, await vend(service, device), 'rate-limited')
})

await t.test('one address is limited, whatever it asks for', async t => {
  const asks = {
    'no such address': { method: 'GET', url: '/nope' },
    'no such address, with a body': { method: 'POST', url: '/nope', payload: '{', headers: { 'content-type': 'application/json' } },
    'another method': { method: 'GET', url: CERTIFICATES },
    'a bad body': { method: 'POST', url: CERTIFICATES, payload: '{', headers: { 'content-type': 'application/json' } },
    'another media type': { method: 'POST', url: KEYS, payload: '<a/>', headers: { 'content-type': 'text/xml' } },
    'the wrong token': { method: 'POST', url: KEYS, payload: { serialNumber: 'sn-1', registrationToken: 'x' } }
  } as const
  for (const [what, ask] of Object.entries(asks)) {
    const service = await started(t, { RATE_LIMIT_ADDRESS_MAX: '2' })
    const device = await newDevice(service)
    for (const remaining of [1, 0]) {
      const answer = await service.app.service.inject(ask)
      t.ok(answer.statusCode >= 400 && answer.statusCode < 429, `${what}: ${answer.statusCode}`)
      t.match(answer.headers, { 'x-ratelimit-limit': 2, 'x-ratelimit-remaining': remaining, 'x-ratelimit-reset': WHEN }, `${what}: ${remaining} left`)
    }
    const calls = await awsCallsDuring(service, async () => {
      for (const refused of [await service.app.service.inject(ask), await vend(service, device)]) {
        isProblem(t, refused, 'rate-limited', { detail: /address/ }, what)
        t.match(refused.headers, { 'retry-after': WHEN, 'x-ratelimit-limit': 2, 'x-ratelimit-remaining': 0, 'x-ratelimit-reset': WHEN })
      }
    })
    t.strictSame(calls, {})
    t.equal(await total(service, 'cvm_rate_limited_total', { limit: 'address' }), 2)
    const elsewhere = await service.app.service.inject({ method: 'POST', url: CERTIFICATES, payload: device, remoteAddress: '192.0.2.7' })
    t.equal(elsewhere.statusCode, 201, 'another address is served')
  }
})

await t.test('both limits apply to one request', async t => {
  const service = await started(t, { RATE_LIMIT_SERIAL_MAX: '2', RATE_LIMIT_ADDRESS_MAX: '5' })
  const [a, b] = [await newDevice(service), await newDevice(service)]
  const details: string[] = []
  for (const device of [a, a, a, b, b, b]) {
    const answer = await vend(service, device)
    details.push(answer.statusCode === 429 ? /per (\w+)/.exec(answer.json().detail)![1]! : 'served')
  }
  t.strictSame(details, ['served', 'served', 'serial', 'served', 'served', 'address'])
})

await t.test('many at once are counted one by one', async t => {
  const service = await started(t, { RATE_LIMIT_SERIAL_MAX: '4', RATE_LIMIT_ADDRESS_MAX: '1000' })
  const device = await newDevice(service)
  const answers = await Promise.all(Array.from({ length: 20 }, () => vend(service, device)))
  t.equal(answers.filter(({ statusCode }) => statusCode === 429).length, 16)
})

await t.test('after the window it is served again', async t => {
  const service = await started(t, { RATE_LIMIT_SERIAL_MAX: '1', RATE_LIMIT_WINDOW_MS: '1000' })
  const device = await newDevice(service)
  const start = Date.now()
  t.equal((await vend(service, device)).statusCode, 201)
  const refused = await vend(service, device)
  if (Date.now() - start < 1000) {
    isProblem(t, refused, 'rate-limited')
    t.equal(Number(refused.headers['retry-after']), 1, 'at least a second')
  }
  t.ok(await until(async () => (await vend(service, device)).statusCode === 200))
})

await t.test('X-Forwarded-For is believed from a trusted peer only', async t => {
  const service = await started(t, { RATE_LIMIT_ADDRESS_MAX: '1', TRUST_PROXY_CIDRS: '10.1.0.0/16, fd00::/8' })
  const from = async (remoteAddress: string, forwarded?: string): Promise<number> =>
    (await service.app.service.inject({ url: '/', remoteAddress, headers: forwarded === undefined ? {} : { 'x-forwarded-for': forwarded } })).statusCode
  const steps: ReadonlyArray<readonly [what: string, peer: string, forwarded: string | undefined, status: number]> = [
    ['a client through the balancer', '10.1.0.5', '198.51.100.1', 404],
    ['the same again', '10.1.0.5', '198.51.100.1', 429],
    ['the same through another balancer', '10.1.9.9', '198.51.100.1', 429],
    ['the same, with a forged address on the left', '10.1.0.5', '203.0.113.9, 198.51.100.1', 429],
    ['another client through the same balancer', '10.1.0.5', '198.51.100.2', 404],
    ['a client behind an IPv6 balancer', 'fd00::5', '198.51.100.3', 404],
    ['the balancer itself', '10.1.0.5', undefined, 404],
    ['a stranger who forges an address', '192.0.2.1', '198.51.100.4', 404],
    ['the same stranger, forging another', '192.0.2.1', '198.51.100.5', 429],
    ['the forged address was not charged', '10.1.0.5', '198.51.100.4', 404],
    ['IPv6 counts by network', '10.1.0.5', '2001:db8::1', 404],
    ['a neighbour in the same /64', '10.1.0.5', '2001:db8::2', 429],
    ['another network', '10.1.0.5', '2001:db8:0:1::1', 404],
    ['no address at all', '10.1.0.5', 'nonsense', 404],
    ['a client with its port', '10.1.0.5', '198.51.100.7:40001', 404],
    ['the same from another port', '10.1.0.5', '198.51.100.7:40002', 429],
    ['the same without a port', '10.1.0.5', '198.51.100.7', 429],
    ['the same behind two balancers that write ports', '10.1.0.5', '198.51.100.7:40003, 10.1.0.9:443', 429],
    ['IPv6 with a port', '10.1.0.5', '[2001:db8:0:7::1]:40001', 404],
    ['the same from another port, written otherwise', '10.1.0.5', '[2001:DB8:0:7:0::1]:40002', 429],
    ['the same in brackets without a port', '10.1.0.5', '[2001:db8:0:7::1]', 429],
    ['the same without brackets', '10.1.0.5', '2001:db8:0:7::1', 429],
    ['a port alone is no address', '10.1.0.5', ':40001', 404]
  ]
  for (const [what, peer, forwarded, status] of steps) t.equal(await from(peer, forwarded), status, what)
})

await t.test('without trusted networks nobody is believed', async t => {
  const service = await started(t, { RATE_LIMIT_ADDRESS_MAX: '1' })
  const ask = async (forwarded: string) => (await service.app.service.inject({ url: '/', headers: { 'x-forwarded-for': forwarded } })).statusCode
  t.equal(await ask('198.51.100.1'), 404)
  t.equal(await ask('198.51.100.2'), 429)
})

await t.test('a CSR of the wrong kind costs a turn of its serial number', async t => {
  const service = await started(t, { RATE_LIMIT_SERIAL_MAX: '1' })
  const device = await newDevice(service)
  isProblem(t, await vend(service, { ...device, certificateSigningRequest: csrFor('another') }), 'csr-rejected')
  isProblem(t, await vend(service, device), 'rate-limited')
})
