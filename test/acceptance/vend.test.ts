// Vending as a stranger does it: CSRs by openssl, requests by curl, certificates read by openssl.
import { join } from 'node:path'
import { writeFileSync } from 'node:fs'
import t from 'tap'
import { openssl } from '../fixtures/openssl.ts'
import { folder } from './processes.ts'
import { type ServiceProcess, onEachEngine, startService } from './service-process.ts'
import { KEY_KINDS, type Problem, type Vended, curl, keyAndCsr, publicKeyOf, vendBody } from './tools.ts'

/** Asks for a certificate with a CSR, or for one with its keys. */
const post = (service: ServiceProcess, body: string, path = '/v1/certificates') => curl(service.serviceUrl + path, { ca: service.rootCa, body })

/** What must be equal in refusals that nobody may tell apart: all but the request's own id. */
const anonymous = (text: string) => text.replace(/"requestId":"[^"]+"/, '')

await onEachEngine(t, async (t, engine) => {
  const service = await startService(t, engine)

  for (const kind of KEY_KINDS) {
    await t.test(`${kind}: 201, then 200 with the identical certificate, 409 for another key`, async t => {
      const dir = folder(t)
      const device = await service.register()
      const { keyFile, csr } = await keyAndCsr(dir, device.serialNumber, kind)

      const first = await post(service, vendBody(device, csr))
      t.equal(first.status, 201)
      t.match(first.headers, { 'content-type': /^application\/json/, 'cache-control': 'no-store', 'x-request-id': /.{8,}/, date: /GMT$/ })
      const vended = JSON.parse(first.text) as Vended
      t.match(vended, { serialNumber: device.serialNumber, thingName: device.serialNumber, certificateArn: `cert/${vended.certificateId}` })

      const again = await post(service, vendBody(device, csr))
      t.equal(again.status, 200)
      t.equal(again.text, first.text, 'the answer is byte-identical')

      t.equal(await publicKeyOf({ certificate: vended.certificatePem }), await publicKeyOf({ keyFile }), 'openssl: the certificate carries the public key of the key')
      const { stdout } = await openssl(['x509', '-noout', '-subject', '-issuer', '-fingerprint', '-sha256', '-enddate', '-dateopt', 'iso_8601'], vended.certificatePem)
      t.match(stdout, `subject=CN = ${device.serialNumber}\n`, 'the subject is that of the CSR')
      t.match(stdout, 'issuer=OU = Amazon Web Services O=Amazon.com Inc. L=Seattle ST=Washington C=US\n', 'the issuer is the one AWS IoT names')
      t.match(stdout, `Fingerprint=${vended.certificateId.toUpperCase().replace(/(..)(?!$)/g, '$1:')}`, 'certificateId is the fingerprint')
      t.match(stdout, `notAfter=${vended.notAfter.replace('T', ' ').replace('.000Z', 'Z')}`)

      const other = await post(service, vendBody(device, (await keyAndCsr(dir, device.serialNumber, kind, 'other')).csr))
      t.equal(other.status, 409)
      t.match(JSON.parse(other.text), { code: 'already-vended' })
      t.notOk(other.headers['retry-after'], 'waiting would not help')
      t.equal((await post(service, vendBody(device, csr))).text, first.text, 'nothing of that changed the answer')
    })
  }

  await t.test('wrong token, unknown serial, and a device that is vended already: the same 401', async t => {
    const dir = folder(t)
    const [fresh, vended] = [await service.register(), await service.register()]
    const csr = async (serialNumber: string) => (await keyAndCsr(dir, serialNumber)).csr
    t.equal((await post(service, vendBody(vended, await csr(vended.serialNumber)))).status, 201)
    const unknown = { serialNumber: 'no-such-device', registrationToken: fresh.registrationToken }
    const attempts = [unknown, ...[fresh, vended].map(device => ({ ...device, registrationToken: unknown.registrationToken.split('').reverse().join('') }))]
    for (const path of ['/v1/certificates', '/v1/keys-and-certificates']) {
      const refusals = []
      for (const device of attempts) {
        refusals.push(await post(service, path === '/v1/certificates' ? vendBody(device, await csr(device.serialNumber)) : JSON.stringify(device), path))
      }
      t.strictSame(refusals.map(({ status }) => status), [401, 401, 401])
      t.equal(new Set(refusals.map(({ text }) => anonymous(text))).size, 1, 'one body for all')
      t.equal(new Set(refusals.map(({ headers }) => Object.keys(headers).sort().join())).size, 1, 'the same headers')
      t.match(JSON.parse(refusals[0]!.text), { code: 'device-not-authorized', status: 401 })
    }
  })

  await t.test('keys and certificate: openssl says they belong together; a second call gets no second key', async t => {
    const dir = folder(t)
    const device = await service.register()
    const first = await post(service, JSON.stringify(device), '/v1/keys-and-certificates')
    t.equal(first.status, 201)
    t.equal(first.headers['cache-control'], 'no-store')
    const { certificatePem, keyPair } = JSON.parse(first.text) as Required<Vended>
    const keyFile = join(dir, 'made.key')
    writeFileSync(keyFile, keyPair.privateKey, { mode: 0o600 })
    t.equal(await publicKeyOf({ certificate: certificatePem }), await publicKeyOf({ keyFile }))
    t.equal(keyPair.publicKey.trim(), (await publicKeyOf({ keyFile })).trim())
    t.ok((await openssl(['pkey', '-in', keyFile, '-check', '-noout'])).ok, 'the key is sound')

    const second = await post(service, JSON.stringify(device), '/v1/keys-and-certificates')
    t.equal(second.status, 409)
    t.match(JSON.parse(second.text), { code: 'key-not-recoverable' })
    t.notMatch(second.text, 'PRIVATE KEY')
    const csr = await post(service, vendBody(device, (await keyAndCsr(dir, device.serialNumber)).csr))
    t.match([csr.status, JSON.parse(csr.text).code], [409, 'already-vended'], 'a CSR gets no second certificate either')
  })

  await t.test('AWS IoT holds one certificate for each device that was vended, all ACTIVE', async t => {
    const certificates = await service.certificates()
    t.equal(certificates.length, KEY_KINDS.length + 2)
    t.ok(certificates.every(({ status }) => status === 'ACTIVE'))
  })
})

await onEachEngine(t, async (t, engine) => {
  await t.test('hammering one serial number: 429 with Retry-After, while another one is served', async t => {
    const service = await startService(t, engine, { RATE_LIMIT_SERIAL_MAX: '5' })
    const dir = folder(t)
    const [hammered, other] = [await service.register(), await service.register()]
    const body = vendBody({ ...hammered, registrationToken: 'guess' }, (await keyAndCsr(dir, hammered.serialNumber)).csr)
    const statuses = []
    for (let i = 0; i < 8; i++) statuses.push((await post(service, body)).status)
    t.strictSame(statuses, [401, 401, 401, 401, 401, 429, 429, 429])
    const refusal = await post(service, body)
    t.equal(refusal.status, 429)
    t.equal((JSON.parse(refusal.text) as Problem).code, 'rate-limited')
    const wait = Number(refusal.headers['retry-after'])
    t.ok(Number.isInteger(wait) && wait >= 1 && wait <= 60, `Retry-After is whole seconds within the window, ${wait}`)
    const served = await post(service, vendBody(other, (await keyAndCsr(dir, other.serialNumber)).csr))
    t.equal(served.status, 201, 'another serial number is served')
  })
})
