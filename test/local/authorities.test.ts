import { X509Certificate } from 'node:crypto'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import * as aws from '@aws-sdk/client-iot'
import t, { type Test } from 'tap'
import { Authorities } from '../../src/local/authorities.ts'
import { factsOf } from '../../src/local/x509.ts'
import { rsa, selfSigned, type Made } from './maker.ts'
import { openssl, P256, opensslCsr, startRig } from './rig.ts'

const { iot, close } = await startRig()
t.teardown(close)

const I = 'InvalidRequestException'
const V = 'CertificateValidationException'
const NOBODY = 'f'.repeat(64)
const code = async (): Promise<string> => (await iot.send(new aws.GetRegistrationCodeCommand({}))).registrationCode ?? ''
const refused = async (t: Test, call: Promise<unknown>, name: string, status: number, message: RegExp): Promise<void> => {
  await t.rejects(call, { name, message, $metadata: { httpStatusCode: status } })
}
/** Registers a CA the honest way. */
const enrol = async (ca: Made, options: Partial<aws.RegisterCACertificateRequest> = {}) => {
  const verificationCertificate = (await ca.sign({ name: `CN=${await code()}` })).pem
  return await iot.send(new aws.RegisterCACertificateCommand({ caCertificate: ca.pem, verificationCertificate, ...options }))
}

await t.test('the registration code is stable, until it is deleted', async t => {
  await refused(t, iot.send(new aws.DeleteRegistrationCodeCommand({})), 'ResourceNotFoundException', 404, /registration code/)
  const first = await code()
  t.match(first, /^[0-9a-f]{64}$/)
  t.equal(await code(), first)
  await iot.send(new aws.DeleteRegistrationCodeCommand({}))
  t.not(await code(), first)
})

await t.test('the commands of the AWS guides, with openssl', async t => {
  const dir = mkdtempSync(path.join(tmpdir(), 'ca-'))
  t.teardown(() => { rmSync(dir, { recursive: true }) })
  const ssl = (...args: string[]): string => openssl(args, { cwd: dir })
  const pem = (name: string): string => readFileSync(path.join(dir, name), 'utf8')
  ssl('req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-keyout', 'ca.key', '-out', 'ca.pem', '-days', '30', '-subj', '/CN=Line CA')
  ssl('req', '-new', '-newkey', 'rsa:2048', '-nodes', '-keyout', 'v.key', '-out', 'v.csr', '-subj', `/CN=${await code()}`)
  ssl('x509', '-req', '-in', 'v.csr', '-CA', 'ca.pem', '-CAkey', 'ca.key', '-CAcreateserial', '-out', 'v.pem', '-days', '5', '-sha256')
  ssl('req', '-new', '-newkey', ...P256, '-nodes', '-keyout', 'd.key', '-out', 'd.csr', '-subj', '/CN=dev-9')
  ssl('x509', '-req', '-in', 'd.csr', '-CA', 'ca.pem', '-CAkey', 'ca.key', '-CAcreateserial', '-out', 'd.pem', '-days', '5', '-sha256')

  const { certificateId = '', certificateArn } = await iot.send(new aws.RegisterCACertificateCommand({
    caCertificate: pem('ca.pem'), verificationCertificate: pem('v.pem')
  }))
  t.equal(certificateArn, `arn:aws:iot:us-east-1:000000000000:cacert/${certificateId}`)
  t.equal(certificateId, ssl('x509', '-in', 'ca.pem', '-noout', '-fingerprint', '-sha256').replace(/^.*=|[:\n]/g, '').toLowerCase())
  const told = async () => (await iot.send(new aws.DescribeCACertificateCommand({ certificateId }))).certificateDescription
  t.match(await told(), { status: 'INACTIVE', autoRegistrationStatus: 'DISABLE', certificateMode: 'DEFAULT', customerVersion: 1, ownedBy: '000000000000', certificatePem: pem('ca.pem') })

  const register = async (status?: aws.CertificateStatus) => await iot.send(new aws.RegisterCertificateCommand({ certificatePem: pem('d.pem'), status }))
  await refused(t, register(), 'CertificateStateException', 406, new RegExp(certificateId))
  await iot.send(new aws.UpdateCACertificateCommand({ certificateId, newStatus: 'ACTIVE', newAutoRegistrationStatus: 'ENABLE' }))
  t.match(await told(), { status: 'ACTIVE', autoRegistrationStatus: 'ENABLE', customerVersion: 2 })
  await refused(t, register('PENDING_ACTIVATION'), 'CertificateStateException', 406, /^Not allowed to register certificate with PENDING_ACTIVATION status$/)
  const device = await register('ACTIVE')
  await refused(t, register(), 'ResourceAlreadyExistsException', 409, /already/)
  t.match((await iot.send(new aws.DescribeCertificateCommand({ certificateId: device.certificateId }))).certificateDescription, {
    status: 'ACTIVE', caCertificateId: certificateId, certificateMode: 'DEFAULT', certificatePem: pem('d.pem')
  })
  const { certificates } = await iot.send(new aws.ListCertificatesByCACommand({ caCertificateId: certificateId }))
  t.same(certificates?.map(({ certificateId }) => certificateId), [device.certificateId])

  await refused(t, iot.send(new aws.DeleteCACertificateCommand({ certificateId })), 'CertificateStateException', 406, /deactivated/)
  await iot.send(new aws.UpdateCACertificateCommand({ certificateId, newStatus: 'INACTIVE' }))
  await iot.send(new aws.DeleteCACertificateCommand({ certificateId }))
  await t.rejects(told(), { name: 'ResourceNotFoundException' })
  t.match((await iot.send(new aws.DescribeCertificateCommand({ certificateId: device.certificateId }))).certificateDescription, { status: 'ACTIVE' })
})

await t.test('a CA is registered only with proof, and only a CA', async t => {
  const ca = await selfSigned({ name: 'CN=Proof' })
  const other = await selfSigned({ name: 'CN=Proof' })
  const proof = (await ca.sign({ name: `CN=${await code()}` })).pem
  const register = async (input: Partial<aws.RegisterCACertificateRequest>) =>
    await iot.send(new aws.RegisterCACertificateCommand({ caCertificate: ca.pem, verificationCertificate: proof, ...input }))
  const C = 'RegistrationCodeValidationException'
  const weak = await selfSigned({ name: 'CN=Weak', algorithm: rsa(1024, 'SHA-256') })
  const old = await selfSigned({ name: 'CN=Old', algorithm: rsa(2048, 'SHA-1') })
  const leaf = await selfSigned({ name: 'CN=Leaf', ca: false })
  const cases: Array<[Partial<aws.RegisterCACertificateRequest>, string, RegExp]> = [
    [{ caCertificate: undefined }, I, /'caCertificate' .* not be null/],
    [{ caCertificate: '' }, I, /'caCertificate' .* equal to 1/],
    [{ caCertificate: 'x'.repeat(65537) }, I, /65536/],
    [{ caCertificate: 'no PEM' }, V, /CA certificate is not one PEM/],
    [{ caCertificate: '-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----' }, V, /not a PEM certificate/],
    [{ caCertificate: ca.pem + other.pem }, V, /not one PEM certificate/],
    [{ caCertificate: opensslCsr(P256).csr }, V, /not a PEM certificate/],
    [{ caCertificate: leaf.pem }, V, /basic constraints/],
    [{ caCertificate: (await selfSigned({ from: -2, to: -1 })).pem }, V, /expired/],
    [{ caCertificate: (await selfSigned({ from: 1, to: 2 })).pem }, V, /not valid yet/],
    [{ caCertificate: weak.pem }, V, /2048/],
    [{ caCertificate: old.pem }, V, /signature algorithm/],
    [{ verificationCertificate: undefined }, I, /verificationCertificate is required/],
    [{ verificationCertificate: 'no PEM' }, V, /verification certificate is not/],
    [{ verificationCertificate: (await other.sign({ name: `CN=${await code()}` })).pem }, V, /not signed by the CA/],
    [{ verificationCertificate: (await ca.sign({ name: `CN=${await code()}`, from: -2, to: -1 })).pem }, V, /verification certificate has expired/],
    [{ verificationCertificate: (await ca.sign({ name: `CN=${NOBODY}` })).pem }, C, /registration code/],
    [{ verificationCertificate: (await ca.sign({ name: `OU=${await code()}` })).pem }, C, /registration code/],
    [{ verificationCertificate: ca.pem }, C, /registration code/],
    [{ certificateMode: 'SNI_ONLY' }, I, /must be empty/],
    [{ certificateMode: 'ANY' as 'DEFAULT' }, I, /enum value set/],
    [{ registrationConfig: { roleArn: 'short' } }, I, /registrationConfig.roleArn/],
    [{ tags: [{ Key: '', Value: 'x' }] }, I, /tags\.1\.member\.key/]
  ]
  for (const [input, name, message] of cases) await refused(t, register(input), name, 400, message)
  t.equal((await iot.send(new aws.ListCACertificatesCommand({}))).certificates?.length, 0, 'nothing was registered')

  const { certificateId, certificateArn } = await register({ setAsActive: true, allowAutoRegistration: true, tags: [{ Key: 'line', Value: '1' }], registrationConfig: { templateName: 'jitp' } })
  t.match(await iot.send(new aws.DescribeCACertificateCommand({ certificateId })), {
    certificateDescription: { status: 'ACTIVE', autoRegistrationStatus: 'ENABLE' }, registrationConfig: { templateName: 'jitp' }
  })
  t.same((await iot.send(new aws.ListTagsForResourceCommand({ resourceArn: certificateArn }))).tags, [{ Key: 'line', Value: '1' }])
  await t.rejects(register({}), { name: 'ResourceAlreadyExistsException', resourceArn: certificateArn, resourceId: certificateId })
  await iot.send(new aws.UpdateCACertificateCommand({ certificateId, removeAutoRegistration: true }))
  const after = await iot.send(new aws.DescribeCACertificateCommand({ certificateId }))
  t.match(after.certificateDescription, { status: 'ACTIVE', autoRegistrationStatus: 'DISABLE', customerVersion: 2 })
  t.equal(after.registrationConfig, undefined)
  await iot.send(new aws.UpdateCACertificateCommand({ certificateId, newStatus: 'ACTIVE' }))
  t.match((await iot.send(new aws.DescribeCACertificateCommand({ certificateId }))).certificateDescription, { customerVersion: 2 }, 'no change, no version')
})

await t.test('calls on CAs and the errors they meet', async t => {
  const cases: Array<[() => Promise<unknown>, string, number, RegExp]> = [
    [() => iot.send(new aws.DescribeCACertificateCommand({ certificateId: 'ff' })), I, 400, /'caCertificateId' .* equal to 64/],
    [() => iot.send(new aws.DescribeCACertificateCommand({ certificateId: NOBODY })), 'ResourceNotFoundException', 404, /f{64}/],
    [() => iot.send(new aws.UpdateCACertificateCommand({ certificateId: NOBODY, newStatus: 'ACTIVE' })), 'ResourceNotFoundException', 404, /f{64}/],
    [() => iot.send(new aws.UpdateCACertificateCommand({ certificateId: NOBODY, newStatus: 'REVOKED' as 'ACTIVE' })), I, 400, /'newStatus' .* enum/],
    [() => iot.send(new aws.UpdateCACertificateCommand({ certificateId: NOBODY, newAutoRegistrationStatus: 'ON' as 'ENABLE' })), I, 400, /enum/],
    [() => iot.send(new aws.UpdateCACertificateCommand({ certificateId: NOBODY, removeAutoRegistration: true, registrationConfig: {} })), I, 400, /registrationConfig/],
    [() => iot.send(new aws.DeleteCACertificateCommand({ certificateId: NOBODY })), 'ResourceNotFoundException', 404, /f{64}/],
    [() => iot.send(new aws.ListCACertificatesCommand({ pageSize: 251 })), I, 400, /250/],
    [() => iot.send(new aws.ListCACertificatesCommand({ templateName: 'a b' })), I, 400, /templateName/],
    [() => iot.send(new aws.ListCertificatesByCACommand({ caCertificateId: 'x' })), I, 400, /caCertificateId/]
  ]
  for (const [call, name, status, message] of cases) await refused(t, call(), name, status, message)
  t.same((await iot.send(new aws.ListCertificatesByCACommand({ caCertificateId: NOBODY }))).certificates, [])
})

await t.test('device certificates: the issuer is found by name and proven by signature', async t => {
  const one = await selfSigned({ name: 'CN=Twin' })
  const two = await selfSigned({ name: 'CN=Twin' })
  const stranger = await selfSigned({ name: 'CN=Stranger' })
  const register = async (input: Partial<aws.RegisterCertificateRequest>) =>
    await iot.send(new aws.RegisterCertificateCommand({ certificatePem: undefined, ...input }))
  await enrol(one, { setAsActive: true })
  await refused(t, register({ certificatePem: (await two.sign()).pem }), V, 400, /not signed by/)
  await refused(t, register({ certificatePem: (await stranger.sign()).pem }), V, 400, /not registered/)
  await refused(t, register({ certificatePem: (await stranger.sign()).pem, caCertificatePem: stranger.pem }), V, 400, /not registered/)
  const first = await one.sign()
  t.match(await register({ certificatePem: first.pem, setAsActive: true }), { certificateId: first.id })
  t.match((await iot.send(new aws.DescribeCertificateCommand({ certificateId: first.id }))).certificateDescription, { status: 'ACTIVE', caCertificateId: one.id })

  await enrol(two, { setAsActive: true })
  const second = await two.sign()
  await refused(t, register({ certificatePem: second.pem }), 'CertificateConflictException', 409, /caCertificatePem/)
  await refused(t, register({ certificatePem: second.pem, caCertificatePem: one.pem }), V, 400, /not signed by/)
  await register({ certificatePem: second.pem, caCertificatePem: two.pem, status: 'REVOKED' })
  t.match((await iot.send(new aws.DescribeCertificateCommand({ certificateId: second.id }))).certificateDescription, { status: 'REVOKED', caCertificateId: two.id })
  await refused(t, iot.send(new aws.UpdateCertificateCommand({ certificateId: second.id, newStatus: 'ACTIVE' })), 'CertificateStateException', 406, /REVOKED/)

  const cases: Array<[Partial<aws.RegisterCertificateRequest>, string, number, RegExp]> = [
    [{}, I, 400, /'certificatePem' .* not be null/],
    [{ certificatePem: '' }, I, 400, /equal to 1/],
    [{ certificatePem: 'x' }, V, 400, /not one PEM/],
    [{ certificatePem: first.pem, status: 'active' as 'ACTIVE' }, I, 400, /enum/],
    [{ certificatePem: first.pem, status: 'PENDING_TRANSFER' }, 'CertificateStateException', 406, /PENDING_TRANSFER/],
    [{ certificatePem: first.pem, status: 'REGISTER_INACTIVE' }, 'CertificateStateException', 406, /REGISTER_INACTIVE/],
    [{ certificatePem: (await one.sign({ from: -2, to: -1 })).pem, caCertificatePem: one.pem }, V, 400, /expired/],
    [{ certificatePem: (await one.sign({ algorithm: rsa(1024, 'SHA-256') })).pem, caCertificatePem: one.pem }, V, 400, /2048/]
  ]
  for (const [input, name, status, message] of cases) await refused(t, register(input), name, status, message)
})

await t.test('SNI_ONLY: a CA without proof, and its certificates', async t => {
  const ca = await selfSigned({ name: 'CN=Sni' })
  await iot.send(new aws.RegisterCACertificateCommand({ caCertificate: ca.pem, certificateMode: 'SNI_ONLY', setAsActive: true }))
  const device = await ca.sign()
  await iot.send(new aws.RegisterCertificateCommand({ certificatePem: device.pem }))
  t.match((await iot.send(new aws.DescribeCertificateCommand({ certificateId: device.id }))).certificateDescription, { certificateMode: 'SNI_ONLY', status: 'INACTIVE', caCertificateId: ca.id })
  const alone = opensslCsr(P256).foreign
  const register = async (input: Partial<aws.RegisterCertificateWithoutCARequest>) =>
    await iot.send(new aws.RegisterCertificateWithoutCACommand({ certificatePem: alone, ...input }))
  await refused(t, register({ status: 'PENDING_ACTIVATION' }), 'CertificateStateException', 406, /PENDING_ACTIVATION/)
  const { certificateId } = await register({ status: 'ACTIVE' })
  const { certificateDescription } = await iot.send(new aws.DescribeCertificateCommand({ certificateId }))
  t.match(certificateDescription, { certificateMode: 'SNI_ONLY', status: 'ACTIVE', certificatePem: alone })
  t.equal(certificateDescription?.caCertificateId, undefined)
  await refused(t, register({}), 'ResourceAlreadyExistsException', 409, /already/)
})

await t.test('ten CAs of one subject, listed in pages', async t => {
  const ids: string[] = []
  for (let n = 0; n < 10; n++) {
    const ca = await selfSigned({ name: 'CN=Crowd' })
    ids.push((await enrol(ca, n < 2 ? { registrationConfig: { templateName: 'crowd' } } : {})).certificateId ?? '')
  }
  await refused(t, enrol(await selfSigned({ name: 'CN=Crowd' })), 'LimitExceededException', 410, /10/)
  const seen: string[] = []
  for await (const { certificates } of aws.paginateListCACertificates({ client: iot, pageSize: 3 }, { ascendingOrder: true })) {
    seen.push(...(certificates ?? []).map(({ certificateId }) => certificateId ?? ''))
  }
  t.same(seen.slice(-10), ids)
  const templated = await iot.send(new aws.ListCACertificatesCommand({ templateName: 'crowd' }))
  t.same(templated.certificates?.map(({ certificateId }) => certificateId), ids.slice(0, 2).reverse())
})

await t.test('issuersOf: by signature, never by name alone', async t => {
  const authorities = new Authorities('arn:aws:iot:us-east-1:000000000000')
  const add = ({ pem }: Made): string => {
    const { id } = authorities.add({ ...factsOf(new X509Certificate(pem)), mode: 'DEFAULT', status: 'INACTIVE', autoRegistration: 'DISABLE' })
    return id
  }
  const ca = await selfSigned({ name: 'CN=Same' })
  const issuers = ({ pem }: Made): string[] => authorities.issuersOf(new X509Certificate(pem)).map(({ id }) => id)
  const ids = [add(ca), add(await ca.again())]
  const namesake = await selfSigned({ name: 'CN=Same' })
  t.same(issuers(await ca.sign()), ids, 'a CA certificate made anew with its key counts too')
  t.same(issuers(await namesake.sign()), [])
  t.same(issuers(await (await selfSigned({ name: 'CN=Other' })).sign()), [])
})
