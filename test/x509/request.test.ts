import t from 'tap'
import { checkCsr } from '../../src/x509/csr.ts'
import { makeCsr, makeKey } from '../../src/x509/request.ts'
import { opensslVerdict } from '../fixtures/openssl.ts'

for (const keyType of ['ec', 'rsa'] as const) {
  await t.test(`${keyType}: the CSR passes our own check and openssl's`, async t => {
    const key = await makeKey(keyType)
    for (const commonName of ['SN-0001', 'a,b+CN=c/"d" =é#', '#0c0161', undefined]) {
      const csrPem = await makeCsr(key, commonName)
      const csr = checkCsr(csrPem, { serialNumber: commonName ?? '' })
      t.equal(csr.pem, csrPem, 'already in the form that is sent on')
      t.equal(csr.commonName, commonName)
      t.equal(csr.keyType, keyType === 'ec' ? 'EC-P256' : 'RSA-2048')
      const { verified, commonNames } = await opensslVerdict(csrPem)
      t.strictSame({ verified, commonNames }, { verified: true, commonNames: commonName === undefined ? [] : [commonName] })
    }
  })
}
