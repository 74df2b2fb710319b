// Certificates that were made elsewhere, brought for devices: signed by authorities and by devices' own keys, and each refusal's reason.
import { mkdtempSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import {
  DescribeCertificateCommand, ListAttachedPoliciesCommand, ListThingPrincipalsCommand, RegisterCertificateWithoutCACommand
} from '@aws-sdk/client-iot'
import t, { type Test } from 'tap'
import { API_KEYS, ask } from '../fixtures/api-keys.ts'
import { isProblem } from '../fixtures/problems.ts'
import { total } from '../fixtures/scrape.ts'
import { auditedBy, startService } from '../fixtures/service.ts'
import { csrFor, vend } from '../fixtures/vending.ts'
import { CustomerCa, type Leaf } from '../local/ca-rig.ts'
import { P256, connect, opensslCsr } from '../local/rig.ts'
import { DAY, certificatePem, commonName, freshKey, authority as madeAuthority } from '../x509/handmade-certificate.ts'
import { hex, tlv } from '../x509/handmade.ts'

const file = join(mkdtempSync(join(tmpdir(), 'products-')), 'products.json')
writeFileSync(file, JSON.stringify([
  { name: 'own', selfSigned: true, subject: 'serial-number' }, { name: 'rsa', keyTypes: ['RSA'] }, { name: 'unit', serialNumberFrom: 'OrganizationalUnit', selfSigned: true }
]))
const service = await startService({ API_KEYS, PRODUCTS_FILE: file, RATE_LIMIT_ADDRESS_MAX: '100000', MAX_EVENT_LOOP_DELAY_MS: '600000' })
t.teardown(() => service.close())

const URL = '/v1/certificates/register'
const PEM = { 'content-type': 'application/pem-certificate-chain' }
const register = (body: object | string, more = {}) => ask(service, 'POST', URL, body, more)
const status = async (certificateId: string) => {
  const { certificateDescription } = await service.iot.send(new DescribeCertificateCommand({ certificateId }))
  return certificateDescription
}

const ca = new CustomerCa('/O=Factory/CN=Devices CA')
const caCertificateId = await authority(ca)

async function authority (one: CustomerCa, more: object = {}): Promise<string> {
  const usual = { caCertificatePem: one.cert, mode: 'SNI_ONLY', status: 'ACTIVE', whenCrlUnavailable: 'accept' }
  const answer = await ask(service, 'POST', '/v1/authorities', { ...usual, ...more })
  return answer.json().caCertificateId as string
}

async function brought (product = 'default', by = ca): Promise<{ serialNumber: string, registrationToken: string, leaf: Leaf }> {
  const device = await service.register({ product })
  return { ...device, leaf: by.sign(`/CN=${device.serialNumber}`) }
}

const audited = (requestId: string) => auditedBy(service, requestId)

await t.test('one that an authority signed becomes the device\'s, ACTIVE and bound; the same again changes nothing', async t => {
  const { serialNumber, leaf, registrationToken } = await brought()
  const answer = await register({ serialNumber, certificatePem: leaf.chain }, { 'x-request-id': 'bring-0001', as: 'line' })
  t.equal(answer.statusCode, 201, answer.body)
  t.match(answer.json(), {
    serialNumber, thingName: serialNumber, certificateId: leaf.id, certificatePem: leaf.cert, caCertificateId, certificateMode: 'SNI_ONLY', endpoint: /./, rootCaPem: /BEGIN/
  })
  t.match(await status(leaf.id), { status: 'ACTIVE' })
  const target = answer.json().certificateArn as string
  t.match((await service.iot.send(new ListAttachedPoliciesCommand({ target }))).policies, [{ policyName: service.config.IOT_POLICY_NAME }])
  t.same((await service.iot.send(new ListThingPrincipalsCommand({ thingName: serialNumber }))).principals, [target])
  const client = await connect(service.aws, { clientId: serialNumber, key: leaf.key, cert: leaf.cert })
  await client.endAsync()

  const again = await register({ serialNumber, certificatePem: leaf.cert })
  t.equal(again.statusCode, 200)
  t.same(again.json(), answer.json())
  t.match(audited('bring-0001'), [{ event: 'certificate-adopted', outcome: 'done', actor: 'line-1', role: 'line', serialNumber, certificateId: leaf.id, caCertificateId, way: 'registered' }])
  t.match((await ask(service, 'GET', `/v1/devices/${serialNumber}`)).json(), { state: 'ACTIVE', certificateId: leaf.id, way: 'registered', caCertificateId })
  t.equal((await ask(service, 'GET', `/v1/certificates/${leaf.id}`)).json().serialNumber, serialNumber)
  isProblem(t, await vend(service, { serialNumber, registrationToken, certificateSigningRequest: csrFor(serialNumber) }), 'already-vended')
})

await t.test('certificates whose ECDSA signatures have NULL parameters (mbedTLS 2.28.3): authority, verification, device and self-signed', async t => {
  const algorithm = tlv(0x30, tlv(0x06, hex('2a8648ce3d040302')), tlv(0x05))
  const dates = { notBefore: Date.now() - DAY, notAfter: Date.now() + DAY }
  const mbed = madeAuthority(commonName('Mbed CA'), { algorithm, ...dates })
  const code = await ask(service, 'GET', '/v1/authorities/registration-code').then(answer => answer.json().registrationCode as string)
  const verificationCertificatePem = certificatePem(freshKey(), mbed, { subject: commonName(code), algorithm, ...dates })
  const wish = { caCertificatePem: mbed.pem, verificationCertificatePem, status: 'ACTIVE', whenCrlUnavailable: 'accept' }
  const registered = await ask(service, 'POST', '/v1/authorities', wish)
  t.equal(registered.statusCode, 201, registered.body)

  const device = await service.register()
  const key = freshKey()
  const leaf = certificatePem(key, mbed, { subject: commonName(device.serialNumber), algorithm, ...dates })
  const answer = await register({ serialNumber: device.serialNumber, certificatePem: leaf + mbed.pem })
  t.equal(answer.statusCode, 201, answer.body)
  const client = await connect(service.aws, { clientId: device.serialNumber, key, cert: leaf + mbed.pem })
  await client.endAsync()

  const own = await service.register({ product: 'own' })
  const ownKey = freshKey()
  const subject = commonName(own.serialNumber)
  const selfSigned = certificatePem(ownKey, { key: ownKey, subject }, { subject, algorithm, ...dates })
  const taken = await register({ serialNumber: own.serialNumber, certificatePem: selfSigned })
  t.equal(taken.statusCode, 201, taken.body)
})

await t.test('a PEM text, an array, and lines', async t => {
  const one = await brought()
  const pem = await register(one.leaf.cert, { ...PEM, 'x-request-id': 'bring-0002' })
  isProblem(t, pem, 'invalid-request', { detail: /serialNumber is missing/ })
  const url = `${URL}?serialNumber=${one.serialNumber}`
  t.match(await ask(service, 'POST', url, one.leaf.chain, PEM), { statusCode: 201 })
  isProblem(t, await ask(service, 'POST', url, { serialNumber: one.serialNumber, certificatePem: one.leaf.cert }), 'invalid-request', { detail: /only beside/ })

  const [good, bad] = [await brought(), await brought()]
  const items = [
    { serialNumber: good.serialNumber, certificatePem: good.leaf.cert }, { serialNumber: bad.serialNumber, certificatePem: good.leaf.cert },
    { serialNumber: one.serialNumber, certificatePem: one.leaf.cert }, { serialNumber: 'nobody', certificatePem: ca.sign('/CN=nobody').cert }
  ]
  const expected = [
    { line: 1, status: 'registered', certificateId: good.leaf.id }, { line: 2, status: 'refused', code: 'certificate-rejected', reason: 'subject-other-device' },
    { line: 3, status: 'unchanged' }, { line: 4, status: 'refused', code: 'device-not-found' }
  ]
  t.match((await register(items)).json(), { results: expected, registered: 1, unchanged: 1, refused: 2, failed: 0 })
  const lines = await register(items.map(item => `${JSON.stringify(item)}\n`).join(''), { 'content-type': 'application/x-ndjson' })
  t.match(lines.body.trim().split('\n').map(line => JSON.parse(line) as object).at(-1), { summary: true, lines: 4, unchanged: 2, refused: 2 })
})

await t.test('another CA with the same subject does not pass, by name nor with its own certificate in the chain', async t => {
  const spoofer = new CustomerCa('/O=Factory/CN=Devices CA')
  const { serialNumber, leaf } = await brought('default', spoofer)
  for (const certificatePem of [leaf.cert, leaf.chain]) {
    const answer = await register({ serialNumber, certificatePem }, { 'x-request-id': 'spoof-0001' })
    isProblem(t, answer, 'certificate-not-trusted', { reason: 'signature-invalid' })
  }
  t.match(audited('spoof-0001')[0], { event: 'adoption-refused', outcome: 'refused', code: 'certificate-not-trusted', reason: 'signature-invalid', serialNumber })
  await t.rejects(status(leaf.id), { name: 'ResourceNotFoundException' }, 'AWS IoT was told nothing')
  t.match((await ask(service, 'GET', `/v1/devices/${serialNumber}`)).json(), { state: 'REGISTERED' })
})

await t.test('one that the device signed itself, where its product allows it', async t => {
  const { serialNumber } = await service.register({ product: 'own' })
  const { foreign } = opensslCsr(P256, `/CN=${serialNumber}`)
  const answer = await register({ serialNumber, certificatePem: foreign })
  t.equal(answer.statusCode, 201, answer.body)
  t.match(answer.json(), { certificateMode: 'SNI_ONLY', caCertificateId: undefined })
  t.match(await status(answer.json().certificateId as string), { status: 'ACTIVE', certificateMode: 'SNI_ONLY' })

  const other = await service.register()
  isProblem(t, await register({ serialNumber: other.serialNumber, certificatePem: opensslCsr(P256, `/CN=${other.serialNumber}`).foreign }), 'certificate-not-trusted', { reason: 'self-signed-not-allowed-by-product' })
  const nameless = await service.register({ product: 'own' })
  isProblem(t, await register({ serialNumber: nameless.serialNumber, certificatePem: opensslCsr(P256, '/O=test').foreign }), 'certificate-rejected', { reason: 'serial-number-required-by-product' })
  const unit = await service.register({ product: 'unit' })
  isProblem(t, await register({ serialNumber: unit.serialNumber, certificatePem: opensslCsr(P256, '/OU=another').foreign }), 'certificate-rejected', { reason: 'subject-other-device', detail: /OrganizationalUnit/ })
  t.match(await register({ serialNumber: unit.serialNumber, certificatePem: opensslCsr(P256, `/CN=Meter/OU=${unit.serialNumber}`).foreign }), { statusCode: 201 })
})

await t.test('what is refused says why, and leaves nothing behind', async t => {
  const { serialNumber, leaf } = await brought()
  const rsa = await brought('rsa')
  const stranger = new CustomerCa('/CN=Nobody')
  const [limited, sleeping, listed] = [new CustomerCa('/CN=Limited'), new CustomerCa('/CN=Sleeping'), new CustomerCa('/CN=Listed')]
  await authority(limited, { products: ['own'] })
  await authority(sleeping, { status: 'INACTIVE' })
  await authority(listed, { whenCrlUnavailable: 'refuse' })
  type Expected = Parameters<typeof isProblem>
  const refused = async (certificatePem: string, code: Expected[2], expect: Expected[3] = {}, of = serialNumber) =>
    isProblem(t, await register({ serialNumber: of, certificatePem }), code, expect)
  await refused('x', 'certificate-rejected', { reason: 'pem-not-one-block' })
  await refused(leaf.key, 'certificate-rejected', { reason: 'pem-wrong-label' })
  await refused(ca.cert, 'certificate-not-trusted', { reason: 'leaf-not-for-clients' })
  await refused(stranger.sign(`/CN=${serialNumber}`).cert, 'certificate-not-trusted', { reason: 'authority-unknown' })
  await refused(limited.sign(`/CN=${serialNumber}`).cert, 'authority-not-for-product')
  await refused(sleeping.sign(`/CN=${serialNumber}`).cert, 'authority-not-active')
  await refused(listed.sign(`/CN=${serialNumber}`).cert, 'crl-unavailable')
  await refused(rsa.leaf.cert, 'certificate-rejected', { reason: 'key-type-not-allowed-by-product' }, rsa.serialNumber)
  await refused(ca.sign('/CN=nobody').cert, 'device-not-found', {}, 'nobody')
  t.match((await ask(service, 'GET', `/v1/devices/${serialNumber}`)).json(), { state: 'REGISTERED' })
  isProblem(t, await ask(service, 'POST', URL, { serialNumber, certificatePem: leaf.cert }, { as: 'auditor' }), 'forbidden')

  const other = await brought()
  t.match(await register({ serialNumber, certificatePem: leaf.cert }), { statusCode: 201 })
  isProblem(t, await register({ serialNumber, certificatePem: ca.sign(`/CN=${serialNumber}`).cert }), 'already-vended')
  await service.iot.send(new RegisterCertificateWithoutCACommand({ certificatePem: other.leaf.cert, status: 'REVOKED' }))
  isProblem(t, await register({ serialNumber: other.serialNumber, certificatePem: other.leaf.cert }), 'certificate-revoked')
  t.ok(await total(service, 'cvm_adoptions_total', { way: 'registered', outcome: 'refused' }) >= 9)
  t.ok(await total(service, 'cvm_adoptions_total', { way: 'registered', outcome: 'adopted' }) >= 1)
})

await t.test('one that a reset has ended does not come back, and another one takes its place', async (t: Test) => {
  const { serialNumber, leaf } = await brought()
  await register({ serialNumber, certificatePem: leaf.cert })
  await ask(service, 'POST', `/v1/devices/${serialNumber}/reset`, { reason: 'test' })
  await ask(service, 'POST', '/v1/reconcile', {})
  const next = ca.sign(`/CN=${serialNumber}`)
  t.match(await register({ serialNumber, certificatePem: next.cert }), { statusCode: 201 })
  t.match([await status(leaf.id), await status(next.id)], [{ status: 'REVOKED' }, { status: 'ACTIVE' }])
})
