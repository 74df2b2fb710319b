import { existsSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { makeCsr, makeKey } from '../../src/x509/request.ts'
import { batchService } from './batch-service.ts'
import type { Faults } from './batch-service.ts'
import { cvm } from './command.ts'
import { holderOf } from './lock-holder.ts'
import { CERTIFICATE, KEY, checkDevices, csvOf, manifest, read, run, sha256 } from './line-folder.ts'

t.setTimeout(900_000)

await t.test('makes the keys, posts in chunks, writes a folder for each device and the manifest', async t => {
  const folder = t.testdir({ 'requests.csv': csvOf(25) })
  const service = await batchService(t)
  service.faults = {
    line: ({ serialNumber, certificateSigningRequest }) => {
      const device = join(folder, 'out', serialNumber)
      t.match(certificateSigningRequest, 'BEGIN CERTIFICATE REQUEST')
      t.equal(statSync(join(device, KEY)).mode & 0o777, 0o600, 'the key is there before it is sent')
      t.equal(statSync(device).mode & 0o777, 0o700)
      return undefined
    }
  }
  const { status, stdout, stderr } = await run(service, folder, ['--generate-keys', '--chunk', '10'])
  t.equal(status, 0, stderr)
  t.strictSame(service.posts.map(post => post.length), [1, 10, 10, 4], 'the first device alone')
  t.strictSame([...new Set(service.paths)], ['POST /v1/batches'])
  t.match(stdout, /^devices {6}25\nvended {7}25\nreplayed {5}0\nrefused {6}0\nfailed {7}0\ndone before {2}0\nleft to do {3}0\nmanifest {5}.*manifest.csv\n$/)
  t.match(stderr, /^vending .*: 25 devices\n3 of 25 done \(12 %\), [\d.]+\/s, 0 not vended, \d+ s left\n/)
  t.match(stderr, '25 of 25 done (100 %)')
  checkDevices(t, service, folder, 25)
  t.match(JSON.parse(read(folder, 'out', 'sn-7', 'iot-device.json')), { serialNumber: 'sn-7', thingName: 'thing-sn-7', endpoint: 'localhost:8883' })
  t.match(manifest(folder)[0], { status: 'vended', rootCaSha256: sha256(folder, 'out', 'sn-1', 'iot-root-ca.crt') })
  t.equal(holderOf(join(folder, 'out', 'manifest.csv')), undefined)
  t.notMatch(stdout + stderr, 'token-of')

  const again = await run(service, folder, ['--generate-keys', '--json'])
  t.equal(again.status, 0)
  const none = { vended: 0, replayed: 0, refused: 0, failed: 0 }
  t.strictSame(JSON.parse(again.stdout), { lines: 25, ...none, skipped: 25, left: 0, manifest: join(folder, 'out', 'manifest.csv') })
  t.equal(service.posts.length, 4, 'nothing is sent twice')

  rmSync(join(folder, 'out', 'sn-3', CERTIFICATE))
  writeFileSync(join(folder, 'out', 'sn-4', CERTIFICATE), 'damaged')
  t.match(JSON.parse((await run(service, folder, ['--generate-keys', '--json'])).stdout), { replayed: 2, skipped: 23 })
  checkDevices(t, service, folder, 25)
  t.match(JSON.parse((await run(service, folder, ['--generate-keys', '--no-resume', '--json'])).stdout), { replayed: 25, skipped: 0 })
  checkDevices(t, service, folder, 25)
})

await t.test('CSRs of the devices, from files and lines; NDJSON; without one a way to get keys must be named', async t => {
  const csr = async (serial: string) => await makeCsr(await makeKey('ec'), serial)
  const [one, two, three] = [await csr('sn-1'), await csr('sn-2'), await csr('sn-3')]
  const folder = t.testdir({
    csrs: { 'one.csr': one },
    'requests.csv': `serialNumber,registrationToken,csrFile,certificateSigningRequest,product\nsn-1,t-1,csrs/one.csr,,\nsn-2,t-2,,"${two}",pump\n`,
    'more.ndjson': `${JSON.stringify({ serialNumber: 'sn-3', registrationToken: 't-3', certificateSigningRequest: three })}\n`,
    'none.csv': 'serialNumber,registrationToken,csrFile\nsn-1,t,csrs/one.csr\nsn-9,t,\n'
  })
  const service = await batchService(t)
  t.match(await run(service, folder, []), { status: 0 })
  const env = { CVM_API_KEY: 'k', CVM_URL: service.url.href }
  const vend = (name: string, ...args: string[]) => cvm(['line', 'vend', join(folder, name), '--out', join(folder, 'out'), ...args], { env })
  t.match(await vend('more.ndjson'), { status: 0 })
  t.match(service.posts, [[{ serialNumber: 'sn-1', registrationToken: 't-1', certificateSigningRequest: one.trim() }],
    [{ certificateSigningRequest: two.trim(), product: 'pump' }], [{ certificateSigningRequest: three }]])
  t.strictSame(readdirSync(join(folder, 'out', 'sn-2')).sort(), [CERTIFICATE, 'iot-device.json', 'iot-root-ca.crt'].sort(), 'no key')
  t.match(manifest(folder)[1], { status: 'vended', privateKeySha256: '' })

  t.match(await vend('none.csv'), { status: 2, stderr: /line 3 has no certificate signing request[\s\S]*--generate-keys/ })
  t.match(await vend('none.csv', '--generate-keys', '--keys-by-aws'), { status: 2, stderr: 'exclude each other' })
  t.equal(service.posts.length, 3)
})

await t.test('a file with a fault: named with its line, not quoted; nothing is sent or written', async t => {
  const head = 'serialNumber,registrationToken,csrFile'
  const cases: Record<string, [string, string]> = {
    'path.csv': [`${head}\n../../etc,secret,\n`, 'line 2 has a serial number that is not'],
    'token.csv': [`${head}\nsn-1,,\n`, 'line 2 has no registrationToken'],
    'file.csv': [`${head}\nsn-1,secret,missing.csr\n`, 'line 2 names a csrFile that is not there'],
    'twice.csv': [`${head}\nsn-1,secret,\nsn-1,secret,\n`, 'line 3 has the serial number of line 2'],
    'names.csv': ['serialNumber,token\nsn-1,secret\n', 'names that are not known: "token"']
  }
  const folder = t.testdir(Object.fromEntries(Object.entries(cases).map(([name, [content]]) => [name, content])))
  const service = await batchService(t)
  for (const [name, [, message]] of Object.entries(cases)) {
    const args = ['line', 'vend', join(folder, name), '--out', join(folder, 'out'), '--generate-keys']
    const { status, stderr } = await cvm(args, { env: { CVM_API_KEY: 'k', CVM_URL: service.url.href } })
    t.equal(status, 1, name)
    t.match(stderr, message)
    t.notMatch(stderr, 'secret')
  }
  t.equal(existsSync(join(folder, 'out')), false)
  t.strictSame(service.posts, [])
})

await t.test('refused lines: told, in the manifest, exit code 1, and asked again by the next run', async t => {
  const folder = t.testdir({ 'requests.csv': csvOf(5) })
  const service = await batchService(t, {
    line: ({ serialNumber }) => ['sn-1', 'sn-4'].includes(serialNumber)
      ? { status: 'refused', code: 'device-not-authorized', detail: 'No match', remedy: 'Ask.' }
      : undefined
  })
  const { status, stdout, stderr } = await run(service, folder)
  t.equal(status, 1)
  t.match(stdout, /^vended {7}3\nreplayed {5}0\nrefused {6}2$/m)
  t.match(stderr, 'line 2, sn-1: refused: device-not-authorized: No match. Ask.\n')
  t.match(stderr, 'line 5, sn-4: refused')
  t.match(stderr, '2 of 5 devices are not vended')
  t.match(manifest(folder).find(row => row['serialNumber'] === 'sn-4'), { status: 'refused', code: 'device-not-authorized', detail: 'No match. Ask.' })
  t.equal(service.posts.flat().length, 5, 'what is refused is not sent again')
  service.faults = {}
  t.match(await run(service, folder), { status: 0, stdout: /^vended {7}2\n[\s\S]*^done before {2}3$/m })
  checkDevices(t, service, folder, 5)
})

await t.test('lines that failed are sent again, after the others; what keeps failing is in the manifest', async t => {
  const folder = t.testdir({ 'requests.csv': csvOf(6) })
  const failed = { status: 'failed', code: 'aws-iot-unavailable', detail: 'AWS is away' }
  const service = await batchService(t, {
    line: ({ serialNumber }, post) => (serialNumber === 'sn-1' && post === 1) || (serialNumber === 'sn-3' && post <= 2) ? failed : undefined
  })
  t.match(await run(service, folder), { status: 0, stdout: /^vended {7}6$/m })
  t.strictSame(service.posts.map(post => post.map(({ serialNumber }) => serialNumber)),
    [['sn-1'], ['sn-1', 'sn-2', 'sn-3', 'sn-4', 'sn-5', 'sn-6'], ['sn-3']])
  checkDevices(t, service, folder, 6)

  const other = t.testdir({ 'requests.csv': csvOf(2) })
  service.faults = { line: ({ serialNumber }) => serialNumber === 'sn-2' ? failed : undefined }
  service.vended.clear()
  const { status, stdout, stderr } = await run(service, other, ['--generate-keys', '--timeout', '1'])
  t.equal(status, 1)
  t.match(stdout, /^vended {7}1\n[\s\S]*^failed {7}1$/m)
  t.match(stderr, 'line 3, sn-2: failed: aws-iot-unavailable: AWS is away\n')
  t.match(manifest(other)[1], { serialNumber: 'sn-2', status: 'failed', code: 'aws-iot-unavailable' })
})

await t.test('cut in the middle, refused for a while, ended early: only what was not answered is sent again, and nothing is made twice', async t => {
  const folder = t.testdir({ 'requests.csv': csvOf(12) })
  const said: Faults = {
    before: post => post === 3 ? { status: 429, code: 'rate-limited', headers: { 'retry-after': '1' } } : post === 4 ? { status: 503, code: 'draining' } : undefined,
    vended: (_message, post, line) => post === 2 && line === 5 ? 'cut' : undefined,
    line: (_message, post, line) => post === 5 && line === 3 ? { error: true, code: 'draining', detail: 'Going', remedy: 'Again.' } : undefined
  }
  const service = await batchService(t, said)
  const { status, stdout, stderr } = await run(service, folder)
  t.equal(status, 0, stderr)
  t.strictSame(service.posts.map(post => post.length), [1, 11, 7, 7, 7, 5])
  t.match(stdout, /^vended {7}11\nreplayed {5}1\n/m, 'vended, but its answer was lost')
  t.match(stderr, /waiting 1\.\d s: 429 rate-limited/)
  t.match(stderr, /waiting .* s: draining: Going/)
  checkDevices(t, service, folder, 12)
})

await t.test('nothing is answered any more: exit code 4, and the next run goes on', async t => {
  const folder = t.testdir({ 'requests.csv': csvOf(4) })
  const service = await batchService(t, { before: post => post > 1 ? { status: 503, code: 'overloaded' } : undefined })
  const { status, stdout, stderr } = await run(service, folder, ['--generate-keys', '--timeout', '1', '--json'])
  t.equal(status, 4)
  t.match(JSON.parse(stdout), { vended: 1, left: 3 })
  t.match(stderr, 'did nothing for 1 s')
  service.faults = {}
  t.match(JSON.parse((await run(service, folder, ['--generate-keys', '--json'])).stdout), { vended: 3, skipped: 1, left: 0 })
  checkDevices(t, service, folder, 4)
})

await t.test('refused as a whole: exit code 3', async t => {
  const folder = t.testdir({ 'requests.csv': csvOf(2) })
  const service = await batchService(t, { before: () => ({ status: 403, code: 'forbidden' }) })
  t.match(await run(service, folder), { status: 3, stderr: 'Title of forbidden' })
  t.equal(service.posts.length, 1)
  service.faults = { before: () => ({ status: 413, code: 'body-too-large' }) }
  t.match(await run(service, folder), { status: 3, stderr: 'with a smaller --chunk' })
})

await t.test('a dry run says what would become of each line, and writes nothing', async t => {
  const folder = t.testdir({ 'requests.csv': csvOf(3) })
  const service = await batchService(t, { line: ({ serialNumber }) => serialNumber === 'sn-2' ? { status: 'refused', code: 'device-disabled', detail: 'Off' } : undefined })
  const { status, stdout, stderr } = await run(service, folder, ['--generate-keys', '--dry-run'])
  t.equal(status, 1)
  t.match(stdout, /^devices +3\nwould-vend +2\nrefused device-disabled +1\nleft to do +0\n$/)
  t.match(stderr, '1 of 3 devices would not be vended')
  t.strictSame(service.paths, ['POST /v1/batches?dryRun=true'])
  t.equal(existsSync(join(folder, 'out')), false)
  service.faults = {}
  t.match(await run(service, folder), { status: 0 })
  t.match(JSON.parse((await run(service, folder, ['--generate-keys', '--dry-run', '--json'])).stdout), { dryRun: true, lines: 3, classes: { 'would-replay': 3 } })
})
