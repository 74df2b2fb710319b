// A manufacturing line at an account with quotas: all of a batch is vended, single devices go first, and whatever is cut off (the client, a
// replica) is cured by posting the batch again.
import { randomBytes } from 'node:crypto'
import t, { type Test } from 'tap'
import { isWhole } from '../fixtures/proof-size.ts'
import { wholeOnly } from '../fixtures/whole-only.ts'
import { type LineResult, iotCalls, postBatch } from './batch-client.ts'
import { BEST_ENGINE, apiKey, holdsOnly, startFleet, unfinished } from './fleet.ts'
import { keyAndRequest } from './key-and-request.ts'
import { Observer, watchedBy } from './observer.ts'
import { type Attempt, persist } from './persistent-client.ts'
import { type Aws, startLocalAws, startProduction } from './service-process.ts'

t.setTimeout(900_000)

const [LINES, FACTOR] = isWhole ? [300, 10] : [60, 2]
const QUOTAS = { LOCAL_QUOTAS: String(FACTOR) }
const PACED = { AWS_IOT_QUOTA_FACTOR: String(FACTOR) }
const PATIENCE_MS = 300_000

async function newLines (aws: Aws, count: number): Promise<string[]> {
  const lines: string[] = []
  for (let n = 0; n < count; n++) lines.push((await keyAndRequest(await aws.register())).body)
  return lines
}

/** The certificate of each device, where all have one and each its own. */
function certificatesOf (t: Test, results: readonly LineResult[], devices: number): Set<string> {
  const ids = new Set(results.map(({ certificateId = '' }) => certificateId))
  t.equal(results.length, devices, 'one result for each line')
  t.equal(ids.size, devices, 'a certificate for each device')
  return ids
}

await t.test(`${LINES} lines at ${FACTOR} times AWS's default quotas`, async t => {
  const aws = await startLocalAws(t, BEST_ENGINE, QUOTAS)
  const key = randomBytes(24).toString('base64url')
  const env = { ...PACED, API_KEYS: apiKey('line', key), TOKEN_PEPPER: randomBytes(32).toString('base64') }
  const { serviceUrl, opsUrl } = await startProduction(t, aws, env)
  const line = { url: serviceUrl, key }
  const lines = await newLines(aws, LINES)
  const single = (await keyAndRequest(await aws.register())).body

  const results: LineResult[] = []
  let alone: Promise<Attempt[]> | undefined
  const before = { batch: -1 }
  const summary = await postBatch(line, lines, result => {
    if (results.push(result) === LINES / 5) alone = persist(() => serviceUrl, 'csr', single, PATIENCE_MS).finally(() => { before.batch = LINES - results.length })
  })
  t.match(summary, { summary: true, lines: LINES, refused: 0, failed: 0 })
  const first = (await alone)?.at(-1)
  t.ok(first?.vended, 'the single device is served')
  t.ok(before.batch > 0, 'a single device in the middle is answered before the batch ends')
  const ids = certificatesOf(t, results, LINES).add(first?.vended?.certificateId ?? '')
  const { all, throttled } = await iotCalls(opsUrl)
  t.comment(`${before.batch} lines were still to come when the single device was answered; ${throttled} of ${all} calls throttled`)
  // Where the machine is slow, calls that were sent at their time arrive together.
  t.ok(throttled < 0.2 * all, 'few calls are throttled')

  const again: LineResult[] = []
  t.match(await postBatch(line, lines, result => { again.push(result) }), { vended: 0, replayed: LINES })
  const pems = new Map(results.map(({ serialNumber, certificatePem }) => [serialNumber, certificatePem]))
  t.ok(again.every(({ serialNumber, certificatePem }) => pems.get(serialNumber) === certificatePem), 'posted again: byte by byte the same')

  const more = await newLines(aws, LINES / 3)
  const cut = new AbortController()
  let seen = 0
  t.equal(await postBatch(line, more, () => { if (++seen === LINES / 15) cut.abort() }, cut.signal), undefined, 'a client that is cut')
  const cured: LineResult[] = []
  const cure = await postBatch(line, more, result => { cured.push(result) })
  t.match(cure, { lines: LINES / 3, refused: 0, failed: 0 })
  t.ok((cure?.replayed ?? 0) >= seen, 'what was done stays done')
  t.comment(`cut after ${seen} results: ${cure?.replayed} replayed, ${cure?.vended} vended`)
  const held = await aws.certificates()
  const wanted = new Set([...ids, ...certificatesOf(t, cured, LINES / 3)])
  t.equal(held.length, LINES + LINES / 3 + 1)
  t.ok(held.every(({ certificateId = '', status }) => status === 'ACTIVE' && wanted.has(certificateId)), 'exactly one certificate per device')
})

await t.test('a replica is killed in the middle of a batch, which is posted again to another', { skip: wholeOnly }, async t => {
  const fleet = await startFleet(t, 2, watchedBy(new Observer()), PACED, QUOTAS)
  const [first, second] = fleet.replicas as [typeof fleet.replicas[0], typeof fleet.replicas[0]]
  const lines = await newLines(fleet.aws, LINES)
  const given = new Map<string, string>()
  let killed: Promise<void> | undefined
  const cutOff = await postBatch({ url: first.url(), key: fleet.lineKey }, lines, ({ serialNumber, certificatePem = '' }) => {
    given.set(serialNumber, certificatePem)
    if (given.size === LINES / 5) killed = first.kill()
  })
  await killed
  t.equal(cutOff, undefined, 'the batch is cut off')

  const results: LineResult[] = []
  const summary = await postBatch({ url: second.url(), key: fleet.lineKey }, lines, result => { results.push(result) })
  t.match(summary, { lines: LINES, refused: 0, failed: 0 })
  t.comment(`killed after ${given.size} results; then ${summary?.replayed} replayed, ${summary?.vended} vended`)
  t.ok(results.every(({ serialNumber, certificatePem = '' }) => (given.get(serialNumber) ?? certificatePem) === certificatePem), 'what was given stays')
  const { faults } = await holdsOnly(fleet, certificatesOf(t, results, LINES), PATIENCE_MS)
  t.strictSame(faults, [], 'one ACTIVE certificate for each device, and no orphan')
  t.strictSame(await unfinished(fleet, PATIENCE_MS), { actions: [], backlog: 0, drift: 0 })
})
