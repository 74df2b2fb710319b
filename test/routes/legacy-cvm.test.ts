// Old firmware at the contract of the earlier services: the same words, and what is deliberately safer.
import { GetItemCommand, PutItemCommand } from '@aws-sdk/client-dynamodb'
import { GetThingShadowCommand, IoTDataPlaneClient, UpdateThingShadowCommand } from '@aws-sdk/client-iot-data-plane'
import type { HTTPMethods, LightMyRequestResponse as Answer } from 'fastify'
import t, { type Test } from 'tap'
import { API_KEYS, ask } from '../fixtures/api-keys.ts'
import { certificateIn, certificatesMadeDuring } from '../fixtures/account.ts'
import { clientOf } from '../fixtures/engines.ts'
import { awsError, startFaultyProxy } from '../fixtures/faulty-proxy.ts'
import { isProblem } from '../fixtures/problems.ts'
import { awsCallsDuring, total } from '../fixtures/scrape.ts'
import { type TestService, startService } from '../fixtures/service.ts'
import { until } from '../fixtures/until.ts'
import { newDevice, publicKeyOf, vend } from '../fixtures/vending.ts'
import { exchange, listen } from '../fixtures/wire.ts'

const PATIENT = { LEGACY_CVM: 'true', MAX_EVENT_LOOP_DELAY_MS: '600000' }
const SETTINGS = { ...PATIENT, API_KEYS, RATE_LIMIT_ADDRESS_MAX: '100000', RATE_LIMIT_SERIAL_MAX: '1000' }
const service = await startService(SETTINGS)
t.teardown(() => service.close())
const endpoint = service.aws.iotUrl
const data = new IoTDataPlaneClient({ endpoint, region: 'us-east-1', credentials: { accessKeyId: 'test', secretAccessKey: 'test' } })
const dynamodb = clientOf(service.aws.dynamodbUrl)
t.teardown(() => { data.destroy(); dynamodb.destroy() })

interface Device { serialNumber: string, registrationToken: string }
interface Wish { method?: HTTPMethods, payload?: string, headers?: Record<string, string>, at?: TestService }

const queryOf = ({ serialNumber, registrationToken }: Device) => `?${new URLSearchParams({ serialNumber, deviceToken: registrationToken })}`

function request (url: string, { method = 'GET', payload, headers = {}, at = service }: Wish = {}): Promise<Answer> {
  return at.app.service.inject({ method, url, headers, ...(payload !== undefined && { payload }) } as object)
}

const getcert = (device: Device, wish?: Wish) => request(`/getcert${queryOf(device)}`, wish)
const getShadow = (device: Device) => request(`/shadow${queryOf(device)}`)
const putShadow = (device: Device, payload?: string, headers?: Record<string, string>) =>
  request(`/shadow${queryOf(device)}`, { method: 'PUT', ...(payload !== undefined && { payload }), ...(headers && { headers }) })

/** An answer in the old services' words, with all that they sent; never a problem document. */
function says (t: Test, answer: Answer, status: number, text: string, what = text): void {
  t.match({ status: answer.statusCode, text: answer.body, type: answer.headers['content-type'] }, { status, text, type: 'text/plain' }, what)
  t.equal(answer.body, text, what)
  t.match(answer.headers, { deprecation: /^@\d+$/, 'cache-control': 'no-store', 'x-request-id': String }, `${what}: headers`)
}

async function put (item: Record<string, { S: string } | { N: string }>): Promise<void> {
  await dynamodb.send(new PutItemCommand({ TableName: service.config.DEVICE_TABLE, Item: item }))
}

async function desiredOf (thingName: string): Promise<object | undefined> {
  const { payload } = await data.send(new GetThingShadowCommand({ thingName }))
  return (JSON.parse(Buffer.from(payload ?? []).toString()) as { state: { desired?: object } }).state.desired
}

await t.test('/getcert: the answer is the old one, byte for byte but for what is in it', async t => {
  const device = await service.register()
  const answer = await getcert(device)
  t.equal(answer.statusCode, 200)
  const vended = answer.json()
  t.strictSame(Object.keys(vended), ['certificateArn', 'certificateId', 'certificatePem', 'keyPair', 'RootCA'])
  t.strictSame(Object.keys(vended.keyPair), ['PublicKey', 'PrivateKey'])
  t.equal(answer.body, JSON.stringify(vended, null, '\t'), 'indented by tabs')
  t.equal(answer.headers['content-type'], 'application/json')
  t.equal(publicKeyOf(vended.keyPair.PrivateKey), publicKeyOf(vended.certificatePem))
  t.equal(vended.RootCA, service.aws.rootCaPem)
  const { certificateArn, certificateId, certificatePem } = vended
  t.strictSame(await certificateIn(service.iot, certificateId), {
    certificateArn, certificatePem, status: 'ACTIVE', policies: [service.config.IOT_POLICY_NAME], things: [device.serialNumber]
  })
  t.match(answer.headers, { deprecation: '@1795132800', sunset: undefined, 'cache-control': 'no-store', link: '</v1/keys-and-certificates>; rel="successor-version"' })
  const audited = service.logs().split('\n').filter(line => line.includes('"audit"') && line.includes(device.serialNumber)).map(line => JSON.parse(line).audit)
  t.match(audited, [{ event: 'certificate-vended', way: 'keys', route: '/getcert', address: '127.0.0.1' }])
})

await t.test('/getcert: a repeat makes nothing, and the certificate goes on working', async t => {
  const device = await service.register()
  const { certificateId } = (await getcert(device)).json()
  const made = await certificatesMadeDuring(service.iot, async () => {
    for (let n = 0; n < 3; n++) says(t, await getcert(device), 500, 'Error issuing certificate!')
  })
  t.strictSame(made, [])
  t.match(await certificateIn(service.iot, certificateId), { status: 'ACTIVE' })
  const withCsr = await newDevice(service)
  await vend(service, withCsr)
  says(t, await getcert(withCsr), 500, 'Error issuing certificate!', 'nor for a device that has a certificate for its own key')
})

await t.test('/getcert: of many at once one gets it (G1)', async t => {
  // On a busy machine the deadline of a request may end that one, too.
  const isServed = await until(async () => {
    const device = await service.register()
    const answers = await Promise.all(Array.from({ length: 5 }, () => getcert(device)))
    const served = answers.filter(({ statusCode }) => statusCode === 200).length
    t.ok(served <= 1, `${served} served`)
    for (const answer of answers.filter(({ statusCode }) => statusCode !== 200)) t.equal(answer.body, 'Error issuing certificate!')
    return served === 1
  })
  t.ok(isServed, 'one was served')
})

await t.test('rows of the old services', async t => {
  await put({ serialNumber: { S: 'old-1' }, deviceToken: { S: '1234567890' } })
  t.equal((await getcert({ serialNumber: 'old-1', registrationToken: '1234567890' })).statusCode, 200)
  const key = { TableName: service.config.DEVICE_TABLE, Key: { serialNumber: { S: 'old-1' } } }
  const { Item = {} } = await dynamodb.send(new GetItemCommand(key))
  t.notMatch(JSON.stringify(Item), '1234567890', 'the plain token is gone')

  const vended = { serialNumber: 'old-2', registrationToken: 'plain-token' }
  await put({ serialNumber: { S: 'old-2' }, deviceToken: { S: 'plain-token' }, certinfo: { S: `arn:aws:iot:us-east-1:1:cert/${'a'.repeat(64)}` } })
  says(t, await getcert(vended), 500, 'Error issuing certificate!', 'not issued again')
  t.strictSame((await putShadow(vended, '{"a":1}')).json(), { a: 1 }, 'the token is good for the shadow')
  t.strictSame(await desiredOf('old-2'), { a: 1 }, 'of the thing as the old services called it')
  await put({ serialNumber: { S: 'old-3' }, certinfo: { S: 'x' } })
  for (const query of ['?serialNumber=old-3', '?serialNumber=old-3&deviceToken=', '?serialNumber=old-3&deviceToken=undefined']) {
    says(t, await request(`/shadow${query}`), 500, 'Access Denied', 'a row without a token lets nobody in')
  }
})

await t.test('who lacks the right token learns nothing (G7)', async t => {
  const vended = await service.register()
  await getcert(vended)
  const disabled = await service.register()
  await ask(service, 'POST', `/v1/devices/${disabled.serialNumber}/disable`, { reason: 'test' })
  await put({ serialNumber: { S: 'old-plain' }, deviceToken: { S: 'plain' } })
  const cases: Record<string, Device> = {
    unknown: { serialNumber: 'unknown', registrationToken: 'token' },
    wrong: { ...await service.register(), registrationToken: 'wrong' },
    'of another device': { ...await service.register(), registrationToken: vended.registrationToken },
    expired: await service.register({ tokenExpiresAt: Date.now() - 1 }),
    'wrong, vended': { ...vended, registrationToken: 'wrong' },
    'wrong, disabled': { ...disabled, registrationToken: 'wrong' },
    'wrong, row of the old services': { serialNumber: 'old-plain', registrationToken: 'wrong' }
  }
  for (const [name, call] of Object.entries({ getcert, getShadow, putShadow: (device: Device) => putShadow(device, '{"a":1}') })) {
    const seen: object[] = []
    for (const [what, device] of Object.entries(cases)) {
      let answer: Answer | undefined
      const calls = await awsCallsDuring(service, async () => { answer = await call(device) })
      says(t, answer!, 500, 'Access Denied', `${name}, ${what}`)
      seen.push({ headers: plain(answer!.headers), calls })
    }
    for (const each of seen) t.strictSame(each, seen[0], `${name}: same headers, same calls`)
  }
  t.equal(await total(service, 'cvm_aws_calls_total', { service: 'iot-data', operation: 'UpdateThingShadow' }), 1, 'only that of the test before')
})

await t.test('nor does who holds it, once the device is paused or ended', async t => {
  for (const operation of ['disable', 'revoke', 'decommission']) {
    const device = await service.register()
    await getcert(device)
    await ask(service, 'POST', `/v1/devices/${device.serialNumber}/${operation}`, { reason: 'test' })
    for (const answer of [await getcert(device), await getShadow(device), await putShadow(device, '{"a":1}')]) says(t, answer, 500, 'Access Denied', operation)
  }
  const refused = service.logs().split('\n').filter(line => line.includes('"shadow-refused"')).map(line => JSON.parse(line).audit)
  t.match(refused.at(-1), { event: 'shadow-refused', outcome: 'refused', code: 'device-decommissioned', serialNumber: String, address: '127.0.0.1' })
  t.ok(refused.some(({ code, serialNumber }) => code === 'device-not-authorized' && serialNumber === undefined), 'of an unknown device no serial number is told')
})

await t.test('/shadow: what is reported, and what is wanted', async t => {
  const device = await service.register()
  const { serialNumber } = device
  const none = await getShadow(device)
  t.match(none, { statusCode: 200, body: '{}' }, 'no shadow')
  const wanted = await putShadow(device, '{"deviceAttribute":"CVM","nested":{"serialNumber":1},"myserialNumber2":2}')
  t.equal(wanted.headers['content-type'], 'application/json')
  const desired = { deviceAttribute: 'CVM', nested: { serialNumber: 1 }, myserialNumber2: 2 }
  t.strictSame(wanted.json(), desired)
  t.equal(wanted.body, JSON.stringify(wanted.json(), null, '\t'))
  t.equal((await getShadow(device)).body, '{}', 'nothing is reported yet')
  const reported = { serialNumber: 'x', deviceToken: 'y', myserialNumber2: 2, on: true }
  await data.send(new UpdateThingShadowCommand({ thingName: serialNumber, payload: Buffer.from(JSON.stringify({ state: { reported } })) }))
  t.strictSame((await getShadow(device)).json(), { myserialNumber2: 2, on: true })

  const query = `/shadow${queryOf(device)}&color=red&size=1&size=2&deviceAttribute=query`
  t.strictSame((await request(query, { method: 'PUT', payload: '{"deviceAttribute":"body"}' })).json(), { color: 'red', size: '2', deviceAttribute: 'body' }, 'the body wins')
  t.strictSame((await putShadow(device, '{"color":null}')).json(), { color: null })
  t.match(await putShadow(device), { statusCode: 200, body: '{}' }, 'nothing wanted')
  t.strictSame(await desiredOf(serialNumber), { ...desired, size: '2', deviceAttribute: 'body' })
  t.notMatch(JSON.stringify(await desiredOf(serialNumber)), device.registrationToken)
  t.match(service.logs(), new RegExp(`"shadow-changed","outcome":"done","requestId":"[^"]+","serialNumber":"${serialNumber}","address"`))
})

await t.test('/shadow: bodies', async t => {
  const device = await service.register()
  for (const type of ['application/json', 'application/x-www-form-urlencoded', 'text/plain', 'nonsense']) {
    t.equal((await putShadow(device, '{"a":1}', { 'content-type': type })).statusCode, 200, type)
  }
  const token = device.registrationToken
  for (const body of ['a=1', '[]', '"a"', '1', 'null', '{"a":1', '{"a":1,"a":2}', '{"__proto__":1}', JSON.stringify({ password: token }), JSON.stringify({ a: [{ b: token }] }),
    JSON.stringify({ [token]: 1 }), `{"a":${'['.repeat(6_000)}${']'.repeat(6_000)}}`, '{"a":[null]}']) {
    says(t, await putShadow(device, body, { 'content-type': 'application/json' }), 400, 'Bad Request', body.slice(0, 20))
  }
  says(t, await putShadow(device, JSON.stringify({ a: 'x'.repeat(8_190) })), 413, 'The shadow would be larger than the 8 KB that AWS IoT keeps')
  says(t, await putShadow(device, JSON.stringify({ a: 'x'.repeat(17_000) })), 413, 'The body is too large')
  t.strictSame(await desiredOf(device.serialNumber), { a: 1 }, 'nothing came of those')
})

await t.test('/shadow: the pair may be in the body, and no device acts for another', async t => {
  const [own, other] = [await service.register(), await service.register()]
  const pair = ({ serialNumber, registrationToken }: Device) => ({ serialNumber, deviceToken: registrationToken })
  const inBody = (body: object, query = '') => request(`/shadow${query}`, { method: 'PUT', payload: JSON.stringify(body) })
  t.strictSame((await inBody({ ...pair(own), a: 1 })).json(), { a: 1 })
  t.strictSame((await inBody({ ...pair(own), a: 2 }, queryOf(own))).json(), { a: 2 })
  t.strictSame((await inBody({ deviceToken: own.registrationToken, a: 3 }, `?serialNumber=${own.serialNumber}`)).json(), { a: 3 })
  const { serialNumber, registrationToken: deviceToken } = other
  for (const body of [pair(other), { serialNumber }, { deviceToken }, { serialNumber: null }, { deviceToken: 42 }]) {
    says(t, await inBody({ ...body, a: 4 }, queryOf(own)), 500, 'Access Denied', JSON.stringify(Object.keys(body)))
  }
  t.strictSame(await desiredOf(own.serialNumber), { a: 3 })
  await t.rejects(desiredOf(other.serialNumber), { name: 'ResourceNotFoundException' })
})

await t.test('queries of all kinds', async t => {
  const odd = async (registrationToken: string, query: string) => {
    const serialNumber = `odd-${Buffer.from(query).toString('hex').slice(0, 100)}`
    await put({ serialNumber: { S: serialNumber }, deviceToken: { S: registrationToken } })
    return await request(`/getcert?serialNumber=${serialNumber}&deviceToken=${query}`)
  }
  for (const [token, query] of [['a+b/c==', 'a%2Bb%2Fc%3D%3D'], ['a b', 'a+b'], ['a b c', 'a%20b%20c'], ['100%', '100%25'], ['100%', '100%'], ['a&b#c?', 'a%26b%23c%3F'],
    ['schlüssel', 'schl%C3%BCssel'], ['a=b', 'a=b'], ['x'.repeat(1024), 'x'.repeat(1024)]] as const) {
    t.equal((await odd(token, query)).statusCode, 200, query.slice(0, 30))
  }
  for (const [token, query] of [['a+b', 'a+b'], ['x'.repeat(1025), 'x'.repeat(1025)], ['a', 'a&deviceToken=a'], ['a', 'a&serialNumber=other'], ['a', 'a%00'], ['a', 'A']] as const) {
    says(t, await odd(token, query), 500, 'Access Denied', query.slice(0, 30))
  }
  for (const query of ['', '?', '?serialNumber=a', '?deviceToken=a', '?serialNumber=&deviceToken=', '?serialNumber=a%20b&deviceToken=a', '?serialNumber=%2e%2e&deviceToken=a',
    `?serialNumber=${'s'.repeat(129)}&deviceToken=a`, '?__proto__=a&serialNumber=a', '?serialNumber[]=a&deviceToken=a', '?%', '?serialNumber=%zz&deviceToken=%']) {
    const calls = await awsCallsDuring(service, async () => says(t, await request(`/getcert${query}`), 500, 'Access Denied', query.slice(0, 30)))
    t.strictSame(calls, {}, 'and nobody is asked')
  }
})

await t.test('other methods and addresses vend nothing', async t => {
  const device = await service.register()
  const token = device.registrationToken
  for (const url of ['/getcert', '/shadow']) {
    for (const method of ['HEAD', 'POST', 'DELETE', 'PATCH', 'OPTIONS', ...url === '/getcert' ? ['PUT'] : []] as HTTPMethods[]) {
      const answer = await request(url + queryOf(device), { method })
      t.equal(answer.statusCode, 405, `${method} ${url}`)
      t.equal(answer.headers['allow'], url === '/getcert' ? 'GET' : 'GET, PUT')
      t.notMatch(answer.body + JSON.stringify(answer.headers), token)
    }
    const slash = await request(`${url}/${queryOf(device)}`)
    isProblem(t, slash, 'not-found', {}, `${url}/`)
    t.notMatch(slash.body, token)
  }
  t.match(await service.app.registry.find(device.serialNumber), { state: 'REGISTERED', revision: 1 })
  const off = await startService()
  t.teardown(() => off.close())
  for (const url of ['/getcert', '/shadow']) isProblem(t, await request(url + queryOf(device), { at: off }), 'not-found', {}, `${url} without LEGACY_CVM`)
})

await t.test('over the wire: a URL that is too long, and one that cannot be decoded', async t => {
  const port = await listen(service)
  const token = 'not-to-be-logged-'.repeat(1_100)
  const long = await exchange(port, `GET /getcert?serialNumber=a&deviceToken=${token} HTTP/1.1\r\nHost: localhost\r\n\r\n`)
  t.equal(long.statusCode, 431)
  const broken = await exchange(port, 'GET /getcert%zz?serialNumber=a&deviceToken=not-to-be-logged- HTTP/1.1\r\nHost: localhost\r\n\r\n')
  t.equal(broken.statusCode, 400)
  const fragment = await exchange(port, 'GET /getcert?serialNumber=a&deviceToken=not-to-be-logged-#x HTTP/1.1\r\nHost: localhost\r\n\r\n')
  t.equal(fragment.body, 'Access Denied')
  t.notMatch(long.body + broken.body + service.logs(), 'not-to-be-logged-')
})

await t.test('limits: per address before anything, per serial number before the token is looked at', async t => {
  const limited = await startService({
    ...PATIENT, LEGACY_CVM_SUNSET: '2030-01-31', RATE_LIMIT_SERIAL_MAX: '2', RATE_LIMIT_ADDRESS_MAX: '6', RATE_LIMIT_WINDOW_MS: '600000'
  })
  t.teardown(() => limited.close())
  const device = { serialNumber: 'sn-1', registrationToken: 'a' }
  for (let n = 0; n < 2; n++) says(t, await getcert(device, { at: limited }), 500, 'Access Denied')
  const refused = await getcert({ ...device, registrationToken: 'b' }, { at: limited })
  says(t, refused, 429, 'Too many requests')
  t.match(refused.headers, { 'retry-after': /^\d+$/, sunset: 'Thu, 31 Jan 2030 00:00:00 GMT' })
  says(t, await request(`/shadow${queryOf(device)}`, { at: limited }), 429, 'Too many requests', 'shared by all that takes a token')
  for (let n = 0; n < 2; n++) says(t, await request('/getcert', { at: limited }), 500, 'Access Denied')
  says(t, await request('/getcert', { at: limited }), 429, 'Too many requests')
  for (const limit of ['serial', 'address']) t.ok(await total(limited, 'cvm_rate_limited_total', { limit }) > 0, limit)
})

await t.test('while AWS is away', async t => {
  const iot = await startFaultyProxy(t)
  const at = await startService({ ...SETTINGS, AWS_ENDPOINT_URL_IOT: iot.url, AWS_ENDPOINT_URL_IOT_DATA_PLANE: iot.url })
  t.teardown(() => at.close())
  iot.forwardTo(at.aws.iotUrl)
  const device = await at.register()
  // The proxy takes the change of a shadow for a thing's creation.
  iot.fail(operation => /^CreateKeysAndCertificate$|^CreateThing$|shadow/.test(operation) ? awsError('InternalFailureException', 500) : undefined)
  const failed = await getcert(device, { at })
  says(t, failed, 500, 'Error issuing certificate!')
  t.equal(failed.headers['retry-after'], '2')
  for (const method of ['GET', 'PUT'] as const) says(t, await request(`/shadow${queryOf(device)}`, { method, at }), 500, 'Service error', method)
  iot.fail()
  t.match(await getcert(device, { at }), { statusCode: 200 }, 'the next time it is vended (G3)')

  const away = await startService({ ...SETTINGS, CREATE_TABLES: 'false', AWS_ENDPOINT_URL_DYNAMODB: 'http://127.0.0.1:9' })
  t.teardown(() => away.close())
  says(t, await getcert(device, { at: away }), 500, 'Service error')
  says(t, await request(`/shadow${queryOf(device)}`, { at: away }), 500, 'Service error')
})

/** Without what differs between any two answers. */
function plain (headers: object): object {
  return Object.fromEntries(Object.entries(headers).filter(([name]) => !/^(x-request-id|date|x-ratelimit-re.*)$/.test(name)))
}
