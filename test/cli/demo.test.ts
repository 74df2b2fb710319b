// The demo's way through failure; its story is told by the acceptance tests, on the real service.
import { spawn } from 'node:child_process'
import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import t from 'tap'
import type { Test } from 'tap'

t.setTimeout(900_000)

/** Runs the demo on a stand-in for the service, with a temporary folder of its own that must be empty afterwards. */
async function demo (t: Test, server: string, signalWhen?: RegExp, story = 'undefined') {
  const folder = t.testdir({ 'server.mjs': server, tmp: {} })
  const program = `
    const { runDemo } = await import('./dist/cli/demo.js')
    const { describe } = await import('./dist/cli/failure.js')
    await runDemo(process.argv[1], ${story}).catch(error => { process.exitCode = error.exitCode ?? 99; process.stderr.write(describe(error)) })`
  const child = spawn(process.execPath, ['--input-type=module', '-e', program, join(folder, 'server.mjs')],
    { env: { ...process.env, TMPDIR: join(folder, 'tmp'), SECRET_OF_MINE: 'x' } })
  if (signalWhen !== undefined) child.stdout.on('data', chunk => { if (signalWhen.test(String(chunk))) setTimeout(() => child.kill('SIGINT'), 500) })
  const ended = new Promise(resolve => child.on('close', resolve))
  const [stdout, stderr] = await Promise.all([text(child.stdout), text(child.stderr)])
  const left = readdirSync(join(folder, 'tmp')).filter(name => name.startsWith('cvm-demo-'))
  return { status: await ended, stdout, stderr, left }
}

const RUNNING = 'setInterval(() => {}, 1000);'
const UP = `
  import { writeFileSync } from 'node:fs'
  import { join } from 'node:path'
  const put = (name, value) => writeFileSync(join(process.env.CVM_LOCAL_DIR, name), JSON.stringify(value))
  put('demo-device.json', { serialNumber: 'SN-1', registrationToken: 'token' })
  put('root-ca.pem', '')
  put('endpoints.json', { serviceUrl: 'https://127.0.0.1:1', mqttUrl: 'mqtts://127.0.0.1:1' })
  process.on('SIGTERM', () => process.exit(0))`

await t.test('a service that does not start: its own words, exit code 1, nothing left', async t => {
  const { status, stderr, left } = await demo(t, 'console.error("port is taken"); process.exit(7)')
  t.equal(status, 1)
  t.match(stderr, 'port is taken')
  t.match(stderr, 'ended by itself (7)')
  t.strictSame(left, [])
})

await t.test('a service that dies in the middle of the story', async t => {
  const { status, stderr, left } = await demo(t, `${UP}; setTimeout(() => process.exit(9), 1000); ${RUNNING}`)
  t.equal(status, 1)
  t.match(stderr, 'ended by itself (9)')
  t.strictSame(left, [])
})

await t.test('Ctrl-C: the service is stopped, nothing is left', async t => {
  for (const server of [RUNNING, `${UP}; ${RUNNING}`]) {
    const { status, stderr, left } = await demo(t, server, /Starting|2\./)
    t.equal(status, 1)
    t.match(stderr, 'interrupted')
    t.strictSame(left, [])
  }
})

await t.test('Ctrl-C while the story is writing: the folder goes once the story has ended', async t => {
  const story = `async (folder, endpoints, say, signal) => {
    const { mkdir } = await import('node:fs/promises')
    const stopped = new Promise(resolve => signal.addEventListener('abort', resolve))
    process.kill(process.pid, 'SIGINT')
    await stopped
    // The service needs less time to stop.
    await new Promise(resolve => setTimeout(resolve, 1000))
    await mkdir(folder + '/device', { recursive: true })
    signal.throwIfAborted()
  }`
  const { status, stderr, left } = await demo(t, `${UP}; ${RUNNING}`, undefined, story)
  t.equal(status, 1)
  t.match(stderr, 'interrupted')
  t.strictSame(left, [])
})

await t.test('the service inherits no settings, only free ports on this machine', async t => {
  const names = ['SECRET_OF_MINE', 'HOST', 'PORT', 'OPS_PORT', 'LOCAL_IOT_PORT', 'LOCAL_MQTT_PORT', 'LOCAL_DYNAMODB_PORT', 'LOG_LEVEL']
  const { stderr } = await demo(t, `console.error(JSON.stringify(process.env, ${JSON.stringify(names)})); process.exit(1)`)
  const env = JSON.parse(stderr.split('\n')[0]!)
  t.notOk('SECRET_OF_MINE' in env)
  t.match(env, { HOST: '127.0.0.1', PORT: '0', OPS_PORT: '0', LOCAL_IOT_PORT: '0', LOCAL_MQTT_PORT: '0', LOCAL_DYNAMODB_PORT: '0', LOG_LEVEL: 'warn' })
})
