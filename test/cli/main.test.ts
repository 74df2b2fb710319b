import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { FILES } from '../../src/cli/device-folder.ts'
import { EXIT } from '../../src/cli/failure.ts'
import { Authority, vendAnswer } from './openssl-authority.ts'
import { cvm } from './command.ts'
import { problem, scriptedService } from './scripted-service.ts'
import type { Line } from './scripted-service.ts'

t.setTimeout(900_000)

const authority = new Authority(t, 'Local root')
const vend: Line = request => ({ status: 201, body: vendAnswer(authority, request.certificateSigningRequest!, request.serialNumber!) })
const TOKEN = 'token-not-to-be-seen'

await t.test('--help and --version: exit code 0, exit codes documented for every command', async t => {
  for (const args of [['--help'], ['device', '--help'], ['device', 'enroll', '--help'], ['verify', '--help'], ['demo', '--help'],
    ['operator', 'list', '--help'], ['devices', 'import', '--help']]) {
    const { status, stdout } = await cvm(args)
    t.equal(status, 0)
    for (const code of Object.values(EXIT)) t.match(stdout, new RegExp(`^  ${code}  `, 'm'))
  }
  const documented = [...readFileSync('README.md', 'utf8').matchAll(/^\| (\d+) \| ([^|]*) \|$/gm)].map(([, code, means]) => `  ${code}  ${means}\n`)
  t.match((await cvm(['--help'])).stdout, `Exit codes:\n${documented.join('')}\n`)
  const { version } = JSON.parse(readFileSync('package.json', 'utf8'))
  t.match(await cvm(['--version']), { status: 0, stdout: `${version}\n` })
})

await t.test('wrong usage: exit code 2', async t => {
  const out = ['device', 'enroll', '--out', join(t.testdir(), 'out')]
  const cases = [[], ['nonsense'], ['device'], ['device', 'enroll'], ['verify'], ['device', 'connect'], [...out, '--token', 'x'],
    [...out, '--key-type', 'dsa'], [...out, '--timeout', '0'], [...out, '--url', 'nonsense'], [...out, '--url', 'http://cvm.example'],
    [...out, '--url', 'https://user:pw@cvm.example'], [...out, '--url', 'https://cvm.example'], [...out, '--serial', 'SN-1'],
    [...out, '--serial', 'SN-1', '--device-file', 'x'], [...out, '--serial', 'SN-1', '--token-file', '-'], ['devices', 'import'], ['devices', 'import', 'x', '--chunk', '1001'],
    ['operator', 'list', '--limit', '0'], ['operator', 'revoke', 'SN-1', '--reason', 'r', '--if-match', 'x'],
    ['operator', 'register', 'SN-1', '--token', 'x'], ['operator', 'register', 'SN-1', '--expires', 'soon'], ['operator', 'show', 'SN-1']]
  const outcomes = await Promise.all(cases.map(async args => ({ args, ...await cvm(args) })))
  for (const { args, status, stdout, stderr } of outcomes) {
    t.equal(status, 2, args.join(' '))
    t.equal(stdout, '')
    t.not(stderr, '')
  }
})

await t.test('enrolls over https with the local root CA, found by itself; the token is nowhere to be seen', async t => {
  const { url, bodies } = await scriptedService(t, [problem(429, 'rate-limited', { 'retry-after': '1' }), vend], authority.issueServer())
  const folder = t.testdir({
    'root-ca.pem': authority.certificate,
    'demo-device.json': JSON.stringify({ serialNumber: 'SN-1', registrationToken: TOKEN }),
    'endpoints.json': JSON.stringify({ serviceUrl: url.href, opsUrl: '', iotUrl: '', dynamodbUrl: '', mqttUrl: 'mqtts://localhost:1' })
  })
  const out = join(folder, 'device')
  const { status, stdout, stderr } = await cvm(['device', 'enroll', '--out', out], { env: { CVM_LOCAL_DIR: folder } })
  t.equal(status, 0, stderr)
  t.match(stdout, 'thing-SN-1')
  for (const line of ['trusting the local root CA', 'using the sample device', 'waiting 1.']) t.match(stderr, line)
  t.notMatch(stdout + stderr, /token-not|PRIVATE/)
  t.equal(JSON.parse(bodies[0]!).registrationToken, TOKEN)

  const verified = await cvm(['verify', join(out, FILES.certificate), '--key', join(out, FILES.privateKey)])
  t.equal(verified.status, 0)
  const connected = await cvm(['device', 'connect', '--dir', out, '--endpoint', 'localhost:1'])
  t.equal(connected.status, 4)
  t.match(connected.stderr, 'could not be reached')
  t.match(await cvm(['device', 'connect', '--dir', folder]), { status: 1, stderr: 'holds no enrolled device' })
})

await t.test('the token by file, standard input, environment and device file', async t => {
  const service = await scriptedService(t, [vend])
  const folder = t.testdir({ token: `${TOKEN}\n`, 'device.json': JSON.stringify({ serialNumber: 'SN-1', registrationToken: TOKEN }) })
  const base = ['device', 'enroll', '--url', service.url.href, '--out']
  const serial = ['--serial', 'SN-1']
  const outcomes = await Promise.all([
    cvm([...base, join(folder, '1'), ...serial, '--token-file', join(folder, 'token')]),
    cvm([...base, join(folder, '2'), ...serial, '--token-file', '-'], { input: `${TOKEN}\n` }),
    cvm([...base, join(folder, '3'), ...serial], { env: { CVM_REGISTRATION_TOKEN: TOKEN } }),
    cvm([...base, join(folder, '4'), '--device-file', join(folder, 'device.json')])
  ])
  t.strictSame(outcomes.map(({ status }) => status), [0, 0, 0, 0])
  t.ok(service.bodies.every(body => JSON.parse(body).registrationToken === TOKEN))
})

await t.test('refused: exit code 3, told in full, no stack trace, no escape sequences, no secret', async t => {
  const said = problem(401, 'device-not-authorized')
  const service = await scriptedService(t, [{ ...said, body: { ...said.body as object, detail: 'wrong\u001b[31m\nline' } }])
  const args = ['device', 'enroll', '--url', service.url.href, '--serial', 'SN-1', '--out', join(t.testdir(), 'out')]
  const { status, stderr } = await cvm(args, { env: { CVM_REGISTRATION_TOKEN: TOKEN } })
  t.equal(status, 3)
  t.equal(stderr, [
    'cvm: the service refused: Title of device-not-authorized (401)',
    '  code:       device-not-authorized',
    '  detail:     wrong [31m line',
    '  remedy:     Do something.',
    '  request id: req-1', ''
  ].join('\n'))
  const debug = await cvm(args, { env: { CVM_REGISTRATION_TOKEN: TOKEN, CVM_DEBUG: '1' } })
  t.match(debug.stderr, /\n {4}at /)
  t.notMatch(debug.stderr, TOKEN)
})

await t.test('nobody there, or "later" until the deadline: exit code 4', async t => {
  const service = await scriptedService(t, [problem(503, 'overloaded', { 'retry-after': '60' })])
  const base = ['device', 'enroll', '--serial', 'SN-1', '--timeout', '1', '--out', join(t.testdir(), 'out')]
  const env = { CVM_REGISTRATION_TOKEN: TOKEN }
  t.match(await cvm([...base, '--url', service.url.href], { env }), { status: 4, stderr: 'come back in 60 s' })
  t.match(await cvm([...base, '--url', 'http://127.0.0.1:1'], { env }), { status: 4, stderr: 'ECONNREFUSED' })
})

await t.test('a broken device file is refused without being quoted: exit code 1', async t => {
  const folder = t.testdir({ 'a.json': `{"registrationToken":"${TOKEN}`, 'b.json': `{"registrationToken":"${TOKEN}"}` })
  for (const name of ['a.json', 'b.json', 'missing.json']) {
    const { status, stderr } = await cvm(['device', 'enroll', '--out', join(folder, 'out'), '--url', 'https://localhost:1', '--device-file', join(folder, name)])
    t.equal(status, 1, name)
    t.notMatch(stderr, TOKEN)
  }
})
