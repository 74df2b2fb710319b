import { existsSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { cvm } from './command.ts'
import type { Surroundings } from './command.ts'
import { holderOf } from './lock-holder.ts'
import { problem, scriptedService } from './scripted-service.ts'
import type { Line, Said, ScriptedService } from './scripted-service.ts'

t.setTimeout(900_000)

interface Item { serialNumber: string, registrationToken: string, product?: string }
type Registry = Map<string, Item>

const HEADER = 'serialNumber,status,product,registrationToken,code,detail'
const csvOf = (count: number) => `serialNumber\n${Array.from({ length: count }, (_, index) => `sn-${index + 1}`).join('\n')}\n`

/** Answers as the service does: what is there with the same token and product is `unchanged`, with another one refused. */
function registering (registry: Registry): (request: unknown) => Said {
  return request => {
    const results = (request as Item[]).map((item, index) => {
      const { serialNumber, registrationToken, product = 'default' } = item
      const known = registry.get(serialNumber)
      const line = { line: index + 1, serialNumber }
      const refused = (code: string) => ({ ...line, status: 'refused', code, detail: `It is, sorry, ${code}`, remedy: 'Try another.' })
      if (product === 'unknown') return refused('unknown-product')
      if (known && known.registrationToken !== registrationToken) return refused('device-exists')
      registry.set(serialNumber, item)
      return { ...line, product, status: known ? 'unchanged' : 'registered' }
    })
    return { status: 200, body: { results } }
  }
}

const line = (answer: (request: unknown) => Said | 'reset') => answer as unknown as Line

function run (service: ScriptedService, file: string, args: string[] = [], surroundings: Surroundings = {}) {
  const env = { CVM_API_KEY: 'cvm_key', CVM_URL: service.url.href, ...surroundings.env }
  return cvm(['devices', 'import', file, ...args], { ...surroundings, env })
}

/** The rows of a result file, without quotes that would need a parser. */
function rowsOf (file: string): Record<string, string>[] {
  const [header, ...rows] = readFileSync(file, 'utf8').trimEnd().split('\n')
  if (header !== HEADER) throw new Error(`header is ${header}`)
  return rows.map(row => Object.fromEntries(row.split(',').map((value, index) => [HEADER.split(',')[index], value])))
}

const tokens = (rows: Iterable<Partial<Item>>) => Object.fromEntries([...rows].map(row => [row.serialNumber, row.registrationToken]))
const tokensOf = (file: string) => tokens(rowsOf(file))
const tokensIn = (registry: Registry) => tokens(registry.values())

await t.test('imports in chunks: every token is in the file before it is sent, and the summary says how it went', async t => {
  const folder = t.testdir({ 'devices.csv': csvOf(25) })
  const out = join(folder, 'devices.results.csv')
  const registry: Registry = new Map()
  const answer = registering(registry)
  const service = await scriptedService(t, [line(request => {
    const written = tokensOf(out)
    for (const { serialNumber, registrationToken } of request as Item[]) t.equal(written[serialNumber], registrationToken)
    return answer(request)
  })])
  const { status, stdout, stderr } = await run(service, join(folder, 'devices.csv'), ['--chunk', '10', '--product', 'pump'])
  t.equal(status, 0, stderr)
  t.strictSame(service.bodies.map(body => JSON.parse(body).length), [10, 10, 5])
  t.strictSame([...new Set(service.paths)], ['POST /v1/devices'])
  t.strictSame(tokensOf(out), tokensIn(registry))
  const row = { status: 'registered', product: 'pump', registrationToken: /^[A-Za-z0-9][\w-]{42}$/ }
  t.match(rowsOf(out), Array.from({ length: 25 }, () => row))
  t.equal(rowsOf(out).length, 25, 'one row for each')
  t.equal(statSync(out).mode & 0o777, 0o600)
  t.equal(holderOf(out), undefined)
  t.match(stdout, /^devices {6}25\nregistered {3}25\nunchanged {4}0\nrefused {6}0\nfailed {7}0\n/)
  t.match(stderr, /^importing .*: 25 devices\n10 of 25 done \(40 %\)\n20 of 25 done \(80 %\)\n25 of 25 done \(100 %\)\n/)
  t.notMatch(stdout + stderr, new RegExp([...registry.values()].map(({ registrationToken }) => registrationToken).join('|')))

  const again = await run(service, join(folder, 'devices.csv'), ['--json'])
  t.equal(again.status, 0)
  const none = { registered: 0, unchanged: 0, refused: 0, failed: 0 }
  t.strictSame(JSON.parse(again.stdout), { lines: 25, ...none, skipped: 25, left: 0, results: out })
  t.equal(service.bodies.length, 3, 'nothing is sent twice')
})

await t.test('CSV as spreadsheets write it, and NDJSON', async t => {
  const folder = t.testdir({
    'a.csv': '\ufeffserialNumber,registrationToken,tokenExpiresAt,product\r\n"sn-1","a ""token"", given",2030-01-01T00:00:00Z,\r\n\r\n,,,\r\nsn-2,,,valve\r\n',
    'b.ndjson': '{"serialNumber":"sn-3","product":"valve"}\n\n{"serialNumber":"sn-4"}'
  })
  const service = await scriptedService(t, [line(registering(new Map()))])
  for (const name of ['a.csv', 'b.ndjson']) t.equal((await run(service, join(folder, name), ['--product', 'pump'])).status, 0)
  const [csv, ndjson] = service.bodies.map(body => JSON.parse(body))
  t.match(csv, [{ serialNumber: 'sn-1', registrationToken: 'a "token", given', tokenExpiresAt: '2030-01-01T00:00:00Z', product: 'pump' },
    { serialNumber: 'sn-2', registrationToken: /^[\w-]{43}$/, product: 'valve' }])
  t.match(ndjson, [{ serialNumber: 'sn-3', product: 'valve' }, { serialNumber: 'sn-4', product: 'pump' }])
  t.notMatch(readFileSync(join(folder, 'a.results.csv'), 'utf8'), 'given', 'a token of the file is not copied')
})

await t.test('a lost answer: the same tokens again, and they are the ones that stand', async t => {
  const folder = t.testdir({ 'devices.csv': csvOf(3) })
  const out = join(folder, 'devices.results.csv')
  const registry: Registry = new Map()
  const answer = registering(registry)
  const lost = line(request => { answer(request); return 'reset' })
  const repeated = await scriptedService(t, [lost, line(answer)])
  const { stdout, stderr } = await run(repeated, join(folder, 'devices.csv'))
  t.match(stdout, /^unchanged {4}3$/m)
  t.match(stderr, 'waiting ')
  t.strictSame(tokensOf(out), tokensIn(registry))

  registry.clear()
  const other = join(folder, 'other.csv')
  const away = await scriptedService(t, [lost, problem(503, 'overloaded', { 'retry-after': '3600' })])
  const stopped = await run(away, join(folder, 'devices.csv'), ['--out', other, '--timeout', '20', '--json'])
  t.equal(stopped.status, 4)
  t.match(JSON.parse(stopped.stdout), { registered: 0, left: 3 })
  t.strictSame(rowsOf(other).map(row => row['status']), ['pending', 'pending', 'pending'])
  // The process is killed while it writes the row of a result.
  writeFileSync(other, `${readFileSync(other, 'utf8')}sn-1,registered,default,not-the-whole-tok`)
  const resumed = await run(await scriptedService(t, [line(answer)]), join(folder, 'devices.csv'), ['--out', other])
  t.match(resumed, { status: 0, stdout: /^unchanged {4}3$/m })
  t.strictSame(tokensOf(other), tokensIn(registry))
})

await t.test('refused and unanswered lines: exit code 1, told, tried again by the next run', async t => {
  const folder = t.testdir({ 'devices.csv': 'serialNumber,product\nsn-1,\nsn-2,unknown\nsn-3,\n' })
  const file = join(folder, 'devices.csv')
  const out = join(folder, 'devices.results.csv')
  const registry: Registry = new Map()
  const answer = registering(registry)
  const service = await scriptedService(t, [line(request => {
    const said = answer(request) as { status: number, body: { results: unknown[] } }
    return { ...said, body: { results: said.body.results.slice(0, 2) } }
  }), line(answer)])
  const { status, stdout, stderr } = await run(service, file)
  t.equal(status, 1)
  t.match(stdout, /^registered {3}1\nunchanged {4}0\nrefused {6}1\nfailed {7}1$/m)
  t.match(stderr, 'line 3, sn-2: refused: unknown-product: It is, sorry, unknown-product. Try another.\n')
  t.match(stderr, 'line 4, sn-3: failed: no-answer\n')
  t.match(stderr, '2 of 3 devices are not registered')
  t.match(readFileSync(out, 'utf8'), /^sn-2,refused,unknown,,unknown-product,"It is, sorry, unknown-product\. Try another\."$/m)

  writeFileSync(file, 'serialNumber,product\nsn-1,\nsn-2,pump\nsn-3,\n')
  t.match(await run(service, file), { status: 0, stdout: /^registered {3}1\nunchanged {4}1\nrefused {6}0\nfailed {7}0\ndone before {2}1$/m })
  t.strictSame(tokensOf(out), tokensIn(registry))
})

await t.test('a device that is there with another token is refused, and no token is given out for it', async t => {
  const folder = t.testdir({ 'devices.csv': csvOf(1) })
  const registry: Registry = new Map([['sn-1', { serialNumber: 'sn-1', registrationToken: 'another' }]])
  const service = await scriptedService(t, [line(registering(registry))])
  t.equal((await run(service, join(folder, 'devices.csv'))).status, 1)
  t.match(rowsOf(join(folder, 'devices.results.csv')), [{ status: 'refused', registrationToken: '', code: 'device-exists' }])
})

await t.test('killed after the service did the work: the next run goes on with the same tokens', async t => {
  const folder = t.testdir({ 'devices.csv': csvOf(30) })
  const out = join(folder, 'devices.results.csv')
  const registry: Registry = new Map()
  const answer = registering(registry)
  const service = await scriptedService(t, [line(answer), line(request => {
    answer(request)
    process.kill(holderOf(out)!, 'SIGKILL')
    return 'reset'
  }), line(answer)])
  t.equal((await run(service, join(folder, 'devices.csv'), ['--chunk', '10'], { isAlone: true })).status, null)
  t.equal(registry.size, 20)
  const before = tokensIn(registry)
  const { stdout } = await run(service, join(folder, 'devices.csv'), ['--chunk', '10'])
  t.match(stdout, /^registered {3}10\nunchanged {4}10\nrefused {6}0\nfailed {7}0\ndone before {2}10$/m)
  t.match(tokensIn(registry), before)
  t.strictSame(tokensOf(out), tokensIn(registry))
})

await t.test('a full disk, in the middle of a row: stops clearly, and nothing is lost', async t => {
  const folder = t.testdir({ 'devices.csv': csvOf(60) })
  const out = join(folder, 'devices.results.csv')
  const registry: Registry = new Map()
  const service = await scriptedService(t, [line(registering(registry))])
  const attempt = (surroundings?: Surroundings) => run(service, join(folder, 'devices.csv'), ['--chunk', '10'], surroundings)
  for (const [blocks, registered] of [[1, 0], [6, 20]] as const) {
    // Beyond so many blocks of 512 bytes a write fails (EFBIG). tap's way into child processes would make a deadly signal of that.
    const shell = `unset NODE_OPTIONS; ulimit -f ${blocks};`
    const { status, stderr } = await attempt({ shell, env: { TSX_DISABLE_CACHE: '1' } })
    t.equal(status, 1)
    t.match(stderr, 'cannot write the results to')
    t.match(stderr, 'nothing is lost')
    t.equal(statSync(out).size, blocks * 512)
    t.equal(registry.size, registered)
  }
  const before = tokensIn(registry)
  t.match(await attempt(), { status: 0 })
  t.equal(registry.size, 60)
  t.match(tokensIn(registry), before)
  t.strictSame(tokensOf(out), tokensIn(registry))
})

await t.test('a file with a fault: named with its line, not quoted; nothing is sent or written', async t => {
  const cases: Record<string, string> = {
    'unknown.csv': 'serialNumber,colour,"x y"\n',
    'without.csv': 'product\npump\n',
    'twice.csv': 'serialNumber,product\nsn-1,\nsn-2,\nsn-1,\n',
    'empty.csv': 'serialNumber,product\nsn-1,\n,pump\n',
    'fields.csv': 'serialNumber,product\nsn-1,pump,secret\n',
    'quote.csv': 'serialNumber,product\nsn-1,secret"pump\n',
    'unknown.ndjson': '{"serialNumber":"sn-1"}\n{"serialNumber":"sn-2","token":"secret"}\n',
    'text.ndjson': '{"serialNumber":1}\n',
    'json.ndjson': '{"serialNumber":"secret\n'
  }
  const messages = ['"colour", "x y"', 'lacks serialNumber', 'line 4 has the serial number of line 2', 'line 3 has no serial number',
    'line 2 has another number of fields', 'line 2 has a quote', 'line 2 has names that are not known: "token"', 'line 1 must have text in serialNumber',
    'line 1 is not a JSON object']
  const folder = t.testdir(cases)
  const service = await scriptedService(t, [line(registering(new Map()))])
  for (const [index, name] of Object.keys(cases).entries()) {
    const { status, stderr, stdout } = await run(service, join(folder, name))
    t.equal(status, 1, name)
    t.match(stderr, messages[index], name)
    t.notMatch(stderr, 'secret')
    t.equal(stdout, '')
    t.equal(existsSync(join(folder, name.replace(/\.\w+$/, '.results.csv'))), false)
  }
  t.strictSame(service.bodies, [])
})

await t.test('a result file that is something else, or in use, is left alone', async t => {
  const folder = t.testdir({ 'devices.csv': csvOf(1), 'letter.txt': 'Dear Ada', 'busy.csv': `${HEADER}\n`, [`busy.csv.lock-${process.pid}-0`]: '' })
  const service = await scriptedService(t, [line(registering(new Map()))])
  const file = join(folder, 'devices.csv')
  t.match(await run(service, file, ['--out', join(folder, 'letter.txt')]), { status: 2, stderr: 'is not a result file' })
  t.equal(readFileSync(join(folder, 'letter.txt'), 'utf8'), 'Dear Ada')
  t.match(await run(service, file, ['--out', file]), { status: 2, stderr: '--out is the file to be imported' })
  t.match(await run(service, file, ['--out', folder]), { status: 2, stderr: 'is not a result file' })
  t.match(await run(service, file, ['--out', join(folder, 'busy.csv')]), { status: 1, stderr: `Wait for process ${process.pid}` })
  t.match(await run(service, file, ['--out', join(folder, 'missing', 'out.csv')]), { status: 1, stderr: 'cannot write the results' })
  t.strictSame(service.bodies, [])
  rmSync(join(folder, `busy.csv.lock-${process.pid}-0`))
  writeFileSync(join(folder, 'busy.csv.lock-999999999-1'), '')
  t.equal((await run(service, file, ['--out', join(folder, 'busy.csv')])).status, 0, 'the lock of a dead process')
})

await t.test('too much at once: says what helps', async t => {
  const folder = t.testdir({ 'devices.csv': csvOf(1) })
  const service = await scriptedService(t, [problem(413, 'body-too-large')])
  t.match(await run(service, join(folder, 'devices.csv')), { status: 3, stderr: 'with a smaller --chunk' })
})
