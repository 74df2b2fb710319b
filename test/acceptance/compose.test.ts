// `docker compose up --wait`, then everything through the ports that it publishes: the README's commands, Prometheus, three replicas behind
// their balancer, and a restart of one after the other while devices go on asking.
import { randomBytes } from 'node:crypto'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import t from 'tap'
import type { Test } from 'tap'
import { until } from '../fixtures/until.ts'
import { hasDocker, must } from './docker.ts'
import { keyAndRequest } from './key-and-request.ts'
import { attempt } from './persistent-client.ts'
import { CLI, ROOT, folder } from './processes.ts'
import { agentFor, post } from './requests.ts'
import { tool } from './tools.ts'
import { commandsOf } from './transcript.ts'

t.setTimeout(1_800_000)

const AUTHORIZATION = 'Bearer for-development-never-for-real-use'
const SERIAL_MAX = 10
const CLIENTS = 8
const DEVICES_EACH = 60
/** Few enough, and far enough apart, for the limit of one serial number. */
const ASKS_EACH = 5
const PAUSE_MS = 100

/** For one machine that is also the only client: one address, and other tests beside it. */
const MORE = `services:
  cvm: &more
    environment: { MAX_EVENT_LOOP_DELAY_MS: '60000', RATE_LIMIT_ADDRESS_MAX: '1000000', RATE_LIMIT_SERIAL_MAX: '${SERIAL_MAX}', RATE_LIMIT_TIMEOUT_MS: '30000' }
  replica: *more
`

interface Target { health: string, labels: Record<string, string> }
interface Rule { name: string, health: string, lastError?: string }

const PORTS = ['CVM_PORT', 'CVM_OPS_PORT', 'BALANCER_PORT', 'DYNAMODB_PORT', 'IOT_PORT', 'MQTT_PORT', 'PROMETHEUS_PORT']

/** A project of its own name on free ports, and what speaks to it; all of it is gone at the end of the test. */
async function startProject (t: Test) {
  const dir = folder(t)
  const override = join(dir, 'more.yml')
  writeFileSync(override, MORE)
  const env = {
    ...Object.fromEntries(PORTS.map(name => [name, '0'])),
    COMPOSE_PROJECT_NAME: `cvm-test-${randomBytes(4).toString('hex')}`,
    COMPOSE_FILE: `${join(ROOT, 'docker-compose.yml')}:${override}`,
    COMPOSE_PROFILES: 'replicas',
    DEVICE_DIR: dir
  }
  const compose = (...args: string[]) => must('docker', ['compose', ...args], { env, timeoutMs: 1_500_000 })
  t.teardown(async () => {
    await compose('--profile', '*', 'down', '--volumes', '--remove-orphans', '--rmi', 'local', '--timeout', '5')
    const left = await must('docker', ['ps', '--all', '--quiet', '--filter', `label=com.docker.compose.project=${env.COMPOSE_PROJECT_NAME}`])
    if (left !== '') throw new Error(`containers are left: ${left}`)
  })
  const began = performance.now()
  await compose('up', '--build', '--wait', '--wait-timeout', '600').catch(async (cause: Error) => {
    throw new Error(`${cause.message}\n${await compose('ps', '--all')}\n${await compose('logs', '--tail', '40')}`)
  })
  t.comment(`built and healthy in ${Math.round(performance.now() - began)} ms`)
  const address = async (service: string, port: number) => await compose('port', service, String(port))
  const replicas = (await compose('ps', '--quiet', 'replica')).split('\n')
  return { dir, env, replicas, address }
}

if (await hasDocker(t, 'docker-compose.yml: the service, Prometheus, three replicas behind a balancer, their restart')) {
  const { dir, env, replicas, address } = await startProject(t)
  const [service, balancer, prometheus] = [await address('cvm', 8443), await address('balancer', 8443), await address('prometheus', 9090)]
  const balanced = `http://${balancer}`

  /** Registers devices by the operator's key that is in the file for development. */
  async function register (count: number): Promise<{ serialNumber: string, registrationToken: string }[]> {
    const devices = Array.from({ length: count }, () => ({
      serialNumber: `sn-${randomBytes(8).toString('hex')}`, registrationToken: randomBytes(24).toString('base64url')
    }))
    const headers = { authorization: AUTHORIZATION, 'content-type': 'application/json' }
    const response = await fetch(`${balanced}/v1/devices`, { method: 'POST', headers, body: JSON.stringify(devices) })
    const { registered } = await response.json() as { registered: number }
    if (registered !== count) throw new Error(`${response.status}: ${registered} of ${count} devices are registered`)
    return devices
  }

  await t.test('the README\'s commands', async t => {
    const commands = commandsOf('compose')
    t.ok(commands.length > 2, 'the README has them')
    const here = (command: string) => command.replaceAll('localhost:8443', service).replaceAll('localhost:9090', prometheus)
    const cvm = `cvm () { '${process.execPath}' '${CLI}' "$@"; }`
    for (const { command, prints } of commands) {
      const typed = await tool('bash', ['--norc', '-c', `${cvm}\n${here(command)}`], '', { cwd: dir, env: { ...process.env, ...env, XDG_CONFIG_HOME: dir } })
      t.match(typed.stdout + typed.stderr, prints, command.trim())
    }
  })

  await t.test('one serial number has one limit, whichever replica the balancer chooses', async t => {
    const [device] = await register(1)
    const { body } = await keyAndRequest({ ...device!, registrationToken: randomBytes(24).toString('base64url') })
    const guesses = await Promise.all(Array.from({ length: 3 * SERIAL_MAX }, () => attempt(balanced, 'csr', body)))
    t.equal(guesses.filter(({ status }) => status === 401).length, SERIAL_MAX)
    t.equal(guesses.filter(({ status }) => status === 429).length, 2 * SERIAL_MAX)
  })

  await t.test('a restart of one replica after the other loses no request', async t => {
    t.equal(replicas.length, 3)
    const devices = await register(CLIENTS * DEVICES_EACH)
    const bodies = await Promise.all(devices.map(async device => (await keyAndRequest(device)).body))
    const done = new AbortController()
    const agent = agentFor(undefined, { keepAlive: true, maxSockets: CLIENTS })
    t.teardown(() => agent.destroy())
    const counts: Record<string, number> = {}
    const client = async (n: number): Promise<void> => {
      for (let i = 0; !done.signal.aborted; i++) {
        const body = bodies[n * DEVICES_EACH + Math.floor(i / ASKS_EACH) % DEVICES_EACH]!
        const outcome = await post(agent, `${balanced}/v1/certificates`, body).then(({ status }) => String(status), (cause: Error) => cause.message)
        counts[outcome] = (counts[outcome] ?? 0) + 1
        await delay(PAUSE_MS)
      }
    }
    const clients = Array.from({ length: CLIENTS }, (_, n) => client(n))
    const began = performance.now()
    for (const id of replicas) {
      await must('docker', ['restart', id])
      const isHealthy = async () => await must('docker', ['inspect', '--format', '{{.State.Health.Status}}', id]) === 'healthy'
      if (!await until(isHealthy, 300_000)) throw new Error('the replica does not come back')
    }
    done.abort()
    await Promise.all(clients)
    const { 200: replayed = 0, 201: vended = 0, ...others } = counts
    t.strictSame(others, {}, 'every request was answered with a certificate')
    t.ok(vended > CLIENTS && replayed > CLIENTS)
    t.comment(`three restarts in ${Math.round(performance.now() - began)} ms: ${vended} vended, ${replayed} replayed`)
  })

  await t.test('Prometheus scrapes the service and each replica, and its rules are loaded', async t => {
    const ask = async <T>(path: string) => (await (await fetch(`http://${prometheus}/api/v1/${path}`)).json() as { data: T }).data
    const targets = async () => (await ask<{ activeTargets: Target[] }>('targets')).activeTargets.filter(({ health }) => health === 'up')
    t.ok(await until(async () => (await targets()).length === 1 + replicas.length, 120_000), 'all are up')
    t.ok((await targets()).every(({ labels }) => labels['job'] === 'cvm'))
    const rules = async () => (await ask<{ groups: { rules: Rule[] }[] }>('rules')).groups.flatMap(({ rules }) => rules)
    t.ok(await until(async () => (await rules()).every(({ health }) => health !== 'unknown'), 120_000), 'each has been looked at')
    t.strictSame((await rules()).filter(({ health }) => health !== 'ok').map(({ name, lastError }) => `${name}: ${lastError}`), [])
    t.ok((await rules()).length > 10)
  })
}
