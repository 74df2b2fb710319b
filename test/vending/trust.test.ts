// Who vouches for a certificate: by signature, never by name; and what is remembered of the account's authorities.
import { execFileSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { CvmError } from '../../src/errors.ts'
import { type AuthoritySettings, DEFAULT_SETTINGS, refusalByAuthority } from '../../src/vending/authority.ts'
import { AuthorityDirectory } from '../../src/vending/authority-directory.ts'
import { type CheckRevocation, truster } from '../../src/vending/trust.ts'
import { readCertificates } from '../../src/x509/strict-certificate.ts'
import { ModelAuthorities, ModelAuthoritySettings } from '../fixtures/model-authorities.ts'
import { CustomerCa } from '../local/ca-rig.ts'

const DAY = 86_400_000
const never = new AbortController().signal
const failed = (code: string, reason?: string) => ({ name: 'CvmError', code, ...(reason && { reason }) })
const [ca, namesake, other] = [new CustomerCa(), new CustomerCa(), new CustomerCa('/CN=Other CA')]
const device = read(ca.sign('/CN=SN-1').cert)

await t.test('the authority whose key signed it vouches for it', async t => {
  const { registry, trust } = rig()
  registry.add(other.cert)
  const caCertificateId = registry.add(ca.cert)
  t.match(await trust({ certificate: device }, never), { authority: { caCertificateId, whenCrlUnavailable: 'refuse', revision: 0 }, isDirect: true })
  t.match(await trust({ certificate: device, caCertificateId }, never), { authority: { caCertificateId } })
  t.match(await trust({ certificate: device, chain: [read(ca.cert), device] }, never), { isDirect: true }, 'who sends the whole chain may')
})

await t.test('a name proves nothing: a spoofed issuer is refused', async t => {
  const { registry, trust } = rig()
  const caCertificateId = registry.add(ca.cert)
  const spoofed = read(namesake.sign('/CN=SN-1').cert)
  await t.rejects(trust({ certificate: spoofed }, never), failed('certificate-not-trusted', 'signature-invalid'))
  await t.rejects(trust({ certificate: spoofed, caCertificateId }, never), failed('certificate-not-trusted', 'signature-invalid'))
  await t.rejects(trust({ certificate: spoofed, chain: [read(namesake.cert)] }, never), failed('certificate-not-trusted'), 'its own CA does not help')
})

await t.test('of several authorities with one name each signs for itself', async t => {
  const { registry, trust, clock } = rig()
  const [one, two] = [registry.add(ca.cert), registry.add(namesake.cert)]
  t.match(await trust({ certificate: device }, never), { authority: { caCertificateId: one } })
  t.match(await trust({ certificate: read(namesake.sign('/CN=SN-2').cert) }, never), { authority: { caCertificateId: two } })
  await t.rejects(trust({ certificate: device, caCertificateId: two }, never), failed('certificate-not-trusted', 'signature-invalid'), 'not for the other')
  clock.now += 2 * DAY
  await t.rejects(trust({ certificate: device }, never), failed('certificate-not-trusted', 'expired'), 'what is wrong is said of the one that signed')
})

await t.test('an authority that is not ACTIVE takes no new devices', async t => {
  const { registry, trust } = rig()
  const caCertificateId = registry.add(ca.cert, 'INACTIVE')
  for (const more of [{}, { caCertificateId }]) await t.rejects(trust({ certificate: device, ...more }, never), failed('authority-not-active'))
  registry.add(namesake.cert)
  await t.rejects(trust({ certificate: device }, never), failed('authority-not-active'), 'an ACTIVE namesake does not help')
  const spoofed = read(new CustomerCa().sign('/CN=SN-1').cert)
  await t.rejects(trust({ certificate: spoofed }, never), failed('certificate-not-trusted'), 'nor is a stranger told that there is one')
})

await t.test('who is not registered vouches for nobody', async t => {
  const { registry, trust } = rig()
  await t.rejects(trust({ certificate: device }, never), failed('certificate-not-trusted', 'authority-unknown'))
  await t.rejects(trust({ certificate: device, caCertificateId: '0'.repeat(64) }, never), failed('certificate-not-trusted', 'authority-unknown'))
  const caCertificateId = registry.add(ca.cert)
  Object.assign(registry.cas.get(caCertificateId) ?? {}, { caCertificatePem: 'no PEM' })
  await t.rejects(trust({ certificate: device, caCertificateId }, never), failed('certificate-not-trusted', 'authority-unknown'), 'nor who cannot be read')
})

await t.test('intermediates stand between, whoever brings them', async t => {
  const { registry, settings, trust, forget } = rig()
  const { intermediate, leaf } = underIntermediate(ca)
  const caCertificateId = registry.add(ca.cert)
  await t.rejects(trust({ certificate: leaf }, never), failed('certificate-not-trusted', 'authority-unknown'))
  await t.rejects(trust({ certificate: leaf, caCertificateId }, never), failed('certificate-not-trusted', 'issuer-name-mismatch'))
  t.match(await trust({ certificate: leaf, chain: [read(intermediate)] }, never), { authority: { caCertificateId }, isDirect: false }, 'sent along')
  await settings.put(caCertificateId, { ...DEFAULT_SETTINGS, intermediatesPem: intermediate }, 0)
  forget()
  t.match(await trust({ certificate: leaf }, never), { authority: { caCertificateId }, isDirect: false }, 'known to the authority')
})

await t.test('revocation is asked of the whole way, and its word is final', async t => {
  const asked: string[][] = []
  let answer: CvmError | undefined
  const { registry, trust } = rig(async (path, { caCertificateId }) => {
    asked.push([...path.map(({ subject }) => subject), caCertificateId])
    if (answer) throw answer
  })
  const id = registry.add(ca.cert)
  await trust({ certificate: device }, never)
  t.strictSame(asked, [['CN=SN-1', 'CN=Factory CA', id]])
  for (const code of ['certificate-revoked', 'crl-unavailable', 'internal-error'] as const) {
    answer = new CvmError(code)
    await t.rejects(trust({ certificate: device }, never), failed(code))
  }
})

await t.test('products: all, unless they are named', async t => {
  const only = (products?: string[]) => ({ products }) as Pick<AuthoritySettings, 'products'>
  t.equal(refusalByAuthority(only(), 'meter'), undefined)
  t.equal(refusalByAuthority(only(['meter']), 'meter'), undefined)
  t.match(refusalByAuthority(only(['pump']), 'meter'), failed('authority-not-for-product'))
  t.match(refusalByAuthority(only([]), 'meter'), failed('authority-not-for-product'))
})

await t.test('what is known is remembered for some seconds, and looked up once for all who wait', async t => {
  const { registry, trust, forget, clock } = rig()
  registry.add(ca.cert)
  await Promise.all(Array.from({ length: 8 }, () => trust({ certificate: device }, never)))
  t.equal(registry.calls.filter(call => call === 'list').length, 1)
  registry.add(ca.cert, 'INACTIVE')
  clock.now += 4_999
  await trust({ certificate: device }, never)
  clock.now += 1
  await t.rejects(trust({ certificate: device }, never), failed('authority-not-active'), 'then it is looked up anew')
  registry.add(ca.cert)
  forget()
  await trust({ certificate: device }, never)
  t.equal(registry.calls.filter(call => call === 'describe').length, 1, 'but what never changes is asked for once')
})

await t.test('a look that fails is not remembered, and waiting for one ends in time', async t => {
  const { registry, trust, forget } = rig()
  registry.add(ca.cert)
  const list = registry.list.bind(registry)
  registry.list = async () => { throw new CvmError('aws-iot-throttled') }
  await t.rejects(trust({ certificate: device }, never), failed('aws-iot-throttled'))
  registry.list = list
  await t.resolves(trust({ certificate: device }, never), 'the next question looks anew')
  forget()
  registry.list = () => new Promise(() => {})
  const stop = new AbortController()
  const waiting = trust({ certificate: device }, stop.signal)
  stop.abort()
  await t.rejects(waiting, failed('deadline-exceeded'))
  await t.rejects(trust({ certificate: device }, AbortSignal.abort()), failed('deadline-exceeded'))
})

function rig (checkRevocation: CheckRevocation = async () => {}) {
  const [registry, settings, clock] = [new ModelAuthorities(), new ModelAuthoritySettings(), { now: Date.now() + 60_000 }]
  const now = () => clock.now
  const directory = new AuthorityDirectory({ registry, settings, now, deadline: () => never, maxAgeMs: 5_000 })
  return { registry, settings, clock, forget: () => directory.forget(), trust: truster({ directory, checkRevocation, now }) }
}

function read (pem: string) {
  return readCertificates(pem)[0] ?? t.fail('there is a certificate') as never
}

/** A CA below the CA, and a device below that. */
function underIntermediate (ca: CustomerCa) {
  const dir = mkdtempSync(join(tmpdir(), 'trust-'))
  const run = (...args: string[]) => execFileSync('openssl', args, { cwd: dir, stdio: 'ignore' })
  const request = (subject: string, name: string) =>
    run('req', '-new', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-subj', subject, '-keyout', `${name}.key`, '-out', `${name}.csr`)
  try {
    for (const [name, text] of [['ca', ca.cert], ['ca.key', ca.key], ['ext', 'basicConstraints=critical,CA:TRUE']] as const) writeFileSync(join(dir, name), text)
    request('/CN=Line CA', 'line')
    run('x509', '-req', '-in', 'line.csr', '-CA', 'ca', '-CAkey', 'ca.key', '-extfile', 'ext', '-days', '10', '-out', 'line')
    request('/CN=SN-9', 'leaf')
    run('x509', '-req', '-in', 'leaf.csr', '-CA', 'line', '-CAkey', 'line.key', '-days', '1', '-out', 'leaf')
    return { intermediate: readFileSync(join(dir, 'line'), 'utf8'), leaf: read(readFileSync(join(dir, 'leaf'), 'utf8')) }
  } finally {
    rmSync(dir, { recursive: true })
  }
}
