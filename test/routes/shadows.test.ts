// Shadows for people: what a device reports, and what is wanted of it.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { GetThingShadowCommand, IoTDataPlaneClient, UpdateThingShadowCommand } from '@aws-sdk/client-iot-data-plane'
import t from 'tap'
import { API_KEYS, ask } from '../fixtures/api-keys.ts'
import { isProblem } from '../fixtures/problems.ts'
import { total } from '../fixtures/scrape.ts'
import { startService } from '../fixtures/service.ts'
import { newDevice, vend } from '../fixtures/vending.ts'

const dir = mkdtempSync(join(tmpdir(), 'cvm-shadows-'))
t.teardown(() => rmSync(dir, { recursive: true, force: true }))
const PRODUCTS_FILE = join(dir, 'products.json')
writeFileSync(PRODUCTS_FILE, '[{ "name": "sensor", "thingNameTemplate": "sensor-${serialNumber}" }]') // eslint-disable-line no-template-curly-in-string
const PATIENT = { API_KEYS, MAX_EVENT_LOOP_DELAY_MS: '600000' }
const service = await startService({ ...PATIENT, PRODUCTS_FILE, RATE_LIMIT_ADDRESS_MAX: '100000' })
t.teardown(() => service.close())
const data = new IoTDataPlaneClient({ endpoint: service.aws.iotUrl, region: 'us-east-1', credentials: { accessKeyId: 'test', secretAccessKey: 'test' } })
t.teardown(() => data.destroy())

const shadow = (serialNumber: string, name = '') => `/v1/devices/${serialNumber}/shadow${name && `?name=${name}`}`
const get = (serialNumber: string, name?: string) => ask(service, 'GET', shadow(serialNumber, name), undefined, { as: 'auditor' })
const put = (serialNumber: string, body: object, name?: string) => ask(service, 'PUT', shadow(serialNumber, name), body)

/** What AWS IoT holds for a thing. */
async function held (thingName: string, shadowName?: string) {
  const { payload } = await data.send(new GetThingShadowCommand({ thingName, ...(shadowName && { shadowName }) }))
  return JSON.parse(Buffer.from(payload ?? []).toString()) as { state: object, version: number }
}

await t.test('what is wanted is merged, and what the device reports is shown', async t => {
  const { serialNumber } = await newDevice(service)
  isProblem(t, await get(serialNumber), 'shadow-not-found')
  const first = await put(serialNumber, { desired: { interval: 60, mode: { night: true } } })
  const metadata = { desired: { interval: { timestamp: Number } } }
  t.match(first.json(), { state: { desired: { interval: 60 } }, metadata, version: 1, timestamp: Number })
  t.equal(first.headers['cache-control'], 'no-store')
  await data.send(new UpdateThingShadowCommand({ thingName: serialNumber, payload: Buffer.from('{"state":{"reported":{"interval":30}}}') }))
  t.match((await put(serialNumber, { desired: { mode: { night: null, day: 1 }, extra: [1, { a: 'b' }] } })).json(), { version: 3 })
  const shown = await get(serialNumber)
  const desired = { interval: 60, mode: { day: 1 }, extra: [1, { a: 'b' }] }
  t.match(shown.json(), { state: { desired, reported: { interval: 30 }, delta: desired }, version: 3 })
  t.strictSame(shown.json(), { ...await held(serialNumber), timestamp: shown.json().timestamp }, 'as AWS IoT has it')
  t.equal(shown.headers['cache-control'], 'no-store')
  await put(serialNumber, { desired: null })
  t.strictSame((await held(serialNumber)).state, { reported: { interval: 30 } }, 'null takes all of it away')
})

await t.test('named shadows are others', async t => {
  const { serialNumber } = await newDevice(service)
  await put(serialNumber, { desired: { a: 1 } }, '$config-1')
  isProblem(t, await get(serialNumber), 'shadow-not-found')
  t.match((await get(serialNumber, '$config-1')).json(), { state: { desired: { a: 1 } }, version: 1 })
  t.match(await held(serialNumber, '$config-1'), { version: 1 })
})

await t.test('on the condition of a version', async t => {
  const { serialNumber } = await newDevice(service)
  isProblem(t, await put(serialNumber, { desired: { a: 1 }, version: 1 }), 'shadow-conflict')
  t.equal((await put(serialNumber, { desired: { a: 1 }, version: 0 })).json().version, 1)
  const both = await Promise.all([2, 3].map(a => put(serialNumber, { desired: { a }, version: 1 })))
  t.same(both.map(({ statusCode }) => statusCode).sort(), [200, 409], 'of two, one')
})

await t.test('the thing is the device\'s own', async t => {
  const sensor = await newDevice(service, { product: 'sensor' })
  await put(sensor.serialNumber, { desired: { before: true } })
  t.match(await held(`sensor-${sensor.serialNumber}`), { version: 1 }, 'by the template of its product')
  const { thingName } = (await vend(service, sensor)).json()
  await put(sensor.serialNumber, { desired: { after: true } })
  t.match(await held(thingName), { version: 2 })
  isProblem(t, await put('nobody', { desired: {} }), 'device-not-found')
  isProblem(t, await get('nobody'), 'device-not-found')
  const gone = await newDevice(service)
  await ask(service, 'POST', `/v1/devices/${gone.serialNumber}/decommission`, { reason: 'test' })
  isProblem(t, await put(gone.serialNumber, { desired: {} }), 'state-conflict')
  isProblem(t, await get(gone.serialNumber), 'shadow-not-found')
})

await t.test('what is not taken', async t => {
  const { serialNumber } = await newDevice(service)
  const nested = (levels: number): unknown => levels === 0 ? 1 : { a: nested(levels - 1) }
  for (const body of [{}, { desired: [] }, { desired: 'a' }, { desired: 1 }, { desired: {}, version: -1 }, { desired: {}, version: 1.5 }, { desired: {}, version: '1' },
    { desired: {}, reported: {} }, { state: { desired: {} } }, { desired: {}, clientToken: 'x' }]) {
    isProblem(t, await put(serialNumber, body), 'invalid-request', {}, JSON.stringify(body))
  }
  for (const name of ['a%20b', '%2F', 'x'.repeat(65), 'a&name=b', 'a&other=1']) isProblem(t, await put(serialNumber, { desired: {} }, name), 'invalid-request', {}, name)
  isProblem(t, await put(serialNumber, { desired: { a: 'x'.repeat(8_190) } }), 'shadow-too-large')
  isProblem(t, await put(serialNumber, { desired: nested(9) as object }), 'shadow-rejected', { detail: /8 levels/ })
  isProblem(t, await ask(service, 'PUT', shadow(serialNumber), `{"desired":{"a":${'['.repeat(7_000)}${']'.repeat(7_000)}}}`, { 'content-type': 'application/json' }), 'shadow-rejected')
  isProblem(t, await put(serialNumber, { desired: { list: [null] } }), 'shadow-rejected', { detail: /AWS IoT refused it/ })
  isProblem(t, await put(serialNumber, { desired: { a: 'x'.repeat(17_000) } }), 'body-too-large')
  isProblem(t, await get(serialNumber), 'shadow-not-found', {}, 'nothing came of all that')
  await put(serialNumber, { desired: { a: 'x'.repeat(5_000) } })
  isProblem(t, await put(serialNumber, { desired: { b: 'x'.repeat(5_000) } }), 'shadow-too-large', {}, 'too large together')
})

await t.test('changes are audited, calls counted', async t => {
  const { serialNumber } = await newDevice(service)
  await put(serialNumber, { desired: { password: 'not-in-the-log' } })
  await put(serialNumber, { desired: {}, version: 7 })
  await put('nobody-1', { desired: {} })
  const audited = service.logs().split('\n').filter(line => line.includes('"shadow-changed"')).slice(-3).map(line => JSON.parse(line).audit)
  const by = { event: 'shadow-changed', actor: 'operator-1', role: 'operator' }
  t.match(audited, [{ ...by, outcome: 'done', serialNumber }, { ...by, outcome: 'refused', code: 'shadow-conflict', serialNumber }, { ...by, code: 'device-not-found' }])
  t.notOk('serialNumber' in audited[2])
  t.notMatch(service.logs(), 'not-in-the-log')
  t.ok(await total(service, 'cvm_aws_calls_total', { service: 'iot-data', operation: 'UpdateThingShadow', result: 'ok' }) > 0)
  t.equal(await total(service, 'cvm_dependency_up', { dependency: 'aws-iot-data' }), 1)
})

await t.test('while AWS IoT is away', async t => {
  const alone = await startService({ ...PATIENT, AWS_ENDPOINT_URL_IOT_DATA_PLANE: 'http://127.0.0.1:9' })
  t.teardown(() => alone.close())
  const { serialNumber } = await newDevice(alone)
  const answer = await ask(alone, 'PUT', shadow(serialNumber), { desired: {} })
  isProblem(t, answer, 'aws-iot-unavailable')
  t.equal(answer.headers['retry-after'], '2')
  t.match(alone.logs(), /"shadow-changed","outcome":"failed"/)
  t.equal(await total(alone, 'cvm_dependency_up', { dependency: 'aws-iot-data' }), 0)
})
