import { createHash, createPrivateKey, createPublicKey, sign, X509Certificate } from 'node:crypto'
import t from 'tap'
import { content, der as tlv, elements } from '../../src/local/der.ts'
import { DeviceIssuer } from '../../src/local/issuer.ts'
import { openssl, opensslCsr, P256 } from './rig.ts'

const issuer = await DeviceIssuer.create()
const der = (pem: string): Buffer => Buffer.from(pem.replace(/-----.*-----|\s/g, ''), 'base64')
const pem = (bytes: Buffer): string => `-----BEGIN CERTIFICATE REQUEST-----\n${bytes.toString('base64')}\n-----END CERTIFICATE REQUEST-----`

await t.test('certificates have the form of AWS IoT\'s', async t => {
  const kinds: Array<[string, string[]]> = [
    ['RSA-2048', ['rsa:2048']], ['RSA-3072', ['rsa:3072']], ['P-256', P256],
    ['P-384', ['ec', '-pkeyopt', 'ec_paramgen_curve:P-384']], ['P-521', ['ec', '-pkeyopt', 'ec_paramgen_curve:P-521']]
  ]
  for (const [name, kind] of kinds) {
    const { key, csr, foreign } = opensslCsr(kind, '/C=DE/O=Größe & Söhne/OU=b+serialNumber=7/CN=dev-1', ['-utf8', '-multivalue-rdn'])
    const issued = await issuer.fromCsr(csr)
    const text = openssl(['x509', '-noout', '-text', '-nameopt', 'sep_multiline,sname,utf8'], { input: issued.pem })
    const certificate = new X509Certificate(issued.pem)
    t.match(text, /Version: 3/, name)
    t.equal(text.match(/Signature Algorithm: sha256WithRSAEncryption/g)?.length, 2)
    t.match(text, /Issuer:\s+OU=Amazon Web Services O=Amazon\.com Inc\. L=Seattle ST=Washington C=US\n/)
    t.match(text, /Not After : Dec 31 23:59:59 2049 GMT/)
    t.match(text, /X509v3 Authority Key Identifier:\s+(keyid:)?[0-9A-F:]{59}\s+X509v3 Subject Key Identifier:\s+[0-9A-F:]{59}\s+X509v3 Basic Constraints: critical\s+CA:FALSE\s+X509v3 Key Usage: critical\s+Digital Signature\n/)
    t.notMatch(text, /Extended|Alternative/)
    t.equal(certificate.serialNumber.length, 40, 'a serial number of 20 bytes')
    t.equal(issued.id, createHash('sha256').update(certificate.raw).digest('hex'))
    const age = Date.now() - Date.parse(certificate.validFrom)
    t.ok(age > 60_000 && age < 300_000, 'valid since a couple of minutes')
    t.same(certificate.publicKey.export({ type: 'spki', format: 'der' }), createPublicKey(key).export({ type: 'spki', format: 'der' }), 'the key of the CSR')
    const subject = (form: string, input: string): string => openssl([form, '-noout', '-subject', '-nameopt', 'dump_all,dump_der,sep_comma_plus'], { input })
    t.equal(subject('x509', issued.pem), subject('req', csr), 'the subject, types and order included')
    const ski = (input: string): string => openssl(['x509', '-noout', '-ext', 'subjectKeyIdentifier'], { input })
    t.equal(ski(issued.pem), ski(foreign), 'the key identifier openssl computes')
  }
})

await t.test('an empty subject stays empty, and nothing requested is added', async t => {
  const { csr } = opensslCsr(P256, '/', ['-addext', 'subjectAltName=DNS:evil', '-addext', 'basicConstraints=critical,CA:TRUE'])
  const text = openssl(['x509', '-noout', '-text'], { input: (await issuer.fromCsr(csr)).pem })
  t.match(text, /Subject: \n/)
  t.notMatch(text, /evil|CA:TRUE/)
})

await t.test('the same CSR gives a distinct certificate', async t => {
  const { csr } = opensslCsr(P256)
  const [one, two] = await Promise.all([issuer.fromCsr(csr), issuer.fromCsr(csr)])
  t.not(one.id, two.id)
})

await t.test('a key pair of its own', async t => {
  const made = await issuer.withNewKey()
  t.match(made.privateKey, /^-----BEGIN RSA PRIVATE KEY-----\n/)
  t.match(made.publicKey, /^-----BEGIN PUBLIC KEY-----\n/)
  t.ok(new X509Certificate(made.pem).checkPrivateKey(createPrivateKey(made.privateKey)))
  t.match(openssl(['x509', '-noout', '-subject', '-nameopt', 'oneline'], { input: made.pem }), /CN = AWS IoT Certificate\n$/)
})

/** The DER of a CSR, taken apart and sealed again with the key. */
function resigned (csr: string, key: string, parts: { algorithm?: string, edit?: (info: Buffer) => Buffer }): string {
  const { algorithm, edit = bytes => bytes } = parts
  const [info, was] = elements(content(der(csr))) as [Buffer, Buffer]
  const edited = edit(info)
  const signature = sign('sha256', edited, key)
  return pem(tlv(0x30, edited, algorithm === undefined ? was : Buffer.from(algorithm, 'hex'), tlv(0x03, Buffer.alloc(1), signature)))
}

await t.test('what AWS IoT is not known to refuse is taken', async t => {
  const ec = opensslCsr(P256)
  const rsa = opensslCsr(['rsa:2048'])
  const parts = (info: Buffer) => elements(content(info))
  const cases: ReadonlyArray<[what: string, csr: string]> = [
    ['ECDSA with NULL parameters (mbedTLS before 2.28.5)', resigned(ec.csr, ec.key, { algorithm: '300c06082a8648ce3d0403020500' })],
    ['RSA without parameters (PKI.js)', resigned(rsa.csr, rsa.key, { algorithm: '300b06092a864886f70d01010b' })],
    ['version 2 (wolfSSL)', resigned(ec.csr, ec.key, { edit: info => tlv(0x30, Buffer.from('020102', 'hex'), ...parts(info).slice(1)) })],
    ['no attributes (PKI.js)', resigned(ec.csr, ec.key, { edit: info => tlv(0x30, ...parts(info).slice(0, 3)) })],
    ['text around the block (GnuTLS)', `PKCS #10 Certificate Request Information:\n${ec.csr}\nend`]
  ]
  for (const [what, csr] of cases) t.match((await issuer.fromCsr(csr)).pem, /^-----BEGIN CERTIFICATE-----/, what)
  for (const parameters of ['3000', '0400', '05000500']) {
    const wrong = tlv(0x30, Buffer.from(`06082a8648ce3d040302${parameters}`, 'hex')).toString('hex')
    await t.rejects(issuer.fromCsr(resigned(ec.csr, ec.key, { algorithm: wrong })), { message: /algorithm is not supported/ }, parameters)
  }
})

await t.test('CSRs that are refused', async t => {
  const good = der(opensslCsr(P256).csr)
  const forged = Buffer.from(good)
  forged[good.indexOf('dev-1') + 4] = 0x32
  const cases: Array<[string, string, RegExp]> = [
    ['no PEM', 'hello', /PEM/],
    ['a certificate', (await issuer.withNewKey()).pem, /PEM/],
    ['no DER', pem(Buffer.from('hello')), /not a certification request/],
    ['cut short', pem(good.subarray(0, -1)), /not a certification request/],
    ['something behind it', pem(Buffer.concat([good, Buffer.from([5, 0])])), /not a certification request/],
    ['subject changed after signing', pem(forged), /signature does not match/],
    ['RSA-1024', opensslCsr(['rsa:1024']).csr, /key must be/],
    ['secp256k1', opensslCsr(['ec', '-pkeyopt', 'ec_paramgen_curve:secp256k1']).csr, /key must be/],
    ['explicit curve parameters', opensslCsr([...P256, '-pkeyopt', 'ec_param_enc:explicit']).csr, /key must be|cannot be read/],
    ['Ed25519', opensslCsr(['ed25519']).csr, /algorithm is not supported/],
    ['RSA-PSS', opensslCsr(['rsa-pss', '-pkeyopt', 'rsa_keygen_bits:2048']).csr, /algorithm is not supported/],
    ['SHA-1', opensslCsr(P256, '/CN=a', ['-sha1']).csr, /algorithm is not supported/]
  ]
  for (const [name, csr, message] of cases) await t.rejects(issuer.fromCsr(csr), { name: 'InvalidRequestException', message }, name)
})

await t.test('no garbled CSR gives anything but a refusal or a certificate that parses', async t => {
  const good = der(opensslCsr(P256).csr)
  for (let at = 0; at < good.length; at++) {
    const bytes = Buffer.from(good)
    bytes[at] = (bytes[at] ?? 0) ^ 0x41
    await issuer.fromCsr(pem(bytes)).then(
      () => { t.fail(`byte ${at} changed, and a certificate was issued`) },
      (error: Error) => { if (error.name !== 'InvalidRequestException') t.fail(`byte ${at}: ${error.name}`) }
    )
  }
})
