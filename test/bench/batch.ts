// A shift of a manufacturing line at an account with quotas: how near to the quota, whether each device got one certificate, how long a
// single device waits meanwhile. As ratios, because seconds are the machine's.
// By hand: node .config/setup.mjs && node --import tsx test/bench/batch.ts --devices 10000 --factor 10 [--replicas 3] [--no-singles]
// With --memory instead: how much the service grows while 50,000 lines stream through, over 5,000 (or --devices and ten times as many).
import { randomBytes, randomUUID } from 'node:crypto'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import type { Test } from 'tap'
import { type LineResult, iotCalls, postBatch } from '../acceptance/batch-client.ts'
import { BEST_ENGINE, apiKey } from '../acceptance/fleet.ts'
import { keyAndRequest } from '../acceptance/key-and-request.ts'
import { attempt, isPassing } from '../acceptance/persistent-client.ts'
import { startLocalAws, startProduction } from '../acceptance/service-process.ts'

const { values } = parseArgs({
  options: {
    devices: { type: 'string' },
    factor: { type: 'string', default: '10' },
    replicas: { type: 'string', default: '1' },
    'no-singles': { type: 'boolean', default: false },
    memory: { type: 'boolean', default: false }
  }
})
const DEVICES = Number(values.devices ?? (values.memory ? 5_000 : 10_000))
const FACTOR = values.memory ? 0 : Number(values.factor)
const REPLICAS = Number(values.replicas)
/** UpdateCertificate's, the least of those that a vend needs (aws-facts 3.1). */
const PER_SECOND = 10 * FACTOR
const SINGLE_EVERY_MS = 250
const ROUNDS = 5
/** As a line's client does: no batch so long that its replica has the last of it when the others are idle, and always another at hand. */
const CHUNK = 50
const AT_ONCE = 3

const teardowns: (() => unknown)[] = []
const t = { teardown: (work: () => unknown) => { teardowns.push(work) } } as unknown as Test
try {
  process.exitCode = await (values.memory ? memory() : shift()) ? 0 : 1
} finally {
  for (const work of teardowns.reverse()) await work()
}

/** Replicas before one account; a batch may register devices. */
async function start (replicas: number) {
  const aws = await startLocalAws(t, BEST_ENGINE, { LOCAL_QUOTAS: String(FACTOR) })
  const folder = mkdtempSync(join(tmpdir(), 'cvm-bench-'))
  t.teardown(() => rmSync(folder, { recursive: true, force: true }))
  const PRODUCTS_FILE = join(folder, 'products.json')
  writeFileSync(PRODUCTS_FILE, '[{"name":"default","lineRegistration":true}]')
  const key = randomBytes(24).toString('base64url')
  const env = {
    AWS_IOT_QUOTA_FACTOR: String(FACTOR),
    API_KEYS: apiKey('line', key),
    PRODUCTS_FILE,
    TOKEN_PEPPER: randomBytes(32).toString('base64'),
    MAX_EVENT_LOOP_DELAY_MS: '60000',
    RATE_LIMIT_ADDRESS_MAX: '1000000'
  }
  const services = []
  for (let n = 0; n < replicas; n++) services.push(await startProduction(t, aws, env))
  return { aws, key, services: services.map(service => ({ ...service, serviceUrl: service.serviceUrl.replace('localhost', '127.0.0.1') })) }
}

async function shift (): Promise<boolean> {
  const { aws, key, services } = await start(REPLICAS)
  const newBodies = async (count: number) => {
    const bodies: string[] = []
    for (let n = 0; n < count; n++) bodies.push((await keyAndRequest(await aws.register())).body)
    return bodies
  }
  const bodies = await newBodies(DEVICES)
  const expectedS = DEVICES / PER_SECOND
  const waiting = values['no-singles'] ? [] : await newBodies(Math.ceil(expectedS * 1000 / SINGLE_EVERY_MS))

  const given = new Map<string, string>()
  const counts: Record<string, number> = {}
  const post = async ({ serviceUrl }: typeof services[0], chunk: readonly string[]) => {
    let left = chunk
    for (let round = 0; round < ROUNDS && left.length > 0; round++) {
      await postBatch({ url: serviceUrl, key }, left, ({ serialNumber, status, code, certificateId }: LineResult) => {
        const what = code ?? status
        counts[what] = (counts[what] ?? 0) + 1
        if (certificateId) given.set(serialNumber, certificateId)
      })
      left = left.filter(body => !given.has(JSON.parse(body).serialNumber))
    }
  }
  const line = async (service: typeof services[0]) => {
    for (let chunk = bodies.splice(0, CHUNK); chunk.length > 0; chunk = bodies.splice(0, CHUNK)) await post(service, chunk)
  }
  const began = performance.now()
  let tookS = NaN
  const done = new AbortController()
  const batches = Promise.all(services.flatMap(service => Array.from({ length: AT_ONCE }, () => line(service))))
    .then(() => { tookS = (performance.now() - began) / 1000 })
    .finally(() => done.abort())
  const times: number[] = []
  const turnedAway: string[] = []
  const singles: Promise<void>[] = []
  for (let n = 0; !done.signal.aborted && n < waiting.length; n++) {
    await Promise.race([delay(SINGLE_EVERY_MS), batches])
    const asked = performance.now()
    singles.push(attempt(services[n % REPLICAS]!.serviceUrl, 'csr', waiting[n]!).then(answer => {
      times.push(performance.now() - asked)
      if (answer.vended) given.set(`single ${n}`, answer.vended.certificateId)
      else if (isPassing(answer)) turnedAway.push(answer.code ?? 'no answer')
    }))
  }
  await Promise.all([batches, ...singles])

  const calls = await Promise.all(services.map(({ opsUrl }) => iotCalls(opsUrl)))
  const all = calls.reduce((sum, { all }) => sum + all, 0)
  const throttled = calls.reduce((sum, { throttled }) => sum + throttled, 0)
  const vended = [...given.keys()].filter(name => name.startsWith('single')).length
  const lost = DEVICES - (given.size - vended)
  const wanted = new Set(given.values())
  const held = await aws.certificates()
  const wrong = held.filter(({ certificateId = '', status }) => !wanted.has(certificateId) || status !== 'ACTIVE').length
  const doubled = given.size - wanted.size + Math.max(0, held.length - given.size)
  times.sort((a, b) => a - b)
  const at = (share: number) => (times[Math.min(times.length - 1, Math.floor(times.length * share))] ?? NaN).toFixed(0)
  const ratio = tookS / ((DEVICES + vended) / PER_SECOND)
  console.log(`${DEVICES} devices on ${BEST_ENGINE.name} at ${FACTOR} × AWS's default quotas, ${REPLICAS} replicas: ${tookS.toFixed(1)} s\n` +
    `time ÷ what the quota alone needs: ${ratio.toFixed(3)} (${(1 / ratio).toFixed(3)} of the quota used)\n` +
    `throttled: ${throttled} of ${all} calls (${(100 * throttled / all).toFixed(2)} %)\n` +
    `lost ${lost}, doubled ${doubled}, left over or not ACTIVE ${wrong}; results ${JSON.stringify(counts)}\n` +
    `single devices meanwhile: ${times.length}, p50 ${at(0.5)} ms, p99 ${at(0.99)} ms, turned away ${turnedAway.length} ${[...new Set(turnedAway)].join()}`)
  return lost === 0 && doubled === 0 && wrong === 0
}

/** The most resident memory while lines stream through that are made as they are sent. */
async function memory (): Promise<boolean> {
  const { key, services: [service] } = await start(1)
  const { serviceUrl: url, pid } = service!
  const peaks: number[] = []
  for (const count of [DEVICES, 10 * DEVICES]) {
    const lines = async function * () {
      for (let n = 0; n < count; n++) {
        const device = { serialNumber: `sn-${randomUUID()}`, registrationToken: randomBytes(24).toString('base64url') }
        yield JSON.stringify({ ...JSON.parse((await keyAndRequest(device)).body), product: 'default' })
      }
    }
    let peak = 0
    const watch = setInterval(() => { peak = Math.max(peak, rssMb(pid)) }, 200)
    const summary = await postBatch({ url, key }, lines())
    clearInterval(watch)
    peaks.push(peak)
    console.log(`${count} lines: RSS at most ${peak.toFixed(0)} MB, ${JSON.stringify(summary)}`.replace(/"rootCaPem".*?\\n",/, ''))
  }
  const [few = 0, many = 0] = peaks
  console.log(`grown by ${(many - few).toFixed(0)} MB over ${DEVICES} lines`)
  return many - few < 50
}

function rssMb (pid: number): number {
  return Number(/^VmRSS:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]) / 1024
}
