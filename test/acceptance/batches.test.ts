// A manufacturing line at an account with quotas: all of a batch is vended, single devices go first, and whatever is cut off (the client, a
// replica) is cured by posting the batch again.
import { randomBytes } from 'node:crypto'
import t, { type Test } from 'tap'
import { isWhole } from '../fixtures/proof-size.ts'
import { wholeOnly } from '../fixtures/whole-only.ts'
import { type Line, type LineResult, iotCalls, postBatch } from './batch-client.ts'
import { BEST_ENGINE, apiKey, holdsOnly, startFleet, unfinished } from './fleet.ts'
import { keyAndRequest } from './key-and-request.ts'
import { Observer, watchedBy } from './observer.ts'
import { type Attempt, persist } from './persistent-client.ts'
import { type Aws, startLocalAws, startProduction } from './service-process.ts'

t.setTimeout(900_000)

const [LINES, FACTOR] = isWhole ? [300, 10] : [60, 2]
const QUOTAS = { LOCAL_QUOTAS: String(FACTOR) }
const PACED = { AWS_IOT_QUOTA_FACTOR: String(FACTOR) }
const PATIENCE_MS = 600_000
/** On a slow machine a vend may take as long as it needs. */
const UNHURRIED = { VEND_DEADLINE_MS: '590000', CLAIM_LIFETIME_MS: '600000' }
const MOST_POSTS = 20

async function newLines (aws: Aws, count: number): Promise<string[]> {
  const lines: string[] = []
  for (let n = 0; n < count; n++) lines.push((await keyAndRequest(await aws.register())).body)
  return lines
}

/** Posts lines until none has failed, as a line's client does after a slow machine's deadlines; the final result of each. */
async function postToTheEnd (
  t: Test, to: Line, lines: readonly string[], onResult: (done: number) => void = () => {}
): Promise<LineResult[]> {
  const final: LineResult[] = []
  for (let left = [...lines], post = 0; left.length > 0 && post < MOST_POSTS; post++) {
    const failed: string[] = []
    const posted = left
    await postBatch(to, posted, result => {
      if (result.status === 'failed') failed.push(posted[result.line - 1]!)
      else onResult(final.push(result))
      if (result.status === 'failed') t.comment(`line ${result.line} failed: ${result.code}`)
    })
    left = failed
  }
  return final
}

const countOf = (results: readonly LineResult[], status: string) => results.filter(result => result.status === status).length

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
  const env = { ...PACED, ...UNHURRIED, API_KEYS: apiKey('line', key), TOKEN_PEPPER: randomBytes(32).toString('base64') }
  const { serviceUrl, opsUrl } = await startProduction(t, aws, env)
  const line = { url: serviceUrl, key }
  const lines = await newLines(aws, LINES)
  const single = (await keyAndRequest(await aws.register())).body

  let alone: Promise<Attempt[]> | undefined
  let [done, before] = [0, -1]
  const results = await postToTheEnd(t, line, lines, count => {
    done = count
    if (count === LINES / 5) alone = persist(() => serviceUrl, 'csr', single, PATIENCE_MS).finally(() => { before = LINES - done })
  })
  t.equal(countOf(results, 'vended') + countOf(results, 'replayed'), LINES)
  const first = (await alone)?.at(-1)
  t.ok(first?.vended, 'the single device is served')
  const ids = certificatesOf(t, results, LINES).add(first?.vended?.certificateId ?? '')
  const { all, throttled } = await iotCalls(opsUrl)
  t.comment(`${before} lines were still to come when the single device was answered; ${throttled} of ${all} calls throttled`)
  // Where the machine is slow, calls that were sent at their time arrive together.
  t.ok(throttled < 0.2 * all, 'few calls are throttled')

  const again = await postToTheEnd(t, line, lines)
  t.equal(countOf(again, 'replayed'), LINES)
  const pems = new Map(results.map(({ serialNumber, certificatePem }) => [serialNumber, certificatePem]))
  t.ok(again.every(({ serialNumber, certificatePem }) => pems.get(serialNumber) === certificatePem), 'posted again: byte by byte the same')

  const more = await newLines(aws, LINES / 3)
  const cut = new AbortController()
  let seen = 0
  t.equal(await postBatch(line, more, () => { if (++seen === LINES / 15) cut.abort() }, cut.signal), undefined, 'a client that is cut')
  const cured = await postToTheEnd(t, line, more)
  const replayed = countOf(cured, 'replayed')
  t.ok(replayed >= seen, 'what was done stays done')
  t.comment(`cut after ${seen} results: ${replayed} replayed, ${cured.length - replayed} vended`)
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

  const results = await postToTheEnd(t, { url: second.url(), key: fleet.lineKey }, lines)
  t.comment(`killed after ${given.size} results; then ${countOf(results, 'replayed')} replayed, ${countOf(results, 'vended')} vended`)
  t.ok(results.every(({ serialNumber, certificatePem = '' }) => (given.get(serialNumber) ?? certificatePem) === certificatePem), 'what was given stays')
  const { faults } = await holdsOnly(fleet, certificatesOf(t, results, LINES), PATIENCE_MS)
  t.strictSame(faults, [], 'one ACTIVE certificate for each device, and no orphan')
  t.strictSame(await unfinished(fleet, PATIENCE_MS), { actions: [], backlog: 0, drift: 0 })
})
