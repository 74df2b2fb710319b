// Whether a certificate is revoked: which list says so, how long it may, and what becomes of the certificate when none does.
import t from 'tap'
import { type AuthoritySettings, DEFAULT_SETTINGS } from '../../src/vending/authority.ts'
import { CrlFetchError, type Fetched, type Validators } from '../../src/vending/crl-source.ts'
import { RevocationLists } from '../../src/vending/revocation.ts'
import { type Certificate, readCertificates } from '../../src/x509/strict-certificate.ts'
import { DAY, NOW, authority, certificatePem, commonName, extension, freshKey, timeOf } from '../x509/handmade-certificate.ts'
import { crlDer, crlPem, entry, reason } from '../x509/handmade-crl.ts'
import { hex, tlv } from '../x509/handmade.ts'

const never = new AbortController().signal
const HOUR = 3_600_000
const ca = authority(commonName('Factory CA'))
const line = authority(commonName('Line CA'), { by: ca, serial: serial('11') })
const [device, other] = ['4711', '4712'].map(number => read(certificatePem(freshKey(), ca, { serial: serial(number) }))) as [Certificate, Certificate]
const below = read(certificatePem(freshKey(), line, { serial: serial('21') }))
const path = [device, read(ca.pem)]
const AUTHORITY = {
  ...DEFAULT_SETTINGS,
  revision: 1,
  caCertificateId: 'id',
  caCertificateArn: 'arn',
  caCertificatePem: ca.pem,
  status: 'ACTIVE',
  autoRegistration: false,
  mode: 'DEFAULT',
  createdAt: 0,
  notBefore: 0,
  notAfter: 0
} as const
const failed = (code: string, reason?: string, detail?: RegExp) => ({ name: 'CvmError', code, ...reason && { reason }, ...detail && { message: detail } })

await t.test('whom the list of the issuer lists is revoked, with the reason; others are not', async t => {
  const { serve, check, told } = rig()
  serve('a', crlDer(ca, { entries: [entry('4711'), entry('4713', [reason(1)]), entry('4714', [reason(6)]), entry('4715', [reason(2)])] }))
  await t.rejects(check(path), failed('certificate-revoked', 'unspecified', /4711/))
  for (const [number, reason] of [['4713', 'key-compromise'], ['4714', 'certificate-hold'], ['4715', 'ca-compromise']] as const) {
    await t.rejects(check([{ ...device, serialNumber: number }, path[1]!]), failed('certificate-revoked', reason))
  }
  await t.resolves(check([other, path[1]!]))
  t.strictSame(told.unavailable, [])
  t.equal(told.nextUpdate.at(-1), NOW + DAY)
})

await t.test('PEM and DER', async t => {
  for (const list of [crlDer(ca), Buffer.from(crlPem(ca))]) {
    const { serve, check } = rig()
    serve('a', list)
    await t.resolves(check(path))
  }
})

await t.test('nobody knows: refused, or accepted where the authority says so; and counted', async t => {
  const missing = new CrlFetchError('crl-timeout', 'It did not come within 5 ms.')
  const cases: [string, string[], Buffer | CrlFetchError, RegExp][] = [
    ['crl-not-set', [], missing, /No CRL is set/],
    ['crl-timeout', ['a'], missing, /^CRL 1 of the authority: It did not come/],
    ['crl-not-pem', ['a'], Buffer.from('<!DOCTYPE html>'), /X509 CRL/],
    ['crl-signature-invalid', ['a'], crlDer(authority(ca.subject)), /another CA of the same name/],
    ['crl-missing-for-issuer', ['a'], crlDer(authority(commonName('Other CA'))), /None of the authority's CRLs/],
    ['crl-stale', ['a'], crlDer(ca, { thisUpdate: timeOf(NOW - DAY), nextUpdate: timeOf(NOW - 1000) }), /ended at 2026-05-31T23:59:59/],
    ['crl-not-yet-valid', ['a'], crlDer(ca, { thisUpdate: timeOf(NOW + HOUR) }), /2026-06-01T01/]
  ]
  for (const [reason, crls, said, detail] of cases) {
    const { serve, check, told } = rig()
    serve('a', said)
    await t.rejects(check(path, { crls }), failed('crl-unavailable', reason, detail), reason)
    await t.resolves(check(path, { crls, whenCrlUnavailable: 'accept' }), reason)
    t.strictSame(told.unavailable, [['refuse', reason, 'id'], ['accept', reason, 'id']])
  }
})

await t.test('whom a list has listed stays revoked when the list is stale, also where that is accepted', async t => {
  const { serve, check, clock } = rig()
  serve('a', crlDer(ca, { entries: [entry('4711')] }))
  clock.now = NOW + 30 * DAY
  await t.rejects(check(path, { whenCrlUnavailable: 'accept' }), failed('certificate-revoked'))
  await t.rejects(check([other, path[1]!]), failed('crl-unavailable', 'crl-stale'))
})

await t.test('each certificate of the way needs the list of its own issuer', async t => {
  const { serve, check } = rig()
  const way = [below, read(line.pem), read(ca.pem)]
  serve('a', crlDer(ca))
  await t.rejects(check(way), failed('crl-unavailable', 'crl-missing-for-issuer'), 'that of the intermediate is missing')
  serve('b', crlDer(line))
  const both = { crls: ['a', 'b'] }
  await t.resolves(check(way, both))
  const [revokesDevice, revokesLine] = [rig(), rig()]
  revokesDevice.serve('a', crlDer(ca)).serve('b', crlDer(line, { entries: [entry('21')] }))
  await t.rejects(revokesDevice.check(way, both), failed('certificate-revoked'))
  revokesLine.serve('a', crlDer(ca, { entries: [entry('11')] })).serve('b', crlDer(line))
  await t.rejects(revokesLine.check(way, both), failed('certificate-revoked'), 'an intermediate')
})

await t.test('a list is looked for again after its time, once for all who wait, and by what was said of it', async t => {
  const { serve, check, clock, told } = rig()
  serve('a', crlDer(ca, { nextUpdate: timeOf(NOW + 10 * HOUR) }))
  await Promise.all(Array.from({ length: 5 }, () => check(path)))
  clock.now = NOW + HOUR - 1
  await check(path)
  t.strictSame(told.asked, [{}], 'remembered')
  clock.now++
  await check(path)
  t.strictSame(told.asked, [{}, { etag: '1' }])
  t.strictSame(told.fetched, [['fetched', 'a'], ['unchanged', 'a']])
  serve('a', crlDer(ca, { thisUpdate: timeOf(NOW + HOUR), nextUpdate: timeOf(NOW + DAY), entries: [entry('4711')] }))
  clock.now += HOUR
  await t.rejects(check(path), failed('certificate-revoked'), 'the new one counts')
})

await t.test('one without an end counts for as long as it is remembered', async t => {
  const { serve, check, clock } = rig()
  serve('a', crlDer(ca, { nextUpdate: null }))
  await t.resolves(check(path))
  serve('a', new CrlFetchError('crl-unreachable', 'away'))
  clock.now = NOW + HOUR + 1
  await t.rejects(check(path), failed('crl-unavailable', 'crl-stale', /away/))
})

await t.test('a list in force outlives the loss of its source, which is asked again after a while, not by everybody', async t => {
  const { serve, check, clock, told } = rig()
  serve('a', crlDer(ca, { nextUpdate: timeOf(NOW + 3 * HOUR) }))
  await check(path)
  serve('a', new CrlFetchError('crl-unreachable', 'away'))
  clock.now = NOW + 2 * HOUR
  for (let n = 0; n < 5; n++) await t.resolves(check(path))
  t.equal(told.asked.length, 2)
  clock.now += 10_000
  await check(path)
  t.equal(told.asked.length, 3)
  t.match(told.fetched.at(-1), ['crl-unreachable', 'a'])
})

await t.test('neither an older list nor a broken one takes the place of a good one', async t => {
  const { serve, check, clock, told } = rig()
  serve('a', crlDer(ca, { entries: [entry('4711')] }))
  await t.rejects(check(path), failed('certificate-revoked'))
  for (const said of [crlDer(ca, { thisUpdate: timeOf(NOW - HOUR) }), Buffer.from('broken'), crlDer(authority(ca.subject))]) {
    serve('a', said)
    clock.now += HOUR
    await t.rejects(check(path), failed('certificate-revoked'))
    await t.resolves(check([other, path[1]!]), 'and what is in force stays so')
  }
  t.strictSame(told.fetched.map(([result]) => result), ['fetched', 'fetched', 'crl-not-pem', 'crl-signature-invalid'])
})

await t.test('who cannot wait does not keep the others from the list; a source that fails otherwise is no answer', async t => {
  const { serve, check } = rig()
  serve('a', crlDer(ca))
  await t.rejects(check(path, {}, AbortSignal.abort()), failed('deadline-exceeded'))
  await t.resolves(check(path))
  const broken = rig()
  broken.serve('a', new Error('a bug') as never)
  await t.rejects(broken.check(path), { message: 'a bug' })
})

await t.test('a delta beside a complete list: what it lists is revoked, and without it the status is unknown', async t => {
  const base = (number: number): Buffer => extension('551d14', tlv(0x02, Buffer.from([number])))
  const delta = (of: number): Buffer => extension('551d1b', tlv(0x02, Buffer.from([of])), true)
  const complete = crlDer(ca, { extensions: [base(5)] })
  const both = { crls: ['a', 'b'] }
  const cases: [string, Buffer | CrlFetchError, string | undefined, string?][] = [
    ['it lists the device', crlDer(ca, { entries: [entry('4711')], extensions: [base(6), delta(5)] }), 'certificate-revoked'],
    ['it lists another', crlDer(ca, { entries: [entry('4712')], extensions: [base(6), delta(5)] }), undefined],
    ['it has not been read yet', new CrlFetchError('crl-unreachable', 'away'), 'crl-unavailable', 'crl-unreachable'],
    ['it cannot be read', Buffer.from('<!DOCTYPE html>'), 'crl-unavailable', 'crl-not-pem'],
    ['it is stale', crlDer(ca, { thisUpdate: timeOf(NOW - DAY), nextUpdate: timeOf(NOW - 1000), extensions: [base(6), delta(5)] }), 'crl-unavailable', 'crl-stale'],
    ['it continues a newer list', crlDer(ca, { extensions: [base(7), delta(6)] }), 'crl-unavailable', 'crl-delta-without-base']
  ]
  for (const [what, said, code, reason] of cases) {
    const { serve, check } = rig()
    serve('a', complete).serve('b', said)
    await (code === undefined ? t.resolves(check(path, both), what) : t.rejects(check(path, both), failed(code, reason), what))
  }
  const alone = rig()
  alone.serve('a', crlDer(ca, { extensions: [base(6), delta(5)] }))
  await t.rejects(alone.check(path), failed('crl-unavailable', 'crl-is-delta', /complete one too/))
  const unnumbered = rig()
  unnumbered.serve('a', crlDer(ca)).serve('b', crlDer(ca, { extensions: [delta(1)] }))
  await t.rejects(unnumbered.check(path, both), failed('crl-unavailable', 'crl-delta-without-base'))
})

await t.test('a second address of the same list may be lost once it was read', async t => {
  const { serve, check, clock } = rig()
  serve('a', crlDer(ca)).serve('b', crlDer(ca))
  await t.resolves(check(path, { crls: ['a', 'b'] }))
  serve('b', new CrlFetchError('crl-unreachable', 'away'))
  clock.now += HOUR
  await t.resolves(check(path, { crls: ['a', 'b'] }))
})

await t.test('a list with an issuingDistributionPoint counts at the address that it names, and revokes at any', async t => {
  const url = 'http://ca.example/1.0/crl'
  const point = extension('551d1c', tlv(0x30, tlv(0xa0, tlv(0xa0, tlv(0x86, Buffer.from(url))))), true)
  const list = crlDer(ca, { entries: [entry('4711')], extensions: [point] })
  const { serve, check, told } = rig()
  serve(url, list).serve('http://ca.example/else', list)
  await t.resolves(check([other, path[1]!], { crls: [url] }))
  await t.rejects(check([other, path[1]!], { crls: ['http://ca.example/else'] }), failed('crl-unavailable', 'crl-is-partial', /it is of http:\/\/ca.example\/1.0\/crl; set that address/))
  await t.rejects(check(path, { crls: ['http://ca.example/else'], whenCrlUnavailable: 'accept' }), failed('certificate-revoked'))
  t.strictSame(told.fetched.map(([result]) => result), ['fetched', 'crl-is-partial'], 'counted as what it is')
})

await t.test('after a key roll-over the list of the new key counts for the old one only where the old one vouches for the new', async t => {
  const next = authority(ca.subject)
  const vouched = read(authority(ca.subject, { by: ca, key: next.key, serial: serial('77') }).pem)
  const { serve, check, told } = rig()
  serve('a', crlDer(next, { entries: [entry('4711')] }))
  await t.rejects(check(path), failed('crl-unavailable', 'crl-signature-invalid'))
  await t.rejects(check(path, {}, never, [vouched]), failed('certificate-revoked'))
  await t.resolves(check([other, path[1]!], {}, never, [vouched]))
  const expired = read(authority(ca.subject, { by: ca, key: next.key, notAfter: timeOf(NOW - 1000) }).pem)
  await t.rejects(check(path, {}, never, [expired, read(next.pem)]), failed('crl-unavailable', 'crl-signature-invalid'), 'an old voucher, and one that nobody signed')
  await t.rejects(check([vouched, path[1]!], {}, never, [vouched]), failed('crl-unavailable', 'crl-signature-invalid'), 'the new key does not vouch for itself')
  t.strictSame(told.fetched, [['crl-signature-invalid', 'a']])
})

await t.test('a list that cannot be used is counted as what it is at each fetch, and looked for again within the minute', async t => {
  const { serve, check, clock, told } = rig()
  serve('a', crlDer(ca, { extensions: [extension('551d1c', hex('3000'), true)] }))
  await t.rejects(check(path), { ...failed('crl-unavailable', 'crl-is-partial'), retryAfterMs: 60_000 })
  clock.now += 60_000
  await t.rejects(check(path), failed('crl-unavailable', 'crl-is-partial'))
  t.strictSame(told.fetched, [['crl-is-partial', 'a'], ['crl-is-partial', 'a']], 'also where the source says that it is the same')
  serve('a', crlDer(ca))
  clock.now += 60_000
  await t.resolves(check(path), 'mended')
})

await t.test('what is told of a source is its host, not its address', async t => {
  const { serve, check, told } = rig()
  serve('http://pki.example:8080/secret/list.crl', crlDer(ca))
  await check(path, { crls: ['http://pki.example:8080/secret/list.crl'] })
  t.strictSame(told.fetched, [['fetched', 'pki.example:8080']])
})

function rig () {
  const clock = { now: NOW }
  const told = { asked: [] as Validators[], fetched: [] as [string, string][], nextUpdate: [] as number[], unavailable: [] as string[][] }
  const said = new Map<string, { what: Buffer | Error, etag: string }>()
  const source = {
    async fetch (name: string, known: Validators): Promise<Fetched | undefined> {
      told.asked.push(known)
      const { what, etag } = said.get(name) ?? t.fail(name) as never
      if (what instanceof Error) throw what
      return known.etag === etag ? undefined : { bytes: what, validators: { etag } }
    }
  }
  const lists = new RevocationLists({
    source,
    now: () => clock.now,
    maxAgeMs: HOUR,
    onFetch: (result, where) => told.fetched.push([result, where]),
    onNextUpdate: at => told.nextUpdate.push(at),
    onUnavailable: (then, reason, id) => told.unavailable.push([then, reason, id])
  })
  const self = {
    clock,
    told,
    serve (name: string, what: Buffer | CrlFetchError) {
      said.set(name, { what, etag: String(Number(said.get(name)?.etag ?? 0) + 1) })
      return self
    },
    check (way: readonly Certificate[], settings: Partial<AuthoritySettings> = {}, signal = never, intermediates: Certificate[] = []) {
      return lists.check(way, { ...AUTHORITY, crls: ['a'], ...settings }, signal, intermediates)
    }
  }
  return self
}

function read (pem: string): Certificate {
  return readCertificates(pem)[0] ?? t.fail('there is a certificate') as never
}

function serial (digits: string): Buffer {
  return tlv(0x02, hex(digits))
}
