// One CSR for each reason of the closed list; the many ways to each are in test/x509/refusals.test.ts.
import type { CsrRefusal } from '../../src/x509/refusals.ts'
import { CN, ECDSA_SHA256, O, RSA_SHA256, derOf, handmadeCsr, hex, name, pemOf, requestInfo, spkiOf, tlv, utf8 } from '../x509/handmade.ts'
import { fieldText } from '../fixtures/field.ts'
import { opensslCsr, opensslKey, type OpensslKey } from '../fixtures/openssl.ts'
import { csrFor } from '../fixtures/vending.ts'

/** Every reason with a CSR of this device that is refused for it. */
export async function refusedCsrs (serialNumber: string): Promise<Record<CsrRefusal, string>> {
  const key = await opensslKey('ec')
  const csr = csrFor(serialNumber, key)
  const der = derOf(csr)
  const withKey = async (kind: OpensslKey): Promise<string> => (await opensslCsr({ serialNumber, key: kind })).csrPem
  const p256 = tlv(0x30, tlv(0x06, hex('2a8648ce3d0201')), tlv(0x06, hex('2a8648ce3d030107')))
  const withPoint = (point: Buffer): string => handmadeCsr(key, { spki: tlv(0x30, p256, tlv(0x03, hex('00'), point)) })
  return {
    'csr-too-long': handmadeCsr(key, { subject: name([O, utf8('x'.repeat(3000))]) }),
    'pem-not-one-block': csr + csr,
    'pem-wrong-label': key,
    'pem-not-canonical': csr.replace('\n', '\n?'),
    'csr-not-der': pemOf(der.subarray(0, -1)),
    'csr-not-pkcs10': pemOf(spkiOf(key)),
    'key-type-not-allowed': await withKey('ed25519'),
    'key-not-valid': withPoint(Buffer.concat([hex('04'), Buffer.alloc(64)])),
    'rsa-key-too-small': await withKey('rsa-1024'),
    'rsa-key-too-large': await withKey('rsa-8192'),
    'rsa-exponent-not-allowed': await withKey('rsa-exponent-3'),
    'rsa-key-weak': fieldText('08a-roca-2048.csr'),
    'curve-not-allowed': await withKey('ec-secp256k1'),
    'curve-parameters-explicit': await withKey('ec-explicit'),
    'ec-point-not-uncompressed': await withKey('ec-compressed'),
    'algorithm-parameters-wrong': handmadeCsr(key, { algorithm: tlv(0x30, tlv(0x06, hex('2a8648ce3d040302')), tlv(0x30)) }),
    'signature-algorithm-not-allowed': (await opensslCsr({ serialNumber, digest: 'sha1' })).csrPem,
    'signature-algorithm-mismatch': handmadeCsr(key, { algorithm: RSA_SHA256 }),
    'signature-invalid': pemOf(tlv(0x30, requestInfo(key), ECDSA_SHA256, tlv(0x03, hex('00')))),
    'subject-not-readable': handmadeCsr(key, { subject: name([O, tlv(0x0c, hex('c328'))]) }),
    'subject-other-device': handmadeCsr(key, { subject: name([CN, utf8(`${serialNumber}x`)]) })
  }
}
