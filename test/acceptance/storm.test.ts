// The guarantees in a storm: three replicas that are paused for longer than a claim lives and killed, a network that cuts, delays, repeats
// and answers late on both sides of them, operators, lines, devices and `cvm`. CVM_STORM_SEED repeats the choices of a run.
import { readFileSync } from 'node:fs'
import { connectAsync } from 'mqtt'
import t from 'tap'
import { isWhole, proofDay, proofSize } from '../fixtures/proof-size.ts'
import { BEST_ENGINE, CLEAN_WITHIN_MS, holdsOnly, startFleet, unfinished } from './fleet.ts'
import { Observer } from './observer.ts'
import { folder } from './processes.ts'
import { startBalancer } from './storm/balancer.ts'
import { CertificateWatch } from './storm/certificate-watch.ts'
import { Folders, pairOf } from './storm/folders.ts'
import { operators } from './storm/operators.ts'
import type { Scene, StormSize } from './storm/scene.ts'
import { Storm } from './storm/storm.ts'
import { Weather } from './storm/weather.ts'

t.setTimeout(1_800_000)

const SEED = Number(process.env['CVM_STORM_SEED'] ?? proofDay)
if (!Number.isSafeInteger(SEED) || SEED < 0) throw new Error('CVM_STORM_SEED must be a whole number')

const REPLICAS = 3
const CLAIM_MS = 4_000
const TIMES = {
  CLAIM_LIFETIME_MS: String(CLAIM_MS),
  VEND_DEADLINE_MS: '3500',
  AWS_CALL_TIMEOUT_MS: '1500',
  RECONCILE_INTERVAL_MS: '1000',
  // A device may renew 32 times in two of these windows.
  RENEWAL_PROOF_WINDOW_MS: '90000'
}
/** Devices of the end whose certificates are tried over MQTT. */
const TRIED = 5

const WHOLE: StormSize = {
  ms: 300_000,
  devices: 48,
  batches: 12,
  batch: 6,
  operatorEveryMs: 1_200,
  killEveryMs: 15_000,
  idleMs: 10_000,
  folders: 4,
  lineDevices: 30,
  watchEveryMs: 200
}
const SAMPLE: StormSize = {
  ms: 15_000,
  devices: 10,
  batches: 1,
  batch: 4,
  operatorEveryMs: 2_500,
  killEveryMs: 9_000,
  idleMs: 6_000,
  folders: 1,
  lineDevices: 3,
  watchEveryMs: 1_000
}
const SIZE = isWhole ? WHOLE : SAMPLE

await t.test(`a storm of ${SIZE.ms / 1000} s with CVM_STORM_SEED=${SEED} on ${BEST_ENGINE.name} (${proofSize})`, async t => {
  const dir = folder(t)
  const observer = new Observer()
  const weather = new Weather(SEED, CLAIM_MS, observer)
  const fleet = await startFleet(t, REPLICAS, weather, TIMES)
  const url = await startBalancer(t, fleet.replicas, weather)
  const scene: Scene = { fleet, weather, observer, url, size: SIZE, wrong: [] }
  const storm = new Storm(scene)
  const folders = new Folders(t, scene, dir)
  for (let n = 0; n < SIZE.devices; n++) await storm.register(n % 7 === 3 ? 'keys' : 'csr', n % 2 === 0)

  const watch = new CertificateWatch(fleet.aws)
  const watched = new AbortController()
  const watching = watch.watch(SIZE.watchEveryMs, watched.signal)
  const began = Date.now()
  weather.begin()
  const lives = storm.devices.map(device => storm.live(device))
  const ofFolders = [folders.line(), ...Array.from({ length: SIZE.folders }, async () => [await folders.device()])]
  const harm = [weather.pause(fleet.replicas), weather.kill(fleet.replicas, SIZE.killEveryMs)]
  const work = [...lives, storm.line(), operators(scene, storm.devices), ...harm]
  await weather.sleep(SIZE.ms)
  weather.end()
  await Promise.all(work)
  const kept = (await Promise.all(ofFolders)).flat()
  const calmMs = Date.now() - began
  t.comment(`the storm of ${SIZE.ms} ms is over, and all were served after ${calmMs} ms`)
  await storm.settle()

  t.strictSame(scene.wrong, [], 'every request was answered as it should be, in the end')
  const wanted = new Set<string>()
  for (const { serialNumber, path } of kept) {
    const pair = pairOf(path)
    t.ok(pair, `${serialNumber}: the folder holds a pair`)
    if (pair) wanted.add(pair.certificateId)
  }
  const served = storm.devices.filter(({ isDecommissioned }) => !isDecommissioned)
  for (const { held } of served) wanted.add(held?.certificateId ?? 'none')
  t.equal(wanted.size, kept.length + served.length, 'each device has a certificate of its own')
  const { faults } = await holdsOnly(fleet, wanted, CLEAN_WITHIN_MS)
  t.strictSame(faults, [], 'AWS IoT holds the certificates that devices hold, ACTIVE, and no other (G4, G5)')
  const left = await unfinished(fleet, CLEAN_WITHIN_MS)
  t.strictSame(left, { actions: [], backlog: 0, drift: 0 }, 'reconcile has nothing left to do')
  watched.abort()
  await watching
  t.strictSame([...watch.violations], [], `no device had two ACTIVE certificates, in ${watch.looks} looks at AWS IoT (G1)`)
  t.strictSame(observer.violations, [], `nor at any of ${observer.activations} activations`)

  const ca = readFileSync(fleet.aws.rootCa)
  const pem = { type: 'pkcs8', format: 'pem' } as const
  const tried = [
    ...kept.slice(0, TRIED).map(({ serialNumber, path }) => ({ serialNumber, ...pairOf(path)! })),
    ...served.slice(0, TRIED).map(({ serialNumber, held }) => {
      return { serialNumber, cert: held!.certificatePem, key: held!.privateKey.export(pem) as string }
    })
  ]
  for (const { serialNumber, cert, key } of tried) {
    const port = Number(new URL(fleet.aws.mqttUrl).port)
    const session = await connectAsync({ protocol: 'mqtts', host: 'localhost', port, ca, cert, key, clientId: serialNumber, reconnectPeriod: 0 })
    await session.endAsync(true)
    t.pass(`${serialNumber} connects over MQTT`)
  }
  const counts = Object.fromEntries(Object.entries(weather.counts).sort())
  const devices = storm.devices.length + kept.length
  t.comment(`settled after ${Date.now() - began} ms; ${devices} devices, ${observer.activations} activations: ${JSON.stringify(counts, null, 1)}`)
})
