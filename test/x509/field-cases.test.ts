// What tools in the field write, read by the units; test/routes/field-cases.test.ts sends the same by every way in.
import { createPrivateKey } from 'node:crypto'
import t from 'tap'
import { checkCa, checkVerification } from '../../src/vending/authority-rules.ts'
import { checkAuthority, verifyChain, verifySelfSigned } from '../../src/x509/chain.ts'
import { checkCsr } from '../../src/x509/csr.ts'
import { checkCertificate, readCertificates } from '../../src/x509/strict-certificate.ts'
import { makeVerificationCertificate } from '../../src/x509/verification.ts'
import { fieldText } from '../fixtures/field.ts'
import { opensslKey, opensslVerdict } from '../fixtures/openssl.ts'
import { NOW, authority, certificatePem, commonName, freshKey } from './handmade-certificate.ts'
import { RSA_SHA256, derOf, hex, pemOf, tlv } from './handmade.ts'

const NULL_ECDSA = tlv(0x30, tlv(0x06, hex('2a8648ce3d040302')), tlv(0x05))
const BARE_RSA = tlv(0x30, tlv(0x06, hex('2a864886f70d01010b')))

await t.test('CSRs of mbedTLS 2.28.3 (ECDSA with NULL parameters) and PKI.js (RSA without)', async t => {
  const ec = fieldText('01-mbedtls-2.28.3-ecdsa-null-parameters.csr')
  t.match(checkCsr(ec, { serialNumber: 'gen-1' }), { pem: ec, keyType: 'EC-P256' })
  const demo = fieldText('01b-mbedtls-aws-demo-settings.csr')
  t.match(checkCsr(demo, { serialNumber: 'Fleet Provisioning Demo' }), { keyType: 'EC-P256' }, 'AWS\'s embedded-C demo')
  const rsa = pemOf(derOf(fieldText('14-rsa-absent-parameters-pkijs.csr')))
  t.match(checkCsr(rsa, { serialNumber: 'gen-1' }), { pem: rsa, keyType: 'RSA-2048' })
})

await t.test('CSRs with r and s as a secure element gives them, and with an INTEGER padded to 32 octets', async t => {
  for (const [file, repair] of [['02-signature-raw-r-s.csr', 'raw'], ['02b-signature-integer-padded-to-32.csr', 'integers']] as const) {
    const found = checkCsr(fieldText(file), { serialNumber: 'sn-1' })
    t.equal(found.repair, repair, file)
    t.equal((await opensslVerdict(found.pem)).verified, true, `${file}: openssl verifies what is sent on`)
    t.equal((await opensslVerdict(fieldText(file))).verified, false, `${file}: and not what came`)
  }
})

await t.test('certificates of mbedTLS 2.28.3: a CA, and one that a device signed itself', async t => {
  const ca = checkCa(fieldText('01c-mbedtls-2.28.3-ca.pem'), NOW)
  t.equal(ca.subject, 'CN=Mbed CA, O=Acme')
  t.doesNotThrow(() => checkAuthority(ca, { now: NOW }))
  const device = checkCertificate(fieldText('16-mbedtls-self-signed-ec.pem'))
  t.doesNotThrow(() => verifySelfSigned(device, { now: NOW }))
})

await t.test('an authority whose every certificate is written so is taken: its own, the verification certificate, a device\'s', async t => {
  const kinds = { ECDSA: { key: freshKey(), algorithm: NULL_ECDSA }, RSA: { key: await opensslKey('rsa'), algorithm: BARE_RSA } }
  for (const [kind, { key, algorithm }] of Object.entries(kinds)) {
    const made = authority(commonName('CA'), { key, algorithm })
    const ca = checkCa(made.pem, NOW)
    t.ok(checkVerification(certificatePem(freshKey(), made, { algorithm, subject: commonName('code') }), ca, 'code', NOW), kind)
    t.ok(checkVerification(await makeVerificationCertificate(made.pem, createPrivateKey(key), 'code', NOW), ca, 'code', NOW), `${kind}, made by the CLI`)
    const [device] = readCertificates(certificatePem(freshKey(), made, { algorithm }))
    t.equal(verifyChain(device!, { anchor: ca, now: NOW }).length, 2, kind)
  }
  const mixed = certificatePem(freshKey(), authority(commonName('CA')), { innerAlgorithm: NULL_ECDSA })
  t.throws(() => readCertificates(mixed), { code: 'certificate-rejected', reason: 'certificate-not-x509' }, 'but inside and outside alike (RFC 5280, 4.1.1.2)')
  t.throws(() => readCertificates(certificatePem(freshKey(), authority(commonName('CA')), { innerAlgorithm: RSA_SHA256 })), { code: 'certificate-rejected', reason: 'certificate-not-x509' })
})
