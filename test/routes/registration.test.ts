// Registering devices: one, an array, lines; each refusal; and that the same again changes nothing.
import { randomUUID } from 'node:crypto'
import t from 'tap'
import { ERRORS, type ErrorCode } from '../../src/errors.ts'
import { API_KEYS, ask } from '../fixtures/api-keys.ts'
import { BEST_ENGINE } from '../fixtures/engines.ts'
import { type Fault, awsError, startFaultyProxy } from '../fixtures/faulty-proxy.ts'
import { isProblem } from '../fixtures/problems.ts'
import { startService } from '../fixtures/service.ts'
import { csrFor, vend } from '../fixtures/vending.ts'

const URL = '/v1/devices'
const NDJSON = { 'content-type': 'application/x-ndjson' }
const service = await startService({ API_KEYS, RATE_LIMIT_ADDRESS_MAX: '100000' })
const proxy = await startFaultyProxy(t)
const engine = await BEST_ENGINE.start()
proxy.forwardTo(engine.url)
/** The same over a registry that goes wrong where a test says so. */
const unlucky = await startService({ API_KEYS, AWS_ENDPOINT_URL_DYNAMODB: proxy.url })
t.teardown(async () => { await service.close(); await unlucky.close(); await engine.close() })

const post = (body: object | string, headers: Record<string, string> = {}) => ask(service, 'POST', URL, body, { 'content-type': 'application/json', ...headers })
const fresh = (): string => `sn-${randomUUID()}`
const TOKEN = 'abcdefgh-12345678'
const SOON = new Date(Date.now() + 3_600_000).toISOString()
const REFUSED: readonly (readonly [what: string, item: object, code: ErrorCode, detail: RegExp])[] = [
  ['a token too short', { registrationToken: 'abcdefgh1234567' }, 'weak-token', /./],
  ['a token of few characters', { registrationToken: 'abcdefgabcdefgabcdefg' }, 'weak-token', /./],
  ['a token with a space', { registrationToken: 'abcdefgh 12345678' }, 'weak-token', /./],
  ['a token beyond ASCII', { registrationToken: 'abcdefgh-1234567é' }, 'weak-token', /./],
  ['a token too long', { registrationToken: `${TOKEN}${'x'.repeat(240)}` }, 'invalid-request', /./],
  ['a token that is no text', { registrationToken: 7 }, 'invalid-request', /./],
  ['an unknown product', { product: 'toaster' }, 'unknown-product', /./],
  ['an expiry that is over', { tokenExpiresAt: '2020-01-01T00:00:00Z' }, 'invalid-request', /tokenExpiresAt/],
  ['an expiry without a zone', { tokenExpiresAt: '2099-01-01T00:00:00' }, 'invalid-request', /./],
  ['an expiry in a leap second, which this machine cannot tell', { tokenExpiresAt: '2016-12-31T23:59:60Z' }, 'invalid-request', /./],
  ['an expiry that is a number', { tokenExpiresAt: 4_102_444_800_000 }, 'invalid-request', /./],
  ['a serial number with a slash', { serialNumber: 'a/b' }, 'invalid-request', /./],
  ['a member too many', { state: 'ACTIVE' }, 'invalid-request', /./]
]

await t.test('one: its token is made, works, and is told once', async t => {
  const serialNumber = fresh()
  const answer = await post({ serialNumber }, { 'x-request-id': 'register-1' })
  t.equal(answer.statusCode, 201)
  t.equal(answer.headers['cache-control'], 'no-store')
  const { registrationToken, ...rest } = answer.json()
  t.same(rest, { serialNumber, product: 'default', state: 'REGISTERED' })
  t.match(registrationToken, /^[\w-]{43}$/)
  const shown = await ask(service, 'GET', `${URL}/${serialNumber}`)
  t.match(shown.json().history, [{ event: 'registered', actor: 'operator-1', requestId: 'register-1' }])
  t.equal((await vend(service, { serialNumber, registrationToken, certificateSigningRequest: csrFor(serialNumber) })).statusCode, 201)
  isProblem(t, await post({ serialNumber }), 'device-exists')
  t.notMatch(`${service.logs()}${shown.body}`, new RegExp(registrationToken), 'nowhere else')
})

await t.test('one: with a token given, and the same again', async t => {
  const item = { serialNumber: fresh(), product: 'default', registrationToken: TOKEN, tokenExpiresAt: SOON }
  const { serialNumber } = item
  const expected = { serialNumber, product: 'default', state: 'REGISTERED', tokenExpiresAt: SOON }
  const first = await post(item, { as: 'line' })
  t.same([first.statusCode, first.json()], [201, expected])
  const again = await post(item)
  t.same([again.statusCode, again.json()], [200, expected])
  const { history } = (await ask(service, 'GET', `${URL}/${serialNumber}`)).json()
  t.match(history, [{ event: 'registered', actor: 'line-1' }])
  t.equal(history.length, 1)
  for (const change of [{ registrationToken: `${TOKEN}x` }, { registrationToken: undefined }, { tokenExpiresAt: undefined }]) {
    isProblem(t, await post({ ...item, ...change }), 'device-exists')
  }
  const request = { serialNumber, registrationToken: TOKEN, certificateSigningRequest: csrFor(serialNumber) }
  t.equal((await vend(service, request)).statusCode, 201)
  isProblem(t, await post(item), 'device-exists', {}, 'no longer REGISTERED')
  t.notMatch(service.logs(), new RegExp(TOKEN))
})

await t.test('one: of many at once, one is the first', async t => {
  const item = { serialNumber: fresh(), registrationToken: TOKEN }
  const statuses = (await Promise.all(Array.from({ length: 20 }, () => post(item)))).map(({ statusCode }) => statusCode)
  t.same(statuses.sort(), [...Array(19).fill(200), 201])
})

await t.test('one: each refusal', async t => {
  for (const [what, item, code, detail] of REFUSED) {
    const answer = await post({ serialNumber: fresh(), ...item })
    isProblem(t, answer, code, { detail }, what)
    t.notMatch(answer.body, /abcdefg/, 'without the token')
  }
  isProblem(t, await post({}), 'invalid-request', { pointer: '' })
  t.same((await post({ serialNumber: 7 })).json().errors, [{ pointer: '/serialNumber', detail: 'must be string' }], 'only what is wrong')
  isProblem(t, await post('7'), 'invalid-request')
  isProblem(t, await post('null'), 'invalid-request')
  isProblem(t, await post('{"serialNumber":"a","serialNumber":"b"}'), 'malformed-json')
  isProblem(t, await post('{}', { 'content-type': 'APPLICATION/JSON; charset=utf-8' }), 'invalid-request', {}, 'however the type is written')
  isProblem(t, await ask(service, 'POST', URL), 'invalid-request', {}, 'no body')
  isProblem(t, await post('x', { 'content-type': 'text/csv' }), 'unsupported-media-type')
})

await t.test('an array: each item by itself, in its order', async t => {
  const [one, two] = [fresh(), fresh()]
  const good = { serialNumber: one, registrationToken: TOKEN }
  await post({ ...good, serialNumber: two })
  const items = [good, { serialNumber: two, registrationToken: TOKEN }, { serialNumber: two }, 'x', null, ...REFUSED.map(([, item]) => ({ serialNumber: fresh(), ...item })), { serialNumber: fresh() }]
  const answer = await post(items)
  t.equal(answer.statusCode, 200)
  t.equal(answer.headers['cache-control'], 'no-store')
  const { results, ...counts } = answer.json()
  t.same(counts, { registered: 2, unchanged: 1, refused: REFUSED.length + 3, failed: 0 })
  t.same(results.map(({ line }: { line: number }) => line), items.map((_, index) => index + 1))
  t.same(results.slice(0, 2), [
    { line: 1, serialNumber: one, status: 'registered', product: 'default' },
    { line: 2, serialNumber: two, status: 'unchanged', product: 'default' }
  ])
  t.match(results[2], { line: 3, serialNumber: two, status: 'refused', code: 'device-exists', remedy: ERRORS['device-exists'].remedy })
  for (const n of [3, 4]) t.match(results[n], { status: 'refused', code: 'invalid-request', detail: /must be object/ })
  for (const [n, [what, , code, detail]] of REFUSED.entries()) t.match(results[5 + n], { status: 'refused', code, detail, remedy: ERRORS[code].remedy }, what)
  t.match(results.at(-1), { status: 'registered', registrationToken: /^[\w-]{43}$/ })
  t.notMatch(answer.body, /abcdefg/, 'without the tokens given')
})

await t.test('an array: as many as fit, and no more', async t => {
  const many = Array.from({ length: 1_000 }, () => ({ serialNumber: `${fresh()}-${'x'.repeat(80)}`, product: 'default', registrationToken: `${randomUUID()}${'x'.repeat(200)}`, tokenExpiresAt: SOON }))
  t.ok(JSON.stringify(many).length > 400_000)
  t.match((await post(many)).json(), { registered: 1_000, refused: 0, failed: 0 })
  t.match((await post(many)).json(), { registered: 0, unchanged: 1_000 })
  isProblem(t, await post([...many, many[0] as object]), 'invalid-request', { detail: /schema/ })
  isProblem(t, await post([]), 'invalid-request')
  isProblem(t, await post(`[${' '.repeat(1_048_576)}]`), 'body-too-large')
})

await t.test('lines: each by itself, then the sum', async t => {
  const [one, two] = [fresh(), fresh()]
  const lines = [
    JSON.stringify({ serialNumber: one }),
    '{"serialNumber":',
    '',
    `{"serialNumber":"${two}","serialNumber":"${one}"}`,
    Buffer.concat([Buffer.from('{"serialNumber":"'), Buffer.from([0xff]), Buffer.from('"}')]),
    '{"serialNumber":"a","__proto__":{}}',
    '[]',
    '{"serialNumber":7,"registrationToken":"short","more":1}',
    JSON.stringify({ serialNumber: two, registrationToken: TOKEN })
  ]
  const answer = await post(Buffer.concat(lines.flatMap(line => [Buffer.from(line), Buffer.from('\r\n')])), { ...NDJSON, 'x-request-id': 'lines-request-1' })
  t.equal(answer.statusCode, 200)
  t.match(answer.headers, { 'content-type': 'application/x-ndjson', 'cache-control': 'no-store', 'x-request-id': 'lines-request-1' })
  const results = answer.body.trimEnd().split('\n').map(line => JSON.parse(line))
  t.same(results.pop(), { summary: true, lines: 8, registered: 2, unchanged: 0, refused: 6, failed: 0 })
  const by = new Map(results.map(result => [result.line, result]))
  t.match(by.get(1), { serialNumber: one, status: 'registered', registrationToken: /^[\w-]{43}$/ })
  for (const [line, code, detail] of [[2, 'malformed-json', /./], [4, 'malformed-json', /more than once/], [5, 'malformed-json', /UTF-8/], [6, 'malformed-json', /./]] as const) {
    t.match(by.get(line), { status: 'refused', code, detail }, `line ${line}`)
  }
  t.match(by.get(7), { status: 'refused', code: 'invalid-request', detail: /must be object/ })
  t.match(by.get(8), { status: 'refused', code: 'invalid-request', detail: /\/serialNumber must be string.*\/more is not a member|\/more is not a member.*\/serialNumber must be string/ })
  t.same(by.get(9), { line: 9, serialNumber: two, status: 'registered', product: 'default' })
  t.equal(by.has(3), false, 'blank lines are counted and left out')
})

await t.test('lines: no answer where the media type is not taken, nor in another encoding', async t => {
  const csr = await ask(service, 'POST', '/v1/certificates', '{}', NDJSON)
  isProblem(t, csr, 'unsupported-media-type')
  isProblem(t, await post('{}', { 'content-type': 'application/x-ndjson; charset=utf-16' }), 'unsupported-media-type')
  isProblem(t, await post('{}', { ...NDJSON, 'content-encoding': 'gzip' }), 'unsupported-media-type')
  t.same((await post('', NDJSON)).json(), { summary: true, lines: 0, registered: 0, unchanged: 0, refused: 0, failed: 0 })
})

await t.test('every item is in the audit, and no token', async t => {
  const [good, swapped] = [fresh(), 'abcdefgh-12345678-swapped']
  await post([{ serialNumber: good, registrationToken: TOKEN }, { serialNumber: swapped, registrationToken: 'sn-1' }], { as: 'line', 'x-request-id': 'audited-1' })
  const audited = service.logs().split('\n').filter(line => line.includes('audited-1') && line.includes('"audit"')).map(line => JSON.parse(line).audit)
  const who = { event: 'device-registered', requestId: 'audited-1', actor: 'line-1', role: 'line' }
  t.same(audited.sort((a, b) => a.outcome.localeCompare(b.outcome)), [
    { ...who, outcome: 'done', serialNumber: good, product: 'default' },
    { ...who, outcome: 'refused', code: 'weak-token' }
  ])
  t.notMatch(service.logs(), new RegExp(swapped), 'nor what may be one')
})

await t.test('a registry that fails for one item does not lose the others', async t => {
  const items = Array.from({ length: 40 }, () => ({ serialNumber: fresh() }))
  failOnce(awsError('AccessDeniedException', 400))
  const { results, ...counts } = (await ask(unlucky, 'POST', URL, items)).json() as { results: Record<string, string>[] }
  t.same(counts, { registered: 39, unchanged: 0, refused: 0, failed: 1 })
  const failed = results.findIndex(({ status }) => status === 'failed')
  t.match(results[failed], { line: failed + 1, ...items[failed], code: 'registry-unavailable', remedy: ERRORS['registry-unavailable'].remedy })
  t.equal(results.filter(({ registrationToken }) => registrationToken).length, 39)
})

await t.test('a registry whose answer is lost: the device has the token that the caller is told', async t => {
  const serialNumber = fresh()
  failOnce('lost answer')
  const { statusCode, body } = await ask(unlucky, 'POST', URL, { serialNumber })
  t.equal(statusCode, 201)
  const { registrationToken } = JSON.parse(body)
  t.equal((await vend(unlucky, { serialNumber, registrationToken, certificateSigningRequest: csrFor(serialNumber) })).statusCode, 201)
  failOnce('lost answer')
  t.equal((await ask(unlucky, 'POST', URL, { serialNumber: fresh(), registrationToken: TOKEN })).statusCode, 200, 'and a token given may be sent again')
})

/** The next write to the registry goes wrong, and no other. */
function failOnce (fault: Fault): void {
  let isLeft = true
  proxy.fail(operation => {
    if (operation !== 'UpdateItem' || !isLeft) return undefined
    isLeft = false
    return fault
  })
}
