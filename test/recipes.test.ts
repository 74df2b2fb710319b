// The README's scripts for devices: in bash and dash, with only the tools that they name, and with each of their HTTP calls cut in turn.
import { X509Certificate, createPrivateKey } from 'node:crypto'
import { chmodSync, existsSync, mkdirSync, readFileSync, readdirSync, symlinkSync, writeFileSync } from 'node:fs'
import { delimiter, join } from 'node:path'
import { DescribeCertificateCommand } from '@aws-sdk/client-iot'
import t, { type Test } from 'tap'
import { hasTool, tool } from './acceptance/tools.ts'
import { API_KEYS, ask } from './fixtures/api-keys.ts'
import { type Fault, startFaultyProxy } from './fixtures/faulty-proxy.ts'
import { isWhole } from './fixtures/proof-size.ts'
import { readme } from './fixtures/readme.ts'
import { startService } from './fixtures/service.ts'
import { P256, opensslCsr } from './local/rig.ts'

t.setTimeout(300_000)

const RENEW = 'POST /v1/certificates/renew'
const CONFIRM = 'POST /v1/certificates/confirm'
const VEND = 'POST /v1/certificates'
const EST = (operation: string) => `${operation === 'cacerts' ? 'GET' : 'POST'} /.well-known/est/${operation}`

/** The scripts, and the calls that each makes, in order. */
const CALLS = {
  vend: [VEND],
  renewal: [RENEW, CONFIRM],
  'est-enroll': [EST('cacerts'), EST('simpleenroll')],
  'est-renew': [EST('simplereenroll')]
} as const
type Recipe = keyof typeof CALLS
const RENEWALS: readonly Recipe[] = ['renewal', 'est-renew']

const FAULTS: readonly Fault[] = ['reset', 'lost answer', 'half an answer', { status: 503, body: '{"code":"starting"}' }]

const service = await startService({
  ALB_MTLS: 'passthrough', TRUST_PROXY_CIDRS: '127.0.0.1/32', LEGACY_CVM: 'true', API_KEYS, RATE_LIMIT_SERIAL_MAX: '1000', RATE_LIMIT_ADDRESS_MAX: '100000'
})
t.teardown(service.close)
const balancer = await startFaultyProxy(t, { tls: service.aws.serverTls })
balancer.forwardTo(await service.app.service.listen({ host: '127.0.0.1', port: 0 }))

const hasDash = await hasTool(t, ['dash', '-c', ':'], 'Debian: dash', 'the README\'s scripts in dash')
const SHELLS = hasDash ? ['bash', 'dash'] : ['bash']
const root = t.testdir({ 'ca.pem': service.aws.rootCaPem, scripts: {}, devices: {} })
for (const recipe of [...Object.keys(CALLS), 'old-client']) prepareScript(recipe)

for (const shell of SHELLS) {
  await t.test(`${shell}: vend.sh writes what renew.sh reads; again, they change nothing and renew anew`, async t => {
    const device = await newDevice()
    await succeeds(t, shell, 'vend', device)
    const vended = pairIn(t, device)
    t.match(filesOf(device), { serial: `${device.serialNumber}\n`, 'root.pem': service.aws.rootCaPem }, 'with serial number and root CA')
    const files = filesOf(device)
    await succeeds(t, shell, 'vend', device)
    t.strictSame(filesOf(device), files, 'the same certificate again, and nothing is left over')
    await succeeds(t, shell, 'renewal', device)
    await succeeds(t, shell, 'renewal', device)
    t.same([await statusOf(vended), await statusOf(pairIn(t, device))], ['REVOKED', 'ACTIVE'])
    t.strictSame(Object.keys(filesOf(device)), Object.keys(files), 'and the same files')
  })

  await t.test(`${shell}: est-enroll.sh writes what est-renew.sh reads`, async t => {
    const device = await newDevice()
    await succeeds(t, shell, 'est-enroll', device)
    const enrolled = pairIn(t, device)
    t.match(new X509Certificate(filesOf(device)['root.pem'] ?? '').toString(), new X509Certificate(service.aws.rootCaPem).toString())
    await succeeds(t, shell, 'est-renew', device)
    t.same([await statusOf(enrolled), await statusOf(pairIn(t, device))], ['REVOKED', 'ACTIVE'])
  })
}

const cells = Object.entries(CALLS).flatMap(([recipe, calls]) =>
  calls.flatMap(call => FAULTS.map(fault => ({ recipe: recipe as Recipe, call, fault }))))
const cuts = SHELLS.flatMap(shell => cells.map(cell => ({ ...cell, shell })))
// Each call loses its answer once, and meets one of the other faults; a whole run has all of them in each shell.
const few = cells.flatMap((cell, n) => {
  const call = Math.floor(n / FAULTS.length)
  const isTaken = cell.fault === 'lost answer' || cell.fault === FAULTS[[0, 2, 3][call % 3] ?? 0]
  return isTaken ? { ...cell, shell: SHELLS[(n + call) % SHELLS.length] ?? 'bash' } : []
})
const sample = isWhole ? cuts : few

await t.test(`a call is cut: ${sample.length} of ${cuts.length} cases`, async t => {
  t.same([...new Set(sample.map(({ shell }) => shell))].sort(), SHELLS, 'in each shell')
  for (const { recipe, call, fault, shell } of sample) {
    const what = `${shell}, ${recipe}, ${call}, ${typeof fault === 'object' ? fault.status : fault}`
    const isRenewal = RENEWALS.includes(recipe)
    const device = isRenewal ? await vendedDevice() : await newDevice()
    const { 'key.pem': key, 'cert.pem': cert } = filesOf(device)
    strikeOnce(call, fault)
    const cut = await run(shell, recipe, device)
    t.not(cut.code, 0, `${what}: fails`)
    t.not(cut.stderr, '', `${what}: says so`)
    const left = filesOf(device)
    t.equal(left['cert.pem'], cert, `${what}: the certificate is as it was, or still missing`)
    if (isRenewal) t.equal(left['key.pem'], key, `${what}: and so is the key`)
    await succeeds(t, shell, recipe, device, what)
    t.equal(await statusOf(pairIn(t, device, what)), 'ACTIVE', `${what}: the same again has a pair that works`)
    if (cert !== undefined) t.not(filesOf(device)['cert.pem'], cert, `${what}: a new one`)
    if (cert !== undefined) t.equal(await statusOf(new X509Certificate(cert)), 'REVOKED', `${what}: and the one before is over`)
  }
})

await t.test('a renewal that cannot be confirmed any more is asked for again with the same key', async t => {
  for (const code of ['renewal-gone', 'device-not-authorized']) {
    const device = await vendedDevice()
    const before = filesOf(device)
    strikeOnce(CONFIRM, { status: code === 'renewal-gone' ? 409 : 401, body: JSON.stringify({ title: code, code }) })
    t.match(await run('bash', 'renewal', device), { code: 1, stderr: code }, 'is told')
    t.match(filesOf(device), before, 'the pair is as it was')
    const key = readFileSync(join(device.dir, 'next', 'key.pem'), 'utf8')
    await succeeds(t, 'bash', 'renewal', device)
    t.equal(await statusOf(pairIn(t, device)), 'ACTIVE')
    t.equal(filesOf(device)['key.pem'], key, 'the new key is kept')
  }
})

await t.test('a refusal alone never costs a pair: the new one may be in force (G5)', async t => {
  const device = await vendedDevice()
  strikeOnce(CONFIRM, 'lost answer')
  t.not((await run('bash', 'renewal', device)).code, 0)
  strikeOnce(CONFIRM, { status: 409, body: JSON.stringify({ title: 'gone', code: 'renewal-gone' }) })
  t.match(await run('bash', 'renewal', device), { code: 1, stderr: 'renewal-gone' })
  t.match(await run('bash', 'renewal', device), { code: 1, stderr: 'device-not-authorized' }, 'the old pair is over')
  await succeeds(t, 'bash', 'renewal', device)
  t.equal(await statusOf(pairIn(t, device)), 'ACTIVE')
})

await t.test('a power cut while the new files take their places: the next run finishes that', async t => {
  const device = await vendedDevice()
  const old = filesOf(device)
  await succeeds(t, 'bash', 'renewal', device)
  const { 'key.pem': key = '', 'cert.pem': cert = '' } = filesOf(device)
  const states = [{ 'key.pem': key, 'cert.pem': cert }, { 'cert.pem': cert }, {}]
  for (const [moved, state] of states.entries()) {
    writeFileSync(join(device.dir, 'key.pem'), moved > 0 ? key : old['key.pem'] ?? '')
    writeFileSync(join(device.dir, 'cert.pem'), moved > 1 ? cert : old['cert.pem'] ?? '')
    mkdirSync(join(device.dir, 'next'))
    for (const [name, text] of Object.entries({ ...state, confirmed: '' })) writeFileSync(join(device.dir, 'next', name), text)
    await succeeds(t, 'bash', 'renewal', device, `${moved} files moved`)
    t.match(filesOf(device), { 'key.pem': key, 'cert.pem': cert }, `${moved} files moved: both are in their places`)
    t.notOk(existsSync(join(device.dir, 'next')))
  }
})

await t.test('what is refused is told, and nothing is written', async t => {
  const device = await newDevice({ registrationToken: 'wrong-0123456789-wrong' })
  for (const recipe of ['vend', 'est-enroll'] as const) {
    t.match(await run('bash', recipe, device), { code: 1, stderr: 'device-not-authorized' }, recipe)
    t.notOk(existsSync(join(device.dir, 'cert.pem')), recipe)
  }
})

await t.test('getcert.sh: what it has is not overwritten by a failure', async t => {
  if (!await hasTool(t, ['jq', '--version'], 'Debian: jq', 'the README\'s getcert.sh')) return
  const device = await newDevice()
  const names = ['iot-certificate.pem.crt', 'iot-private.pem.key', 'iot-root-ca.crt']
  strikeOnce('GET /getcert', 'reset')
  t.not((await run('bash', 'old-client', device)).code, 0)
  t.strictSame(names.filter(name => existsSync(join(device.dir, name))), [], 'cut off: no file')
  t.match(await run('bash', 'old-client', device), { code: 0 })
  const files = filesOf(device)
  t.equal(pairOf(files['iot-certificate.pem.crt'], files['iot-private.pem.key']), true)
  t.not((await run(SHELLS.at(-1) ?? '', 'old-client', device)).code, 0, 'once only')
  t.match(filesOf(device), files)
})

interface Device { serialNumber: string, dir: string }

/** A device in a folder of its own, with the answer of `cvm operator register --json` for its recipes. */
async function newDevice (changes: object = {}): Promise<Device> {
  const serialNumber = `sn-${readdirSync(join(root, 'devices')).length}`
  const answer = await ask(service, 'POST', '/v1/devices', { serialNumber })
  const dir = join(root, 'devices', serialNumber)
  mkdirSync(dir)
  writeFileSync(join(dir, 'device.json'), JSON.stringify({ ...answer.json(), ...changes }, null, 2))
  return { serialNumber, dir }
}

/** One that has its certificate, in the files that the scripts make. */
async function vendedDevice (): Promise<Device> {
  const device = await newDevice()
  const { serialNumber, registrationToken } = JSON.parse(filesOf(device)['device.json'] ?? '') as { serialNumber: string, registrationToken: string }
  const { key, csr } = opensslCsr(P256, `/CN=${serialNumber}`)
  const payload = { serialNumber, registrationToken, certificateSigningRequest: csr }
  const { certificatePem, endpoint } = (await service.app.service.inject({ method: 'POST', url: '/v1/certificates', payload })).json()
  for (const [name, text] of Object.entries({ 'key.pem': key, 'cert.pem': certificatePem, endpoint, serial: `${serialNumber}\n` })) writeFileSync(join(device.dir, name), text)
  return device
}

/** Puts a script into a file, beside a folder with the tools that it names. */
function prepareScript (recipe: string): void {
  const script = new RegExp(`<!-- recipe: ${recipe} -->\n\`\`\`sh\n([^]*?)\`\`\``).exec(readme())?.[1] ?? ''
  const needs = /^# Needs: (.*)$/m.exec(script)?.[1] ?? ''
  if (needs === '') throw new Error(`the README has no script ${recipe} that names what it needs`)
  const file = join(root, 'scripts', `${recipe}.sh`)
  writeFileSync(file, script)
  chmodSync(file, 0o755)
  mkdirSync(join(root, 'scripts', recipe))
  for (const name of needs.split(' ')) {
    // A sync would wait for whatever else this machine writes.
    const found = fileOf(name === 'sync' ? 'true' : name)
    if (found !== undefined) symlinkSync(found, join(root, 'scripts', recipe, name))
  }
}

function fileOf (name: string): string | undefined {
  return (process.env['PATH'] ?? '').split(delimiter).map(folder => join(folder, name)).find(existsSync)
}

async function run (shell: string, recipe: Recipe | 'old-client', { dir }: Device) {
  const scripts = join(root, 'scripts')
  const env = {
    PATH: join(scripts, recipe), URL: balancer.url, EST: `${balancer.url}/.well-known/est`, CA: join(root, 'ca.pem'), DEVICE: join(dir, 'device.json')
  }
  return await tool(fileOf(shell) ?? shell, [join(scripts, `${recipe}.sh`)], '', { cwd: dir, env })
}

async function succeeds (t: Test, shell: string, recipe: Recipe, device: Device, what = recipe as string): Promise<void> {
  const { code, stderr } = await run(shell, recipe, device)
  t.equal(code, 0, `${what}: ends well ${stderr}`)
}

function strikeOnce (call: string, fault: Fault): void {
  let isDone = false
  balancer.fail(operation => {
    if (isDone || operation.split('?')[0] !== call) return undefined
    isDone = true
    return fault
  })
}

/** The files of a device's folder, but not of those in it. */
function filesOf ({ dir }: Device): Record<string, string> {
  const files = readdirSync(dir, { withFileTypes: true }).filter(entry => entry.isFile())
  return Object.fromEntries(files.map(({ name }) => [name, readFileSync(join(dir, name), 'utf8')]))
}

/** The certificate of a device, which must be for its key. */
function pairIn (t: Test, device: Device, what = 'the pair'): X509Certificate {
  const { 'key.pem': key, 'cert.pem': cert } = filesOf(device)
  t.ok(pairOf(cert, key), `${what}: key and certificate belong together`)
  return new X509Certificate(cert ?? '')
}

function pairOf (cert = '', key = ''): boolean {
  return new X509Certificate(cert).checkPrivateKey(createPrivateKey(key))
}

async function statusOf ({ fingerprint256 }: X509Certificate): Promise<string | undefined> {
  const certificateId = fingerprint256.replaceAll(':', '').toLowerCase()
  return (await service.iot.send(new DescribeCertificateCommand({ certificateId }))).certificateDescription?.status
}
