// Batches: every status, each line by itself, nothing written by a dry run, and the same again replays.
import { randomUUID } from 'node:crypto'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { ERRORS } from '../../src/errors.ts'
import { certificateIn, certificatesMadeDuring } from '../fixtures/account.ts'
import { API_KEYS, ask } from '../fixtures/api-keys.ts'
import { awsError, startFaultyProxy } from '../fixtures/faulty-proxy.ts'
import { isProblem } from '../fixtures/problems.ts'
import { total } from '../fixtures/scrape.ts'
import { startService } from '../fixtures/service.ts'
import { certificateIdOf, csrFor, newDevice, newKey, publicKeyOf, vend, vendKeys } from '../fixtures/vending.ts'

const URL = '/v1/batches'
const NDJSON = { 'content-type': 'application/x-ndjson' }
const TOKEN = 'abcdefgh-12345678'
const folder = mkdtempSync(join(tmpdir(), 'cvm-batches-'))
t.teardown(() => rmSync(folder, { recursive: true, force: true }))
const file = join(folder, 'products.json')
writeFileSync(file, JSON.stringify([{ name: 'open', lineRegistration: true, generatedKeys: false, keyTypes: ['EC-P256'] }, { name: 'closed' }]))
const proxy = await startFaultyProxy(t)
const service = await startService({ API_KEYS, PRODUCTS_FILE: file, RATE_LIMIT_ADDRESS_MAX: '100000' })
t.teardown(() => service.close())
proxy.forwardTo(service.aws.iotUrl)
const { DEVICE_TABLE } = service.config
const { iot } = service
/** Another replica, whose calls to AWS IoT go wrong where a test says so. */
const replica = await startService({
  API_KEYS, PRODUCTS_FILE: file, DEVICE_TABLE, AWS_ENDPOINT_URL_DYNAMODB: service.aws.dynamodbUrl, AWS_ENDPOINT_URL_IOT: proxy.url, AWS_CALL_TIMEOUT_MS: '1000'
})
t.teardown(() => replica.close())

interface Result { line: number, status: string, [member: string]: unknown }
interface Answer { results: Result[], [member: string]: unknown }

const post = (lines: object | string, { on = service, query = '', ...headers }: { on?: typeof service, query?: string } & Record<string, string | typeof service> = {}) =>
  ask(on, 'POST', URL + query, lines, { as: 'line', 'content-type': 'application/json', ...headers as Record<string, string> })
const resultsOf = async (lines: object[], options: Parameters<typeof post>[1] = {}) => (await post(lines, options)).json() as Answer
const ndjson = (lines: readonly unknown[]) => lines.map(line => `${typeof line === 'string' ? line : JSON.stringify(line)}\n`).join('')
const unknown = (product?: string) => {
  const serialNumber = `sn-${randomUUID()}`
  return { serialNumber, registrationToken: TOKEN, certificateSigningRequest: csrFor(serialNumber), ...(product && { product }) }
}
const fail = (result: Result | undefined) => [result?.status, result?.['code']]

await t.test('lines: each status, a bad line among good ones, and the sum', async t => {
  const [fresh, done, disabled] = [await newDevice(service), await newDevice(service), await newDevice(service)]
  const keyed = await service.register()
  const before = (await vend(service, done)).json()
  await ask(service, 'POST', `/v1/devices/${disabled.serialNumber}/disable`, { reason: 'test' })
  const lines = [
    fresh, done, keyed, disabled, '{"serialNumber":', { ...fresh, registrationToken: 7 }, unknown(), { ...unknown(), certificateSigningRequest: 'x' },
    fresh, { ...await newDevice(service), registrationToken: 'wrong' }
  ]
  const answer = await post(ndjson(lines), { ...NDJSON, 'x-request-id': 'batch-of-lines' })
  t.equal(answer.statusCode, 200)
  t.match(answer.headers, { 'content-type': 'application/x-ndjson', 'cache-control': 'no-store' })
  const results = answer.body.trimEnd().split('\n').map(line => JSON.parse(line) as Result)
  const { rootCaPem, endpoint } = before
  t.same(results.pop(), { summary: true, lines: lines.length, vended: 2, replayed: 1, refused: 7, failed: 0, rootCaPem, endpoint })
  const by = results.sort((a, b) => a.line - b.line)
  t.same(by.map(({ line }) => line), lines.map((_, index) => index + 1))

  const { certificateId, certificatePem } = by[0] as unknown as typeof before
  t.same(Object.keys(by[0] ?? {}), ['line', 'serialNumber', 'status', 'thingName', 'certificateId', 'certificateArn', 'certificatePem', 'notAfter', 'renewAfter'])
  t.match(by[0], { serialNumber: fresh.serialNumber, status: 'vended', thingName: fresh.serialNumber })
  t.equal(certificateIdOf(certificatePem), certificateId)
  t.match(await certificateIn(iot, certificateId), { status: 'ACTIVE', things: [fresh.serialNumber] })
  const { rootCaPem: _, endpoint: __, ...same } = before
  t.same(by[1], { line: 2, status: 'replayed', ...same }, 'the answer that the device was given')
  const { keyPair, certificatePem: pem } = by[2] as unknown as { keyPair: { privateKey: string }, certificatePem: string }
  t.equal(publicKeyOf(keyPair.privateKey), publicKeyOf(pem))
  t.same(by.slice(3).map(fail), [
    ['refused', 'device-disabled'], ['refused', 'malformed-json'], ['refused', 'invalid-request'], ['refused', 'device-not-authorized'],
    ['refused', 'csr-rejected'], ['refused', 'duplicate-in-batch'], ['refused', 'device-not-authorized']
  ])
  t.match(by[7], { reason: 'pem-not-one-block', remedy: ERRORS['csr-rejected'].remedy })
  t.match(by[8], { detail: 'the same serial number is in line 1' })

  const audited = service.logs().split('\n').filter(line => line.includes('batch-of-lines') && line.includes('"audit"')).map(line => JSON.parse(line).audit)
  t.ok(audited.every(({ actor, role }) => actor === 'line-1' && role === 'line'), 'every event names the line')
  t.same(audited.map(({ event, outcome }) => `${event} ${outcome}`).sort(), [
    'certificate-replayed unchanged', 'certificate-vended done', 'certificate-vended done', ...Array(3).fill('vend-refused refused')
  ])
  t.notMatch(service.logs(), /PRIVATE KEY/)
  const counts = await Promise.all(['vended', 'replayed', 'refused', 'failed'].map(status => total(service, 'cvm_batch_lines_total', { status })))
  t.same(counts, [2, 1, 7, 0])
})

await t.test('an array: in its order; the same again is replayed, and what was lost with its key is said', async t => {
  const devices = await Promise.all(Array.from({ length: 30 }, () => newDevice(service)))
  const keyed = await service.register()
  const lines = [...devices, keyed]
  const first = await resultsOf(lines)
  t.match(first, { vended: 31, replayed: 0, refused: 0, failed: 0, rootCaPem: /BEGIN CERTIFICATE/, endpoint: String })
  t.same(first.results.map(({ serialNumber }) => serialNumber), lines.map(({ serialNumber }) => serialNumber))
  const made = await certificatesMadeDuring(iot, async () => {
    const again = await resultsOf(lines)
    t.match(again, { vended: 0, replayed: 30, refused: 1, failed: 0 })
    t.same(again.results.slice(0, 30), first.results.slice(0, 30).map(result => ({ ...result, status: 'replayed' })), 'byte by byte')
    t.same(fail(again.results[30]), ['refused', 'key-not-recoverable'])
  })
  t.same(made, [])
})

await t.test('what is no batch', async t => {
  isProblem(t, await post({ serialNumber: 'a' }), 'invalid-request')
  isProblem(t, await post([]), 'invalid-request')
  isProblem(t, await post(Array(1001).fill({})), 'invalid-request')
  isProblem(t, await post('', { 'content-type': 'text/plain' }), 'unsupported-media-type')
  isProblem(t, await post([{}], { query: '?dryRun=1' }), 'invalid-request')
  isProblem(t, await post([{}], { query: '?dry=true' }), 'invalid-request')
  isProblem(t, await ask(service, 'POST', URL, [{}]), 'forbidden', {}, 'not for operators')
})

await t.test('a device is registered on the fly where the product says so, and nothing is written for what is refused', async t => {
  const [good, weak, closed, nameless, wrong] = [unknown('open'), { ...unknown('open'), registrationToken: 'short' }, unknown('closed'), unknown(), unknown('none')]
  const { certificateSigningRequest, ...keys } = unknown('open')
  const known = { ...await newDevice(service), product: 'open' }
  const stranger = { ...await newDevice(service), product: 'open', registrationToken: TOKEN }
  const lines = [good, weak, closed, nameless, wrong, keys, known, stranger]
  const { results } = await resultsOf(lines, { 'x-request-id': 'on-the-fly-1' })
  t.same(results.map(fail), [
    ['vended', undefined], ['refused', 'weak-token'], ['refused', 'device-not-authorized'], ['refused', 'device-not-authorized'],
    ['refused', 'unknown-product'], ['refused', 'generated-keys-not-allowed'], ['vended', undefined], ['refused', 'device-not-authorized']
  ])
  t.match(await service.app.registry.find(good.serialNumber), { product: 'open', state: 'ACTIVE', history: [{ event: 'registered', actor: 'line-1' }] })
  for (const { serialNumber } of [weak, closed, nameless, wrong, keys]) t.equal(await service.app.registry.find(serialNumber), undefined)
  t.match(await service.app.registry.find(known.serialNumber), { product: 'default' }, 'one that is there stays as it is')
  const registered = service.logs().split('\n').filter(line => line.includes('on-the-fly-1') && line.includes('"device-registered"')).map(line => JSON.parse(line).audit)
  t.match(registered, [{ outcome: 'done', actor: 'line-1', role: 'line', serialNumber: good.serialNumber, product: 'open' }])
  t.equal(registered.length, 1)
  t.match(await resultsOf([good]), { replayed: 1 })
})

await t.test('a dry run says what would be, and writes nothing', async t => {
  const [fresh, done, held] = [await newDevice(service), await newDevice(service), await newDevice(service)]
  const keyed = await service.register()
  const expired = await newDevice(service, { tokenExpiresAt: Date.now() - 1_000 })
  await vend(service, done)
  await vendKeys(service, keyed)
  const now = Date.now()
  const claim = { claimId: 'held', way: 'csr' as const, now, claimExpiresAt: now + 60_000, requestId: 'test', refusingProducts: [] }
  await service.app.registry.claim({ ...held, tokenHash: service.app.hashToken(held.serialNumber, held.registrationToken), publicKeyFingerprint: 'x', ...claim })
  const lines: [line: object, status: string, code?: string][] = [
    [fresh, 'would-vend'],
    [done, 'would-replay'],
    [{ ...done, certificateSigningRequest: csrFor(done.serialNumber) }, 'refused', 'duplicate-in-batch'],
    [keyed, 'refused', 'key-not-recoverable'],
    [held, 'failed', 'vend-in-progress'],
    [expired, 'refused', 'device-not-authorized'],
    [unknown('open'), 'would-vend'],
    [{ ...unknown('open'), registrationToken: 'short' }, 'refused', 'weak-token'],
    [unknown('closed'), 'refused', 'device-not-authorized'],
    [unknown('none'), 'refused', 'unknown-product'],
    [unknown(), 'refused', 'device-not-authorized'],
    [{ ...await newDevice(service), registrationToken: 'wrong' }, 'refused', 'device-not-authorized'],
    [{ ...await newDevice(service), certificateSigningRequest: csrFor('other') }, 'refused', 'csr-rejected'],
    [{ ...await service.register({ product: 'open' }) }, 'refused', 'generated-keys-not-allowed'],
    [{}, 'refused', 'invalid-request']
  ]
  const state = async () => ({
    writes: await total(service, 'cvm_aws_calls_total', { operation: 'UpdateItem' }),
    iot: await total(service, 'cvm_aws_calls_total', { service: 'iot' }),
    lines: await total(service, 'cvm_batch_lines_total')
  })
  const before = await state()
  const { results, ...counts } = await resultsOf(lines.map(([line]) => line), { query: '?dryRun=true' })
  t.same(await state(), before, 'neither the table nor AWS IoT was touched')
  t.same(results.map(fail), lines.map(([, status, code]) => [status, code]))
  t.same(counts, { 'would-vend': 2, 'would-replay': 1, refused: 11, failed: 1 })
  const { body } = await post(ndjson([fresh]), { ...NDJSON, query: '?dryRun=true' })
  t.same(JSON.parse(body.split('\n')[0] ?? ''), { line: 1, serialNumber: fresh.serialNumber, status: 'would-vend' })
  t.match(await resultsOf([fresh], { query: '?dryRun=false' }), { vended: 1 })
})

await t.test('what passes is tried again within the line; what stays has failed, and posting again cures it', async t => {
  const devices = await Promise.all(Array.from({ length: 10 }, () => newDevice(service)))
  let left = 12
  proxy.fail(operation => operation === 'CreateThing' && left-- > 0 ? awsError('ServiceUnavailableException', 503) : operation === 'AttachPolicy' && left-- > 0 ? 'reset' : undefined)
  t.match(await resultsOf(devices, { on: replica }), { vended: 10, failed: 0 })
  t.ok(left < 0, 'there was trouble')

  const more = await Promise.all(Array.from({ length: 3 }, () => newDevice(service)))
  proxy.fail(operation => operation === 'UpdateCertificate' ? awsError('UnauthorizedException', 401) : undefined)
  const failed = await resultsOf(more, { on: replica })
  t.match(failed, { vended: 0, failed: 3, results: more.map(() => ({ status: 'failed', code: 'aws-iot-refused' })) })
  proxy.fail()
  t.match(await resultsOf(more, { on: replica }), { vended: 3 }, 'what was begun is finished as vended')
})

await t.test('a key of another batch, and two batches at once: one certificate for each device', async t => {
  const devices = await Promise.all(Array.from({ length: 20 }, () => newDevice(service)))
  const made = await certificatesMadeDuring(iot, async () => {
    const answers = await Promise.all([resultsOf(devices), resultsOf(devices, { on: replica }), resultsOf([...devices].reverse())])
    for (const { failed, refused } of answers) t.same([failed, refused], [0, 0])
    const ids = answers.map(({ results }) => results.map(({ certificateId }) => certificateId).sort())
    t.same(ids[1], ids[0])
    t.same(ids[2], ids[0])
  })
  t.equal(made.length, 20)
  t.ok(made.every(([, status]) => status === 'ACTIVE'))
  const other = { ...devices[0], certificateSigningRequest: csrFor(devices[0]?.serialNumber ?? '', newKey()) }
  t.same((await resultsOf([other])).results.map(fail), [['refused', 'already-vended']])
})
