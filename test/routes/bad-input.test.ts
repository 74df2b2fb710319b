// Whatever comes over the wire that is no vend request: one clear problem document, and nothing written, called or left open.
import { once } from 'node:events'
import t from 'tap'
import { ScanCommand } from '@aws-sdk/client-dynamodb'
import type { ErrorCode } from '../../src/errors.ts'
import { clientOf } from '../fixtures/engines.ts'
import { isProblem } from '../fixtures/problems.ts'
import { awsCallsDuring, total } from '../fixtures/scrape.ts'
import { startService } from '../fixtures/service.ts'
import { until } from '../fixtures/until.ts'
import { CERTIFICATES, KEYS, newDevice, vend } from '../fixtures/vending.ts'
import { exchange, listen, open, rawPost } from '../fixtures/wire.ts'
import { refusedCsrs } from './refused-csrs.ts'

const service = await startService({ RATE_LIMIT_SERIAL_MAX: '100000', RATE_LIMIT_ADDRESS_MAX: '100000' })
const dynamodb = clientOf(service.aws.dynamodbUrl)
t.teardown(async () => { dynamodb.destroy(); await service.close() })
const port = await listen(service)
const { server } = service.app.service
const device = await newDevice(service)
const json = JSON.stringify(device)
const rows = async () => (await dynamodb.send(new ScanCommand({ TableName: service.config.DEVICE_TABLE }))).Items
const rowsBefore = await rows()
const JSON_TYPE = { 'content-type': 'application/json' }
const { certificateSigningRequest, ...keysRequest } = device

type Expected = Parameters<typeof isProblem>[3]
type Case = readonly [what: string, bytes: string | Buffer, code: ErrorCode, expected?: Expected]
const post = (body: string | Buffer, headers: Record<string, string | number> = JSON_TYPE): Buffer => rawPost(CERTIFICATES, headers, body)
const without = (name: string): string => JSON.stringify({ ...device, [name]: undefined })
const bodyWith = (more: object): Buffer => post(JSON.stringify({ ...device, ...more }))
const line = (requestLine: string, headers = 'host: localhost\r\n'): string => `${requestLine}\r\n${headers}\r\n`
const chunked = (...chunks: string[]): string => line(`POST ${CERTIFICATES} HTTP/1.1`, 'host: localhost\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n') +
  [...chunks, ''].map(chunk => `${Buffer.byteLength(chunk).toString(16)}\r\n${chunk}\r\n`).join('')

const BODIES: readonly Case[] = [
  ['empty', post(''), 'malformed-json'],
  ['none at all', rawPost(CERTIFICATES, {}, ''), 'invalid-request', { pointer: '' }],
  ['white space', post(' \r\n'), 'malformed-json'],
  ['not JSON', post('serialNumber=1'), 'malformed-json'],
  ['cut off', post(json.slice(0, -1)), 'malformed-json'],
  ['cut off in a string', post(json.slice(0, 30)), 'malformed-json', { detail: /^line 1, column \d+: this string does not end$/ }],
  ['something after it', post(`${json}{}`), 'malformed-json'],
  ['single quotes', post("{'serialNumber':'1'}"), 'malformed-json'],
  ['a comma too many', post(json.replace(/}$/, ',}')), 'malformed-json'],
  ['a comment', post(`/* hello */${json}`), 'malformed-json'],
  ['a raw line feed in a string', post('{"serialNumber":"a\nb"}'), 'malformed-json', { detail: /^line 1, column 19: a line ends inside a string; the line ends of a PEM are written \\n$/ }],
  ['a raw tab in a string', post('{\n "serialNumber":"\t"}'), 'malformed-json', { detail: /^line 2, column 18: .*\\u0009$/ }],
  ['NaN', post('{"serialNumber":NaN}'), 'malformed-json'],
  ['NUL', post('\0'), 'malformed-json'],
  ['invalid UTF-8', post(Buffer.concat([Buffer.from('{"serialNumber":"'), Buffer.from([0xff, 0xfe]), Buffer.from('"}')])), 'malformed-json', { detail: /UTF-8/ }],
  ['overlong UTF-8', post(Buffer.concat([Buffer.from('{"registrationToken":"'), Buffer.from([0xc0, 0x80]), Buffer.from('"}')])), 'malformed-json', { detail: /UTF-8/ }],
  ['UTF-16', post(Buffer.from(json, 'utf16le')), 'malformed-json', { detail: /UTF-16/ }],
  ['__proto__', post(json.replace('{', '{"__proto__":{"admin":true},')), 'malformed-json'],
  ['__proto__ in escapes', post(json.replace('{', '{"\\u005f_proto__":{"admin":true},')), 'malformed-json'],
  ['constructor.prototype', post(json.replace('{', '{"constructor":{"prototype":{"admin":true}},')), 'malformed-json'],
  ['a member twice', post(json.replace('{', '{"serialNumber":"other",')), 'malformed-json', { detail: /more than once/ }],
  ['a member twice, in escapes', post(json.replace('{', '{"serialN\\u0075mber":"other",')), 'malformed-json', { detail: /more than once/ }],
  ['a member twice, nested', post('{"a":[{"b":1,"b":2}]}'), 'malformed-json', { detail: /more than once/ }],
  ['null', post('null'), 'invalid-request', { pointer: '' }],
  ['a string', post('"serialNumber"'), 'invalid-request', { pointer: '' }],
  ['a number', post('7'), 'invalid-request', { pointer: '' }],
  ['an array', post(`[${json}]`), 'invalid-request', { pointer: '' }],
  ['an empty object', post('{}'), 'invalid-request', { detail: /schema/ }],
  ['nested as deep as fits', post('['.repeat(8_000) + ']'.repeat(8_000)), 'invalid-request'],
  ['nested objects', post('{"a":'.repeat(2_500) + '1' + '}'.repeat(2_500)), 'invalid-request'],
  ['oversize', post('x'.repeat(16_385)), 'body-too-large'],
  ['oversize, announced only', line(`POST ${CERTIFICATES} HTTP/1.1`, 'host: x\r\ncontent-type: application/json\r\ncontent-length: 99999999\r\n'), 'body-too-large'],
  ['oversize, in chunks', chunked(...Array.from({ length: 20 }, () => 'x'.repeat(1_000))), 'body-too-large'],
  ['not JSON, in chunks', chunked('{', '{'), 'malformed-json']
]

const MEMBERS: readonly Case[] = [
  ...['serialNumber', 'registrationToken', 'certificateSigningRequest'].flatMap((name): Case[] => [
    [`no ${name}`, post(without(name)), 'invalid-request', { pointer: '' }],
    ...[7, null, true, ['x'], { a: 'x' }, '', 1.5].map((value): Case =>
      [`${name} is ${JSON.stringify(value)}`, bodyWith({ [name]: value }), 'invalid-request', { pointer: `/${name}` }])
  ]),
  ['an unknown member', bodyWith({ setAsActive: true }), 'invalid-request', { pointer: '/setAsActive' }],
  ['a member in other case', bodyWith({ serialnumber: '1' }), 'invalid-request', { pointer: '/serialnumber' }],
  ['a member to be escaped', bodyWith({ 'a/b~c': 1 }), 'invalid-request', { pointer: '/a~1b~0c' }],
  ['a member with a very long name', bodyWith({ ['n'.repeat(5_000)]: 1 }), 'invalid-request', { pointer: `/${'n'.repeat(64)}` }],
  ['a CSR where none belongs', rawPost(KEYS, JSON_TYPE, json), 'invalid-request', { pointer: '/certificateSigningRequest' }],
  ['a very long serial number', bodyWith({ serialNumber: 's'.repeat(129) }), 'invalid-request', { pointer: '/serialNumber' }],
  ...['\n', ' ', '\r\n', '\t'].flatMap((space): Case[] => [
    [`a token with ${JSON.stringify(space)} after it`, bodyWith({ registrationToken: `${device.registrationToken}${space}` }), 'invalid-request', { pointer: '/registrationToken' }],
    [`a token with ${JSON.stringify(space)} before it`, bodyWith({ registrationToken: `${space}${device.registrationToken}` }), 'invalid-request', { pointer: '/registrationToken' }]
  ]),
  ['a token in two lines', bodyWith({ registrationToken: 'abcdefgh\nijklmnop' }), 'invalid-request', { pointer: '/registrationToken' }],
  ['a token too long', bodyWith({ registrationToken: 't'.repeat(257) }), 'invalid-request', { pointer: '/registrationToken' }],
  ['a CSR much too long', bodyWith({ certificateSigningRequest: 'c'.repeat(8193) }), 'invalid-request', { pointer: '/certificateSigningRequest' }],
  ...[...' !"#$%&\'()*+,./;<=>?@[\\]^`{|}~\0\n\r\t\x7f\u00e9\u2028', '\ud800', '\u{1f600}'].map((character): Case =>
    [`a serial number with character ${character.codePointAt(0)}`, bodyWith({ serialNumber: `sn${character}1` }), 'invalid-request', { pointer: '/serialNumber' }]),
  ['a serial number with a line feed after it', bodyWith({ serialNumber: `${device.serialNumber}\n` }), 'invalid-request', { pointer: '/serialNumber' }]
]

const HEADERS: readonly Case[] = [
  ['no content-type', post(json, {}), 'unsupported-media-type'],
  ...['text/plain', 'text/json', 'application/x-www-form-urlencoded', 'multipart/form-data; boundary=x', 'application/jsonx', 'application/json-seq', 'application/problem+json',
    'json', ';;;', '', '*/*', 'application/json, text/plain'].map((type): Case => [`content-type ${type}`, post(json, { 'content-type': type }), 'unsupported-media-type']),
  ...['latin1', 'utf-16', 'utf-7', '"iso-8859-1"', ''].map((charset): Case =>
    [`charset ${charset}`, post(json, { 'content-type': `application/json; charset=${charset}` }), 'unsupported-media-type']),
  ['gzip', post(json, { ...JSON_TYPE, 'content-encoding': 'gzip' }), 'unsupported-media-type', { detail: /compressed/ }],
  ['no Host', line(`GET ${CERTIFICATES} HTTP/1.1`, ''), 'invalid-request', { detail: /Host/ }],
  ['a header too long', line('GET / HTTP/1.1', `host: x\r\nx: ${'x'.repeat(17_000)}\r\n`), 'headers-too-large'],
  ['headers too many', line('GET / HTTP/1.1', `host: x\r\n${'a: bbbbbbbb\r\n'.repeat(2_000)}`), 'headers-too-large'],
  ['a header without name', line('GET / HTTP/1.1', 'host: x\r\n: b\r\n'), 'invalid-request'],
  ['a space before the colon', line('GET / HTTP/1.1', 'host: x\r\nx : b\r\n'), 'invalid-request'],
  ['a NUL in a header', line('GET / HTTP/1.1', 'host: x\r\nx: a\0b\r\n'), 'invalid-request'],
  ['two lengths', line(`POST ${CERTIFICATES} HTTP/1.1`, 'host: x\r\ncontent-length: 2\r\ncontent-length: 3\r\n') + '{}', 'invalid-request'],
  ['length and chunks', line(`POST ${CERTIFICATES} HTTP/1.1`, 'host: x\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n') + '{}', 'invalid-request'],
  ['a negative length', line(`POST ${CERTIFICATES} HTTP/1.1`, 'host: x\r\ncontent-length: -1\r\n'), 'invalid-request'],
  ['a broken chunk', line(`POST ${CERTIFICATES} HTTP/1.1`, 'host: x\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n') + 'zz\r\n{}', 'invalid-request']
]

const ADDRESSES: readonly Case[] = [
  ['no HTTP', 'hello\r\n\r\n', 'invalid-request', { detail: /not an HTTP/ }],
  ['TLS', Buffer.from('16030100a5010000a10303', 'hex'), 'invalid-request'],
  ['HTTP/2', 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n', 'invalid-request'],
  ['an unknown method', line('VEND / HTTP/1.1'), 'invalid-request'],
  ['no version, as in HTTP/0.9', line('GET /'), 'not-found'],
  ['HTTP/3.0', line('GET / HTTP/3.0'), 'invalid-request'],
  ['a space in the path', line('GET /a b HTTP/1.1'), 'invalid-request'],
  ['a bad percent sign', line('GET /v1/%zz HTTP/1.1'), 'invalid-request', { detail: /path/ }],
  ['overlong UTF-8 in the path', line('GET /v1/%c0%ae HTTP/1.1'), 'invalid-request', { detail: /path/ }],
  ['a bad percent sign in the query', rawPost(`${CERTIFICATES}?a=%zz`, JSON_TYPE, '{'), 'malformed-json'],
  ['a path of 8,000', line(`GET /${'a'.repeat(8_000)} HTTP/1.1`), 'not-found'],
  ['a path of 17,000', line(`GET /${'a'.repeat(17_000)} HTTP/1.1`), 'headers-too-large'],
  ['an unknown path with a bad body', rawPost('/v2', JSON_TYPE, '{'), 'not-found'],
  ['an unknown path with another media type', rawPost('/v2', { 'content-type': 'text/xml' }, '<a/>'), 'not-found'],
  ['a slash at the end', rawPost(`${KEYS}/`, JSON_TYPE, json), 'not-found'],
  ['two slashes', rawPost(`/${CERTIFICATES}`, JSON_TYPE, json), 'not-found'],
  ['up and down', rawPost(`/v1/x/..${CERTIFICATES.slice(3)}`, JSON_TYPE, json), 'not-found'],
  ['other case', rawPost(CERTIFICATES.toUpperCase(), JSON_TYPE, json), 'not-found'],
  ['the asterisk', line('OPTIONS * HTTP/1.1'), 'not-found'],
  ['a strange method', line(`PROPFIND ${CERTIFICATES} HTTP/1.1`), 'not-found']
]

for (const [group, cases] of Object.entries({ BODIES, MEMBERS, HEADERS, ADDRESSES })) {
  await t.test(group.toLowerCase(), async t => {
    const calls = await awsCallsDuring(service, async () => {
      for (const [what, bytes, code, expected] of cases) isProblem(t, await exchange(port, bytes), code, expected, what)
    })
    t.strictSame(calls, {}, 'no call to AWS')
  })
}

await t.test('each reason to refuse a CSR', async t => {
  const csrs = await refusedCsrs(device.serialNumber)
  const calls = await awsCallsDuring(service, async () => {
    for (const [reason, csr] of Object.entries(csrs)) isProblem(t, await vend(service, { ...device, certificateSigningRequest: csr }), 'csr-rejected', { reason }, reason)
  })
  t.strictSame(Object.keys(calls).filter(call => call !== 'DescribeEndpoint ok'), [], 'no write, and AWS IoT is asked for nothing but its address')
})

await t.test('slowness is cut short', async t => {
  const { requestTimeout, headersTimeout } = server
  Object.assign(server, { requestTimeout: 300, headersTimeout: 200 })
  t.teardown(() => Object.assign(server, { requestTimeout, headersTimeout }))
  t.ok(requestTimeout > 0 && requestTimeout <= 30_000 && headersTimeout > 0 && headersTimeout <= requestTimeout, 'the limits of the service')
  const [headers, body] = await Promise.all([
    exchange(port, `POST ${CERTIFICATES} HTTP/1.1\r\nhost:`),
    exchange(port, post(json).subarray(0, -5))
  ])
  isProblem(t, headers, 'request-timeout', {}, 'headers that do not end')
  isProblem(t, body, 'request-timeout', {}, 'a body that does not end')
})

await t.test('a client that never hangs up holds no socket', async t => {
  const socket = open(port)
  socket.write('hello\r\n\r\n')
  socket.resume()
  const [error] = await once(socket, 'end').then(() => [undefined], error => [error as Error])
  t.equal(error, undefined, 'the service ends the connection')
  const left = await until(async () => await connections() === 0)
  t.ok(left, 'and forgets it, though the client has not ended')
  socket.destroy()
})

await t.test('nothing came of it', async t => {
  t.strictSame(await rows(), rowsBefore, 'no row was made or changed')
  t.equal((await service.app.service.inject({ method: 'POST', url: KEYS, payload: keysRequest })).statusCode, 201, 'the device vends as ever')
  t.ok(await until(async () => await total(service, 'cvm_http_requests_in_flight') === 0), 'nothing is in flight')
  t.notMatch(service.logs(), '"level":50', 'nothing is logged as a failure')
})

function connections (): Promise<number> {
  return new Promise((resolve, reject) => server.getConnections((error, count) => error ? reject(error) : resolve(count)))
}
