import { createHash, createPublicKey, generateKeyPairSync, sign } from 'node:crypto'
import t from 'tap'
import { checkCsr } from '../../src/x509/csr.ts'
import { inTemporaryDir, opensslCsr, opensslKey, opensslVerdict, type OpensslKey } from '../fixtures/openssl.ts'
import { CN, O, bytesOf, derOf, handmadeCsr, hex, name, pemOf, requestInfo, sealed, spkiOf, tlv, treeOf, utf8, type Tree } from './handmade.ts'

const serialNumber = 'SN-0001'
const BMP = (text: string): Buffer => tlv(0x1e, Buffer.from(text, 'utf16le').swap16())

const rewrap = (width: number) => (body: string): string => body.replaceAll('\n', '').replace(new RegExp(`.{1,${width}}`, 'g'), '$&\n')

await t.test('allowed keys: type, fingerprint and common name', async t => {
  const types: ReadonlyArray<[OpensslKey, string]> = [
    ['ec', 'EC-P256'], ['ec-p384', 'EC-P384'], ['ec-p521', 'EC-P521'], ['rsa', 'RSA-2048'], ['rsa-3072', 'RSA-3072'], ['rsa-4096', 'RSA-4096']
  ]
  for (const [key, keyType] of types) {
    const { csrPem, privateKeyPem } = await opensslCsr({ serialNumber, key })
    const spki = createPublicKey(privateKeyPem).export({ type: 'spki', format: 'der' })
    t.strictSame(checkCsr(csrPem, { serialNumber }), {
      pem: csrPem,
      publicKeyFingerprint: createHash('sha256').update(spki).digest('hex'),
      keyType,
      commonName: serialNumber,
      subjectAttributes: [{ oid: '2.5.4.3', text: serialNumber }],
      der: derOf(csrPem)
    }, key)
  }
})

await t.test('allowed digests, for both kinds of key', async t => {
  for (const key of ['ec', 'rsa'] as const) {
    for (const digest of ['sha256', 'sha384', 'sha512'] as const) {
      const { csrPem } = await opensslCsr({ serialNumber, key, digest })
      t.equal(checkCsr(csrPem, { serialNumber }).commonName, serialNumber, `${key} with ${digest}`)
    }
  }
})

await t.test('the parameters of a signature algorithm may be absent or NULL, for both kinds of key', async t => {
  const identifiers: ReadonlyArray<[OpensslKey, digest: string, oid: string]> = [
    ['ec', 'sha256', '2a8648ce3d040302'], ['ec-p384', 'sha384', '2a8648ce3d040303'], ['ec-p521', 'sha512', '2a8648ce3d040304'],
    ['rsa', 'sha256', '2a864886f70d01010b'], ['rsa', 'sha384', '2a864886f70d01010c'], ['rsa', 'sha512', '2a864886f70d01010d']
  ]
  for (const [kind, digest, oid] of identifiers) {
    for (const parameters of [[], [tlv(0x05)]]) {
      const csr = handmadeCsr(await opensslKey(kind), { algorithm: tlv(0x30, tlv(0x06, hex(oid)), ...parameters), digest })
      t.equal(checkCsr(csr, { serialNumber }).pem, csr, `${kind}, ${digest}, ${parameters.length === 0 ? 'absent' : 'NULL'}`)
    }
  }
})

await t.test('signatures that chips write are repaired in what is sent on, where they verify', async t => {
  const sizes: ReadonlyArray<[OpensslKey, size: number, digest: string, oid: string]> = [
    ['ec', 32, 'sha256', '2a8648ce3d040302'], ['ec-p384', 48, 'sha384', '2a8648ce3d040303'], ['ec-p521', 66, 'sha512', '2a8648ce3d040304']
  ]
  for (const [kind, size, digest, oid] of sizes) {
    const key = await opensslKey(kind)
    const info = requestInfo(key, { subject: name([CN, utf8(serialNumber)]) })
    const algorithm = tlv(0x30, tlv(0x06, hex(oid)))
    const withSignature = (signature: Buffer): string => pemOf(tlv(0x30, info, algorithm, tlv(0x03, hex('00'), signature)))
    const raw = sign(digest, info, { key, dsaEncoding: 'ieee-p1363' })
    const [r, s] = [raw.subarray(0, size), raw.subarray(size)]
    const good = withSignature(derSignature(integerOf(r), integerOf(s)))
    t.notOk(checkCsr(good, { serialNumber }).repair, `${kind}: DER needs none`)
    const forms: ReadonlyArray<[form: string, repair: string, signature: Buffer]> = [
      ['r and s', 'raw', Buffer.concat([r, s])],
      ['INTEGERs of full length', 'integers', derSignature(r, s)],
      ['INTEGERs with a needless sign octet', 'integers', derSignature(Buffer.concat([hex('00'), r]), Buffer.concat([hex('00'), s]))],
      ['INTEGERs without sign octet', 'integers', derSignature(shortest(r), shortest(s))],
      ['a length in two octets', 'integers', Buffer.concat([hex('3081'), Buffer.from([4 + r.length + s.length]), tlv(0x02, r), tlv(0x02, s)])]
    ]
    for (const [form, repair, signature] of forms) {
      const csr = withSignature(signature)
      if (csr === good) continue
      const found = checkCsr(csr, { serialNumber })
      t.match(found, { pem: good, repair, der: derOf(csr) }, `${kind}: ${form}`)
      t.equal((await opensslVerdict(found.pem)).verified, true, `${kind}: ${form}: openssl verifies what is sent on`)
      const other = requestInfo(key, { subject: name([CN, utf8(serialNumber)], [O, utf8('Acme')]) })
      const forged = pemOf(tlv(0x30, other, algorithm, tlv(0x03, hex('00'), signature)))
      t.throws(() => checkCsr(forged, { serialNumber }), { code: 'csr-rejected', reason: 'signature-invalid' }, `${kind}: ${form}, over another request`)
    }
  }
})

function shortest (number: Buffer): Buffer {
  return number.subarray(number.findIndex(octet => octet !== 0))
}

function integerOf (number: Buffer): Buffer {
  const magnitude = shortest(number)
  return magnitude[0]! < 0x80 ? magnitude : Buffer.concat([hex('00'), magnitude])
}

function derSignature (r: Buffer, s: Buffer): Buffer {
  return tlv(0x30, tlv(0x02, r), tlv(0x02, s))
}

await t.test('a common name is read in each string type', async t => {
  const masks = { Printable: [0x0002, '13'], UTF8: [0x2000, '0c'], BMP: [0x0800, '1e'], Teletex: [0x0004, '14'] } as const
  for (const [type, [mask, tag]] of Object.entries(masks)) {
    const { csrPem } = await opensslCsr({ serialNumber, stringMask: `MASK:0x${mask.toString(16)}` })
    t.match(derOf(csrPem).toString('hex'), new RegExp(`0603${CN}${tag}`), `openssl wrote ${type}String`)
    t.equal(checkCsr(csrPem, { serialNumber }).commonName, serialNumber, type)
  }
  const key = await opensslKey('ec')
  for (const tag of [0x12, 0x16]) {
    const csr = handmadeCsr(key, { subject: name([CN, tlv(tag, Buffer.from('42'))]) })
    t.equal(checkCsr(csr, { serialNumber: '42' }).commonName, '42', `tag ${tag}`)
  }
  for (const [value, text] of [[utf8('Gerät-7'), 'Gerät-7'], [BMP('Gerät-7'), 'Gerät-7'], [tlv(0x14, Buffer.from('Gerät-7', 'latin1')), 'Gerät-7'], [tlv(0x1c, hex('0001f600')), '😀']] as const) {
    t.equal(checkCsr(handmadeCsr(key, { subject: name([CN, value]) }), { serialNumber: text }).commonName, text)
  }
})

await t.test('a subject may leave the common name out, repeat it, and say more', async t => {
  const none = await opensslCsr({ serialNumber, subject: '/O=Acme/OU=Pumps' })
  t.notOk('commonName' in checkCsr(none.csrPem, { serialNumber }), 'no CN')
  const empty = await opensslCsr({ serialNumber, subject: '/' })
  t.notOk('commonName' in checkCsr(empty.csrPem, { serialNumber }), 'empty subject')
  const twice = await opensslCsr({ serialNumber, subject: `/CN=${serialNumber}/O=Acme/CN=${serialNumber}` })
  t.equal(checkCsr(twice.csrPem, { serialNumber }).commonName, serialNumber, 'twice the same CN')
  const together = await opensslCsr({ serialNumber, subject: `/O=Acme+CN=${serialNumber}/C=DE` })
  t.equal(checkCsr(together.csrPem, { serialNumber }).commonName, serialNumber, 'in a set with another attribute')
})

await t.test('requested extensions and attributes are let through', async t => {
  const { csrPem } = await opensslCsr({ serialNumber, args: ['-addext', 'subjectAltName=DNS:a.example', '-addext', 'keyUsage=digitalSignature'] })
  t.equal(checkCsr(csrPem, { serialNumber }).pem, csrPem)
  // SET OF says sorted, yet @peculiar/x509 and others write attributes in the order they are given.
  const attribute = (oid: string, value: string): Buffer => tlv(0x30, tlv(0x06, hex(oid)), tlv(0x31, utf8(value)))
  const attributes = tlv(0xa0, attribute('2a864886f70d010907', 'a long challenge'), attribute('2a864886f70d010902', 'short'))
  const unsorted = handmadeCsr(await opensslKey('ec'), { attributes })
  t.equal((await opensslVerdict(unsorted)).verified, true, 'openssl takes unsorted attributes')
  t.equal(checkCsr(unsorted, { serialNumber }).pem, unsorted)
})

await t.test('attributes may be missing or empty, and the version 1 or 2', async t => {
  const key = await opensslKey('ec')
  const info = (...parts: Buffer[]): string => pemOf(sealed(tlv(0x30, ...parts), key))
  const [version, subject, spki] = [tlv(0x02, hex('00')), name([CN, utf8(serialNumber)]), spkiOf(key)]
  const untidy = {
    'no attributes': info(version, subject, spki),
    'no attribute': info(version, subject, spki, tlv(0xa0)),
    'an attribute without values': info(version, subject, spki, tlv(0xa0, tlv(0x30, tlv(0x06, hex('2a864886f70d010907')), tlv(0x31)))),
    'version 1': info(tlv(0x02, hex('01')), subject, spki, tlv(0xa0)),
    'version 2, no attributes': info(tlv(0x02, hex('02')), subject, spki)
  }
  for (const [what, csr] of Object.entries(untidy)) {
    t.match(checkCsr(csr, { serialNumber }), { pem: csr, commonName: serialNumber }, what)
    t.equal((await opensslVerdict(csr)).verified, true, `${what}: openssl takes it, too`)
    t.throws(() => checkCsr(forged(csr), { serialNumber }), { code: 'csr-rejected', reason: 'signature-invalid' }, `${what}: the signature must verify`)
  }
})

/** With another version than was signed. */
function forged (csr: string): string {
  const { tag, content: [info, ...rest] } = treeOf(derOf(csr)) as { tag: number, content: Tree[] }
  const [version] = info!.content as Tree[]
  version!.content = Buffer.from([((version!.content as Buffer)[0]! + 1) % 3])
  return pemOf(bytesOf({ tag, content: [info!, ...rest] }))
}

await t.test('one form is sent on, whatever form came', async t => {
  const { csrPem } = await opensslCsr({ serialNumber })
  const forms = {
    'CRLF line ends': csrPem.replaceAll('\n', '\r\n'),
    'old label': csrPem.replaceAll('CERTIFICATE REQUEST', 'NEW CERTIFICATE REQUEST'),
    'lines of 76': csrPem.replace(/(?<=-\n)[^-]+(?=-)/, rewrap(76)),
    'no newline at the end': csrPem.trimEnd(),
    'white space around': `\r\n\t ${csrPem} \n\n`,
    'a byte order mark': `\ufeff${csrPem}`,
    'a NUL after it': `${csrPem}\0`,
    'text around': `Certificate Request:\n${csrPem}end`,
    'base64 in one line': csrPem.replace(/(?<=-\n)[^-]+(?=\n-)/, body => body.replaceAll('\n', ''))
  }
  for (const [form, text] of Object.entries(forms)) t.equal(checkCsr(text, { serialNumber }).pem, csrPem, form)
})

await t.test('the length limit is that of AWS IoT, for what came and for what is sent on', async t => {
  const key = await opensslKey('ec')
  const withName = (length: number): string => handmadeCsr(key, { subject: name([O, utf8('x'.repeat(length))]) })
  const fits = withName(2740)
  const short = withName(1)
  t.ok(fits.length <= 4096 && fits.length > 4000)
  t.equal(checkCsr(fits, { serialNumber }).pem.length, fits.length)
  t.throws(() => checkCsr(withName(2900), { serialNumber }), { code: 'csr-rejected', reason: 'csr-too-long' })
  const fewerLines = (csr: string): string => pemOf(derOf(csr)).replace(/(?<=-\n)[^-]+(?=-)/, rewrap(76))
  const wide = Array.from({ length: 100 }, (_, i) => withName(2700 + i)).find(csr => csr.length > 4096)!
  t.throws(() => checkCsr(wide, { serialNumber }), { code: 'csr-rejected', reason: 'csr-too-long' })
  t.ok(fewerLines(wide).length <= 4096, 'short enough in lines of 76')
  t.equal(checkCsr(`${'text\n'.repeat(1500)}${short}`, { serialNumber }).pem, short, 'the text around it may be longer')
  t.throws(() => checkCsr(fewerLines(wide), { serialNumber }), { code: 'csr-rejected', reason: 'csr-too-long' }, 'too long in lines of 64')
})

await t.test('no name gets past the subject rule', async t => {
  const key = await opensslKey('ec')
  const tricks: Record<string, Buffer> = {
    'a NUL after it': utf8(`${serialNumber}\0`),
    'a NUL inside': utf8('SN-\x000001'),
    'a byte order mark before': utf8(`\ufeff${serialNumber}`),
    'a space after it': utf8(`${serialNumber} `),
    'other case': utf8(serialNumber.toLowerCase()),
    'full-width digits': utf8('SN-０００１'),
    'a zero-width space': utf8('SN-\u200b0001'),
    'a BMPString with a NUL': BMP(`${serialNumber}\0`),
    'UTF-8 bytes called BMPString': tlv(0x1e, Buffer.from('SN-00001')),
    'an empty string': utf8('')
  }
  for (const [trick, value] of Object.entries(tricks)) {
    t.throws(() => checkCsr(handmadeCsr(key, { subject: name([CN, value]) }), { serialNumber }), { code: 'csr-rejected', reason: 'subject-other-device' }, trick)
  }
  const control = handmadeCsr(key, { subject: name([CN, utf8('a\u009b31mb')]) })
  t.throws(() => checkCsr(control, { serialNumber: 'a\u009b31mb' }), { code: 'csr-rejected', reason: 'subject-other-device' }, 'a control character never matches')
  t.throws(() => checkCsr(control, { serialNumber }), { message: /^[ -~]+$/ }, 'nor does it reach a message')
})

await t.test('what is signed is what came', async t => {
  const { csrPem } = await opensslCsr({ serialNumber: 'SN-0002' })
  const der = derOf(csrPem)
  der.write('SN-0001', der.indexOf('SN-0002'), 'latin1')
  t.throws(() => checkCsr(pemOf(der), { serialNumber }), { code: 'csr-rejected', reason: 'signature-invalid' }, 'the subject was changed after signing')
  const other = generateKeyPairSync('ec', { namedCurve: 'P-256', publicKeyEncoding: { type: 'spki', format: 'der' }, privateKeyEncoding: { type: 'pkcs8', format: 'pem' } })
  const stolen = handmadeCsr(await opensslKey('ec'), { spki: other.publicKey })
  t.throws(() => checkCsr(stolen, { serialNumber }), { code: 'csr-rejected', reason: 'signature-invalid' }, 'the public key of somebody else')
})

await t.test('the helper leaves its files where it is told to', t => inTemporaryDir(async dir => {
  const { csrPem } = await opensslCsr({ serialNumber, dir })
  t.equal(checkCsr(csrPem, { serialNumber }).pem, csrPem)
}))
