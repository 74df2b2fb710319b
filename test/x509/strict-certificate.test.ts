import { createHash } from 'node:crypto'
import fc from 'fast-check'
import t from 'tap'
import { CvmError } from '../../src/errors.ts'
import { readCertificate } from '../../src/x509/certificate.ts'
import { valuesOf } from '../../src/x509/names.ts'
import { CERTIFICATE_REFUSALS, type CertificateRefusal } from '../../src/x509/refusals.ts'
import { checkCertificate, checkDevice, parseCertificate, readCertificates } from '../../src/x509/strict-certificate.ts'
import { fieldText } from '../fixtures/field.ts'
import { inTemporaryDir, openssl, opensslCsr, opensslKey, type OpensslKey } from '../fixtures/openssl.ts'
import { CLIENT_AUTH, NOW, V3, basicConstraints, certificateDer, certificatePem, commonName, extendedKeyUsage, extension, keyUsage, tbsOf, type CertificateParts } from './handmade-certificate.ts'
import { CN, ECDSA_SHA256, O, RSA_SHA256, bytesOf, derOf, hex, name, pemOf, spkiOf, tlv, treeOf, utf8, type Tree } from './handmade.ts'

type Case = readonly [what: string, text: string | Promise<string>]

const key = await opensslKey('ec')
const signer = { key, subject: commonName('Factory CA') }
const pem = certificatePem(key, signer)
const der = derOf(pem)
const by = (parts: CertificateParts): string => certificatePem(key, signer, parts)
const withKey = async (kind: OpensslKey): Promise<string> => by({ spki: spkiOf(await opensslKey(kind)) })
const withExtension = (oid: string, value: string): string => by({ extensions: [extension(oid, hex(value))] })
const block = (...lines: string[]): string => ['-----BEGIN CERTIFICATE-----', ...lines, '-----END CERTIFICATE-----', ''].join('\n')
const time = (tag: number, text: string): string => by({ notBefore: tlv(tag, Buffer.from(text)) })
const P256 = tlv(0x30, tlv(0x06, hex('2a8648ce3d0201')), tlv(0x06, hex('2a8648ce3d030107')))
// By hand, because large keys take long to make; no CA looks whether a modulus is the product of two primes.
const withRsa = (bits: number, exponent = '010001'): string => {
  const modulus = Buffer.alloc(Math.ceil(bits / 8), 0xc5)
  modulus[0] = 0xff >> (modulus.length * 8 - bits)
  const numbers = tlv(0x30, tlv(0x02, bits % 8 === 0 ? hex('00') : hex(''), modulus), tlv(0x02, hex(exponent)))
  return by({ spki: tlv(0x30, tlv(0x30, tlv(0x06, hex('2a864886f70d010101')), tlv(0x05)), tlv(0x03, hex('00'), numbers)) })
}
// Where RFC 2986 has the key of a request.
const rocaSpki = (): Buffer => {
  const [info] = treeOf(derOf(fieldText('08a-roca-2048.csr'))).content as Tree[]
  return bytesOf((info!.content as Tree[])[2]!)
}
const withPoint = (point: Buffer): string => by({ spki: tlv(0x30, P256, tlv(0x03, hex('00'), point)) })

const CASES: Record<CertificateRefusal, readonly Case[]> = {
  'certificate-too-long': [['white space', pem + ' '.repeat(65_536)], ['ten million characters', 'A'.repeat(10_000_000)]],
  'too-many-certificates': [],
  'pem-not-one-block': [
    ['nothing', ''], ['no PEM', 'hello'], ['DER', der.toString('latin1')], ['two blocks', pem + pem], ['no end', pem.replace(/-----END[^]*/, '')],
    ['an end without beginning', '-----END CERTIFICATE-----'], ['a block inside a block', pem.replace('\n', `\n${pem}`)]
  ],
  'pem-wrong-label': [['another end', pem.replace('END CERTIFICATE', 'END X509 CERTIFICATE')], ['a key beside it', pem + key],
    ['a private key', key], ['a request', pemOf(der)], ['what openssl trusts', pemOf(der, 'TRUSTED CERTIFICATE')]],
  'pem-not-canonical': [['a word inside', pem.replace('\n', '\nhello: world\n')], ['spare bits', block('MAB=')], ['no lines', block()]],
  'certificate-not-der': [
    ['trailing byte', pemOf(Buffer.concat([der, hex('00')]), 'CERTIFICATE')],
    ['cut off', pemOf(der.subarray(0, -1), 'CERTIFICATE')],
    ['PEM inside PEM', pemOf(Buffer.from(pem), 'CERTIFICATE')],
    ['BER inside what is signed', by({ serial: hex('02810147') })],
    ['unsorted set in the subject', by({ subject: tlv(0x30, tlv(0x31, ...['b', 'a'].map(text => tlv(0x30, tlv(0x06, hex(O)), utf8(text))))) })],
    ['nested 5000 deep', pemOf(Array.from({ length: 5000 }).reduce((inner: Buffer) => tlv(0x30, inner), Buffer.alloc(0)), 'CERTIFICATE')]
  ],
  'certificate-not-x509': [
    ['an empty sequence', pemOf(tlv(0x30), 'CERTIFICATE')],
    ['a public key', pemOf(spkiOf(key), 'CERTIFICATE')],
    ['version 1 said', by({ version: tlv(0xa0, tlv(0x02, hex('00'))) })],
    ['version 4', by({ version: tlv(0xa0, tlv(0x02, hex('03'))) })],
    ['no version in its tag', by({ version: tlv(0xa0) })],
    ['extensions in version 1', by({ version: null, extensions: [basicConstraints(false)] })],
    ['extensions in version 2', by({ version: tlv(0xa0, tlv(0x02, hex('01'))), extensions: [basicConstraints(false)] })],
    ['unique identifiers in version 1', by({ version: null, tail: [tlv(0x81, hex('0001'))] })],
    ['unique identifiers out of order', by({ tail: [tlv(0x82, hex('0001')), tlv(0x81, hex('0001'))] })],
    ['something after the extensions', by({ tail: [tlv(0xa3, tlv(0x30, keyUsage(0))), tlv(0x05)] })],
    ['two lists of extensions', by({ tail: [tlv(0xa3, tlv(0x30, keyUsage(0)), tlv(0x30))] })],
    ['no key', pemOf(tlv(0x30, tlv(0x30, V3, tlv(0x02, hex('01')), ECDSA_SHA256), ECDSA_SHA256, tlv(0x03, hex('00'))), 'CERTIFICATE')],
    ['a serial number in octets', by({ serial: tlv(0x04, hex('01')) })],
    ['another algorithm inside', by({ innerAlgorithm: RSA_SHA256 })],
    ['an empty issuer', by({ issuer: name() })],
    ['an issuer that is no name', by({ issuer: tlv(0x30, tlv(0x30)) })],
    ['an issuer that cannot be read', by({ issuer: name([CN, tlv(0x0c, hex('c328'))]) })],
    ['a subject that is no name', by({ subject: tlv(0x30, tlv(0x31)) })],
    ['one date', pemOf(tlv(0x30, tlv(0x30, V3, tlv(0x02, hex('01')), ECDSA_SHA256, name(), tlv(0x30, tlv(0x17, Buffer.from('260101000000Z'))), name(), spkiOf(key)), ECDSA_SHA256, tlv(0x03, hex('00'))), 'CERTIFICATE')],
    ...[[0x17, '2601010000Z'], [0x17, '260101000000+0100'], [0x17, '20260101000000Z'], [0x18, '260101000000Z'], [0x18, '20260101000000.5Z'], [0x18, '20260101000000'],
      [0x17, '260231000000Z'], [0x17, '261301000000Z'], [0x17, '260100000000Z'], [0x17, '260101240000Z'], [0x17, '260101006000Z'], [0x17, '260101000060Z'], [0x0c, '260101000000Z'],
      [0x17, '']].map(([tag, text]): Case => [`the date ${text}`, time(Number(tag), String(text))]),
    ['an extension twice', by({ extensions: [keyUsage(0), keyUsage(0)] })],
    ['no extension in the list', by({ tail: [tlv(0xa3, tlv(0x30))] })],
    ['an extension without value', by({ extensions: [tlv(0x30, tlv(0x06, hex('551d0f')))] })],
    ['an extension of four', by({ extensions: [tlv(0x30, tlv(0x06, hex('551d0f')), tlv(0x01, hex('ff')), tlv(0x04), tlv(0x04))] })],
    ['an extension whose criticality is a number', by({ extensions: [tlv(0x30, tlv(0x06, hex('551d0f')), tlv(0x02, hex('01')), tlv(0x04, hex('03020780')))] })],
    ['basicConstraints: no DER', withExtension('551d13', '3001')],
    ['basicConstraints: trailing byte', withExtension('551d13', '300000')],
    ['basicConstraints: a path length without CA', withExtension('551d13', '3003020100')],
    ['basicConstraints: a negative path length', withExtension('551d13', '30060101ff0201ff')],
    ['basicConstraints: three members', withExtension('551d13', '30090101ff020100020100')],
    ['basicConstraints: a set', withExtension('551d13', '3100')],
    ['keyUsage: octets', withExtension('551d0f', '040106')],
    ['keyUsage: forty bits', withExtension('551d0f', '0306000000000001')],
    ['extendedKeyUsage: empty', withExtension('551d25', '3000')],
    ['extendedKeyUsage: text', withExtension('551d25', '30020c00')],
    ['subjectKeyIdentifier: a bit string', withExtension('551d0e', '030100')],
    ['authorityKeyIdentifier: octets', withExtension('551d23', '0400')],
    ['a signature in octets', pemOf(tlv(0x30, tbsOf(key, signer), ECDSA_SHA256, tlv(0x04, hex('00'))), 'CERTIFICATE')]
  ],
  'key-type-not-allowed': (['ed25519', 'ed448', 'dsa', 'rsa-pss'] as const).map((kind): Case => [kind, withKey(kind)]),
  'key-not-valid': [['a point beside the curve', withPoint(Buffer.concat([hex('04'), Buffer.alloc(64, 1)]))]],
  'rsa-key-too-small': [['1024', withRsa(1024)], ['2047', withRsa(2047)]],
  'rsa-key-too-large': [['8192', withRsa(8192)], ['4097', withRsa(4097)]],
  'rsa-exponent-not-allowed': [['3', withRsa(2048, '03')]],
  'rsa-key-weak': [['ROCA', by({ spki: rocaSpki() })]],
  'curve-not-allowed': (['ec-p224', 'ec-secp256k1', 'ec-brainpool'] as const).map((kind): Case => [kind, withKey(kind)]),
  'curve-parameters-explicit': [['P-256 spelled out', withKey('ec-explicit')]],
  'ec-point-not-uncompressed': [['compressed', withKey('ec-compressed')]],
  'algorithm-parameters-wrong': [['none with an RSA key', by({ spki: tlv(0x30, tlv(0x30, tlv(0x06, hex('2a864886f70d010101'))), tlv(0x03, hex('00 3000'))) })]],
  'subject-not-readable': [
    ['bad UTF-8', by({ subject: name([CN, tlv(0x0c, hex('c328'))]) })],
    ['no string', by({ subject: name([CN, utf8('SN-0001')], [O, tlv(0x02, hex('07'))]) })]
  ]
}

function reasonOf (work: () => unknown): string {
  try {
    work()
    return 'accepted'
  } catch (error) {
    if (!(error instanceof CvmError) || error.code !== 'certificate-rejected' || error.reason === undefined) throw error
    const { reason, message } = error
    const advice = CERTIFICATE_REFUSALS[reason as CertificateRefusal]
    if (!message.startsWith(advice) || message.length > 400 || !/^[ -~]+$/.test(message)) throw new Error(`says what to do? ${message}`)
    return reason
  }
}

await t.test('each reason has a case and an advice', async t => {
  t.strictSame(Object.keys(CASES).sort(), Object.keys(CERTIFICATE_REFUSALS).sort(), 'the list is closed')
  for (const [reason, cases] of Object.entries(CASES)) {
    for (const [what, text] of cases) {
      const found = await text
      t.equal(reasonOf(() => checkCertificate(found)), reason, `${reason}: ${what}`)
    }
  }
  t.equal(reasonOf(() => readCertificates(pem.repeat(12))), 'too-many-certificates')
  const [weak] = readCertificates(withRsa(1024))
  t.equal(reasonOf(() => checkDevice(weak!)), 'rsa-key-too-small', 'the rules of a device are not those of any certificate')
  t.strictSame(checkDevice(parseCertificate(der)), checkCertificate(pem), 'from DER, as TLS gives it')
})

await t.test('the facts are those that node reads', async t => inTemporaryDir(async dir => {
  const subjects = ['/O=Acme, Inc./OU=Pumps+CN=SN-0001', '/C=DE/ST=a/L=b/street=c/title=d/GN=e/SN=f/serialNumber=g/emailAddress=h@i/DC=j/UID=k/dnQualifier=l/pseudonym=m', '/CN= #"x"<y>;z\\\\ /O=#1/OU=Gerät']
  for (const [at, subject] of subjects.entries()) {
    const kind = (['ec', 'rsa', 'ec-p384'] as const)[at]!
    await opensslCsr({ serialNumber: 'x', key: kind, dir })
    const serial = `0x${['0abc', '00', 'ff'.repeat(20)][at]}`
    const { stdout } = await openssl(['req', '-x509', '-utf8', '-key', `${dir}/key.pem`, '-subj', subject, '-days', '9000', '-set_serial', serial])
    const certificate = checkCertificate(stdout)
    const facts = readCertificate(stdout)
    t.strictSame(Object.fromEntries(Object.keys(facts).map(fact => [fact, certificate[fact as keyof typeof facts]])), facts, subject)
    const { issuerDer, subjectDer, extensions } = certificate
    t.ok(issuerDer.equals(subjectDer))
    t.match(extensions, { isCa: true, critical: ['2.5.29.19'], subjectKeyId: /^[0-9a-f]{40}$/, authorityKeyId: extensions.subjectKeyId })
  }
}))

await t.test('what extensions say', async t => {
  const all = [basicConstraints(true, 3), keyUsage(0, 5, 8), extendedKeyUsage(CLIENT_AUTH), extension('551d0e', tlv(0x04, hex('0a0b'))), extension('551d23', tlv(0x30, tlv(0x80, hex('0c')), tlv(0xa1, tlv(0x30))))]
  const { extensions } = checkCertificate(by({ extensions: all }))
  t.strictSame(extensions, {
    isCa: true,
    pathLength: 3,
    keyUsage: new Set(['digitalSignature', 'keyCertSign', 'decipherOnly']),
    extendedKeyUsage: ['1.3.6.1.5.5.7.3.2'],
    subjectKeyId: '0a0b',
    authorityKeyId: '0c',
    oids: ['2.5.29.19', '2.5.29.15', '2.5.29.37', '2.5.29.14', '2.5.29.35'],
    critical: ['2.5.29.19', '2.5.29.15']
  })
  const nothing = { isCa: false, oids: [], critical: [] }
  t.strictSame(checkCertificate(by({ version: null })).extensions, nothing, 'version 1')
  t.strictSame(checkCertificate(by({ tail: [tlv(0x81, hex('00')), tlv(0x82, hex('00'))] })).extensions, nothing, 'unique identifiers')
  const explicit = tlv(0x30, tlv(0x06, hex('551d13')), tlv(0x01, hex('00')), tlv(0x04, hex('3003010100')))
  t.match(checkCertificate(by({ extensions: [explicit] })).extensions, { isCa: false, critical: [] }, 'explicit FALSE, twice')
  t.equal(checkCertificate(by({ extensions: [extension('551d13', hex('300b0101ff02060100000000ff'))] })).extensions.pathLength, Infinity, 'a path length beyond numbers')
})

await t.test('dates in both forms and at their edges', async t => {
  const dated = (tag: number, text: string): number => checkCertificate(time(tag, text)).notBefore
  t.equal(dated(0x17, '491231235959Z'), Date.UTC(2049, 11, 31, 23, 59, 59))
  t.equal(dated(0x17, '500101000000Z'), Date.UTC(1950, 0, 1))
  t.equal(dated(0x18, '20500101000000Z'), Date.UTC(2050, 0, 1))
  t.equal(dated(0x18, '20260601000000Z'), NOW, 'before 2050, which others read, too')
  t.equal(dated(0x18, '99991231235959Z'), Date.UTC(9999, 11, 31, 23, 59, 59))
  t.equal(dated(0x17, '240229000000Z'), Date.UTC(2024, 1, 29))
})

await t.test('all values of the subject, by type', async t => {
  const subject = name([CN, utf8('Pump')], ['550405', tlv(0x13, Buffer.from('SN-0001'))], ['550405', utf8('SN-0002')], [O, utf8('Acme')], ['2a0304', utf8('own')])
  const { subjectAttributes, subject: text } = checkCertificate(by({ subject }))
  t.strictSame(valuesOf(subjectAttributes, 'SerialNumber'), ['SN-0001', 'SN-0002'])
  t.strictSame(valuesOf(subjectAttributes, 'CommonName'), ['Pump'])
  t.strictSame(valuesOf(subjectAttributes, 'Country'), [])
  t.equal(text, 'CN=Pump, serialNumber=SN-0001, serialNumber=SN-0002, O=Acme, 1.2.3.4=own')
  const [unread] = readCertificates(by({ subject: name([CN, tlv(0x0c, hex('c328'))]) }))
  t.strictSame(valuesOf(unread!.subjectAttributes, 'CommonName'), [undefined])
  t.equal(unread!.subject, 'CN=#0c02c328')
  t.equal(checkCertificate(by({ subject: commonName('a\n\u009b\0') })).subject, 'CN=a\\0A\\C2\\9B\\00', 'control characters')
})

await t.test('a text of several certificates, with what openssl writes around them', async t => {
  const { stdout: explained } = await openssl(['x509', '-text'], pem)
  const second = certificatePem(key, signer, { subject: commonName('Second') })
  const found = readCertificates(`# a bundle\n${explained}\r\n${second.replaceAll('\n', '\r\n')}`)
  t.strictSame(found.map(({ subject }) => subject), ['CN=SN-0001', 'CN=Second'])
  const untidy = { 'blanks at line ends': ' \n', 'old Mac line ends': '\r', 'empty lines': '\n\n' }
  for (const [what, end] of Object.entries(untidy)) {
    t.strictSame(readCertificates(`\ufeff${(pem + second).replaceAll('\n', end)}\0`).map(({ der }) => der), found.map(({ der }) => der), what)
    t.strictSame(checkCertificate(`\ufeffBag Attributes\n${pem.replaceAll('\n', end)}\0`), checkCertificate(pem), what)
  }
  for (const [what, text, reason] of [
    ['a key between', pem + key + second, 'pem-wrong-label'],
    ['an end without beginning', `-----END CERTIFICATE-----\n${pem}`, 'pem-not-one-block'],
    ['a block inside a block', pem.replace('\n', `\n${second}`), 'pem-not-one-block'],
    ['cut off', pem + second.slice(0, -10), 'pem-not-one-block'],
    ['nothing', 'text', 'pem-not-one-block'],
    ['the second is none', pem + block('MAA='), 'certificate-not-x509'],
    ['the second is no base64', pem + block('?'), 'pem-not-canonical'],
    ['too long', pem + ' '.repeat(65_536), 'certificate-too-long']
  ] as const) t.equal(reasonOf(() => readCertificates(text)), reason, what)
})

await t.test('any bytes are a certificate that node reads alike, or a refusal', async t => {
  const extensions = [basicConstraints(true, 3), keyUsage(0, 5), extendedKeyUsage(CLIENT_AUTH), extension('551d0e', tlv(0x04, hex('0a0b')))]
  const full = certificateDer(key, signer, { extensions })
  const edit = fc.record({ at: fc.nat(full.length - 1), cut: fc.nat(3), bytes: fc.uint8Array({ maxLength: 3 }) })
  let accepted = 0
  fc.assert(fc.property(fc.array(edit, { minLength: 1, maxLength: 2 }), edits => {
    const changed = edits.reduce((old, { at, cut, bytes }) => Buffer.concat([old.subarray(0, at), bytes, old.subarray(at + cut)]), full)
    const text = pemOf(changed, 'CERTIFICATE')
    if (reasonOf(() => checkCertificate(text)) !== 'accepted') return true
    accepted++
    const ours = checkCertificate(text)
    if (ours.certificateId !== createHash('sha256').update(changed).digest('hex')) return false
    const { subject, issuer, ...theirs } = readCertificate(text)
    return (Object.keys(theirs) as Array<keyof typeof theirs>).every(fact => fact === 'der' || theirs[fact] === ours[fact])
  }), { numRuns: Number(process.env['FUZZ_RUNS'] ?? 2000) })
  t.ok(accepted > 0, `${accepted} were accepted`)
})
