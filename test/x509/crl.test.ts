import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import fc from 'fast-check'
import t from 'tap'
import { crlDerOf, readCrl, type Crl, type CrlReading } from '../../src/x509/crl.ts'
import { CRL_REFUSALS, CrlError, type CrlRefusal } from '../../src/x509/refusals.ts'
import { serialContentOf, serialNumberOf } from '../../src/x509/shape.ts'
import { readCertificates, type Certificate } from '../../src/x509/strict-certificate.ts'
import { fieldText } from '../fixtures/field.ts'
import { inTemporaryDir, openssl, opensslKey } from '../fixtures/openssl.ts'
import { DAY, NOW, authority, basicConstraints, certificatePem, commonName, extension, keyUsage, timeOf, type Authority } from './handmade-certificate.ts'
import { LATER, crlDer, crlPem, entry, reason, type CrlParts } from './handmade-crl.ts'
import { RSA_SHA256, derOf, hex, pemOf, tlv } from './handmade.ts'

const ca = authority(commonName('Factory CA'))
const namesake = authority(ca.subject)
const weak = authority(ca.subject, { key: await opensslKey('rsa-1024') })
const certificateOf = ({ pem }: { pem: string }): Certificate => readCertificates(pem)[0]!
const read = async (input: Buffer | string, issuer: Authority = ca, reading: CrlReading = {}): Promise<Crl> =>
  readCrl(await crlDerOf(Buffer.from(input), reading.endTurn), certificateOf(issuer), reading)
const by = (parts: CrlParts): Buffer => crlDer(ca, parts)
const der = by({ entries: [entry('4711')] })
const idp = (...members: Buffer[]): Buffer => extension('551d1c', tlv(0x30, ...members), true)
const fullName = (...urls: string[]): Buffer => tlv(0xa0, tlv(0xa0, ...urls.map(url => tlv(0x86, Buffer.from(url)))))
const keyIdOf = (id: string): Buffer => extension('551d23', tlv(0x30, tlv(0x80, hex(id))))
const keyed = authority(ca.subject, { key: ca.key, extensions: [basicConstraints(true), extension('551d0e', tlv(0x04, hex('01')))] })
const algorithm = (oid: string, ...parameters: Buffer[]): Buffer => tlv(0x30, tlv(0x06, hex(oid)), ...parameters)
const entries = (...list: Buffer[]): Buffer => by({ entries: list })
const dated = (text: string): Buffer => by({ thisUpdate: tlv(0x17, Buffer.from(text)) })

const refused = (reason: CrlRefusal) => ({ name: 'CrlError', reason })

type Case = readonly [what: string, input: Buffer | string, issuer?: Authority]
const CASES: Record<CrlRefusal, readonly Case[]> = {
  'crl-too-long': [
    ['DER', Buffer.alloc(17 * 1024 * 1024, 0x30)],
    ['PEM', '-'.repeat(25 * 1024 * 1024)],
    ['PEM of too much', pemOf(Buffer.alloc(17 * 1024 * 1024), 'X509 CRL')]
  ],
  'crl-not-pem': [
    ['nothing', ''], ['no bytes', Buffer.alloc(0)], ['a web page', Buffer.from('<!DOCTYPE html>')], ['a certificate', ca.pem], ['two', crlPem(ca).repeat(2)],
    ['DER as text', der.toString('base64')], ['ten million of anything', Buffer.alloc(10_000_000, 0x41)]
  ],
  'crl-not-der': [
    ['trailing byte', Buffer.concat([der, hex('00')])], ['cut off', der.subarray(0, -1)], ['one byte', hex('30')],
    ['indefinite length', hex('3080')], ['BER inside', by({ version: hex('02810101') })],
    ['BER in the extensions of an entry', entries(entry('01', [hex('30800000')]))],
    ['ten million of anything', Buffer.alloc(10_000_000, 0x30)],
    ['nested 5000 deep in an entry', entries(entry('01', [Array.from({ length: 5000 }).reduce((inner: Buffer) => tlv(0x30, inner), Buffer.alloc(0))]))]
  ],
  'crl-malformed': [
    ['an empty sequence', tlv(0x30)],
    ['a certificate', derOf(ca.pem)],
    ['eight members', tlv(0x30, ...Array.from({ length: 8 }, () => tlv(0x05)))],
    ['version 1 said', by({ version: tlv(0x02, hex('00')) })],
    ['version 3', by({ version: tlv(0x02, hex('02')) })],
    ['two algorithms', by({ innerAlgorithm: RSA_SHA256 })],
    ['an issuer that is no name', by({ issuer: tlv(0x30, tlv(0x30)) })],
    ['extensions in version 1', by({ version: null, extensions: [extension('551d14', hex('020101'))] })],
    ['extensions of an entry in version 1', by({ version: null, entries: [entry('01', [reason(1)])] })],
    ['something after the extensions', by({ extensions: [extension('551d14', hex('020101'))], tail: [tlv(0x05)] })],
    ['two lists of extensions in one', by({ tail: [tlv(0xa0, tlv(0x30, reason(1)), tlv(0x30))] })],
    ['an extension twice', by({ extensions: [reason(1), reason(1)] })],
    ['a date with a zone', dated('260601000000+0100')],
    ['a date that does not exist', dated('260631000000Z')],
    ['nextUpdate before thisUpdate', by({ nextUpdate: timeOf(NOW - 1000) })],
    ['of users alone and of CAs alone', by({ extensions: [idp(tlv(0x81, hex('ff')), tlv(0x82, hex('ff')))] })],
    ['a scope with an unknown member', by({ extensions: [idp(tlv(0x86, hex('ff')))] })],
    ['a scope out of order', by({ extensions: [idp(tlv(0x81, hex('ff')), fullName('http://ca.example/crl'))] })],
    ['a delta of nothing', by({ extensions: [extension('551d1b', hex('0500'), true)] })],
    ['a long issuer', by({ issuer: tlv(0x30, ...Array.from({ length: 5000 }, () => hex('310e300c06035504030c05686f737474'))) })],
    ['a long entry', entries(entry('01', [extension('551d1e', Buffer.alloc(70_000))]))],
    ['a negative number', by({ extensions: [extension('551d14', hex('0201ff'))] })],
    ['an entry that is a set', entries(tlv(0x31, tlv(0x02, hex('01')), LATER))],
    ['an entry without serial number', entries(tlv(0x30, LATER, LATER))],
    ['an entry with an empty serial number', entries(entry(''))],
    ['an entry with a padded serial number', entries(entry('0001'))],
    ['an entry of four', entries(tlv(0x30, tlv(0x02, hex('01')), LATER, tlv(0x30, reason(1)), tlv(0x05)))],
    ['an entry with a bad date', entries(entry('01', [], tlv(0x17, Buffer.from('26'))))],
    ['an entry with no extension in its list', entries(tlv(0x30, tlv(0x02, hex('01')), LATER, tlv(0x30)))],
    ['a reason that is an integer', entries(entry('01', [extension('551d15', hex('020101'))]))],
    ['a reason of two bytes', entries(entry('01', [extension('551d15', hex('0a020100'))]))]
  ],
  'crl-issuer-mismatch': [
    ['another CA', crlDer(authority(commonName('Other CA')))],
    ['the same key under another name', crlDer({ key: ca.key, subject: commonName('Other CA') })]
  ],
  'crl-issuer-may-not-sign': [['keyCertSign alone', der, authority(ca.subject, { key: ca.key, extensions: [basicConstraints(true), keyUsage(5)] })]],
  'crl-signature-not-allowed': [
    ['SHA-1', by({ algorithm: algorithm('2a8648ce3d0401'), digest: 'sha1' })],
    ['RSA-PSS', by({ algorithm: algorithm('2a864886f70d01010a', tlv(0x30)) })],
    ['ECDSA with a sequence as parameters', by({ algorithm: algorithm('2a8648ce3d040302', tlv(0x30)) })],
    ['a key of 1024 bits', crlDer(weak, { algorithm: RSA_SHA256 }), weak]
  ],
  'crl-signature-invalid': [
    ['a second CA with the same subject', crlDer(namesake, { entries: [entry('4711')] })],
    ['an entry changed after signing', Buffer.from(der.toString('hex').replace('02024711', '02024712'), 'hex')],
    ['another digest than it says', by({ digest: 'sha384' })],
    ['an RSA algorithm by an EC key', by({ algorithm: RSA_SHA256 })]
  ],
  'crl-of-another-key': [
    ['its key identifier is not that of the issuer', crlDer(namesake, { extensions: [keyIdOf('02')] }), keyed]
  ],
  'crl-is-partial': [
    ['an empty scope', by({ extensions: [idp()] })],
    ['not critical', by({ extensions: [extension('551d1c', hex('3000'))] })],
    ['of some reasons', by({ extensions: [idp(fullName('http://ca.example/crl'), tlv(0x83, hex('0560')))] })],
    ['indirect', by({ extensions: [idp(tlv(0x84, hex('ff')))] })],
    ['of attribute certificates', by({ extensions: [idp(tlv(0x85, hex('ff')))] })],
    ['a distribution point relative to the issuer', by({ extensions: [idp(tlv(0xa0, tlv(0xa1, hex('0500'))))] })],
    ['a distribution point without URL', by({ extensions: [idp(tlv(0xa0, tlv(0xa0, tlv(0xa4, commonName('x')))))] })],
    ['an entry of another issuer', entries(entry('01'), entry('02', [extension('551d1d', hex('3000'), true)]))]
  ],
  'crl-critical-extension': [
    ['of the list', by({ extensions: [extension('2a0304', hex('0500'), true)] })],
    ['of an entry', entries(entry('01', [reason(1), extension('2a0304', hex('0500'), true)]))],
    ['of an entry, alone', entries(entry('01', [extension('2a0304', hex('0500'), true)]))]
  ]
}

async function verdict (input: Buffer | string, issuer?: Authority): Promise<string> {
  try {
    await read(input, issuer)
    return 'accepted'
  } catch (error) {
    if (!(error instanceof CrlError)) throw error
    const { reason, message } = error
    if (!message.startsWith(CRL_REFUSALS[reason]) || message.length > 400 || !/^[ -~]+$/.test(message)) throw new Error(`no advice: ${message}`)
    return reason
  }
}

await t.test('each reason has cases', async t => {
  t.strictSame(Object.keys(CASES).sort(), Object.keys(CRL_REFUSALS).sort(), 'the list is closed')
  for (const [expected, cases] of Object.entries(CASES)) {
    for (const [what, input, issuer] of cases) t.equal(await verdict(input, issuer), expected, `${expected}: ${what}`)
  }
})

await t.test('a list as openssl writes it, in DER and PEM', async t => inTemporaryDir(async dir => {
  const file = (name: string): string => join(dir, name)
  const reasons = ['', ',unspecified', ',keyCompromise', ',CACompromise', ',affiliationChanged', ',superseded', ',cessationOfOperation', ',certificateHold']
  const serials = reasons.map((_, at) => `${at + 1}${'0f'.repeat(at)}f`)
  const index = serials.map((serial, at) => `R\t300101000000Z\t2601010${at}0000Z${reasons[at]}\t${serial.length % 2 ? '0' : ''}${serial}\tunknown\t/CN=${at}\n`)
  await writeFile(file('index.txt'), [...index, 'V\t300101000000Z\t\tABCD\tunknown\t/CN=valid\n'].join(''))
  await writeFile(file('number'), '0123456789ABCDEF0123\n')
  await writeFile(file('ca.pem'), ca.pem)
  await writeFile(file('key.pem'), ca.key, { mode: 0o600 })
  await writeFile(file('ca.cnf'), `[ca]\ndefault_ca = it\n[it]\ndatabase = ${file('index.txt')}\ncrlnumber = ${file('number')}\ndefault_md = sha256\ndefault_crl_days = 7\ncrl_extensions = crl\n[crl]\nauthorityKeyIdentifier = issuer:always\n`)
  const made = await openssl(['ca', '-config', file('ca.cnf'), '-gencrl', '-cert', file('ca.pem'), '-keyfile', file('key.pem'), '-out', file('crl.pem')])
  t.ok(made.ok, made.stderr)
  await openssl(['crl', '-in', file('crl.pem'), '-outform', 'DER', '-out', file('crl.der')])
  const printed = (await openssl(['crl', '-in', file('crl.pem'), '-noout', '-lastupdate', '-nextupdate', '-crlnumber'])).stdout
  const [, last = '', next = '', number = ''] = /lastUpdate=(.*)\nnextUpdate=(.*)\ncrlNumber=0x(.*)\n/.exec(printed) ?? []
  const pem = await readFile(file('crl.pem'))
  for (const input of [pem, pem.toString(), await readFile(file('crl.der')), pem.toString().replaceAll('\n', '\r\n')]) {
    const crl = await read(input)
    t.match(crl, { thisUpdate: Date.parse(last), nextUpdate: Date.parse(next), number: BigInt(`0x${number}`), size: 8 })
    const found = serials.map(serial => crl.isRevoked(serial))
    t.strictSame(found.map(each => each?.reason), ['unspecified', 'unspecified', 'keyCompromise', 'cACompromise', 'affiliationChanged', 'superseded', 'cessationOfOperation', 'certificateHold'])
    t.strictSame(found.map(each => each?.revokedAt), serials.map((_, at) => Date.UTC(2026, 0, 1, at)))
    for (const other of ['ABCD', '0', '1', '1F0F', 'FF'.repeat(20)]) t.equal(crl.isRevoked(other), undefined, other)
  }
}))

await t.test('what a list may leave out, and may say', async t => {
  const empty = await read(by({ nextUpdate: null, version: null }))
  t.match({ ...empty, isRevoked: empty.isRevoked('4711') }, { thisUpdate: NOW, nextUpdate: undefined, number: undefined, size: 0, isRevoked: undefined }, 'version 1, no nextUpdate, no entries')
  t.equal((await read(by({ version: null, entries: [entry('4711')] }))).isRevoked('4711')?.revokedAt, NOW - DAY, 'version 1 with entries')
  t.equal((await read(by({ tail: [tlv(0x30)] }))).size, 0, 'an empty list of entries')
  const signer = authority(ca.subject, { key: ca.key, extensions: [basicConstraints(true)] })
  t.equal((await read(der, signer)).size, 1, 'an issuer without keyUsage')
  const extensions = [extension('551d14', hex('020900ffffffffffffffff')), extension('551d23', hex('3000'), true), extension('551d2e', hex('3000'))]
  t.equal((await read(by({ extensions }))).number, 18446744073709551615n, 'number, authority key and where deltas are')
  const rsaSigner = authority(ca.subject, { key: await opensslKey('rsa') })
  t.equal((await read(crlDer(rsaSigner, { algorithm: RSA_SHA256 }), rsaSigner)).size, 0, 'RSA')
  t.equal((await read(crlDer(rsaSigner, { algorithm: algorithm('2a864886f70d01010b') }), rsaSigner)).size, 0, 'RSA without parameters')
  t.equal((await read(by({ algorithm: algorithm('2a8648ce3d040302', tlv(0x05)) }))).size, 0, 'ECDSA with NULL parameters, as mbedTLS 2.28.3 writes them')
  const date = extension('551d18', tlv(0x18, Buffer.from('20260101000000Z')))
  const crl = await read(by({ entries: [entry('01', [reason(9), date]), entry('02', [date, reason(10)]), entry('03', [reason(7)]), entry('04', [reason(99)]), entry('05', [date])] }))
  t.strictSame(['1', '02', '3', '4', '5'].map(serial => crl.isRevoked(serial)?.reason), ['privilegeWithdrawn', 'aACompromise', 'unspecified', 'unspecified', 'unspecified'])
})

await t.test('removeFromCRL revokes nothing, and takes nothing back', async t => {
  const crl = await read(by({ entries: [entry('01', [reason(8)]), entry('02', [reason(1)]), entry('02', [reason(8)]), entry('03', [reason(8)]), entry('03', [reason(6)])] }))
  t.equal(crl.size, 2)
  t.strictSame(['1', '2', '3'].map(serial => crl.isRevoked(serial)?.reason), [undefined, 'keyCompromise', 'certificateHold'])
})

await t.test('serial numbers are the same in certificates and lists, whatever their sign and length', async t => {
  fc.assert(fc.property(fc.bigInt({ min: -(2n ** 170n), max: 2n ** 170n }), value => {
    const octets = Array.from({ length: 30 }, (_, at) => at + 1).find(octets => BigInt.asIntN(octets * 8, value) === value)!
    const content = hex(BigInt.asUintN(octets * 8, value).toString(16).padStart(octets * 2, '0'))
    const serialNumber = serialNumberOf({ tag: 2, content, bytes: content, children: [] })
    return BigInt(`0x${serialNumber.replace('-', '')}`) === (value < 0n ? -value : value) && serialNumber.startsWith('-') === (value < 0n) &&
      serialContentOf(serialNumber).equals(content) && serialContentOf(serialNumber.replace(/^-?/, '$&00').toLowerCase()).equals(content)
  }), { numRuns: 2000 })
  for (const content of ['00ff', 'ff', '80', '0080', '00', 'ff7f', '7f']) {
    const crl = await read(by({ entries: [entry(content)] }))
    const [certificate] = readCertificates(authority(commonName('x'), { serial: tlv(0x02, hex(content)) }).pem)
    t.ok(crl.isRevoked(certificate!.serialNumber), certificate!.serialNumber)
    t.equal(['00ff', 'ff', '80', '0080', '00', 'ff7f', '7f'].filter(other => crl.isRevoked(serialNumberOf({ tag: 2, content: hex(other), bytes: hex(''), children: [] }))).join(), content)
  }
  const list = await read(der)
  for (const text of ['', 'x', '0x1', '1 2', '--1', '1\n']) t.throws(() => list.isRevoked(text), RangeError, JSON.stringify(text))
})

await t.test('an issuingDistributionPoint that says what the list is complete for', async t => {
  const leaf = (extensions: Buffer[] = []): Certificate =>
    certificateOf({ pem: certificatePem(ca.key, ca, { extensions: [basicConstraints(false), ...extensions] }) })
  const points = (...urls: string[]): Buffer => extension('551d1f', tlv(0x30, ...urls.map(url => tlv(0x30, fullName(url)))))
  const [url, other] = ['http://ca.example/1.0/crl', 'http://ca.example/2.crl']
  const gap = async (members: Buffer[], certificate: Certificate, setUrl = url): Promise<boolean> =>
    (await read(by({ extensions: [idp(...members)] }))).gapFor(certificate, setUrl) !== undefined
  const isCa = certificateOf(ca)
  const [users, cas] = [tlv(0x81, hex('ff')), tlv(0x82, hex('ff'))]
  t.equal(await gap([fullName(url)], leaf()), false, 'its URL is the one that is set (step-ca)')
  t.equal(await gap([fullName('HTTP://CA.example:80/1.0/crl')], leaf()), false, 'in another spelling')
  t.equal(await gap([fullName(other, url)], leaf()), false, 'among others')
  t.equal(await gap([fullName(url)], leaf(), other), true, 'another URL is set')
  t.equal(await gap([fullName(url)], leaf(), 'a.crl'), true, 'a file is set')
  t.equal(await gap([fullName(url)], leaf([points(url)]), 'a.crl'), false, 'a file, and the certificate names the URL')
  t.equal(await gap([fullName(url)], leaf([points(other)])), true, 'one of several lists of the CA: the certificate names another')
  t.equal(await gap([fullName(url)], leaf([points(other, url)])), false)
  t.equal(await gap([fullName(url)], leaf([extension('551d1f', hex('0500'))])), true, 'the certificate names what cannot be read')
  t.equal(await gap([fullName(url), users], leaf()), false, 'of users alone (AWS Private CA), for a leaf')
  t.equal(await gap([users], leaf(), other), false, 'of users alone, without a URL')
  t.equal(await gap([fullName(url), users], isCa), true)
  t.equal(await gap([fullName(url), cas], leaf()), true, 'of CAs alone')
  t.equal(await gap([fullName(url), cas], isCa), false)
  t.equal(await gap([tlv(0x81, hex('00')), tlv(0x84, hex('00'))], leaf(), other), false, 'an explicit FALSE says nothing')
  const [stepCrl, stepCaPem] = [Buffer.from(fieldText('15-crl-idp-fullname.crl')), fieldText('15-crl-ca.pem')]
  const stepCa = await readCrl(await crlDerOf(stepCrl), certificateOf({ pem: stepCaPem }))
  t.equal(stepCa.gapFor(leaf(), url), undefined, 'as step-ca writes it')
})

await t.test('a delta says which list it continues, and revokes', async t => {
  const crl = await read(by({ entries: [entry('01')], extensions: [extension('551d14', hex('020105')), extension('551d1b', hex('020103'), true)] }))
  t.match({ ...crl, reason: crl.isRevoked('01')?.reason }, { number: 5n, baseNumber: 3n, reason: 'unspecified' })
})

await t.test('the list of another key of the CA counts only where the first key vouches for it, and not where it is of one key', async t => {
  const vouched = certificateOf(authority(ca.subject, { by: ca, key: namesake.key }))
  const list = crlDer(namesake, { entries: [entry('4711')] })
  t.equal((await read(list, ca, { otherKeys: [vouched] })).size, 1)
  t.equal((await read(der, ca, { otherKeys: [vouched] })).size, 1, 'that of the first key as well')
  await t.rejects(read(list, ca), refused('crl-signature-invalid'))
  const ofOneKey = crlDer(namesake, { extensions: [extension('2b060104018237150 1'.replace(' ', ''), hex('020101'))] })
  await t.rejects(read(ofOneKey, ca, { otherKeys: [vouched] }), refused('crl-of-another-key'))
  t.equal((await read(ofOneKey, namesake)).size, 0, 'its own key\'s')
})

await t.test('damaged anywhere, a list is refused or says what it said; damaged before signing, it is refused or read', async t => {
  const full = { entries: [entry('4711', [reason(1)]), entry('0815')], extensions: [extension('551d14', hex('020101'))] }
  const original = by(full)
  const edit = fc.record({ at: fc.nat(original.length - 1), cut: fc.nat(3), bytes: fc.uint8Array({ maxLength: 3 }) })
  const edited = (bytes: Buffer, { at, cut, bytes: fresh }: { at: number, cut: number, bytes: Uint8Array }): Buffer =>
    Buffer.concat([bytes.subarray(0, at), fresh, bytes.subarray(at + cut)])
  await fc.assert(fc.asyncProperty(edit, async edit => {
    const changed = edited(original, edit)
    return changed.equals(original) || await verdict(changed) !== 'accepted'
  }), { numRuns: Number(process.env['FUZZ_RUNS'] ?? 1000) })
  const anything = fc.uint8Array({ maxLength: 20 })
  const edits = fc.record({ at: fc.nat(60), cut: fc.nat(3), bytes: fc.uint8Array({ maxLength: 3 }) })
  const seen = new Set<string>()
  await fc.assert(fc.asyncProperty(edits, anything, async (edit, tail) => {
    seen.add(await verdict(by({ entries: [edited(entry('4711', [reason(1)]), edit), entry('0815')], tail: [Buffer.from(tail)] })))
  }), { numRuns: Number(process.env['FUZZ_RUNS'] ?? 1000) })
  t.ok(seen.has('crl-not-der') && seen.has('crl-malformed'), [...seen].join())
})
