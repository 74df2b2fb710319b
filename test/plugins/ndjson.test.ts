// Lines in, results out, over a real socket: nothing is read faster than it is answered, every limit ends with a word, and a caller who
// goes away ends the work at a line.
import { once } from 'node:events'
import type { AddressInfo, Server, Socket } from 'node:net'
import { setImmediate as turn } from 'node:timers/promises'
import rateLimit from '@fastify/rate-limit'
import Fastify from 'fastify'
import t, { type Test } from 'tap'
import { Type } from 'typebox'
import { callerGone } from '../../src/plugins/caller-gone.ts'
import { drain } from '../../src/plugins/drain.ts'
import { answerUnreadable, errorHandler } from '../../src/plugins/error-handler.ts'
import { items } from '../../src/plugins/items.ts'
import { type LineLimits, isReadAtOwnPace, ndjson } from '../../src/plugins/ndjson.ts'
import { strictInput } from '../../src/plugins/strict-input.ts'
import { until } from '../fixtures/until.ts'
import { open } from '../fixtures/wire.ts'

const AT_ONCE = 16
const LIMITS: LineLimits = { maxLines: 10_000, maxLineBytes: 20_000, maxBytes: 200_000_000, idleMs: 600_000 }
const Item = Type.Object({ n: Type.Integer(), pad: Type.Optional(Type.String()) }, { additionalProperties: false })

interface Work { (item: { n: number }): Promise<{ status: string } & Record<string, unknown>> }

/** A service whose one route does `work` for each item. */
async function serve (t: Test, work: Work, settings: Partial<LineLimits> & { requestTimeout?: number, arrayMs?: number } = {}) {
  const { requestTimeout = 0, arrayMs = 60_000, ...limits } = settings
  const failures: string[] = []
  const app = Fastify({
    requestTimeout,
    http: { connectionsCheckingInterval: 50, requestTimeout },
    bodyLimit: 1_000,
    ajv: { customOptions: { allErrors: true, coerceTypes: false } },
    clientErrorHandler: (error, socket) => { if (!isReadAtOwnPace(error, socket)) answerUnreadable(error, socket, app.log) }
  })
  await app.register(callerGone)
  await app.register(drain)
  await app.register(rateLimit, { max: 1_000_000 })
  await app.register(errorHandler, { isAudited: () => false, onFailure: code => failures.push(code) })
  await app.register(strictInput)
  await app.register(ndjson, { ...LIMITS, ...limits })
  await app.register(items, { atOnce: AT_ONCE, arrayMs, isAudited: () => false, onFailure: code => failures.push(code) })
  app.post('/items', { config: { lines: true }, bodyLimit: 100_000 }, async ({ body }, reply) => reply.answerItems(body, { schema: Item, statuses: ['done'], work }))
  const sockets: Socket[] = []
  app.server.on('connection', (socket: Socket) => { sockets.push(socket) })
  await app.listen({ host: '127.0.0.1', port: 0 })
  t.teardown(() => app.close())
  return { app, failures, sockets, port: (app.server.address() as AddressInfo).port }
}

/** A request whose lines are sent one by one, and what comes back. */
function call (t: Test, port: number) {
  const socket = open(port)
  t.teardown(() => socket.destroy())
  let text = ''
  let received = 0
  socket.on('error', () => {}).on('data', chunk => { received += chunk.length; text += chunk.toString('latin1') })
  socket.write('POST /items HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n')
  return {
    socket,
    received: () => received,
    send: (content: string) => socket.write(`${Buffer.byteLength(content).toString(16)}\r\n${content}\r\n`),
    end: () => socket.write('0\r\n\r\n'),
    /** The result lines so far. Chunk sizes stand on lines of their own, and are no objects. */
    results: () => text.split(/\r?\n/).filter(line => /^\{.*\}$/.test(line)).map(line => JSON.parse(line)),
    isOver: () => text.endsWith('\r\n0\r\n\r\n')
  }
}

const done = async () => ({ status: 'done' })

await t.test('5,000 lines with a reader that stands still: neither lines nor results pile up', async t => {
  const LINES = 5_000
  const result = { status: 'done', pad: 'x'.repeat(8_000) }
  let begun = 0
  const { port, sockets } = await serve(t, async () => { begun++; await turn(); return result })
  const { socket, send, end, isOver, results } = call(t, port)
  socket.pause()
  const line = (n: number) => JSON.stringify({ n, pad: 'y'.repeat(10_000) }) + '\n'
  // Written without waiting: what the service does not read stays here.
  for (let n = 0; n < LINES; n++) send(line(n))
  end()
  const isStill = async (): Promise<boolean> => {
    const before = begun
    await new Promise(resolve => setTimeout(resolve, 500))
    return begun > 0 && begun === before
  }
  t.ok(await until(isStill, 60_000), 'the work stands still')
  const ahead = begun
  const bytesRead = sockets[0]?.bytesRead ?? Infinity
  t.comment(`with a reader that stands still: ${ahead} lines begun, ${bytesRead} of ${LINES * line(LINES).length} bytes read`)
  t.ok(ahead < LINES / 2, 'most lines wait')
  // Besides the lines begun: those that are split and those that are on their way, each bounded.
  t.ok(bytesRead < (ahead + AT_ONCE + 100) * line(LINES).length, 'in the caller\'s own memory')
  socket.resume()
  t.ok(await until(isOver, 120_000))
  t.equal(begun, LINES)
  const all = results()
  t.same(all.pop(), { summary: true, lines: LINES, done: LINES, refused: 0, failed: 0 })
  t.equal(new Set(all.map(({ line }) => line)).size, LINES)
})

await t.test('results come as they are ready, no more lines are worked on at once than allowed, and time limits are for other requests', async t => {
  const waiting = new Map<number, () => void>()
  let most = 0
  const { port } = await serve(t, async ({ n }) => {
    await new Promise<void>(resolve => { waiting.set(n, resolve); most = Math.max(most, waiting.size) })
    waiting.delete(n)
    return { status: 'done' }
  }, { requestTimeout: 100 })
  const { send, end, results, isOver } = call(t, port)
  for (let n = 1; n <= 40; n++) send(`{"n":${n}}\n`)
  t.ok(await until(() => waiting.size === AT_ONCE))
  waiting.get(7)?.()
  t.ok(await until(() => results().length === 1), 'while the others are at work and the caller has more to say')
  t.same(results(), [{ line: 7, status: 'done' }])
  t.ok(await until(() => waiting.has(17)), 'and the next is begun')
  const start = Date.now()
  // Longer than a request may take to arrive, and longer than a handler may take.
  await until(() => Date.now() - start > 1_500)
  const free = setInterval(() => { for (const resolve of waiting.values()) resolve() }, 5)
  t.teardown(() => clearInterval(free))
  t.ok(await until(() => results().length === 40))
  send('{"n":41}\n')
  end()
  t.ok(await until(isOver))
  t.match(results().at(-1), { summary: true, lines: 41, done: 41 })
  t.equal(most, AT_ONCE)
})

await t.test('a limit that is reached ends with a word, after all that was begun', async t => {
  const table: [what: string, limits: Partial<LineLimits>, lines: string[], isEnded: boolean, code: string, line: number][] = [
    ['too many lines', { maxLines: 3 }, ['{"n":1}\n', '\n', '{"n":3}\n', '{"n":4}\n'], false, 'body-too-large', 4],
    ['too many bytes', { maxBytes: 20 }, ['{"n":1}\n{"n":2}\n', '{"n":3}\n'], false, 'body-too-large', 3],
    ['a line too long', { maxLineBytes: 20 }, ['{"n":1}\n', `{"n":2,"pad":"${'x'.repeat(20)}"}\n`, '{"n":3}\n'], false, 'body-too-large', 2],
    ['a line that never ends', { maxLineBytes: 20 }, ['{"n":1}\n', 'x'.repeat(21)], false, 'body-too-large', 2],
    ['a long line at the end', { maxLineBytes: 20 }, ['{"n":1}\n', 'x'.repeat(21)], true, 'body-too-large', 2],
    ['no more lines', { idleMs: 1_000 }, ['{"n":1}\n', '{"n":2'], false, 'request-timeout', 2]
  ]
  for (const [what, limits, lines, isEnded, code, line] of table) {
    const { port } = await serve(t, done, limits)
    const { send, end, results, isOver } = call(t, port)
    for (const content of lines) send(content)
    if (isEnded) end()
    t.ok(await until(isOver), `${what}: the answer ends`)
    const [error, summary] = results().slice(-2)
    t.match(error, { error: true, line, code, detail: String, remedy: String }, what)
    t.same(summary, { summary: true, lines: results().length - 2, done: results().length - 2, refused: 0, failed: 0 })
    t.ok(results().length >= 3, `${what}: the lines before it are answered`)
  }
})

await t.test('who goes on sending after the end is read a while, so that they see the answer', async t => {
  const { port } = await serve(t, done, { maxLines: 1 })
  const { send, end, results, isOver, socket } = call(t, port)
  for (let n = 0; n < 2_000; n++) send(`{"n":1,"pad":"${'x'.repeat(1_000)}"}\n`)
  end()
  t.ok(await until(isOver))
  t.match(results(), [{ line: 1, status: 'done' }, { error: true, line: 2 }, { summary: true, lines: 1 }])
  socket.write('POST /items HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n[{"n":1}]')
  t.ok(await until(() => results().some(({ results }) => results)), 'and their connection is of use again')
})

await t.test('a caller who is cut ends the work at a line', async t => {
  let begun = 0
  let finished = 0
  const { port, app } = await serve(t, async () => { begun++; await turn(); finished++; return { status: 'done', pad: 'x'.repeat(16_000) } })
  const { send, socket } = call(t, port)
  socket.pause()
  for (let n = 0; n < 5_000; n++) send(`{"n":${n}}\n`)
  t.ok(await until(() => begun > 100))
  socket.destroy()
  t.ok(await until(async () => await connections(app) === 0))
  t.ok(await until(() => begun === finished), 'what was begun is finished')
  t.ok(begun < 5_000, 'and the rest is not begun')
  const atEnd = begun
  for (let n = 0; n < 100; n++) await turn()
  t.equal(begun, atEnd)
})

await t.test('a caller who is cut in the middle of a line: the lines before it are done', async t => {
  const seen: number[] = []
  const { port, app } = await serve(t, async ({ n }) => { seen.push(n); return { status: 'done' } })
  const { send, socket, results } = call(t, port)
  send('{"n":1}\n{"n":2}\n{"n":')
  t.ok(await until(() => results().length === 2))
  socket.destroy()
  t.ok(await until(async () => await connections(app) === 0))
  t.same(seen, [1, 2])
})

await t.test('a service that shuts down begins no more lines', async t => {
  let free = (): void => {}
  const held = new Promise<void>(resolve => { free = resolve })
  const { port, app } = await serve(t, async () => { await held; return { status: 'done' } })
  const { send, results, socket } = call(t, port)
  for (let n = 1; n <= 100; n++) send(`{"n":${n}}\n`)
  await once(app.server, 'request')
  const drained = app.drain(0, 10_000)
  free()
  t.ok(await until(() => results().at(-1)?.summary === true))
  const [error] = results().slice(-2)
  t.match(error, { error: true, code: 'overloaded' })
  t.equal(error.line, results().length - 1, 'which says where to go on')
  socket.destroy()
  await drained
})

await t.test('an array that takes too long says which items were not begun', async t => {
  const arrayMs = 1_000
  const { app, failures } = await serve(t, async () => { await new Promise(resolve => setTimeout(resolve, 2 * arrayMs)); return { status: 'done' } }, { arrayMs })
  const { results, ...counts } = (await app.inject({ method: 'POST', url: '/items', payload: Array.from({ length: 40 }, (_, n) => ({ n })) })).json()
  t.same(counts, { done: AT_ONCE, refused: 0, failed: 40 - AT_ONCE })
  t.match(results[AT_ONCE], { line: AT_ONCE + 1, status: 'failed', code: 'deadline-exceeded' })
  t.same(failures, Array(40 - AT_ONCE).fill('deadline-exceeded'))
})

await t.test('what goes wrong inside is told without a word of it', async t => {
  const { app } = await serve(t, async () => { throw new Error('a secret at /src/inside.ts:1:1') })
  const answer = await app.inject({ method: 'POST', url: '/items', payload: '{"n":1}\n', headers: { 'content-type': 'application/x-ndjson' } })
  t.match(JSON.parse(answer.body.split('\n')[0] ?? ''), { line: 1, status: 'failed', code: 'internal-error' })
  t.notMatch(answer.body, /secret|inside/)
})

function connections ({ server }: { server: Server }): Promise<number> {
  return new Promise((resolve, reject) => server.getConnections((error, count) => error ? reject(error) : resolve(count)))
}
