// Every header of RFC 9110 and RFC 9112 that changes where a request ends, whose it is, or what is sent before its answer: dispatched once,
// answered once, and what follows on the connection is still read as a request of its own.
import { once } from 'node:events'
import { type Socket, connect } from 'node:net'
import t from 'tap'
import { startService } from '../fixtures/service.ts'
import { until } from '../fixtures/until.ts'
import { CERTIFICATES, KEYS, newDevice } from '../fixtures/vending.ts'
import { listen, open } from '../fixtures/wire.ts'

t.setTimeout(300_000)

const service = await startService({ RATE_LIMIT_SERIAL_MAX: '100000', RATE_LIMIT_ADDRESS_MAX: '100000' })
t.teardown(() => service.close())
const port = await listen(service)

const BODY = JSON.stringify({ serialNumber: 'unknown', registrationToken: 'a-token-of-nobody' })
const LENGTH = `content-length: ${BODY.length}`
const CHUNKED = 'transfer-encoding: chunked'
const CHUNKS = `${BODY.length.toString(16)}\r\n${BODY}\r\n0\r\n\r\n`

interface Case {
  headers: readonly string[]
  status: number
  code?: string
  version?: string
  body?: string
  method?: string
  /** Whether the connection ends after the answer; nothing is sent after a request that says so itself. */
  closes?: true
  /** Whether the service never sees it as a request. */
  unseen?: true
}

/** What a request is answered when its headers change nothing: its body is read. */
const served = { status: 401, code: 'device-not-authorized' }
const refused = { status: 400, code: 'invalid-request' }
const closed = { ...refused, closes: true } as const
/** Refused by Node's parser. */
const unread = { ...closed, unseen: true } as const
const unmet = { status: 417, code: 'expectation-failed' }

const CASES: Record<string, Case> = {
  'Expect: an unknown one': { headers: [LENGTH, 'expect: a miracle'], ...unmet },
  'Expect: empty': { headers: [LENGTH, 'expect:'], ...served },
  'Expect: white space and commas': { headers: [LENGTH, 'expect:  , ,'], ...served },
  'Expect: 100-continue and an unknown one': { headers: [LENGTH, 'expect: 100-continue, x'], ...unmet, closes: true },
  'Expect: two headers, one unknown': { headers: [LENGTH, 'expect: 100-continue', 'expect: x'], ...unmet, closes: true },
  'Expect: with parameters': { headers: [LENGTH, 'expect: 100-continue;q=1'], ...unmet, closes: true },
  'Expect: unknown, of HTTP/1.0': { headers: [LENGTH, 'expect: x'], version: '1.0', ...served, closes: true },
  'Content-Length: two that differ': { headers: [LENGTH, 'content-length: 2'], ...unread },
  'Content-Length: two that agree': { headers: [LENGTH, LENGTH], ...unread },
  'Content-Length: a list': { headers: [`${LENGTH}, ${BODY.length}`], ...unread },
  'Content-Length: with a sign': { headers: [`content-length: +${BODY.length}`], ...unread },
  'Content-Length: negative': { headers: ['content-length: -1'], ...unread },
  'Content-Length: hexadecimal': { headers: [`content-length: 0x${BODY.length.toString(16)}`], ...unread },
  'Content-Length: empty': { headers: ['content-length:'], ...unread },
  'Content-Length: greater than any number': { headers: ['content-length: 99999999999999999999999999'], ...unread },
  'Content-Length: with zeros before it': { headers: [`content-length: 000${BODY.length}`], ...served },
  'Transfer-Encoding: chunked': { headers: [CHUNKED], body: CHUNKS, ...served },
  'Transfer-Encoding: in other case': { headers: ['Transfer-Encoding: Chunked'], body: CHUNKS, ...served },
  'Transfer-Encoding: beside Content-Length': { headers: [LENGTH, CHUNKED], body: CHUNKS, ...unread },
  'Transfer-Encoding: before Content-Length': { headers: [CHUNKED, LENGTH], body: CHUNKS, ...unread },
  'Transfer-Encoding: another coding before chunked': { headers: ['transfer-encoding: gzip, chunked'], body: CHUNKS, ...closed },
  'Transfer-Encoding: another coding in a header before': { headers: ['transfer-encoding: gzip', CHUNKED], body: CHUNKS, ...closed },
  'Transfer-Encoding: chunked twice': { headers: ['transfer-encoding: chunked, chunked'], body: CHUNKS, ...unread },
  'Transfer-Encoding: chunked not last': { headers: ['transfer-encoding: chunked, gzip'], body: CHUNKS, ...unread },
  'Transfer-Encoding: identity': { headers: ['transfer-encoding: identity'], ...unread },
  'Transfer-Encoding: a word that ends alike': { headers: ['transfer-encoding: xchunked'], body: CHUNKS, ...unread },
  'Transfer-Encoding: a space before the colon': { headers: ['transfer-encoding : chunked'], body: CHUNKS, ...unread },
  'Transfer-Encoding: folded': { headers: ['transfer-encoding:', ' chunked'], body: CHUNKS, ...unread },
  'Transfer-Encoding: of HTTP/1.0': { headers: [CHUNKED], body: CHUNKS, version: '1.0', ...closed },
  'Trailer: one that is announced': { headers: [CHUNKED, 'trailer: x-sum'], body: CHUNKS.replace(/\r\n$/, 'x-sum: 1\r\n\r\n'), ...served },
  'Trailer: a length': { headers: [CHUNKED, 'trailer: content-length'], body: CHUNKS.replace(/\r\n$/, 'content-length: 9\r\n\r\n'), ...unread },
  'Trailer: a name of a header': { headers: [CHUNKED], body: CHUNKS.replace(/\r\n$/, 'host: other\r\nauthorization: Bearer x\r\n\r\n'), ...served },
  'TE: trailers': { headers: [LENGTH, 'te: trailers, deflate;q=0.5', 'connection: te'], ...served },
  'Connection: close': { headers: [LENGTH, 'connection: close'], ...served, closes: true },
  'Connection: keep-alive, of HTTP/1.0': { headers: [LENGTH, 'connection: keep-alive'], version: '1.0', ...served },
  'Connection: none, of HTTP/1.0': { headers: [LENGTH], version: '1.0', ...served, closes: true },
  'Connection: names of other headers': { headers: [LENGTH, 'connection: content-length, host, authorization'], ...served },
  'Keep-Alive': { headers: [LENGTH, 'keep-alive: timeout=0'], ...served },
  'Proxy-Connection': { headers: [LENGTH, 'proxy-connection: keep-alive'], ...served },
  'Upgrade: websocket': { headers: [LENGTH, 'connection: upgrade', 'upgrade: websocket', 'sec-websocket-key: x'], ...served, closes: true },
  'Upgrade: h2c': { headers: [LENGTH, 'connection: upgrade, http2-settings', 'upgrade: h2c', 'http2-settings: AAMAAABkAAQAAP__'], ...served, closes: true },
  'Upgrade: without Connection': { headers: [LENGTH, 'upgrade: websocket'], ...served, closes: true },
  'Upgrade: TLS': { headers: [LENGTH, 'connection: upgrade', 'upgrade: TLS/1.2'], ...served, closes: true },
  'Host: two': { headers: [LENGTH, 'host: other'], ...refused },
  'Host: with a path': { headers: [LENGTH, 'HOST: a/b'], ...refused },
  'Content-Encoding: a coding of the body': { headers: [LENGTH, 'content-encoding: gzip'], status: 415, code: 'unsupported-media-type', closes: true },
  'Content-Range: a part of the body': { headers: [LENGTH, 'content-range: bytes 0-0/1'], ...served },
  'Range, If-Range': { headers: [LENGTH, 'range: bytes=0-0', 'if-range: "x"'], ...served },
  'Max-Forwards': { headers: [LENGTH, 'max-forwards: 0'], ...served },
  'CONNECT, without a listener for it': { headers: [], method: 'CONNECT', body: '', ...unread }
}

/** All that is answered to the request and one after it, until the connection ends or both are answered. */
async function answersTo (name: string, { headers, version = '1.1', body = BODY, method = 'POST' }: Case, id: string): Promise<string> {
  const host = headers.some(header => /^host:/.test(header) && name.includes('path')) ? [] : ['host: localhost']
  const target = method === 'CONNECT' ? 'other:443' : KEYS
  const lines = [`${method} ${target} HTTP/${version}`, ...host, 'content-type: application/json', `x-request-id: ${id}`, ...headers]
  const next = 'GET /next HTTP/1.1\r\nhost: localhost\r\n\r\n'
  const socket = open(port)
  let text = ''
  socket.on('data', chunk => { text += chunk.toString('latin1') })
  socket.on('error', () => {})
  const says = (word: string) => headers.includes(`connection: ${word}`)
  const isLast = says('close') || (version === '1.0' && !says('keep-alive'))
  socket.write(`${lines.join('\r\n')}\r\n\r\n${body}${isLast ? '' : next}`)
  const done = await until(() => socket.readableEnded || socket.destroyed || text.includes('"code":"not-found"'))
  socket.destroy()
  return done ? text : `${text} (nothing more)`
}

await t.test('each header', async t => {
  let count = 0
  for (const [name, each] of Object.entries(CASES)) {
    const id = `framing-${++count}`
    const text = await answersTo(name, each, id)
    const statuses = [...text.matchAll(/HTTP\/1\.1 (\d{3}) /g)].map(([, status]) => Number(status))
    const codes = [...text.matchAll(/"code":"([a-z-]+)"/g)].map(([, code]) => code)
    const next = each.closes ? [] : [404]
    t.strictSame(statuses, [each.status, ...next], `${name}: answered once`, { text })
    t.strictSame(codes, [each.code, ...each.closes ? [] : ['not-found']], `${name}: ${each.code}`)
    t.notMatch(text, 'nothing more', `${name}: the next is answered, or the connection ends`)
    const answered = () => service.logs().split('\n').filter(line => line.includes(id) && line.includes('"msg":"answered"')).length
    const times = each.unseen ? 0 : 1
    t.ok(await until(() => answered() >= times), `${name}: logged`)
    t.equal(answered(), times, `${name}: dispatched once`)
  }
})

await t.test('100 Continue is sent once the body is wanted, and not to a caller that is refused before', async t => {
  const expecting = async (path: string, more: string[]): Promise<{ first: string, whole: () => string, socket: Socket }> => {
    const socket = open(port)
    let text = ''
    socket.on('data', chunk => { text += chunk.toString('latin1') })
    socket.write(`POST ${path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\nexpect: 100-Continue\r\ncontent-length: 1\r\n${more.join('')}\r\n`)
    t.ok(await until(() => text.includes('\r\n\r\n')), 'something is answered')
    return { first: text.split('\r\n')[0] ?? '', whole: () => text, socket }
  }
  const wanted = await expecting(CERTIFICATES, [])
  t.equal(wanted.first, 'HTTP/1.1 100 Continue')
  wanted.socket.write('{')
  t.ok(await until(() => wanted.whole().includes('malformed-json')), 'then the body is read')
  t.equal(wanted.whole().split('HTTP/1.1 ').length, 3, 'one interim answer and one answer')
  wanted.socket.destroy()
  const stranger = await expecting('/v1/batches', [])
  t.equal(stranger.first, 'HTTP/1.1 401 Unauthorized')
  t.ok(await until(() => stranger.socket.readableEnded), 'and its connection ends, because its body may come all the same')
  stranger.socket.destroy()
})

await t.test('an expectation that is not met: nothing is vended, and the key is not lost', async t => {
  const { serialNumber, registrationToken } = await newDevice(service)
  const body = JSON.stringify({ serialNumber, registrationToken })
  const post = (expect: string) => new Promise<string>((resolve, reject) => {
    const socket = connect(port, '127.0.0.1')
    let text = ''
    socket.on('data', chunk => { text += chunk.toString('latin1') }).on('close', () => resolve(text)).on('error', reject)
    socket.write(`POST ${KEYS} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\nexpect: ${expect}\r\ncontent-length: ${body.length}\r\n\r\n${body}`)
  })
  t.match(await post('a miracle'), /^HTTP\/1\.1 417 /)
  t.equal((await service.app.registry.find(serialNumber))?.state, 'REGISTERED')
  const vended = await post('')
  t.match(vended, /^HTTP\/1\.1 201 /)
  t.match(vended, 'PRIVATE KEY')
  t.equal(vended.split('HTTP/1.1 ').length, 2, 'one answer')
})

await t.test('a client that sends no more after its request gets its answer', async t => {
  const { certificateSigningRequest, ...keys } = await newDevice(service)
  const device = await newDevice(service)
  const halves = { [CERTIFICATES]: device, [KEYS]: keys, '/nothing': {} }
  for (const [url, request] of Object.entries(halves)) {
    const body = JSON.stringify(request)
    const socket = open(port)
    let text = ''
    socket.on('data', chunk => { text += chunk.toString('latin1') })
    socket.end(`POST ${url} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: ${body.length}\r\n\r\n${body}`)
    await once(socket, 'close')
    t.match(text, url === '/nothing' ? /HTTP\/1\.1 404 / : /HTTP\/1\.1 201 Created[^]*"certificatePem":/, url)
  }
})

await t.test('a request that is cut off by the end of the connection is refused', async t => {
  const socket = open(port)
  let text = ''
  socket.on('data', chunk => { text += chunk.toString('latin1') })
  socket.end(`POST ${CERTIFICATES} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n{`)
  await once(socket, 'close')
  t.match(text, /^HTTP\/1\.1 400 Bad Request\r\n[^]*"code":"invalid-request"/)
})
