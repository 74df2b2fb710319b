import * as aws from '@aws-sdk/client-iot'
import type { MqttClient } from 'mqtt'
import t from 'tap'
import { shadowRequest } from '../../src/local/shadow-request.ts'
import { Shadows } from '../../src/local/shadows.ts'
import { connect, opensslCsr, P256, startRig } from './rig.ts'

const { local, iot, close } = await startRig()
t.teardown(close)

const { key, csr } = opensslCsr(P256)
const made = await iot.send(new aws.CreateCertificateFromCsrCommand({ certificateSigningRequest: csr, setAsActive: true }))
await iot.send(new aws.CreateThingCommand({ thingName: 'dev' }))
await iot.send(new aws.AttachPolicyCommand({ policyName: 'device-policy', target: made.certificateArn }))
await iot.send(new aws.AttachThingPrincipalCommand({ thingName: 'dev', principal: made.certificateArn }))

type Document = Record<string, unknown>
const SIGNED = (service: string): string =>
  `AWS4-HMAC-SHA256 Credential=AKIA/20261120/us-east-1/${service}/aws4_request, SignedHeaders=host;x-amz-date, Signature=00`
const call = async (method: string, path: string, body?: unknown, service = 'iotdata') => {
  const answer = await fetch(local.iotUrl + path, {
    method, headers: { authorization: SIGNED(service) }, ...(body === undefined ? {} : { body: body instanceof Uint8Array || typeof body === 'string' ? body : JSON.stringify(body) })
  })
  return { status: answer.status, error: answer.headers.get('x-amzn-errortype'), body: await answer.json() as Document }
}
const update = async (thing: string, body: unknown) => await call('POST', `/things/${thing}/shadow`, body)
const get = async (thing: string) => (await call('GET', `/things/${thing}/shadow`)).body
const state = async (thing: string): Promise<unknown> => (await get(thing))['state']

await t.test('merge, delta and metadata', async t => {
  const first = await update('lamp', { state: { desired: { color: { r: 1, g: 2 }, list: [1, 2], on: true }, reported: { on: true, heat: 9 } }, clientToken: 'tok' })
  const { timestamp } = first.body
  t.type(timestamp, 'number')
  t.same(first.body, {
    state: { desired: { color: { r: 1, g: 2 }, list: [1, 2], on: true }, reported: { on: true, heat: 9 } },
    metadata: {
      desired: { color: { r: { timestamp }, g: { timestamp } }, list: [{ timestamp }, { timestamp }], on: { timestamp } },
      reported: { on: { timestamp }, heat: { timestamp } }
    },
    version: 1,
    timestamp,
    clientToken: 'tok'
  })
  t.same(await state('lamp'), {
    desired: { color: { r: 1, g: 2 }, list: [1, 2], on: true },
    reported: { on: true, heat: 9 },
    delta: { color: { r: 1, g: 2 }, list: [1, 2] }
  })
  const second = await update('lamp', { state: { desired: { color: { r: null, b: 3 } }, reported: { color: { g: 2 }, list: [1] } } })
  t.same([second.body['state'], second.body['version']], [{ desired: { color: { r: null, b: 3 } }, reported: { color: { g: 2 }, list: [1] } }, 2])
  t.same(await state('lamp'), {
    desired: { color: { g: 2, b: 3 }, list: [1, 2], on: true },
    reported: { on: true, heat: 9, color: { g: 2 }, list: [1] },
    delta: { color: { b: 3 }, list: [1, 2] }
  })
  await update('lamp', { state: { desired: null, reported: { color: 5, list: null } } })
  t.same(await state('lamp'), { reported: { on: true, heat: 9, color: 5 } })
  t.same(Object.keys(((await get('lamp'))['metadata'] as Document)['reported'] as object), ['on', 'heat', 'color'])
  await update('lamp', { state: null })
  t.match(await get('lamp'), { state: {}, metadata: {}, version: 4 })
  await update('lamp', '{"state":{"desired":{"__proto__":{"a":1},"constructor":2}}}')
  t.equal(JSON.stringify(await state('lamp')), '{"desired":{"__proto__":{"a":1},"constructor":2},"delta":{"__proto__":{"a":1},"constructor":2}}')
})

await t.test('refusals', async t => {
  await update('strict', { state: { reported: { a: 1 } } })
  const deep = (levels: number): unknown => levels === 0 ? 1 : { x: deep(levels - 1) }
  const [I, L] = ['InvalidRequestException', 'RequestEntityTooLargeException']
  const cases: Array<[unknown, number, string, RegExp]> = [
    [{ state: { reported: {} }, version: 7, clientToken: 'c' }, 409, 'ConflictException', /Version conflict/],
    ['{', 400, I, /invalid json/], ['[]', 400, I, /invalid json/], ['', 400, I, /invalid json/],
    [{}, 400, I, /Missing required node: state/], [{ state: 1 }, 400, I, /State node/], [{ state: { other: {} } }, 400, I, /invalid node: 'other'/],
    [{ state: { desired: 1 } }, 400, I, /Desired node/], [{ state: { reported: [] } }, 400, I, /Reported node/],
    [{ state: {}, version: 'x' }, 400, I, /Invalid version/], [{ state: {}, version: 1.5 }, 400, I, /Invalid version/],
    [{ state: {}, clientToken: 'x'.repeat(65) }, 400, I, /Invalid clientToken/], [{ state: {}, clientToken: 5 }, 400, I, /Invalid clientToken/],
    [{ state: { desired: { list: [1, null] } } }, 400, I, /null/], [{ state: { desired: { list: [{ a: [null] }] } } }, 400, I, /null/],
    [{ state: { desired: deep(6) } }, 400, I, /nesting/],
    [{ state: { desired: { big: 'x'.repeat(8192) } } }, 413, L, /maximum size/],
    [`{"state":{"desired":${'['.repeat(60_000)}${']'.repeat(60_000)}}}`, 400, I, /./],
    ['x'.repeat(130 * 1024), 413, L, /maximum size/],
    [Uint8Array.of(0x7b, 0xff, 0x7d), 415, 'UnsupportedDocumentEncodingException', /UTF-8/]
  ]
  for (const [body, status, error, message] of cases) {
    const answer = await update('strict', body)
    t.same([answer.status, answer.error, answer.body['code']], [status, error, status], String(message))
    t.match(answer.body['message'], message)
  }
  t.equal((await update('strict', { state: {}, version: 9, clientToken: 'c' })).body['clientToken'], 'c')
  t.same((await get('strict'))['version'], 1, 'nothing of all that was kept')
  t.equal((await update('strict', { state: { desired: deep(5) }, version: 1 })).status, 200, 'five levels, and the version it has')

  t.match(await call('GET', '/things/nobody/shadow'), { status: 404, error: 'ResourceNotFoundException', body: { code: 404, message: /nobody/ } })
  t.match(await call('GET', '/things/strict/shadow?name=none'), { status: 404, body: { message: /strict~none/ } })
  t.match(await call('GET', '/things/a%20b/shadow'), { status: 400, error: I })
  t.match(await call('GET', '/things/strict/shadow?name=a.b'), { status: 400, error: I })
  t.match(await call('GET', '/things/strict/shadow', undefined, 'iot'), { status: 403, error: 'InvalidSignatureException' })
  t.match(await call('GET', '/things/strict/shadow', undefined, 'iotdevicegateway'), { status: 200 })
})

await t.test('named shadows', async t => {
  for (const name of ['b', 'a', 'c$:_-']) await call('POST', `/things/many/shadow?name=${encodeURIComponent(name)}`, { state: { desired: { name } } })
  await update('many', { state: { desired: { classic: true } } })
  t.same((await call('GET', '/things/many/shadow?name=a')).body['state'], { desired: { name: 'a' }, delta: { name: 'a' } })
  const list = async (query: string) => (await call('GET', `/api/things/shadow/ListNamedShadowsForThing/many?${query}`)).body
  t.match(await list(''), { results: ['a', 'b', 'c$:_-'], timestamp: Number })
  const page = await list('pageSize=2')
  t.same((await list(`pageSize=2&nextToken=${encodeURIComponent(String(page['nextToken']))}`))['results'], ['c$:_-'])
  t.match(await call('GET', '/api/things/shadow/ListNamedShadowsForThing/many?pageSize=101'), { status: 400 })
  t.match((await call('GET', '/api/things/shadow/ListNamedShadowsForThing/nobody')).body, { results: [] })
})

await t.test('a shadow made again goes on counting, for two days', async t => {
  let now = 1_000_000
  const shadows = new Shadows(() => now)
  const change = shadowRequest(Buffer.from('{"state":{"desired":{"a":1}}}'))
  const version = (): unknown => (shadows.get('x', '') as Document)['version']
  for (let n = 0; n < 3; n++) shadows.update('x', '', change)
  t.match(shadows.remove('x', ''), { version: 3, timestamp: 1000 })
  t.throws(() => shadows.get('x', ''), { code: 'ResourceNotFoundException' })
  t.throws(() => shadows.remove('x', ''), { code: 'ResourceNotFoundException' })
  shadows.update('x', '', shadowRequest(Buffer.from('{"state":{"reported":{"b":1}},"version":3}')))
  t.match(shadows.get('x', ''), { version: 4, state: { reported: { b: 1 } } }, 'and has nothing of what it was')
  shadows.remove('x', '')
  now += 49 * 3_600_000
  shadows.update('x', '', change)
  t.equal(version(), 1)
  const again = new Shadows(() => now)
  again.restore(JSON.parse(JSON.stringify(shadows.snapshot())))
  t.same(again.get('x', ''), shadows.get('x', ''))
})

await t.test('over MQTT', async t => {
  const client: MqttClient = await connect(local, { clientId: 'dev', key, cert: made.certificatePem ?? '' })
  t.teardown(() => { client.end(true) })
  const heard: Array<[string, Document]> = []
  let wanted = 0
  let enough = (): void => {}
  client.on('message', (topic, payload) => {
    heard.push([topic, JSON.parse(payload.toString()) as Document])
    if (heard.length >= wanted) enough()
  })
  const answers = async (count: number, cause: () => Promise<unknown>): Promise<Record<string, Document>> => {
    heard.length = 0
    wanted = count
    const all = new Promise<void>(resolve => { enough = resolve })
    await cause()
    await all
    return Object.fromEntries(heard.map(([topic, content]) => [topic.replace('$aws/things/dev/shadow/', ''), content]))
  }
  await client.subscribeAsync(['get', 'update', 'delete'].flatMap(verb => [`$aws/things/dev/shadow/${verb}/+`, `$aws/things/dev/shadow/name/n/${verb}/+`]))
  const publish = (topic: string, content: unknown) => async () => await client.publishAsync(`$aws/things/dev/shadow/${topic}`, content === '' ? '' : JSON.stringify(content), { qos: 1 })

  t.match(await answers(1, publish('get', { clientToken: 'g' })), { 'get/rejected': { code: 404, message: /No shadow/, clientToken: 'g', timestamp: Number } })
  const updated = await answers(3, publish('update', { state: { desired: { a: 1 } }, clientToken: 'u' }))
  t.match(updated, {
    'update/accepted': { state: { desired: { a: 1 } }, version: 1, clientToken: 'u' },
    'update/delta': { state: { a: 1 }, metadata: { a: { timestamp: Number } }, version: 1, clientToken: 'u' },
    'update/documents': { current: { state: { desired: { a: 1 } }, version: 1 } }
  })
  t.match(await answers(2, publish('update', { state: { reported: { a: 1 } } })), {
    'update/accepted': { version: 2 }, 'update/documents': { previous: { version: 1 }, current: { state: { desired: { a: 1 }, reported: { a: 1 } } } }
  }, 'no delta when there is none')
  t.match(await answers(1, publish('get', '')), { 'get/accepted': { state: { desired: { a: 1 }, reported: { a: 1 } }, version: 2 } })
  t.match(await answers(1, publish('update', { state: {}, version: 9, clientToken: 'v' })), { 'update/rejected': { code: 409, clientToken: 'v' } })
  t.match(await answers(3, async () => await update('dev', { state: { desired: { a: 2 } } })), { 'update/delta': { state: { a: 2 } } }, 'told of what comes over HTTPS')
  t.match(await answers(3, publish('name/n/update', { state: { desired: { b: 1 } } })), { 'name/n/update/delta': { state: { b: 1 }, version: 1 } })
  const deleted = await answers(1, publish('delete', { clientToken: 'd' }))
  t.strictSame(deleted, { 'delete/accepted': { version: 3, timestamp: deleted['delete/accepted']?.['timestamp'], clientToken: 'd' } })
  t.match(await answers(1, publish('delete', { clientToken: 'e' })), { 'delete/rejected': { code: 404, clientToken: 'e' } })
  const untold = await answers(1, publish('name/n/delete', ''))
  t.notOk(Object.hasOwn(untold['name/n/delete/accepted'] ?? {}, 'clientToken'), 'no token where none was sent')

  const closed = new Promise<void>(resolve => { client.once('close', resolve) })
  client.on('error', () => {})
  client.publish('$aws/things/other/shadow/update', '{"state":{}}')
  await closed
  t.match(await call('GET', '/things/other/shadow'), { status: 404 }, 'the policy applies')
})

await t.test('Publish over HTTPS reaches the devices', async t => {
  const client = await connect(local, { clientId: 'dev', key, cert: made.certificatePem ?? '' })
  t.teardown(() => { client.end(true) })
  const next = (): Promise<[string, string, number]> =>
    new Promise(resolve => { client.once('message', (topic, payload, { qos }) => { resolve([topic, payload.toString('hex'), qos]) }) })
  await client.subscribeAsync('devices/dev/#', { qos: 1 })
  for (const [path, qos] of [['devices%2Fdev%2Fdown?qos=1', 1], ['devices/dev/down', 0]] as const) {
    const message = next()
    t.equal((await call('POST', `/topics/${path}`, Uint8Array.of(0, 255, 123))).status, 200)
    t.same(await message, ['devices/dev/down', '00ff7b', qos])
  }
  const cases: Array<[string, number]> = [
    ['a%2F%2B', 400], ['a%23', 400], ['', 400], ['%24SYS%2Fx', 400], ['a?qos=2', 400], ['a?retain=maybe', 400], ['a/1/2/3/4/5/6/7/8', 400],
    ['%24aws%2Fevents%2Fcertificates%2Fregistered%2Fx', 403]
  ]
  for (const [path, status] of cases) t.equal((await call('POST', `/topics/${path}`, 'x')).status, status, path)
  t.equal((await call('POST', '/topics/a', 'x'.repeat(128 * 1024 + 1))).status, 413)
  const accepted = next()
  await client.subscribeAsync('$aws/things/dev/shadow/update/accepted')
  await call('POST', '/topics/$aws/things/dev/shadow/update', '{"state":{"reported":{"by":"publish"}}}')
  t.match(Buffer.from((await accepted)[1], 'hex').toString(), /"by":"publish"/)
})

await t.test('throttled as the data plane says it', async t => {
  const rig = await startRig({ quotas: 1 })
  t.teardown(rig.close)
  const answers = await Promise.all(Array.from({ length: 40 }, async () => {
    const answer = await fetch(`${rig.local.iotUrl}/things/x/shadow`, { headers: { authorization: SIGNED('iotdata') } })
    return [answer.status, answer.headers.get('x-amzn-errortype')].join(' ')
  }))
  t.same([...new Set(answers)].sort(), ['404 ResourceNotFoundException', '429 ThrottlingException'])
})
