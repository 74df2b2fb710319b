import t from 'tap'
import { readCertificate } from '../../src/x509/certificate.ts'
import { firstExpiry } from '../../src/x509/expiry.ts'
import { inTemporaryDir, openssl, opensslCsr } from '../fixtures/openssl.ts'

await t.test('a chain expires with the first of its certificates', async t => {
  const [soon, late] = [await certificate(2), await certificate(9)]
  for (const chain of [soon + late, `${late}\n# the authority's\n${soon}`, soon]) t.equal(firstExpiry(chain), readCertificate(soon).notAfter)
  t.equal(firstExpiry(''), Infinity, 'nothing never expires')
  t.throws(() => firstExpiry(soon.replace(/^M.*\n/m, '')), 'what is no certificate is told')
})

async function certificate (days: number): Promise<string> {
  const { stdout } = await inTemporaryDir(async dir => {
    await opensslCsr({ serialNumber: 'x', key: 'ec', dir })
    return openssl(['req', '-x509', '-key', `${dir}/key.pem`, '-subj', '/CN=x', '-days', String(days)])
  })
  return stdout
}
