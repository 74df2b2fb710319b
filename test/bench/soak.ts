// Minutes of mixed load with faults on one built service: does it keep its memory and its file descriptors, and does nothing drift?
// By hand: node .config/setup.mjs && node --import tsx test/bench/soak.ts --minutes 10 [--clients 16] [--heap 128]
// With --heap the service has that many MB for what lives long, as in a small container; without, V8 takes its time on a large machine.
import { readFileSync, readdirSync } from 'node:fs'
import { setTimeout as delay } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import type { Test } from 'tap'
import { BEST_ENGINE, type Fleet, holdsOnly, startFleet, unfinished } from '../acceptance/fleet.ts'
import { keyAndRequest } from '../acceptance/key-and-request.ts'
import { Observer, watchedBy } from '../acceptance/observer.ts'
import { type Attempt, type Way, attempt, isPassing, persist } from '../acceptance/persistent-client.ts'

const { values } = parseArgs({ options: { minutes: { type: 'string', default: '10' }, clients: { type: 'string', default: '16' }, heap: { type: 'string' } } })
const MINUTES = Number(values.minutes)
const CLIENTS = Number(values.clients)
const heap: Record<string, string> = values.heap ? { NODE_OPTIONS: `--max-old-space-size=${Number(values.heap)}` } : {}
/** What is measured before that says how a process warms up, not what it loses. */
const WARM_UP = 1 / 4
const SAMPLE_MS = 1_000
/** Descriptors that may come and go: connections kept open by clients and by the SDK. */
const FD_SLACK = 16

const NO_CSR = JSON.stringify({ serialNumber: 'x', registrationToken: 'x', certificateSigningRequest: 'x' })

/** Every kind of fault, each seldom enough that most vends get through at once. */
const FAULTS = [
  { operation: 'CreateCertificateFromCsr', kind: 'cut-after', probability: 0.02 },
  { operation: 'CreateKeysAndCertificate', kind: 'hang-after', probability: 0.05 },
  { operation: 'UpdateCertificate', kind: 'cut-after', probability: 0.02 },
  { operation: 'AttachPolicy', kind: 'error', status: 503, probability: 0.02 },
  { operation: 'AttachThingPrincipal', kind: 'hang', probability: 0.01 },
  { operation: 'CreateThing', kind: 'throttle', probability: 0.03 },
  { operation: '*', kind: 'cut', probability: 0.005 },
  { operation: '*', kind: 'latency', latencyMs: 100, probability: 0.02 }
]

/** A settled device: what it asked for and what it was given. */
interface Settled { readonly way: Way, readonly body: string, readonly certificateId: string }

interface Sample { readonly minute: number, readonly rssMb: number, readonly fds: number, readonly heapMb: number }

const teardowns: (() => unknown)[] = []
const t = { teardown: (work: () => unknown) => { teardowns.push(work) } } as unknown as Test
try {
  process.exitCode = await soak() ? 0 : 1
} finally {
  for (const work of teardowns.reverse()) await work()
}

async function soak (): Promise<boolean> {
  const observer = new Observer()
  const fleet = await startFleet(t, 1, watchedBy(observer), { LOG_LEVEL: 'info', ...heap }, { LOCAL_FAULTS: JSON.stringify(FAULTS) })
  const service = fleet.replicas[0]!
  const counts: Record<string, number> = {}
  const wrong: string[] = []
  const settled: Settled[] = []
  const samples: Sample[] = []
  let drift = 0

  const began = performance.now()
  const minute = () => (performance.now() - began) / 60_000
  const load = Array.from({ length: CLIENTS }, async () => {
    while (minute() < MINUTES) await errand(fleet, observer, settled, wrong, counts)
  })
  const watch = async () => {
    while (minute() < MINUTES) {
      const [driftNow = 0, heap = 0] = await metricsOf(service.opsUrl(), ['cvm_drift', 'nodejs_heap_size_used_bytes'])
      samples.push({ minute: minute(), ...usageOf(service.pid()), heapMb: heap / 2 ** 20 })
      drift = Math.max(drift, driftNow)
      await delay(SAMPLE_MS)
    }
  }
  await Promise.all([...load, watch()])

  await fetch(`${fleet.aws.iotUrl}/_local/faults`, { method: 'DELETE' })
  const asked = performance.now()
  await fleet.ask('/v1/reconcile', { dryRun: true })
  const lookMs = Math.round(performance.now() - asked)
  const { faults, ms } = await holdsOnly(fleet, new Set(settled.map(({ certificateId }) => certificateId)), 60_000)
  const left = await unfinished(fleet, 60_000)
  drift = Math.max(drift, left.drift, ...await metricsOf(service.opsUrl(), ['cvm_drift']))

  const steady = samples.filter(({ minute }) => minute > MINUTES * WARM_UP)
  const early = Math.max(...samples.filter(({ minute }) => minute <= MINUTES * WARM_UP).map(({ fds }) => fds))
  const last = usageOf(service.pid())
  const rss = steady.map(({ minute, rssMb }) => [minute, rssMb] as const)
  const fds = steady.map(({ minute, fds }) => [minute, fds] as const)
  const low = troughs(steady)
  const leaks = last.fds > early + FD_SLACK
  console.log(`${MINUTES} minutes on ${BEST_ENGINE.name}, ${CLIENTS} clients, ${settled.length} devices, ${observer.activations} activations\n` +
    `answers: ${JSON.stringify(counts)}\n` +
    `RSS: ${rss[0]?.[1].toFixed(0)} MB after warm-up, ${last.rssMb.toFixed(0)} MB at the end, ${slope(rss).toFixed(2)} MB per minute` +
    ` (second half ${slope(rss.slice(rss.length >> 1)).toFixed(2)})\n` +
    `live heap (troughs): ${low.map(([, mb]) => mb.toFixed(0)).join(' ')} MB, ${slope(low).toFixed(2)} MB per minute\n` +
    `file descriptors: at most ${early} while warming up, ${last.fds} at the end, ${slope(fds).toFixed(2)} per minute${leaks ? ': A LEAK' : ''}\n` +
    `drift ${drift}, backlog ${left.backlog}, left over ${faults.length}, a look of reconcile ${lookMs} ms, clean ${ms} ms after that; ` +
    `${observer.violations.length} times two ACTIVE; ${wrong.length} wrong answers`)
  for (const line of [...wrong, ...faults, ...observer.violations].slice(0, 20)) console.log(line)
  return drift === 0 && !leaks && left.backlog === 0 && faults.length === 0 && observer.violations.length === 0 && wrong.length === 0
}

/** One thing that a client does: mostly a new device, sometimes an old one again, or a request that must be refused. */
async function errand (
  fleet: Fleet, observer: Observer, settled: Settled[], wrong: string[], counts: Record<string, number>
): Promise<void> {
  const url = () => fleet.replicas[0]!.url()
  const tell = (attempts: readonly Attempt[]) => {
    for (const { status, code } of attempts) counts[code ?? status] = (counts[code ?? status] ?? 0) + 1
    return attempts.at(-1)!
  }
  const draw = Math.random()
  const old = settled[Math.floor(Math.random() * settled.length)]
  if (draw < 0.2 && old) {
    const { status, code, vended } = tell(await persist(url, old.way, old.body, 60_000))
    const fits = old.way === 'csr' ? status === 200 && vended?.certificateId === old.certificateId : code === 'key-not-recoverable'
    if (!fits) wrong.push(`a settled device asking again by ${old.way}: ${code ?? status}`)
    return
  }
  if (draw < 0.3) {
    const body = JSON.stringify({ serialNumber: `nobody-${Math.random()}`.replace('.', ''), registrationToken: 'wrong' })
    const last = tell([await attempt(url(), 'keys', body)])
    if (last.status !== 401 && !isPassing(last)) wrong.push(`an unknown device: ${last.code ?? last.status}`)
    return
  }
  if (draw < 0.35) {
    const last = tell([await attempt(url(), 'csr', NO_CSR)])
    if (last.status !== 400 && !isPassing(last)) wrong.push(`no CSR: ${last.code ?? last.status}`)
    return
  }
  const device = await fleet.aws.register()
  const way: Way = draw < 0.4 ? 'keys' : 'csr'
  const { csr, body } = way === 'csr' ? await keyAndRequest(device) : { csr: '', body: JSON.stringify(device) }
  if (csr) observer.expect(device.serialNumber, csr)
  const { vended, code, status } = tell(await persist(url, way, body, 60_000))
  const isLost = code === 'key-not-recoverable'
  const { certificateId } = vended ?? (isLost ? await fleet.ask(`/v1/devices/${device.serialNumber}`) : {}) as Partial<Settled>
  if (certificateId) settled.push({ way, body, certificateId })
  else wrong.push(`a new device by ${way}: ${code ?? status}`)
}

function usageOf (pid: number): { rssMb: number, fds: number } {
  const kb = Number(/^VmRSS:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1])
  return { rssMb: kb / 1024, fds: readdirSync(`/proc/${pid}/fd`).length }
}

async function metricsOf (opsUrl: string, names: readonly string[]): Promise<number[]> {
  const text = await (await fetch(`${opsUrl}/metrics`)).text()
  return names.map(name => Number(new RegExp(`^${name} (\\S+)$`, 'm').exec(text)?.[1] ?? 0))
}

/** The least of every tenth of the samples: what collecting garbage cannot bring down. */
function troughs (samples: readonly Sample[]): (readonly [number, number])[] {
  const size = Math.ceil(samples.length / 10)
  return Array.from({ length: Math.ceil(samples.length / size) }, (_, n) => {
    const lowest = samples.slice(n * size, (n + 1) * size).reduce((least, sample) => sample.heapMb < least.heapMb ? sample : least)
    return [lowest.minute, lowest.heapMb] as const
  })
}

/** Of the straight line that comes nearest to the points, by least squares. */
function slope (points: readonly (readonly [number, number])[]): number {
  const mean = (of: (point: readonly [number, number]) => number) => points.reduce((sum, point) => sum + of(point), 0) / points.length
  const [x0, y0] = [mean(([x]) => x), mean(([, y]) => y)]
  return mean(([x, y]) => (x - x0) * (y - y0)) / mean(([x]) => (x - x0) ** 2)
}
