// The kinds of signatures that Wycheproof collects (ECDSA in DER and P1363, RSA PKCS#1 v1.5), made here for fresh keys, in a CSR and in a
// certificate. Only those listed may be taken; a certificate is never repaired.
import { createPublicKey, hash, privateEncrypt, sign, constants } from 'node:crypto'
import t from 'tap'
import { CvmError } from '../../src/errors.ts'
import { verifyChain } from '../../src/x509/chain.ts'
import { checkCsr } from '../../src/x509/csr.ts'
import { rawSignature } from '../../src/x509/ecdsa-signature.ts'
import { readCertificates } from '../../src/x509/strict-certificate.ts'
import { opensslKey, type OpensslKey } from '../fixtures/openssl.ts'
import { NOW, authority, commonName, freshKey, tbsOf } from './handmade-certificate.ts'
import { RSA_SHA256, derOf, hex, pemOf, requestInfo, tlv } from './handmade.ts'

const serialNumber = 'SN-0001'
const subject = commonName(serialNumber)

interface Curve {
  readonly kind: OpensslKey
  readonly size: number
  readonly digest: string
  readonly oid: string
  readonly order: bigint
  readonly field: bigint
}

// SEC 2, 2.4.2, 2.5.1 and 2.6.1.
const CURVES: readonly Curve[] = [
  {
    kind: 'ec',
    size: 32,
    digest: 'sha256',
    oid: '2a8648ce3d040302',
    order: 0xffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551n,
    field: 2n ** 256n - 2n ** 224n + 2n ** 192n + 2n ** 96n - 1n
  },
  {
    kind: 'ec-p384',
    size: 48,
    digest: 'sha384',
    oid: '2a8648ce3d040303',
    order: 0xffffffffffffffffffffffffffffffffffffffffffffffffc7634d81f4372ddf581a0db248b0a77aecec196accc52973n,
    field: 2n ** 384n - 2n ** 128n - 2n ** 96n + 2n ** 32n - 1n
  },
  {
    kind: 'ec-p521',
    size: 66,
    digest: 'sha512',
    oid: '2a8648ce3d040304',
    order: 2n ** 521n - 0x5ae79787c40d069948033feb708f65a2fc44a36477663b851449048e16ec79bf7n,
    field: 2n ** 521n - 1n
  }
]

type Numbers = readonly [r: bigint, s: bigint]

/** Of a signature: other pairs of numbers. One alone verifies: the negative of s, which every verifier of ECDSA takes. */
function forgedNumbers ([r, s]: Numbers, { kind, order: n, field: p, size }: Curve): Record<string, Numbers> {
  const most = 2n ** BigInt(8 * size) - 1n
  const special = Object.entries({ 0: 0n, 1: 1n, 'n - 1': n - 1n, n, 'n + 1': n + 1n, p, 'p + 1': p + 1n, most })
  return {
    'r + n': [r + n, s],
    's + n': [r, s + n],
    'both + n': [r + n, s + n],
    'r - n': [r - n, s],
    's - n': [r, s - n],
    '-r': [-r, s],
    '-s': [r, -s],
    'both negative': [-r, -s],
    swapped: [s, r],
    'n - r': [n - r, s],
    'r + 2^bits': [r + most + 1n, s],
    'r + 1': [r + 1n, s],
    's + 1': [r, s + 1n],
    'r twice': [r, r],
    's twice': [s, s],
    '1/s': [r, inverse(s, n)],
    '256 octets': [r, s + n * 2n ** BigInt(8 * (254 - size))],
    ...Object.fromEntries(special.flatMap(([what, value]) => [[`r = ${what}`, [value, s] as const], [`s = ${what}`, [r, value] as const]])),
    // On the other curves a verification takes long.
    ...kind === 'ec' && Object.fromEntries(special.flatMap(([one, x]) => special.map(([other, y]) => [`r = ${one}, s = ${other}`, [x, y] as const])))
  }
}

/** Of two whole INTEGERs: other bytes than their sequence. */
function forgedBytes (r: Buffer, s: Buffer): Record<string, Buffer> {
  const [zero, null_] = [tlv(0x02, hex('00')), tlv(0x05)]
  const good = tlv(0x30, r, s)
  const content = Buffer.concat([r, s])
  const end = hex('0000')
  return {
    empty: hex(''),
    'an empty sequence': tlv(0x30),
    'r alone': tlv(0x30, r),
    'no sequence': content,
    'a set': tlv(0x31, r, s),
    'three numbers': tlv(0x30, r, s, s),
    'a zero behind': Buffer.concat([good, hex('00')]),
    'NULL behind': Buffer.concat([good, null_]),
    'a zero in the sequence': tlv(0x30, r, s, hex('00')),
    'NULL in the sequence': tlv(0x30, r, s, null_),
    'NULL before': tlv(0x30, null_, r, s),
    'two signatures': Buffer.concat([good, good]),
    nested: tlv(0x30, good),
    'the sequence in a string': tlv(0x04, good),
    'the sequence in a bit string': tlv(0x03, hex('00'), good),
    'no length': good.subarray(0, 1),
    'cut off': good.subarray(0, -1),
    'cut off at the start': good.subarray(1),
    'indefinite length': Buffer.concat([hex('3080'), content, end]),
    'indefinite length, no end': Buffer.concat([hex('3080'), content]),
    'indefinite length of r': tlv(0x30, hex('2280'), r, end, s),
    'length of two octets more': Buffer.concat([hex('3082'), length(content, 2), content]),
    'length of four octets': Buffer.concat([hex('3084'), length(content, 4), content]),
    'length of 127 octets': Buffer.concat([hex('30ff'), length(content, 127), content]),
    'a length too short': Buffer.concat([hex('30'), Buffer.from([content.length - 1]), content]),
    'a length too long': Buffer.concat([hex('30'), Buffer.from([content.length + 1]), content]),
    'length of r too long': tlv(0x30, Buffer.concat([hex('02'), Buffer.from([r.length + 40]), r.subarray(2)]), s),
    'length of r 0': tlv(0x30, hex('0200'), r.subarray(2), s),
    'r empty': tlv(0x30, tlv(0x02), s),
    's empty': tlv(0x30, r, tlv(0x02)),
    'both empty': tlv(0x30, tlv(0x02), tlv(0x02)),
    'NULL for r': tlv(0x30, null_, s),
    'NULL for s': tlv(0x30, r, null_),
    'r of another tag': tlv(0x30, Buffer.concat([hex('0a'), r.subarray(1)]), s),
    's in octets': tlv(0x30, r, Buffer.concat([hex('04'), s.subarray(1)])),
    'r in bits': tlv(0x30, tlv(0x03, hex('00'), r.subarray(2)), s),
    'r constructed': tlv(0x30, tlv(0x22, r), s),
    'r a context tag': tlv(0x30, tlv(0x80, r.subarray(2)), s),
    reals: tlv(0x30, hex('090380fd01'), hex('090380fd01')),
    booleans: tlv(0x30, hex('0101ff'), hex('0101ff')),
    zeros: tlv(0x30, zero, zero),
    'r changed at its end': tlv(0x30, flipped(r), s),
    's changed at its end': tlv(0x30, r, flipped(s)),
    'a high tag': Buffer.concat([hex('3f30'), length(content, 1), content])
  }
}

for (const curve of CURVES) {
  const { kind, size, digest, oid, order } = curve
  await t.test(`ECDSA on ${kind}`, async t => {
    const key = await opensslKey(kind)
    const algorithm = tlv(0x30, tlv(0x06, hex(oid)))
    const info = requestInfo(key, { subject })
    const anchor = authority(commonName('CA'), { key })
    const tbs = tbsOf(freshKey(), anchor, { algorithm })
    const numbers = (over: Buffer): [bigint, bigint] => halves(sign(digest, over, { key, dsaEncoding: 'ieee-p1363' }), size)
    /** How a signature over a request and one over a certificate are judged, each made from a true one. */
    const judge = (forge: (numbers: [bigint, bigint]) => Buffer | undefined): [csr: string, certificate: string] | undefined => {
      const [csr, certificate] = [forge(numbers(info)), forge(numbers(tbs))]
      return csr && certificate && [csrVerdict(csr), pathVerdict(tlv(0x30, tbs, algorithm, tlv(0x03, hex('00'), certificate)), anchor.pem)]
    }
    const csrVerdict = (signature: Buffer) => verdict(() => checkCsr(pemOf(tlv(0x30, info, algorithm, tlv(0x03, hex('00'), signature))), { serialNumber }).repair ?? 'taken')
    const count = { refused: 0 }
    const refused = (what: string, forge: (numbers: [bigint, bigint]) => Buffer | undefined): void => {
      const found = judge(forge)
      if (!found) return
      t.strictSame(found, ['signature-invalid', 'signature-invalid'], what)
      count.refused += 2
    }

    t.strictSame(judge(pair => inDer(pair)), ['taken', 'taken'], 'the true one')
    t.strictSame(judge(([r, s]) => inDer([r, order - s])), ['taken', 'taken'], 'the negative of s')
    t.strictSame(judge(([r, s]) => raw([r, order - s], size)), ['raw', 'signature-invalid'], 'the negative of s, raw')
    for (const what of Object.keys(forgedNumbers([1n, 1n], curve))) {
      refused(`${what}, DER`, pair => inDer(forgedNumbers(pair, curve)[what]!))
      refused(`${what}, raw`, pair => raw(forgedNumbers(pair, curve)[what]!, size))
      refused(`${what}, INTEGERs without sign`, pair => unsigned(forgedNumbers(pair, curve)[what]!))
    }
    for (const what of Object.keys(forgedBytes(hex('020101'), hex('020101')))) {
      refused(what, ([r, s]) => forgedBytes(integer(r), integer(s))[what]!)
    }
    for (const [what, forge] of Object.entries<(raw: Buffer) => Buffer>({
      'one octet more': raw => Buffer.concat([raw, hex('00')]),
      'one octet more before': raw => Buffer.concat([hex('00'), raw]),
      'one octet fewer': raw => raw.subarray(1),
      'r alone': raw => raw.subarray(0, size),
      'r padded to twice its size': raw => Buffer.concat([Buffer.alloc(size), raw]),
      'little-endian': raw => Buffer.concat([raw.subarray(0, size).toReversed(), raw.subarray(size).toReversed()].map(half => Buffer.from(half))),
      'in hex': raw => Buffer.from(raw.toString('hex')),
      'in base64': raw => Buffer.from(raw.toString('base64')),
      zeros: raw => Buffer.alloc(raw.length),
      ones: raw => Buffer.alloc(raw.length, 0xff)
    })) refused(`raw: ${what}`, pair => forge(raw(pair, size)!))
    t.ok(count.refused > 200, `${count.refused} forged signatures were refused`)
  })
}

await t.test('a number that is more than r or s is none of a proof\'s signature', async t => {
  for (const curve of CURVES) {
    const [r, s]: Numbers = [7n, 9n]
    t.strictSame(rawSignature(inDer([r, s]), curve.size), raw([r, s], curve.size), curve.kind)
    t.equal(rawSignature(inDer([r, s + 2n ** BigInt(8 * curve.size)]), curve.size), undefined, `${curve.kind}: an octet too long`)
    for (const [what, bytes] of Object.entries(forgedBytes(integer(r), integer(s)))) {
      if (!/changed/.test(what)) t.equal(rawSignature(bytes, curve.size), undefined, `${curve.kind}: ${what}`)
    }
  }
})

const SHA256 = '608648016503040201'
const info256 = (hashed: Buffer, oid = SHA256, ...parameters: Buffer[]): Buffer =>
  tlv(0x30, tlv(0x30, tlv(0x06, hex(oid)), ...parameters), tlv(0x04, hashed))
const padded = (size: number, end: Buffer, { start = '0001', fill = 0xff, separator = '00' } = {}): Buffer =>
  Buffer.concat([hex(start), Buffer.alloc(size - 2 - separator.length / 2 - end.length, fill), hex(separator), end])

/** Encoded messages that are not the one of RFC 8017, 9.2, by what is wrong with them. */
const FORGED_PADDING: Readonly<Record<string, (hashed: Buffer, size: number) => Buffer>> = {
  'parameters left out': (h, size) => padded(size, info256(h)),
  'parameters a sequence': (h, size) => padded(size, info256(h, SHA256, tlv(0x30))),
  'parameters twice': (h, size) => padded(size, info256(h, SHA256, tlv(0x05), tlv(0x05))),
  'SHA-1': (h, size) => padded(size, info256(h, '2b0e03021a', tlv(0x05))),
  'SHA-384': (h, size) => padded(size, info256(h, '608648016503040202', tlv(0x05))),
  'another OID': (h, size) => padded(size, info256(h, '2a0304', tlv(0x05))),
  'the bare digest': (h, size) => padded(size, h),
  'the digest in a string': (h, size) => padded(size, tlv(0x04, h)),
  'a digest cut off': (h, size) => padded(size, info256(h.subarray(1), SHA256, tlv(0x05))),
  'a digest and more': (h, size) => padded(size, info256(Buffer.concat([h, hex('00')]), SHA256, tlv(0x05))),
  'another digest': (h, size) => padded(size, info256(flipped(h), SHA256, tlv(0x05))),
  'bytes behind the DigestInfo': (h, size) => padded(size, Buffer.concat([info256(h, SHA256, tlv(0x05)), hex('00')])),
  'bytes in the DigestInfo': (h, size) => padded(size, tlv(0x30, info256(h, SHA256, tlv(0x05)).subarray(2), hex('0500'))),
  'garbage behind short padding (Bleichenbacher)': (h, size) => {
    const info = info256(h, SHA256, tlv(0x05))
    return Buffer.concat([padded(11 + info.length, info), Buffer.alloc(size - 11 - info.length, 0x5a)])
  },
  'garbage in the parameters': (h, size) => padded(size, info256(h, SHA256, tlv(0x04, Buffer.alloc(150, 0x5a)))),
  'garbage in the padding': (h, size) => padded(size, info256(h, SHA256, tlv(0x05)), { fill: 0x5a }),
  'padding of zeros': (h, size) => padded(size, info256(h, SHA256, tlv(0x05)), { fill: 0 }),
  'block type 2': (h, size) => padded(size, info256(h, SHA256, tlv(0x05)), { start: '0002' }),
  'block type 0': (h, size) => padded(size, info256(h, SHA256, tlv(0x05)), { start: '0000', fill: 0 }),
  'no zero at the start': (h, size) => padded(size, info256(h, SHA256, tlv(0x05)), { start: '01ff' }),
  'no separator': (h, size) => padded(size, info256(h, SHA256, tlv(0x05)), { separator: '' }),
  'a separator of ones': (h, size) => padded(size, info256(h, SHA256, tlv(0x05)), { separator: 'ff' }),
  'two separators': (h, size) => padded(size, info256(h, SHA256, tlv(0x05)), { separator: '0000' }),
  'long lengths': (h, size) => {
    const info = info256(h, SHA256, tlv(0x05))
    return padded(size, Buffer.concat([hex('3081'), info.subarray(1)]))
  },
  'indefinite lengths': (h, size) => padded(size, Buffer.concat([hex('3080'), info256(h, SHA256, tlv(0x05)).subarray(2), hex('0000')])),
  'no DigestInfo': (_, size) => padded(size, hex('')),
  'PSS-like': (h, size) => Buffer.concat([hex('00'), Buffer.alloc(size - 34, 0x11), h, hex('bc')])
}

await t.test('RSA', async t => {
  const key = await opensslKey('rsa')
  const size = 256
  const modulus = BigInt(`0x${Buffer.from(createPublicKey(key).export({ format: 'jwk' }).n as string, 'base64url').toString('hex')}`)
  const info = requestInfo(key, { subject })
  const anchor = authority(commonName('CA'), { key })
  const tbs = tbsOf(freshKey(), anchor, { algorithm: RSA_SHA256 })
  const signatureOver = (bytes: Buffer, encoded: (hashed: Buffer, size: number) => Buffer): Buffer =>
    privateEncrypt({ key, padding: constants.RSA_NO_PADDING }, encoded(hash('sha256', bytes, 'buffer'), size))
  const judge = (forge: (bytes: Buffer) => Buffer): [string, string] => [
    verdict(() => checkCsr(pemOf(tlv(0x30, info, RSA_SHA256, tlv(0x03, hex('00'), forge(info)))), { serialNumber }).repair ?? 'taken'),
    pathVerdict(tlv(0x30, tbs, RSA_SHA256, tlv(0x03, hex('00'), forge(tbs))), anchor.pem)
  ]
  const good = (bytes: Buffer): Buffer => sign('sha256', bytes, key)
  const asNumber = (bytes: Buffer, change: (value: bigint) => bigint): Buffer => magnitude(change(numberIn(good(bytes))))
  const refused = (what: string, forge: (bytes: Buffer) => Buffer): void => {
    t.strictSame(judge(forge), ['signature-invalid', 'signature-invalid'], what)
  }

  t.strictSame(judge(good), ['taken', 'taken'], 'the true one')
  t.strictSame(judge(bytes => signatureOver(bytes, (h, size) => padded(size, info256(h, SHA256, tlv(0x05))))), ['taken', 'taken'], 'the same, made here')
  for (const [what, encoded] of Object.entries(FORGED_PADDING)) refused(what, bytes => signatureOver(bytes, encoded))
  for (const [what, value] of Object.entries({ 0: 0n, 1: 1n, 2: 2n, 'n - 1': modulus - 1n, n: modulus, 'n + 1': modulus + 1n })) {
    refused(`the number ${what}`, () => fixed(value, size)!)
  }
  refused('s + n', bytes => asNumber(bytes, s => s + modulus))
  refused('n - s', bytes => asNumber(bytes, s => modulus - s))
  refused('empty', () => hex(''))
  refused('a zero behind', bytes => Buffer.concat([good(bytes), hex('00')]))
  refused('a zero before', bytes => Buffer.concat([hex('00'), good(bytes)]))
  refused('a sign octet and a tag', bytes => tlv(0x02, good(bytes)))
  refused('cut off', bytes => good(bytes).subarray(1))
  refused('over SHA-512', bytes => sign('sha512', bytes, key))
  refused('PSS', bytes => sign('sha256', bytes, { key, padding: constants.RSA_PKCS1_PSS_PADDING }))
})

/** `taken` and the like, or the reason of a refusal; anything else that is thrown is a fault. */
function verdict (work: () => string): string {
  try {
    return work()
  } catch (error) {
    if (!(error instanceof CvmError) || error.reason === undefined) throw error
    return error.reason
  }
}

function pathVerdict (certificate: Buffer, anchor: string): string {
  const [ca, device] = [derOf(anchor), certificate].map(der => readCertificates(pemOf(der, 'CERTIFICATE'))[0]!)
  return verdict(() => verifyChain(device!, { anchor: ca!, now: NOW }).length === 2 ? 'taken' : 'too short')
}

function halves (raw: Buffer, size: number): [bigint, bigint] {
  return [numberIn(raw.subarray(0, size)), numberIn(raw.subarray(size))]
}

function numberIn (bytes: Buffer): bigint {
  return BigInt(`0x${bytes.toString('hex')}`)
}

function magnitude (value: bigint): Buffer {
  const digits = value.toString(16)
  return hex(digits.length % 2 ? `0${digits}` : digits)
}

/** At full length; undefined for what does not fit. */
function fixed (value: bigint, size: number): Buffer | undefined {
  const bytes = value < 0n ? undefined : magnitude(value)
  return bytes && bytes.length <= size ? Buffer.concat([Buffer.alloc(size - bytes.length), bytes]) : undefined
}

/** A whole INTEGER, negative ones too. */
function integer (value: bigint): Buffer {
  let size = 1n
  while (value < -(2n ** (8n * size - 1n)) || value >= 2n ** (8n * size - 1n)) size++
  return tlv(0x02, fixed(BigInt.asUintN(Number(8n * size), value), Number(size))!)
}

function inDer ([r, s]: Numbers): Buffer {
  return tlv(0x30, integer(r), integer(s))
}

/** INTEGERs without the octet of their sign; undefined for negative numbers. */
function unsigned ([r, s]: Numbers): Buffer | undefined {
  return r < 0n || s < 0n ? undefined : tlv(0x30, tlv(0x02, magnitude(r)), tlv(0x02, magnitude(s)))
}

function raw ([r, s]: Numbers, size: number): Buffer | undefined {
  const [first, second] = [fixed(r, size), fixed(s, size)]
  return first && second && Buffer.concat([first, second])
}

function length (content: Buffer, octets: number): Buffer {
  return fixed(BigInt(content.length), octets)!
}

function flipped (bytes: Buffer): Buffer {
  return Buffer.concat([bytes.subarray(0, -1), Buffer.from([bytes.at(-1)! ^ 1])])
}

function inverse (value: bigint, order: bigint): bigint {
  let [a, b, x, y] = [value % order, order, 1n, 0n]
  while (a > 1n) [a, b, x, y] = [b % a, a, y - (b / a) * x, x]
  return ((x % order) + order) % order
}
