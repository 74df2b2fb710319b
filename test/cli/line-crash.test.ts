import { spawnSync } from 'node:child_process'
import { readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { batchService } from './batch-service.ts'
import type { BatchService } from './batch-service.ts'
import { onTerminal } from './command.ts'
import type { Surroundings } from './command.ts'
import { holderOf } from './lock-holder.ts'
import { KEY, checkDevices, csvOf, manifest, read, run as runLine } from './line-folder.ts'

t.setTimeout(900_000)

const run = (service: BatchService, folder: string, args?: string[], surroundings?: Surroundings) =>
  runLine(service, folder, args, { ...surroundings, isAlone: true })
const signal = (folder: string, name: NodeJS.Signals) => process.kill(holderOf(join(folder, 'out', 'manifest.csv'))!, name)
const keys = (service: BatchService, folder: string) =>
  Object.fromEntries([...service.vended.keys()].map(serial => [serial, read(folder, 'out', serial, KEY)]))
const summaryOf = ({ stdout }: { stdout: string }) => JSON.parse(stdout) as Record<string, unknown>

await t.test('killed in the middle: the next run uses the same keys and gets the same certificates', async t => {
  const folder = t.testdir({ 'requests.csv': csvOf(20) })
  const service = await batchService(t, {
    vended: (_message, post, line) => {
      if (post !== 2 || line !== 6) return undefined
      signal(folder, 'SIGKILL')
      return 'cut'
    }
  })
  const args = ['--generate-keys', '--chunk', '10', '--posts', '1', '--json']
  t.equal((await run(service, folder, args)).status, null)
  t.equal(service.vended.size, 7)
  const before = keys(service, folder)
  const certificates = [...service.vended.values()].map(({ certificateId }) => certificateId)

  const path = join(folder, 'out', 'manifest.csv')
  writeFileSync(join(folder, 'out', 'sn-8', '.00000000-0000-4000-8000-000000000000.tmp'), 'half a key')
  writeFileSync(path, `${readFileSync(path, 'utf8')}sn-8,vended,not-the-whole-i`)
  const again = await run(service, folder, args)
  t.equal(again.status, 0, again.stderr)
  const { vended, replayed, skipped } = summaryOf(again) as Record<string, number>
  t.equal(vended, 13)
  t.equal(replayed! + skipped!, 7)
  t.ok(replayed! >= 1, 'the answer that was lost')
  t.match(keys(service, folder), before)
  t.strictSame([...service.vended.values()].map(({ certificateId }) => certificateId).slice(0, 7), certificates)
  checkDevices(t, service, folder, 20)
})

await t.test('a full disk: stops clearly, and what was vended is replayed', async t => {
  const folder = t.testdir({ 'requests.csv': csvOf(40) })
  const service = await batchService(t)
  const args = ['--generate-keys', '--chunk', '10', '--json']
  // Beyond so many blocks of 512 bytes a write fails (EFBIG). tap's way into child processes would make a deadly signal of that.
  const limited = (blocks: number): Surroundings => ({ shell: `unset NODE_OPTIONS; ulimit -f ${blocks};`, env: { TSX_DISABLE_CACHE: '1' } })
  t.match(await run(service, folder, args, limited(1)), { status: 1, stderr: 'cannot write to the folder' })
  t.equal(service.posts.length, 0)

  const { status, stderr } = await run(service, folder, args, limited(16))
  t.equal(status, 1)
  t.match(stderr, /cannot write the manifest to [^]*nothing is lost/)
  t.equal(statSync(join(folder, 'out', 'manifest.csv')).size, 16 * 512)
  const before = keys(service, folder)
  t.ok(service.vended.size > 10, 'in the middle')
  const again = await run(service, folder, args)
  t.match(again, { status: 0 })
  // The service may have gone on with a post that the full disk cut off.
  const { vended, replayed, skipped } = summaryOf(again) as Record<string, number>
  t.equal(vended! + replayed! + skipped!, 40)
  t.ok(replayed! >= 1, 'at least the one whose row did not fit')
  t.match(keys(service, folder), before)
  checkDevices(t, service, folder, 40)
})

await t.test('Ctrl-C: exit code 130 at once, with the summary, and the same command goes on', async t => {
  const folder = t.testdir({ 'requests.csv': csvOf(8) })
  const service = await batchService(t, {
    line: (_message, post, line) => {
      if (post !== 2 || line !== 4) return undefined
      signal(folder, 'SIGINT')
      return 'cut'
    }
  })
  const { status, stdout, stderr } = await run(service, folder, ['--generate-keys', '--json'])
  t.equal(status, 130, stderr)
  t.match(stderr, 'The same command goes on from here')
  const { vended, left } = JSON.parse(stdout)
  t.equal(vended + left, 8)
  t.match(await run(service, folder), { status: 0 })
  checkDevices(t, service, folder, 8)
})

await t.test('keys by AWS IoT: on disk before the line counts, also those of the first device and of an interrupted run', async t => {
  const folder = t.testdir({ 'requests.csv': csvOf(6) })
  const service = await batchService(t, {
    withoutEnd: post => post === 1,
    vended: (_message, post, line) => {
      if (post === 3 && line === 2) signal(folder, 'SIGINT')
      return undefined
    }
  })
  const { status, stdout, stderr } = await run(service, folder, ['--keys-by-aws', '--chunk', '3', '--posts', '1', '--json'])
  t.equal(status, 130, stderr)
  t.match(stderr, 'ending with the posts under way')
  t.match(JSON.parse(stdout), { vended: 3, replayed: 1, left: 2 }, 'all of the post that was under way')
  t.match(service.posts[1], [{ certificateSigningRequest: /CERTIFICATE REQUEST/ }], 'the answer had no end, but the key was kept')
  t.equal(service.posts[2]![0]!.certificateSigningRequest, undefined)
  t.match(await run(service, folder, ['--keys-by-aws']), { status: 0, stdout: /^vended {7}2\n[\s\S]*^done before {2}4$/m })
  checkDevices(t, service, folder, 6)
  t.equal(statSync(join(folder, 'out', 'sn-5', KEY)).mode & 0o777, 0o600)
})

await t.test('an answer that is wrong is not stored', async t => {
  const folder = t.testdir({ 'requests.csv': csvOf(3) })
  const service = await batchService(t, { line: ({ serialNumber }) => serialNumber === 'sn-3' ? { status: 'vended', ...service.vended.get('sn-2') } : undefined })
  const { status, stderr } = await run(service, folder)
  t.equal(status, 1)
  t.match(stderr, 'line 4, sn-3: failed: wrong-answer: the answer of the service is wrong: the certificate carries another public key')
  t.match(manifest(folder).find(row => row['serialNumber'] === 'sn-3'), { status: 'failed', code: 'wrong-answer', certificateId: '' })
})

await t.test('a manifest that is something else, or in use, is left alone', async t => {
  const folder = t.testdir({ 'requests.csv': csvOf(1), out: { 'manifest.csv': 'Dear Ada' } })
  const service = await batchService(t)
  t.match(await run(service, folder), { status: 2, stderr: 'is not a manifest of `cvm line vend`' })
  t.equal(read(folder, 'out', 'manifest.csv'), 'Dear Ada')
  const busy = t.testdir({ 'requests.csv': csvOf(1), out: { [`manifest.csv.lock-${process.pid}-0`]: '' } })
  t.match(await run(service, busy), { status: 1, stderr: `Wait for process ${process.pid}` })
  t.strictSame(service.posts, [])
})

const hasScript = spawnSync('script', ['--version']).status === 0
const skip = hasScript ? false : 'script(1), which makes a terminal, is not there'

await t.test('on a terminal: a bar with rate and time left; Ctrl-C: exit code 130', { skip }, async t => {
  const folder = t.testdir({ 'requests.csv': csvOf(3) })
  const service = await batchService(t, { line: (_message, post) => post > 1 ? 'silence' : undefined })
  const env = { CVM_API_KEY: 'k', CVM_URL: service.url.href, NO_COLOR: '' }
  const args = ['line', 'vend', join(folder, 'requests.csv'), '--out', join(folder, 'out'), '--generate-keys']
  const shown = await onTerminal(args, env, shown => shown.includes('s left') ? '\u0003' : undefined)
  t.match(shown, /1 of 3, [\d.]+\/s, 0 not vended, \d+ s left/)
  t.match(shown, 'exit 130')
  service.faults = {}
  t.match(await run(service, folder), { status: 0 })
  checkDevices(t, service, folder, 3)
})
