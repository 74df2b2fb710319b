import { execFileSync } from 'node:child_process'
import { createPrivateKey, createPublicKey } from 'node:crypto'
import { chmodSync, mkdirSync, readFileSync, readdirSync, statSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { csrFor } from '../../src/cli/private-key.ts'
import { FILES, writePrivateKey } from '../../src/cli/device-folder.ts'
import { enroll, enrollWithServiceKey } from '../../src/cli/enroll.ts'
import type { Enrolment } from '../../src/cli/enroll.ts'
import type { Failure } from '../../src/cli/failure.ts'
import { Authority, vendAnswer } from './openssl-authority.ts'
import { problem, scriptedService } from './scripted-service.ts'
import type { Line, ScriptedService } from './scripted-service.ts'

const authority = new Authority(t, 'Device authority')
const mode = (path: string) => statSync(path).mode & 0o777
const publicKeyOf = (pem: string) => createPublicKey(createPrivateKey(pem)).export({ type: 'spki', format: 'pem' })

/** Vends as the service does: the same key gets the same answer, first 201, then 200. */
function vending (change: Record<string, unknown> = {}): Line {
  const given = new Map<string, Record<string, unknown>>()
  return request => {
    const key = csrPublicKey(request.certificateSigningRequest!)
    const known = given.get(key)
    const body = known ?? { ...vendAnswer(authority, request.certificateSigningRequest!, request.serialNumber!), ...change }
    given.set(key, body)
    return { status: known === undefined ? 201 : 200, body }
  }
}

function csrPublicKey (csr: string): string {
  return execFileSync('openssl', ['req', '-noout', '-pubkey', '-verify'], { input: csr, encoding: 'utf8', stdio: ['pipe', 'pipe', 'ignore'] })
}

function enrolment (service: ScriptedService, folder: string, change: Partial<Enrolment> = {}): Enrolment {
  const patience = { timeoutMs: 5000, sleep: async () => {}, random: () => 0.01 }
  return { service, serialNumber: 'SN-1', registrationToken: 'top-secret', folder, keyType: 'ec', patience, ...change }
}

async function failure (attempt: Promise<unknown>): Promise<Failure> {
  return await attempt.then(() => { throw new Error('it succeeded') }, error => error as Failure)
}

await t.test('enrolls: files, modes, nothing secret where it does not belong', async t => {
  for (const keyType of ['ec', 'rsa'] as const) {
    const folder = join(t.testdir(), 'deep', keyType)
    const service = await scriptedService(t, [vending()])
    const device = await enroll(enrolment(service, folder, { keyType }))
    t.equal(device.isNew, true)
    t.strictSame(readdirSync(folder).sort(), Object.values(FILES).sort(), 'no temporary files')
    t.equal(mode(folder), 0o700)
    t.equal(mode(join(folder, FILES.privateKey)), 0o600)
    const privateKey = readFileSync(join(folder, FILES.privateKey), 'utf8')
    const request = JSON.parse(service.bodies[0]!)
    t.strictSame(Object.keys(request), ['serialNumber', 'registrationToken', 'certificateSigningRequest'])
    t.equal(csrPublicKey(request.certificateSigningRequest), publicKeyOf(privateKey), 'the CSR is for the stored key')
    t.notMatch(service.bodies[0], 'PRIVATE KEY')
    const facts = readFileSync(join(folder, FILES.device), 'utf8')
    t.strictSame(Object.keys(JSON.parse(facts)), ['serialNumber', 'thingName', 'certificateId', 'endpoint', 'notAfter', 'renewAfter'])
    t.notMatch(facts, /top-secret|PRIVATE/)
  }
})

await t.test('a lost answer becomes a replay: the key is on disk before the request and used again', async t => {
  const folder = join(t.testdir(), 'device')
  const keyFile = join(folder, FILES.privateKey)
  let keyAtRequest = ''
  const vend = vending() as (request: Record<string, string>) => { status: number, body: unknown }
  const service = await scriptedService(t, [
    request => {
      keyAtRequest = readFileSync(keyFile, 'utf8')
      vend(request)
      return 'reset'
    },
    vend
  ])
  // No time for a second attempt: as if the process had been killed here.
  const lost = await failure(enroll(enrolment(service, folder, { patience: { timeoutMs: 100, random: () => 1 } })))
  t.equal(lost.exitCode, 4)
  t.strictSame(readdirSync(folder), [FILES.privateKey])
  const device = await enroll(enrolment(service, folder))
  t.equal(device.isNew, false, '200: the same certificate')
  t.equal(readFileSync(keyFile, 'utf8'), keyAtRequest)
  const before = readFileSync(join(folder, FILES.certificate), 'utf8')
  await enroll(enrolment(service, folder))
  t.equal(readFileSync(join(folder, FILES.certificate), 'utf8'), before, 'and once more')
})

await t.test('a key brought along is certified: each kind that AWS IoT takes', async t => {
  const kinds = [['EC', 'ec_paramgen_curve:P-384'], ['EC', 'ec_paramgen_curve:P-521'], ['RSA', 'rsa_keygen_bits:2048']]
  for (const [algorithm, option] of kinds as Array<[string, string]>) {
    const folder = t.testdir({ [FILES.privateKey]: execFileSync('openssl', ['genpkey', '-algorithm', algorithm, '-pkeyopt', option]) })
    chmodSync(join(folder, FILES.privateKey), 0o600)
    t.equal((await enroll(enrolment(await scriptedService(t, [vending()]), folder))).isNew, true, option)
  }
})

await t.test('a key that cannot be used is refused before anything is sent, and left alone', async t => {
  const service = await scriptedService(t, [vending()])
  const cases = { 'cannot be read': 'rubbish', 'does not take': execFileSync('openssl', ['genpkey', '-algorithm', 'ED25519'], { encoding: 'utf8' }) }
  for (const [message, key] of Object.entries(cases)) {
    const folder = t.testdir({ [FILES.privateKey]: key })
    chmodSync(join(folder, FILES.privateKey), 0o600)
    t.match((await failure(enroll(enrolment(service, folder)))).message, message)
    t.equal(readFileSync(join(folder, FILES.privateKey), 'utf8'), key)
  }
  const folder = t.testdir({ [FILES.privateKey]: 'rubbish' })
  chmodSync(join(folder, FILES.privateKey), 0o644)
  t.match((await failure(enroll(enrolment(service, folder)))).message, 'other users')
  t.strictSame(service.bodies, [])
})

await t.test('a private key is never overwritten, not even through a dangling link', async t => {
  const folder = t.testdir({ [FILES.privateKey]: 'first' })
  t.match((await failure(writePrivateKey(folder, 'second'))).message, 'not overwritten')
  t.equal(readFileSync(join(folder, FILES.privateKey), 'utf8'), 'first')
  t.strictSame(readdirSync(folder), [FILES.privateKey])
  const linked = join(t.testdirName, 'linked')
  mkdirSync(linked)
  symlinkSync('/nonexistent/key', join(linked, FILES.privateKey))
  t.match((await failure(writePrivateKey(linked, 'second'))).message, 'not overwritten')
})

await t.test('two at once in one folder: one key, and no certificate for another one', async t => {
  const folder = join(t.testdir(), 'device')
  const service = await scriptedService(t, [vending()])
  const outcomes = await Promise.allSettled([1, 2, 3, 4].map(async () => await enroll(enrolment(service, folder))))
  t.ok(outcomes.some(({ status }) => status === 'fulfilled'))
  t.equal(new Set(service.bodies.map(body => csrPublicKey(JSON.parse(body).certificateSigningRequest))).size, 1)
})

await t.test('an answer that is wrong is not stored', async t => {
  const stranger = authority.issue('/CN=stranger').certificate
  const cases: Array<[string, Record<string, unknown>]> = [
    ['another public key', { certificatePem: stranger }],
    ['another certificate', { certificateId: '0'.repeat(64) }],
    ['another device', { serialNumber: 'SN-2' }],
    ['lacks thingName, notAfter', { thingName: '', notAfter: 1 }],
    ['rootCaPem', { rootCaPem: undefined }],
    ['cannot be read', { rootCaPem: 'rubbish' }],
    ['cannot be read', { certificatePem: 'rubbish' }],
    ['host or host:port', { endpoint: 'https://evil.example/' }]
  ]
  for (const [message, change] of cases) {
    const folder = join(t.testdir(), 'device')
    const { exitCode, message: said } = await failure(enroll(enrolment(await scriptedService(t, [vending(change)]), folder)))
    t.equal(exitCode, 1)
    t.match(said, message)
    t.strictSame(readdirSync(folder), [FILES.privateKey])
  }
})

await t.test('a folder of another device, or one that cannot be written, is refused before anything is sent', async t => {
  const folder = join(t.testdir(), 'device')
  const service = await scriptedService(t, [vending()])
  await enroll(enrolment(service, folder))
  t.match((await failure(enroll(enrolment(service, folder, { serialNumber: 'SN-2' })))).message, 'belongs to the device SN-1')
  writeFileSync(join(t.testdirName, 'file'), '')
  t.match((await failure(enroll(enrolment(service, join(t.testdirName, 'file'))))).message, 'cannot write')
  t.equal(service.bodies.length, 1)
})

await t.test('keys by the service: stored, checked, never asked for twice', async t => {
  const folder = join(t.testdir(), 'device')
  const pair = authority.issue('/CN=AWS IoT Certificate')
  const other = authority.issue('/CN=other')
  const csr = await csrFor(pair.privateKey, 'SN-1', 'its key')
  const keyPair = { publicKey: publicKeyOf(pair.privateKey), privateKey: pair.privateKey }
  const vend = (change: object): Line => ({ status: 201, body: { ...vendAnswer(authority, csr, 'SN-1'), keyPair, ...change } })
  const service = await scriptedService(t, [vend({ keyPair: { ...keyPair, privateKey: other.privateKey } }), vend({}), vend({})])
  t.match((await failure(enrollWithServiceKey(enrolment(service, folder)))).message, 'another public key')
  t.strictSame(readdirSync(folder), [])
  await enrollWithServiceKey(enrolment(service, folder))
  t.strictSame(service.paths.at(-1), 'POST /v1/keys-and-certificates')
  t.equal(readFileSync(join(folder, FILES.privateKey), 'utf8'), pair.privateKey)
  t.equal(mode(join(folder, FILES.privateKey)), 0o600)
  t.match((await failure(enrollWithServiceKey(enrolment(service, folder)))).message, 'private key already')
  t.equal(service.bodies.length, 2)
})

await t.test('keys by the service: a lost answer is explained', async t => {
  const service = await scriptedService(t, ['reset', problem(409, 'key-not-recoverable')])
  const { exitCode, problem: told } = await failure(enrollWithServiceKey(enrolment(service, join(t.testdir(), 'device'))))
  t.equal(exitCode, 3)
  t.match(told, { code: 'key-not-recoverable', detail: 'its answer was lost', remedy: 'Do something.' })
})
