import { sign } from 'node:crypto'
import t from 'tap'
import { CvmError } from '../../src/errors.ts'
import { checkCsr } from '../../src/x509/csr.ts'
import { CSR_REFUSALS, type CsrRefusal } from '../../src/x509/refusals.ts'
import { fieldText } from '../fixtures/field.ts'
import { opensslCsr, opensslKey, type OpensslKey } from '../fixtures/openssl.ts'
import { CN, ECDSA_SHA256, O, RSA_SHA256, derOf, handmadeCsr, hex, name, pemOf, requestInfo, sealed, spkiOf, tlv, utf8 } from './handmade.ts'

type Case = readonly [what: string, csr: string | Promise<string>]

const serialNumber = 'SN-0001'
const key = await opensslKey('ec')
const rsa = await opensslKey('rsa')
const { csrPem } = await opensslCsr({ serialNumber })
const body = csrPem.split('\n').slice(1, -2)
const der = derOf(csrPem)
const spki = spkiOf(key)
const point = spki.subarray(-65)

const by = async (options: Omit<Parameters<typeof opensslCsr>[0], 'serialNumber'>): Promise<string> =>
  (await opensslCsr({ serialNumber, ...options })).csrPem
const withKey = (key: OpensslKey): Promise<string> => by({ key })
const block = (...lines: string[]): string => ['-----BEGIN CERTIFICATE REQUEST-----', ...lines, '-----END CERTIFICATE REQUEST-----', ''].join('\n')
const withSpki = (algorithm: Buffer, content: Buffer): string => handmadeCsr(key, { spki: tlv(0x30, algorithm, tlv(0x03, hex('00'), content)) })
const algorithm = (oid: string, ...parameters: Buffer[]): Buffer => tlv(0x30, tlv(0x06, hex(oid)), ...parameters)
const RSA_KEY = algorithm('2a864886f70d010101', tlv(0x05))
const EC_KEY = '2a8648ce3d0201'
const P256 = tlv(0x06, hex('2a8648ce3d030107'))
const rsaKey = (modulus: Buffer, exponent: Buffer): string => withSpki(RSA_KEY, tlv(0x30, tlv(0x02, modulus), tlv(0x02, exponent)))
const modulusOf = (last: string): Buffer => Buffer.concat([hex('00'), Buffer.alloc(255, 0xc5), hex(last)])
const resigned = (info: Buffer): string => pemOf(sealed(info, key))
const ecdsaOf = (info: Buffer): Buffer => sign('sha256', info, key)
const rawOf = (info: Buffer, digest = 'sha256'): Buffer => sign(digest, info, { key, dsaEncoding: 'ieee-p1363' })
const nested = (depth: number): Buffer => depth === 0 ? tlv(0x05) : tlv(0x30, nested(depth - 1))

const CASES: Record<CsrRefusal, readonly Case[]> = {
  'csr-too-long': [
    ['many extensions', by({ args: ['-addext', `subjectAltName=${Array.from({ length: 200 }, (_, i) => `DNS:host-${i}.example`).join(',')}`] })],
    ['white space', csrPem + ' '.repeat(8192)],
    ['ten million characters', 'A'.repeat(10_000_000)]
  ],
  'pem-not-one-block': [
    ['nothing', ''],
    ['white space', ' \n'],
    ['no PEM', 'hello'],
    ['DER', der.toString('latin1')],
    ['base64 without boundary', der.toString('base64')],
    ['two blocks', csrPem + csrPem],
    ['no end', csrPem.replace(/-----END[^]*/, '')],
    ['only a beginning', '-----BEGIN CERTIFICATE REQUEST-----'],
    ['another end', csrPem.replace('END CERTIFICATE REQUEST', 'END NEW CERTIFICATE REQUEST')],
    ['two blocks with different labels', csrPem + csrPem.replaceAll('CERTIFICATE', 'NEW CERTIFICATE')],
    ['four hyphens', csrPem.replace('-----BEGIN', '----BEGIN')],
    ['a second one inside', csrPem.replace('\n', `\n${csrPem}`)],
    ['text with a boundary in it', `Subject: CN = -----BEGIN CERTIFICATE REQUEST-----\n${csrPem}`]
  ],
  'pem-wrong-label': [
    ['a private key', key],
    ['a private key before it', key + csrPem],
    ['a private key after it', csrPem + key],
    ['a certificate after it', csrPem + pemOf(der, 'CERTIFICATE')],
    ['a certificate', pemOf(der, 'CERTIFICATE')],
    ['a revocation list', pemOf(der, 'X509 CRL')]
  ],
  'pem-not-canonical': [
    ['headers', block('Proc-Type: 4,ENCRYPTED', '', ...body)],
    ['no lines', block()],
    ['line feeds written as backslash n', csrPem.replaceAll('\n', '\\n')],
    ['a NUL inside', block(body[0]!, '\0', ...body.slice(1))],
    ['a no-break space inside', block(body[0]!, '\u00a0', ...body.slice(1))],
    ['a comment inside', block(body[0]!, '# hello', ...body.slice(1))],
    ['cut off', block(...body.slice(0, -1), body.at(-1)!.slice(0, -3))],
    ['too much padding', block(...body, '====')],
    ['padding in the middle', block('MA==', ...body)],
    ['base64url', block('-_-_')],
    ['spare bits', block('MAB=')],
    ['missing padding', block('MAA')]
  ],
  'csr-not-der': [
    ['trailing byte', pemOf(Buffer.concat([der, hex('00')]))],
    ['trailing request', pemOf(Buffer.concat([der, der]))],
    ['cut off', pemOf(der.subarray(0, -1))],
    ['one byte', pemOf(hex('30'))],
    ['a length longer than the data', pemOf(hex('30847fffffff0500'))],
    ['a length of five bytes', pemOf(hex('30850000000002 0500'))],
    ['indefinite length (BER)', pemOf(Buffer.concat([hex('3080'), der.subarray(3), hex('0000')]))],
    ['a longer length than needed (BER)', pemOf(Buffer.concat([hex('308200'), der.subarray(2)]))],
    ['BER inside what is signed', resigned(tlv(0x30, hex('02810100'), name(), spki, tlv(0xa0)))],
    ['a padded integer', resigned(tlv(0x30, hex('02020000'), name(), spki, tlv(0xa0)))],
    ['nested 700 deep', pemOf(nested(700))],
    ['a tag of two bytes', pemOf(hex('30031f2100'))],
    ['end-of-contents', pemOf(hex('30020000'))],
    ['constructed string', handmadeCsr(key, { subject: name([O, tlv(0x2c, utf8('a'))]) })],
    ['unsorted set in the subject', handmadeCsr(key, { subject: tlv(0x30, tlv(0x31, ...['b', 'a'].map(text => tlv(0x30, tlv(0x06, hex(O)), utf8(text))))) })],
    ['padded object identifier', handmadeCsr(key, { subject: name(['80550403', utf8(serialNumber)]) })],
    ['unfinished object identifier', handmadeCsr(key, { subject: name(['550483', utf8(serialNumber)]) })],
    ['spare bits in a bit string', handmadeCsr(key, { subject: name([O, tlv(0x03, hex('0101'))]) })]
  ],
  'csr-not-pkcs10': [
    ['a public key', pemOf(spki)],
    ['null', pemOf(tlv(0x05))],
    ['an empty sequence', pemOf(tlv(0x30))],
    ['version 3', handmadeCsr(key, { version: tlv(0x02, hex('03')) })],
    ['version -1', handmadeCsr(key, { version: tlv(0x02, hex('ff')) })],
    ['version 128', handmadeCsr(key, { version: tlv(0x02, hex('0080')) })],
    ['a version in octets', handmadeCsr(key, { version: tlv(0x04, hex('00')) })],
    ['a request of another tag', pemOf(Buffer.concat([hex('a0'), der.subarray(1)]))],
    ['a request info of another tag', resigned(Buffer.concat([hex('a0'), requestInfo(key).subarray(1)]))],
    ['a set of another tag in the subject', handmadeCsr(key, { subject: tlv(0x30, tlv(0xa0, tlv(0x30, tlv(0x06, hex(CN)), utf8(serialNumber)))) })],
    ['an attribute of another tag in the subject', handmadeCsr(key, { subject: tlv(0x30, tlv(0x31, tlv(0xa0, tlv(0x06, hex(CN)), utf8(serialNumber)))) })],
    ['an algorithm of another tag', handmadeCsr(key, { algorithm: Buffer.concat([hex('a0'), ECDSA_SHA256.subarray(1)]) })],
    ['an algorithm with two parameters', handmadeCsr(key, { algorithm: algorithm('2a8648ce3d040302', tlv(0x05), tlv(0x05)) })],
    ['an algorithm called by octets', handmadeCsr(key, { algorithm: tlv(0x30, tlv(0x04, hex('2a8648ce3d040302'))) })],
    ['an attribute called by octets', handmadeCsr(key, { attributes: tlv(0xa0, tlv(0x30, tlv(0x04, hex(CN)), tlv(0x31, utf8('a')))) })],
    ['an attribute with a sequence of values', handmadeCsr(key, { attributes: tlv(0xa0, tlv(0x30, tlv(0x06, hex(CN)), tlv(0x30, utf8('a')))) })],
    ['an attribute of three', handmadeCsr(key, { attributes: tlv(0xa0, tlv(0x30, tlv(0x06, hex(CN)), tlv(0x31, utf8('a')), tlv(0x05))) })],
    ['a long version', handmadeCsr(key, { version: tlv(0x02, Buffer.alloc(9, 1)) })],
    ['no key', resigned(tlv(0x30, tlv(0x02, hex('00')), name()))],
    ['a key where attributes belong', resigned(tlv(0x30, tlv(0x02, hex('00')), name(), tlv(0xa0), spki))],
    ['attributes of another tag', handmadeCsr(key, { attributes: tlv(0xa1) })],
    ['attributes that are none', handmadeCsr(key, { attributes: tlv(0xa0, tlv(0x05)) })],
    ['an attribute without a set of values', handmadeCsr(key, { attributes: tlv(0xa0, tlv(0x30, tlv(0x06, hex(CN)))) })],
    ['five members', resigned(tlv(0x30, ...[tlv(0x02, hex('00')), name(), spki, tlv(0xa0), tlv(0x05)]))],
    ['a subject that is no name', handmadeCsr(key, { subject: tlv(0x30, tlv(0x30)) })],
    ['a subject of another tag', handmadeCsr(key, { subject: tlv(0x31) })],
    ['an empty set in the subject', handmadeCsr(key, { subject: tlv(0x30, tlv(0x31)) })],
    ['three members in an attribute', handmadeCsr(key, { subject: tlv(0x30, tlv(0x31, tlv(0x30, tlv(0x06, hex(CN)), utf8('a'), utf8('b')))) })],
    ['a key algorithm of three', withSpki(algorithm(EC_KEY, P256, tlv(0x05)), point)],
    ['a key algorithm without name', withSpki(tlv(0x30), point)],
    ['a key of seven bits', handmadeCsr(key, { spki: tlv(0x30, algorithm(EC_KEY, P256), tlv(0x03, hex('0180'))) })],
    ['a key in an octet string', handmadeCsr(key, { spki: tlv(0x30, algorithm(EC_KEY, P256), tlv(0x04, point)) })],
    ['a signature in an octet string', pemOf(tlv(0x30, requestInfo(key), ECDSA_SHA256, tlv(0x04, hex('00'))))]
  ],
  'key-type-not-allowed': [
    ...(['ed25519', 'ed448', 'dsa', 'rsa-pss'] as const).map((kind): Case => [kind, withKey(kind)]),
    ['X25519', withSpki(algorithm('2b656e'), Buffer.alloc(32, 9))],
    ['id-ecDH', withSpki(algorithm('2b81040112', P256), point)],
    ['an endless object identifier', withSpki(algorithm('2b' + 'ff'.repeat(400) + '01', P256), point)]
  ],
  'key-not-valid': [
    ['a point beside the curve', withSpki(algorithm(EC_KEY, P256), Buffer.concat([point.subarray(0, -1), Buffer.from([point.at(-1)! ^ 1])]))],
    ['a point of zeros', withSpki(algorithm(EC_KEY, P256), Buffer.concat([hex('04'), Buffer.alloc(64)]))],
    ['coordinates beyond the field', withSpki(algorithm(EC_KEY, P256), Buffer.concat([hex('04'), Buffer.alloc(64, 0xff)]))],
    ['a short point', withSpki(algorithm(EC_KEY, P256), point.subarray(0, -1))],
    ['a padded point', withSpki(algorithm(EC_KEY, P256), Buffer.concat([point.subarray(0, 33), hex('00'), point.subarray(33)]))],
    ['a P-256 point said to be on P-384', withSpki(algorithm(EC_KEY, tlv(0x06, hex('2b81040022'))), point)],
    ['RSA numbers that are no DER', withSpki(RSA_KEY, hex('3080'))],
    ['RSA numbers with a tail', withSpki(RSA_KEY, Buffer.concat([tlv(0x30, tlv(0x02, modulusOf('01')), tlv(0x02, hex('010001'))), hex('0500')]))],
    ['three RSA numbers', withSpki(RSA_KEY, tlv(0x30, tlv(0x02, modulusOf('01')), tlv(0x02, hex('010001')), tlv(0x02, hex('01'))))],
    ['RSA numbers in another tag', withSpki(RSA_KEY, tlv(0xa0, tlv(0x02, modulusOf('01')), tlv(0x02, hex('010001'))))],
    ['RSA numbers that are octets', withSpki(RSA_KEY, tlv(0x30, tlv(0x04, modulusOf('01')), tlv(0x04, hex('010001'))))],
    ['one RSA number', withSpki(RSA_KEY, tlv(0x30, tlv(0x02, modulusOf('01'))))],
    ['a negative modulus', rsaKey(modulusOf('01').subarray(1), hex('010001'))],
    ['a negative exponent', rsaKey(modulusOf('01'), hex('ff0001'))],
    ['an even modulus', rsaKey(modulusOf('02'), hex('010001'))]
  ],
  'rsa-key-too-small': [['1024', withKey('rsa-1024')], ['2047', withKey('rsa-2047')], ['zero', rsaKey(hex('00'), hex('010001'))]],
  'rsa-key-too-large': [['8192', withKey('rsa-8192')], ['4097', rsaKey(Buffer.concat([hex('01'), Buffer.alloc(512, 0xc5)]), hex('010001'))]],
  'rsa-exponent-not-allowed': [
    ['3', withKey('rsa-exponent-3')],
    ['2^32 + 1', withKey('rsa-exponent-large')],
    ['0', rsaKey(modulusOf('01'), hex('00'))],
    ['1', rsaKey(modulusOf('01'), hex('01'))],
    ['65535', rsaKey(modulusOf('01'), hex('00ffff'))],
    ['65538, which is even', rsaKey(modulusOf('01'), hex('010002'))],
    ['as long as the modulus', rsaKey(modulusOf('01'), modulusOf('01'))]
  ],
  'rsa-key-weak': [
    ['ROCA', fieldText('08a-roca-2048.csr')],
    ['a square', rsaKey(Buffer.concat([hex('00ff'), Buffer.alloc(126, 0xff), hex('fe'), Buffer.alloc(127), hex('01')]), hex('010001'))]
  ],
  'curve-not-allowed': [
    ...(['ec-p224', 'ec-secp256k1', 'ec-brainpool'] as const).map((kind): Case => [kind, withKey(kind)]),
    ['the curve of the issuer', withSpki(algorithm(EC_KEY, tlv(0x05)), point)],
    ['no curve', withSpki(algorithm(EC_KEY), point)]
  ],
  'curve-parameters-explicit': [['P-256 spelled out', withKey('ec-explicit')]],
  'ec-point-not-uncompressed': [
    ['compressed', withKey('ec-compressed')],
    ['hybrid', withSpki(algorithm(EC_KEY, P256), Buffer.concat([Buffer.from([6 + (point.at(-1)! & 1)]), point.subarray(1)]))],
    ['at infinity', withSpki(algorithm(EC_KEY, P256), hex('00'))],
    ['empty', withSpki(algorithm(EC_KEY, P256), hex(''))]
  ],
  'algorithm-parameters-wrong': [
    ['a curve with an ECDSA signature', handmadeCsr(key, { algorithm: algorithm('2a8648ce3d040302', P256) })],
    ['an empty string with an ECDSA signature', handmadeCsr(key, { algorithm: algorithm('2a8648ce3d040302', tlv(0x04)) })],
    ['none with an RSA key', handmadeCsr(rsa, { spki: tlv(0x30, algorithm('2a864886f70d010101'), tlv(0x03, hex('00'), hex('3000'))) })],
    ['a sequence with an RSA signature', handmadeCsr(rsa, { algorithm: algorithm('2a864886f70d01010b', tlv(0x30)) })]
  ],
  'signature-algorithm-not-allowed': [
    ['ECDSA with SHA-1', by({ digest: 'sha1' })],
    ['ECDSA with SHA-224', by({ digest: 'sha224' })],
    ['RSA with SHA-1', by({ key: 'rsa', digest: 'sha1' })],
    ['RSA with SHA-224', by({ key: 'rsa', digest: 'sha224' })],
    ['RSA with MD5', by({ key: 'rsa', digest: 'md5' })],
    ['RSA-PSS', by({ key: 'rsa', args: ['-sigopt', 'rsa_padding_mode:pss'] })],
    ['Ed25519 over an EC key', handmadeCsr(key, { algorithm: algorithm('2b6570') })]
  ],
  'signature-algorithm-mismatch': [
    ['RSA over an EC key', handmadeCsr(key, { algorithm: RSA_SHA256 })],
    ['ECDSA over an RSA key', handmadeCsr(rsa, { algorithm: ECDSA_SHA256 })]
  ],
  'signature-invalid': [
    ['one bit flipped', pemOf(Buffer.concat([der.subarray(0, -1), Buffer.from([der.at(-1)! ^ 1])]))],
    ['another digest than it says', handmadeCsr(key, { digest: 'sha384' })],
    ['empty', pemOf(tlv(0x30, requestInfo(key), ECDSA_SHA256, tlv(0x03, hex('00'))))],
    ['r and s of zero', pemOf(tlv(0x30, requestInfo(key), ECDSA_SHA256, tlv(0x03, hex('00 3006 020100 020100'))))],
    ['not DER inside', pemOf(tlv(0x30, requestInfo(key), ECDSA_SHA256, tlv(0x03, Buffer.alloc(65))))],
    ['a byte after it', pemOf(tlv(0x30, requestInfo(key), ECDSA_SHA256, tlv(0x03, hex('00'), ecdsaOf(requestInfo(key)), hex('00'))))],
    ['an indefinite length (BER)', pemOf(tlv(0x30, requestInfo(key), ECDSA_SHA256, tlv(0x03, hex('00 3080'), ecdsaOf(requestInfo(key)).subarray(2), hex('0000'))))],
    ['cut off', pemOf(tlv(0x30, requestInfo(key), ECDSA_SHA256, tlv(0x03, hex('00'), ecdsaOf(requestInfo(key)).subarray(0, -1))))],
    ['raw r and s over another request', pemOf(tlv(0x30, requestInfo(key), ECDSA_SHA256, tlv(0x03, hex('00'), rawOf(requestInfo(rsa)))))],
    ['raw s and r', pemOf(tlv(0x30, requestInfo(key), ECDSA_SHA256, tlv(0x03, hex('00'), rawOf(requestInfo(key)).subarray(32), rawOf(requestInfo(key)).subarray(0, 32))))],
    ['raw r and s of a byte too many', pemOf(tlv(0x30, requestInfo(key), ECDSA_SHA256, tlv(0x03, hex('00 00'), rawOf(requestInfo(key)))))],
    ['raw numbers of zero', pemOf(tlv(0x30, requestInfo(key), ECDSA_SHA256, tlv(0x03, hex('00'), Buffer.alloc(64))))],
    ['raw r and s with SHA-384 where it says SHA-256', pemOf(tlv(0x30, requestInfo(key), ECDSA_SHA256, tlv(0x03, hex('00'), rawOf(requestInfo(key), 'sha384'))))],
    ['of another RSA key', handmadeCsr(rsa, { spki: spkiOf(await opensslKey('rsa-3072')), algorithm: RSA_SHA256 })]
  ],
  'subject-not-readable': [
    ['bad UTF-8', handmadeCsr(key, { subject: name([CN, tlv(0x0c, hex('c328'))]) })],
    ['overlong UTF-8', handmadeCsr(key, { subject: name([O, tlv(0x0c, hex('c080'))]) })],
    ['half a character in a BMPString', handmadeCsr(key, { subject: name([O, tlv(0x1e, hex('005300'))]) })],
    ['a surrogate in a BMPString', handmadeCsr(key, { subject: name([O, tlv(0x1e, hex('d83dde00'))]) })],
    ['half a character in a UniversalString', handmadeCsr(key, { subject: name([O, tlv(0x1c, hex('0000005300'))]) })],
    ['no such character in a UniversalString', handmadeCsr(key, { subject: name([O, tlv(0x1c, hex('00110000'))]) })],
    ['a surrogate in a UniversalString', handmadeCsr(key, { subject: name([O, tlv(0x1c, hex('0000d800'))]) })],
    ['Latin-1 in a PrintableString', handmadeCsr(key, { subject: name([O, tlv(0x13, hex('e9'))]) })],
    ['a VisibleString, which openssl reads in no name', handmadeCsr(key, { subject: name([CN, tlv(0x1a, Buffer.from(serialNumber))]) })],
    ['no string', handmadeCsr(key, { subject: name([CN, tlv(0x02, hex('07'))]) })],
    ['a sequence', handmadeCsr(key, { subject: name([CN, tlv(0x30, utf8(serialNumber))]) })]
  ],
  'subject-other-device': [
    ['another', by({ subject: '/CN=SN-0002' })],
    ['this one first, then another', by({ subject: `/CN=${serialNumber}/CN=SN-0002` })],
    ['another first, then this one', by({ subject: `/CN=SN-0002/CN=${serialNumber}` })],
    ['both in one set', by({ subject: `/CN=${serialNumber}+CN=SN-0002` })],
    ['longer', by({ subject: `/CN=${serialNumber}1` })]
  ]
}

await t.test('each reason has a case, an advice, and its own name in the error', async t => {
  t.strictSame(Object.keys(CASES).sort(), Object.keys(CSR_REFUSALS).sort(), 'the list is closed')
  for (const reason of Object.keys(CSR_REFUSALS) as CsrRefusal[]) {
    t.match(reason, /^[a-z0-9]+(-[a-z0-9]+)+$/)
    for (const [what, pending] of CASES[reason]) {
      const csr = await pending
      try {
        checkCsr(csr, { serialNumber })
        t.fail(`${reason}: ${what} was accepted`)
      } catch (error) {
        const { code, reason: found, message } = error as CvmError
        t.ok(error instanceof CvmError && code === 'csr-rejected' && found === reason, `${reason}: ${what}`, { found: error })
        t.ok(message.startsWith(CSR_REFUSALS[reason]) && message.length < 400 && /^[ -~]+$/.test(message), 'says what to do, in visible ASCII', { message })
      }
    }
  }
})
