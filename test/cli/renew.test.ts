// `cvm device renew` and `cvm device agent` with the real service: killed at every step, a pair that works is left, and going on finishes.
import { type ChildProcess, spawn } from 'node:child_process'
import { X509Certificate, createHash, createPrivateKey, randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { cpSync, existsSync, mkdtempSync, readFileSync, readdirSync, rmSync, watch, writeFileSync } from 'node:fs'
import { request as forward, createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { text } from 'node:stream/consumers'
import { DescribeCertificateCommand, UpdateCertificateCommand } from '@aws-sdk/client-iot'
import t, { type Test } from 'tap'
import { type Agent, runAgent } from '../../src/cli/agent.ts'
import { FILES } from '../../src/cli/device-folder.ts'
import { enroll } from '../../src/cli/enroll.ts'
import type { Failure } from '../../src/cli/failure.ts'
import { type Renewal, renew } from '../../src/cli/renew.ts'
import { sliceOfToday } from '../fixtures/proof-size.ts'
import { startService } from '../fixtures/service.ts'
import { cvm } from './command.ts'

const MAIN = join(import.meta.dirname, '../../dist/cli/main.js')
const service = await startService({ RATE_LIMIT_SERIAL_MAX: '1000', RATE_LIMIT_ADDRESS_MAX: '100000', MAX_EVENT_LOOP_DELAY_MS: '600000' })
t.teardown(() => service.close())
const serviceUrl = await service.app.service.listen({ host: '127.0.0.1', port: 0 })
const url = new URL(`${serviceUrl}/`)
const patience = { timeoutMs: 20_000 }

function scratch (t: Test): string {
  const folder = mkdtempSync(join(tmpdir(), 'cvm-renew-'))
  t.teardown(() => rmSync(folder, { recursive: true, force: true }))
  return folder
}

interface Device { folder: string, serialNumber: string }

async function enrolled (t: Test, keyType: 'ec' | 'rsa' = 'ec', at = { service, url }): Promise<Device> {
  const folder = join(scratch(t), 'device')
  const device = await at.service.register()
  await enroll({ service: { url: at.url }, ...device, folder, keyType, patience })
  return { folder, serialNumber: device.serialNumber }
}

async function failure (attempt: Promise<unknown>): Promise<Failure> {
  return await attempt.then(() => { throw new Error('it succeeded') }, error => error as Failure)
}

function renewal ({ folder }: Device, more: Partial<Renewal> = {}): Renewal {
  return { service: { url }, folder, patience, now: Date.now, ...more }
}

/** The certificate of a folder whose key belongs to it; undefined where they do not, or are not all there. */
function pairOf (folder: string): string | undefined {
  if (![FILES.privateKey, FILES.certificate].every(name => existsSync(join(folder, name)))) return undefined
  const certificate = new X509Certificate(readFileSync(join(folder, FILES.certificate)))
  const isPair = certificate.checkPrivateKey(createPrivateKey(readFileSync(join(folder, FILES.privateKey))))
  return isPair ? createHash('sha256').update(certificate.raw).digest('hex') : undefined
}

const statusOf = async (certificateId: string | undefined) => certificateId === undefined
  ? undefined
  : (await service.iot.send(new DescribeCertificateCommand({ certificateId }))).certificateDescription?.status
/** The certificates in the folder, the one in use first, that AWS IoT lets in. */
async function working ({ folder }: Device): Promise<string[]> {
  const pairs = [pairOf(folder), pairOf(join(folder, 'next'))].filter(id => id !== undefined)
  const statuses = await Promise.all([...new Set(pairs)].map(async id => [id, await statusOf(id)] as const))
  return statuses.filter(([, status]) => status === 'ACTIVE').map(([id]) => id)
}

await t.test('a new key and certificate take the place of the old ones', async t => {
  for (const keyType of ['ec', 'rsa'] as const) {
    const device = await enrolled(t, keyType)
    const before = pairOf(device.folder)
    // What a process that was killed while it wrote has left: it may be a copy of a key.
    writeFileSync(join(device.folder, `.${randomUUID()}.tmp`), 'half a key')
    const facts = await renew(renewal(device))
    t.equal(pairOf(device.folder), facts.certificateId)
    t.match([await statusOf(before), await statusOf(facts.certificateId)], ['REVOKED', 'ACTIVE'])
    t.strictSame(readdirSync(device.folder).sort(), Object.values(FILES).sort(), 'nothing is left over')
    t.equal(createPrivateKey(readFileSync(join(device.folder, FILES.privateKey))).asymmetricKeyType, keyType)
  }
})

await t.test('a renewal that the service has given up is asked for again with the same key', async t => {
  const device = await enrolled(t)
  const cut = await startProxy(t)
  cut.before = path => { if (path.endsWith('/confirm')) throw new Error('cut') }
  await failure(renew(renewal(device, { service: { url: cut.url }, patience: { timeoutMs: 2_000 } })))
  const next = join(device.folder, 'next')
  const [given, key] = [pairOf(next), readFileSync(join(next, FILES.privateKey), 'utf8')]
  await service.iot.send(new UpdateCertificateCommand({ certificateId: given, newStatus: 'REVOKED' }))
  const { certificateId } = await renew(renewal(device))
  t.not(certificateId, given)
  t.equal(readFileSync(join(device.folder, FILES.privateKey), 'utf8'), key)
  t.same(await working(device), [certificateId])
})

await t.test('a refusal alone never costs a pair: the new one may be in force (G5)', async t => {
  for (const code of ['renewal-gone', 'device-not-authorized']) {
    const device = await enrolled(t)
    const proxy = await startProxy(t)
    proxy.instead = path => path.endsWith('/confirm') ? { status: code === 'renewal-gone' ? 409 : 401, body: { code, title: code } } : undefined
    t.match(await failure(renew(renewal(device, { service: { url: proxy.url } }))), { exitCode: 3, problem: { code: 'device-not-authorized' } })
    t.equal((await working(device)).length, 1, `${code}: the service has confirmed, and the folder holds the new pair`)
    const facts = await renew(renewal(device))
    t.same(await working(device), [facts.certificateId], `${code}: the same command finishes`)
  }
})

await t.test('what is refused leaves the old pair working', async t => {
  const device = await enrolled(t)
  const before = pairOf(device.folder)
  t.match(await failure(renew(renewal(device, { audience: 'elsewhere' }))), { exitCode: 3, problem: { code: 'proof-rejected' } })
  t.same(await working(device), [before])
  // Asked and stored, but the confirmation never came, and another renewal took its place.
  const cut = await startProxy(t)
  cut.before = path => { if (path.endsWith('/confirm')) throw new Error('cut') }
  t.match(await failure(renew(renewal(device, { service: { url: cut.url }, patience: { timeoutMs: 2_000 } }))), { exitCode: 4 })
  const given = pairOf(join(device.folder, 'next'))
  t.equal(await statusOf(given), 'INACTIVE')
  const saved = readFileSync(join(device.folder, FILES.privateKey))
  const other = join(scratch(t), 'other')
  cpSync(device.folder, other, { recursive: true, filter: source => basename(source) !== 'next' })
  const { certificateId } = await renew(renewal({ ...device, folder: other }))
  t.equal(await statusOf(certificateId), 'ACTIVE')
  t.match(await failure(renew(renewal(device))), { exitCode: 3, problem: { code: 'device-not-authorized' } }, 'this folder is the old one now')
  t.same(readFileSync(join(device.folder, FILES.privateKey)), saved)
  t.equal(pairOf(join(device.folder, 'next')), given, 'and nothing is thrown away on a refusal alone')
  t.match(await renew(renewal({ ...device, folder: other })), { serialNumber: device.serialNumber })
})

await t.test('killed at any step, a pair that works is left, and the same command finishes', async t => {
  const kills: [string, (device: Device, child: ChildProcess, proxy: Proxy) => void][] = [
    ...['/renew', '/confirm'].flatMap(path => (['before', 'after'] as const).map(moment =>
      [`${moment} ${path}`, (_device: Device, child: ChildProcess, proxy: Proxy) => { proxy[moment] = asked => { if (asked.endsWith(path)) child.kill('SIGKILL') } }] as [string, typeof kills[0][1]])),
    ...[FILES.privateKey, FILES.certificate, FILES.device, 'confirmed'].map(name =>
      [`next/${name} is there`, ({ folder }: Device, child: ChildProcess) => killWhen(child, folder, () => existsSync(join(folder, 'next', name)))] as [string, typeof kills[0][1]]),
    ...[FILES.privateKey, FILES.certificate, FILES.device].map(name => {
      return [`${name} is another`, ({ folder }: Device, child: ChildProcess) => {
        const before = readFileSync(join(folder, name), 'utf8')
        killWhen(child, folder, () => readFileSync(join(folder, name), 'utf8') !== before)
      }] as [string, typeof kills[0][1]]
    })
  ]
  for (const [what, kill] of sliceOfToday(kills, 4)) {
    const device = await enrolled(t)
    const proxy = await startProxy(t)
    const child = spawn(process.execPath, [MAIN, 'device', 'renew', '--url', proxy.url.href, '--dir', device.folder], { stdio: 'ignore' })
    kill(device, child, proxy)
    const [, signal] = await once(child, 'exit') as [number | null, string | null]
    t.comment(`${what}: ${signal ?? 'ended before it was killed'}`)
    t.equal((await working(device)).length, 1, `${what}: one pair works`)
    const facts = await renew(renewal(device))
    t.equal(pairOf(device.folder), facts.certificateId, `${what}: finished`)
    t.same(await working(device), [facts.certificateId])
    t.notOk(existsSync(join(device.folder, 'next')))
  }
})

await t.test('twice at once: the second one says so and changes nothing', async t => {
  const folder = join(scratch(t), 'device')
  const device = await service.register()
  const inTheMiddle = async (path: string, begin: (proxy: Proxy) => Promise<{ certificateId: string }>, ...again: string[]) => {
    const proxy = await startProxy(t)
    let asked = 0
    const held = new Promise<() => void>(resolve => {
      proxy.hold = async at => {
        if (at.endsWith(path) && ++asked === 1) await new Promise<void>(_resolve => resolve(_resolve))
      }
    })
    const first = begin(proxy)
    const release = await held
    const before = readdirSync(folder, { recursive: true }).sort()
    const second = await cvm(['device', ...again, '--url', proxy.url.href], { isAlone: true, env: { CVM_REGISTRATION_TOKEN: device.registrationToken } })
    t.match(second, { status: 1, stdout: '', stderr: `cvm: ${folder} is in use by another cvm process\n  remedy:     Wait for process ${process.pid}, ` })
    t.equal(asked, 1, `${again[0]}: nothing is sent`)
    t.same(readdirSync(folder, { recursive: true }).sort(), before)
    release()
    const { certificateId } = await first
    t.same(await working({ folder, serialNumber: device.serialNumber }), [certificateId], `${again[0]}: the first one finishes`)
    t.same(readdirSync(folder).sort(), Object.values(FILES).sort(), 'nothing is left over')
  }
  const enrolling = ['enroll', '--serial', device.serialNumber, '--out', folder]
  await inTheMiddle('/v1/certificates', async proxy => await enroll({ service: { url: proxy.url }, ...device, folder, keyType: 'ec', patience }), ...enrolling)
  for (const path of ['/renew', '/confirm']) {
    await inTheMiddle(path, async proxy => await renew(renewal({ folder, ...device }, { service: { url: proxy.url } })), 'renew', '--dir', folder)
  }
})

await t.test('--if-due renews nothing before it is time, also where it has finished an earlier renewal', async t => {
  const device = await enrolled(t)
  const dueLater = async (): Promise<string> => {
    const child = spawn(process.execPath, [MAIN, 'device', 'renew', '--if-due', '--url', url.href, '--dir', device.folder], { stdio: ['ignore', 'pipe', 'inherit'] })
    const [out, [code]] = await Promise.all([text(child.stdout), once(child, 'close') as Promise<[number | null]>])
    t.equal(code, 0)
    return out
  }
  const before = pairOf(device.folder)
  t.match(await dueLater(), /^not due {9}to be renewed after \S+\n$/)
  t.equal(pairOf(device.folder), before)

  const proxy = await startProxy(t)
  const child = spawn(process.execPath, [MAIN, 'device', 'renew', '--url', proxy.url.href, '--dir', device.folder], { stdio: 'ignore' })
  killWhen(child, device.folder, () => existsSync(join(device.folder, 'next', 'confirmed')))
  await once(child, 'exit')
  t.match(await dueLater(), /^not due/, 'what was confirmed is put in its place')
  t.same(await working(device), [pairOf(device.folder)])
  t.not(pairOf(device.folder), before)
})

await t.test('a renewal that was cut off once the service had confirmed is finished, due or not', async t => {
  const cutOff = async (): Promise<Device> => {
    const device = await enrolled(t)
    const proxy = await startProxy(t)
    const child = spawn(process.execPath, [MAIN, 'device', 'renew', '--url', proxy.url.href, '--dir', device.folder], { stdio: 'ignore' })
    proxy.after = path => { if (path.endsWith('/confirm')) child.kill('SIGKILL') }
    await once(child, 'exit')
    t.equal(await statusOf(pairOf(device.folder)), 'REVOKED')
    return device
  }
  const device = await cutOff()
  t.match(await cvm(['device', 'renew', '--if-due', '--url', url.href, '--dir', device.folder]), { status: 0, stdout: '(new)' })
  t.same(await working(device), [pairOf(device.folder)])

  const watched = await cutOff()
  const stop = new AbortController()
  const end = () => stop.abort()
  await runAgent({ ...renewal(watched), signal: stop.signal, random: Math.random, say: end, sleep: async () => end() })
  t.same(await working(watched), [pairOf(watched.folder)], 'also by the agent')
})

await t.test('the agent renews when it is due, later after failures, and ends when it is told', async t => {
  const device = await enrolled(t)
  const first = pairOf(device.folder)
  const { renewAfter } = JSON.parse(readFileSync(join(device.folder, FILES.device), 'utf8')) as { renewAfter: string }
  const stop = new AbortController()
  const said: string[] = []
  const slept: number[] = []
  const agent: Agent = {
    ...renewal(device),
    signal: stop.signal,
    random: () => 0.5,
    say: line => { said.push(line) },
    async sleep (ms) {
      slept.push(ms)
      if (said.some(line => line.startsWith('renewed'))) stop.abort()
    }
  }
  const due = { ...JSON.parse(readFileSync(join(device.folder, FILES.device), 'utf8')) as object, renewAfter: new Date(Date.now() - 3_600_000).toISOString() }
  t.ok(Date.parse(renewAfter) > Date.now(), 'not due by itself')
  writeFileSync(join(device.folder, FILES.device), JSON.stringify(due))
  await runAgent(agent)
  t.match(said, [/^renewed: certificate [0-9a-f]{64}/])
  t.not(pairOf(device.folder), first)
  t.ok(slept.every(ms => ms <= 3_600_000), 'it looks at the clock at least every hour')

  await t.rejects(runAgent({ ...agent, folder: join(scratch(t), 'nothing') }), { message: /holds no enrolled device/ })
  writeFileSync(join(device.folder, FILES.device), JSON.stringify({ ...due, certificateId: '0'.repeat(64) }))
  const waits: number[] = []
  const again = new AbortController()
  let ahead = 0
  await runAgent({
    ...agent,
    now: () => Date.now() + ahead,
    signal: again.signal,
    async sleep (ms) { waits.push(ms); ahead += ms; if (waits.length > 2) again.abort() }
  })
  t.match(said.slice(1), [/^not renewed: the service refused/, /^not renewed/, /^not renewed/])
  t.ok((waits[0] ?? 0) < (waits[1] ?? 0) && (waits[1] ?? 0) < (waits[2] ?? 0), 'each time later')
})

await t.test('a service that says "renew at once" is not asked without a pause', async t => {
  const hasty = await startService({ RENEW_AFTER_MS: '1', RATE_LIMIT_SERIAL_MAX: '1000' })
  t.teardown(() => hasty.close())
  const at = { service: hasty, url: new URL(`${await hasty.app.service.listen({ host: '127.0.0.1', port: 0 })}/`) }
  const device = await enrolled(t, 'ec', at)
  const stop = new AbortController()
  let renewed = 0
  await runAgent({
    ...renewal(device, { service: { url: at.url } }),
    signal: stop.signal,
    random: () => 0,
    say: () => { if (++renewed === 3) stop.abort() },
    sleep: async () => { if (renewed > 0) stop.abort() }
  })
  t.equal(renewed, 1)
})

await t.test('the agent as a process: one line for each event, and SIGTERM ends it well', async t => {
  const device = await enrolled(t)
  const child = spawn(process.execPath, [MAIN, 'device', 'agent', '--url', url.href, '--dir', device.folder], { stdio: ['ignore', 'pipe', 'inherit'] })
  let out = ''
  child.stdout.setEncoding('utf8').on('data', (chunk: string) => { out += chunk; if (!child.killed && out.includes('watching')) child.kill('SIGTERM') })
  const [code] = await once(child, 'close') as [number | null]
  t.equal(code, 0)
  t.match(out, /^\S+Z watching .+: sn-\S+, to be renewed after \S+\n\S+Z stopped\n$/)
})

interface Proxy {
  url: URL
  /** Holds a request until it resolves. */
  hold: (path: string) => Promise<void>
  before: (path: string) => void
  after: (path: string) => void
  /** What the command is told instead of the service's answer. */
  instead: (path: string) => { status: number, body: object } | undefined
}

/** Between the command and the service: what a test does before or after a request is answered there; an error cuts it off. */
async function startProxy (t: Test): Promise<Proxy> {
  const proxy: Proxy = { url, async hold () {}, before () {}, after () {}, instead: () => undefined }
  const server = createServer((request, response) => {
    const path = request.url ?? ''
    try {
      proxy.before(path)
    } catch {
      response.destroy()
      return
    }
    const on = forward(new URL(path, serviceUrl), { method: request.method, headers: request.headers }, answer => {
      const chunks: Buffer[] = []
      answer.on('data', (chunk: Buffer) => chunks.push(chunk)).on('end', () => {
        proxy.after(path)
        const other = proxy.instead(path)
        if (other) response.writeHead(other.status, { 'content-type': 'application/problem+json' }).end(JSON.stringify(other.body))
        else response.writeHead(answer.statusCode ?? 500, answer.headers).end(Buffer.concat(chunks))
      })
    })
    proxy.hold(path).then(() => request.pipe(on), cause => response.destroy(cause))
  }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.teardown(() => { server.close(); server.closeAllConnections() })
  return Object.assign(proxy, { url: new URL(`http://127.0.0.1:${(server.address() as AddressInfo).port}/`) })
}

/** Kills as soon as it sees it; the process may be a step further then. */
function killWhen (child: ChildProcess, folder: string, holds: () => boolean): void {
  const look = (): void => { if (holds()) child.kill('SIGKILL') }
  const watchers = [watch(folder, look)]
  const inNext = setInterval(() => {
    if (watchers.length === 1 && existsSync(join(folder, 'next'))) watchers.push(watch(join(folder, 'next'), look).on('error', () => {}))
    look()
  }, 1)
  child.once('exit', () => {
    clearInterval(inNext)
    for (const watcher of watchers) watcher.close()
  })
}
