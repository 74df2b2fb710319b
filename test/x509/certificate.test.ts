import { createHash, createPrivateKey, createPublicKey } from 'node:crypto'
import fc from 'fast-check'
import t from 'tap'
import { readCertificate } from '../../src/x509/certificate.ts'
import { openssl, opensslCsr, opensslKey, inTemporaryDir, type OpensslKey } from '../fixtures/openssl.ts'
import { derOf, pemOf } from './handmade.ts'

async function certificate (key: OpensslKey, ...args: string[]): Promise<string> {
  const { stdout } = await inTemporaryDir(async dir => {
    await opensslCsr({ serialNumber: 'x', key, dir })
    return openssl(['req', '-x509', '-key', `${dir}/key.pem`, ...args])
  })
  return stdout
}

const pem = await certificate('ec', '-subj', '/O=Acme, Inc./OU=Pumps+CN=SN-0001', '-days', '9000', '-set_serial', '0x0abc')
const fingerprintOf = (key: string): string =>
  createHash('sha256').update(createPublicKey(createPrivateKey(key)).export({ type: 'spki', format: 'der' })).digest('hex')

await t.test('the facts are those that openssl prints', async t => {
  const { stdout } = await openssl(['x509', '-noout', '-fingerprint', '-sha256', '-serial', '-startdate', '-enddate', '-dateopt', 'iso_8601'], pem)
  const printed = Object.fromEntries(stdout.trim().split('\n').map(line => line.split('='))) as Record<string, string>
  t.strictSame(readCertificate(pem), {
    certificateId: printed['sha256 Fingerprint']!.replaceAll(':', '').toLowerCase(),
    der: derOf(pem),
    publicKeyFingerprint: fingerprintOf(await opensslKey('ec')),
    subject: 'O=Acme\\, Inc., OU=Pumps + CN=SN-0001',
    issuer: 'O=Acme\\, Inc., OU=Pumps + CN=SN-0001',
    serialNumber: printed['serial'],
    notBefore: Date.parse(printed['notBefore']!),
    notAfter: Date.parse(printed['notAfter']!),
    keyType: 'EC-P256'
  })
  t.ok(readCertificate(pem).notAfter > Date.parse('2049-12-31'), 'dates beyond 2049 too')
})

await t.test('key types and empty names', async t => {
  const types = { rsa: 'RSA-2048', 'ec-p384': 'EC-P384', 'ec-p521': 'EC-P521', 'ec-secp256k1': 'other', ed25519: 'other' } as const
  for (const [key, keyType] of Object.entries(types)) {
    const facts = readCertificate(await certificate(key as OpensslKey, '-subj', '/'))
    t.match(facts, { keyType, subject: '', issuer: '', publicKeyFingerprint: fingerprintOf(await opensslKey(key as OpensslKey)) }, key)
  }
})

await t.test('anything else is a plain Error', async t => {
  const der = derOf(pem)
  const texts: Record<string, string> = {
    nothing: '',
    'two certificates': pem + pem,
    'a request': (await opensslCsr({ serialNumber: 'x' })).csrPem,
    'a tail': pemOf(Buffer.concat([der, Buffer.from([0])]), 'CERTIFICATE'),
    'cut off': pemOf(der.subarray(0, -1), 'CERTIFICATE'),
    'PEM inside PEM': pemOf(Buffer.from(pem), 'CERTIFICATE'),
    'no certificate': pemOf(Buffer.from('3000', 'hex'), 'CERTIFICATE')
  }
  for (const [what, text] of Object.entries(texts)) t.throws(() => readCertificate(text), { name: 'Error', message: /certificate/ }, what)
  fc.assert(fc.property(fc.nat(der.length - 1), fc.integer({ min: 1, max: 255 }), (at, flip) => {
    const changed = Buffer.from(der)
    changed[at]! ^= flip
    try {
      const { certificateId, notBefore, notAfter } = readCertificate(pemOf(changed, 'CERTIFICATE'))
      return certificateId === createHash('sha256').update(changed).digest('hex') && Number.isFinite(notBefore) && Number.isFinite(notAfter)
    } catch (error) {
      return error instanceof Error && error.name === 'Error' && /certificate/i.test(error.message)
    }
  }), { numRuns: 2000 })
})
