import * as aws from '@aws-sdk/client-iot'
import t, { type Test } from 'tap'
import { opensslCsr, P256, startRig } from './rig.ts'

const { local, iot, close } = await startRig()
t.teardown(close)

const { csr } = opensslCsr(P256)
const NOBODY = 'f'.repeat(64)
const arn = (id: string): string => `arn:aws:iot:us-east-1:000000000000:cert/${id}`
const make = async (setAsActive = false) => {
  const { certificateId = '', certificateArn = '' } =
    await iot.send(new aws.CreateCertificateFromCsrCommand({ certificateSigningRequest: csr, setAsActive }))
  return { certificateId, certificateArn }
}
const status = async (certificateId: string): Promise<string | undefined> =>
  (await iot.send(new aws.DescribeCertificateCommand({ certificateId }))).certificateDescription?.status
const set = async (certificateId: string, newStatus: aws.CertificateStatus) =>
  await iot.send(new aws.UpdateCertificateCommand({ certificateId, newStatus }))
const refused = async (t: Test, call: Promise<unknown>, name: string, code: number, message: RegExp | string): Promise<void> => {
  await t.rejects(call, { name, message, $metadata: { httpStatusCode: code } })
}

await t.test('calls and the errors they meet', async t => {
  const { certificateId, certificateArn } = await make()
  await iot.send(new aws.CreateThingCommand({ thingName: 'here' }))
  const policyDocument = '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iot:Connect","Resource":"*"}]}'
  await iot.send(new aws.CreatePolicyCommand({ policyName: 'here', policyDocument }))
  const big = '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iot:Connect","Resource":"' + 'x'.repeat(2048) + '"}]}'
  const I = 'InvalidRequestException'
  const N = 'ResourceNotFoundException'
  const cases: Array<[() => Promise<unknown>, string, number, RegExp]> = [
    [() => iot.send(new aws.CreateThingCommand({ thingName: '' })), I, 400, /'thingName' .* greater than or equal to 1/],
    [() => iot.send(new aws.CreateThingCommand({ thingName: 'a b' })), I, 400, /'thingName' .* regular expression pattern: \[a-zA-Z0-9:_-\]\+/],
    [() => iot.send(new aws.CreateThingCommand({ thingName: 'a/b' })), I, 400, /pattern/],
    [() => iot.send(new aws.CreateThingCommand({ thingName: 'x'.repeat(129) })), I, 400, /less than or equal to 128/],
    [() => iot.send(new aws.CreateThingCommand({ thingName: 'here', attributePayload: { attributes: { a: 'b' } } })), 'ResourceAlreadyExistsException', 409, /here already exists/],
    [() => iot.send(new aws.CreateThingCommand({ thingName: 't', attributePayload: { attributes: { a: 'b c' } } })), I, 400, /attributes/],
    [() => iot.send(new aws.CreateThingCommand({ thingName: 't', attributePayload: { attributes: { 'a b': 'c' } } })), I, 400, /attributes/],
    [() => iot.send(new aws.CreateThingCommand({ thingName: 't', attributePayload: { attributes: { a: '1', b: '1', c: '1', d: '1' } } })), I, 400, /more than 3/],
    [() => iot.send(new aws.CreateThingCommand({ thingName: 't', thingTypeName: 'none' })), N, 404, /Thing type none/],
    [() => iot.send(new aws.DescribeThingCommand({ thingName: 't' })), N, 404, /Thing t not found/],
    [() => iot.send(new aws.CreateCertificateFromCsrCommand({ certificateSigningRequest: '' })), I, 400, /certificateSigningRequest/],
    [() => iot.send(new aws.CreateCertificateFromCsrCommand({ certificateSigningRequest: undefined })), I, 400, /must not be null/],
    [() => iot.send(new aws.CreateCertificateFromCsrCommand({ certificateSigningRequest: 'x'.repeat(4097) })), I, 400, /4096/],
    [() => iot.send(new aws.CreateCertificateFromCsrCommand({ certificateSigningRequest: 'no' })), I, 400, /PEM/],
    [() => iot.send(new aws.DescribeCertificateCommand({ certificateId: 'ff' })), I, 400, /'certificateId' .* equal to 64/],
    [() => iot.send(new aws.DescribeCertificateCommand({ certificateId: 'z'.repeat(64) })), I, 400, /pattern/],
    [() => iot.send(new aws.DescribeCertificateCommand({ certificateId: NOBODY })), N, 404, /f{64}/],
    [() => iot.send(new aws.UpdateCertificateCommand({ certificateId: NOBODY, newStatus: 'ACTIVE' })), N, 404, /f{64}/],
    [() => iot.send(new aws.UpdateCertificateCommand({ certificateId, newStatus: 'active' as 'ACTIVE' })), I, 400, /enum value set/],
    [() => iot.send(new aws.UpdateCertificateCommand({ certificateId, newStatus: undefined })), I, 400, /'newStatus' .* not be null/],
    [() => iot.send(new aws.DeleteCertificateCommand({ certificateId: NOBODY })), N, 404, /f{64}/],
    [() => iot.send(new aws.ListCertificatesCommand({ pageSize: 0 })), I, 400, /'pageSize'/],
    [() => iot.send(new aws.ListCertificatesCommand({ pageSize: 251 })), I, 400, /less than or equal to 250/],
    [() => iot.send(new aws.ListCertificatesCommand({ marker: 'not!base64' })), I, 400, /'marker'/],
    [() => iot.send(new aws.ListCertificatesCommand({ marker: 'A' })), I, 400, /marker/],
    [() => iot.send(new aws.CreatePolicyCommand({ policyName: 'a b', policyDocument })), I, 400, /policyName/],
    [() => iot.send(new aws.CreatePolicyCommand({ policyName: 'here', policyDocument })), 'ResourceAlreadyExistsException', 409, /name=here/],
    [() => iot.send(new aws.CreatePolicyCommand({ policyName: 'p', policyDocument: '{' })), 'MalformedPolicyException', 400, /JSON/],
    [() => iot.send(new aws.CreatePolicyCommand({ policyName: 'p', policyDocument: big })), 'MalformedPolicyException', 400, /2048/],
    [() => iot.send(new aws.CreatePolicyCommand({ policyName: 'p', policyDocument: undefined })), I, 400, /policyDocument/],
    [() => iot.send(new aws.GetPolicyCommand({ policyName: 'p' })), N, 404, /name=p/],
    [() => iot.send(new aws.AttachPolicyCommand({ policyName: 'p', target: certificateArn })), N, 404, /name=p/],
    [() => iot.send(new aws.AttachPolicyCommand({ policyName: 'here', target: arn(NOBODY) })), N, 404, /f{64}/],
    [() => iot.send(new aws.AttachPolicyCommand({ policyName: 'here', target: certificateArn.replace('us-east-1', 'eu-west-1') })), N, 404, /eu-west-1/],
    [() => iot.send(new aws.AttachPolicyCommand({ policyName: 'here', target: certificateId })), I, 400, /ARN/],
    [() => iot.send(new aws.AttachPolicyCommand({ policyName: 'here', target: undefined })), I, 400, /'target'/],
    [() => iot.send(new aws.ListAttachedPoliciesCommand({ target: arn(NOBODY) })), N, 404, /f{64}/],
    [() => iot.send(new aws.AttachThingPrincipalCommand({ thingName: 'gone', principal: certificateArn })), N, 404, /gone/],
    [() => iot.send(new aws.AttachThingPrincipalCommand({ thingName: 'here', principal: arn(NOBODY) })), N, 404, /f{64}/],
    [() => iot.send(new aws.AttachThingPrincipalCommand({ thingName: 'here', principal: 'me' })), I, 400, /ARN/],
    [() => iot.send(new aws.AttachThingPrincipalCommand({ thingName: 'here', principal: certificateArn, thingPrincipalType: 'ALL' as 'EXCLUSIVE_THING' })), I, 400, /enum/],
    [() => iot.send(new aws.DetachThingPrincipalCommand({ thingName: 'gone', principal: certificateArn })), N, 404, /gone/],
    [() => iot.send(new aws.ListThingPrincipalsCommand({ thingName: 'gone' })), N, 404, /gone/],
    [() => iot.send(new aws.ListPrincipalThingsCommand({ principal: arn(NOBODY) })), N, 404, /f{64}/],
    [() => iot.send(new aws.DescribeEndpointCommand({ endpointType: 'iot:Data' })), I, 400, /iot:Data-ATS/],
    [() => iot.send(new aws.DescribeEndpointCommand({ endpointType: 'iot:Jobs' })), I, 400, /iot:Data-ATS/],
    [() => iot.send(new aws.DescribeEndpointCommand({ endpointType: 'mqtt' })), I, 400, /enum/],
    [() => iot.send(new aws.ListBillingGroupsCommand({})), 'UnknownOperationException', 404, /GET \/billing-groups$/]
  ]
  for (const [call, name, code, message] of cases) await refused(t, call(), name, code, message)
})

await t.test('status: every transition', async t => {
  type Status = aws.CertificateStatus
  const reach: Record<string, Status[]> = { INACTIVE: [], ACTIVE: ['ACTIVE'], REVOKED: ['REVOKED'] }
  for (const [from, path] of Object.entries(reach)) {
    for (const to of ['ACTIVE', 'INACTIVE', 'REVOKED', 'PENDING_TRANSFER', 'PENDING_ACTIVATION', 'REGISTER_INACTIVE'] satisfies Status[]) {
      const { certificateId } = await make()
      for (const step of path) await set(certificateId, step)
      const allowed = from === to || (from !== 'REVOKED' && ['ACTIVE', 'INACTIVE', 'REVOKED'].includes(to))
      if (allowed) await set(certificateId, to)
      else await refused(t, set(certificateId, to), 'CertificateStateException', 406, certificateId)
      t.equal(await status(certificateId), allowed ? to : from, `${from} -> ${to}`)
    }
  }
})

await t.test('delete: every precondition', async t => {
  const { certificateId, certificateArn } = await make(true)
  const remove = async (forceDelete?: boolean) => await iot.send(new aws.DeleteCertificateCommand({ certificateId, forceDelete }))
  await iot.send(new aws.CreateThingCommand({ thingName: 'owner' }))
  await iot.send(new aws.AttachThingPrincipalCommand({ thingName: 'owner', principal: certificateArn }))
  await iot.send(new aws.AttachPolicyCommand({ policyName: 'device-policy', target: certificateArn }))
  for (const force of [false, true]) {
    await refused(t, remove(force), 'CertificateStateException', 406, `Certificate must be deactivated (not ACTIVE) before deletion. Id: ${certificateId}`)
  }
  await set(certificateId, 'INACTIVE')
  for (const force of [false, true]) {
    await refused(t, remove(force), 'DeleteConflictException', 409, `Things must be detached before deletion (arn: ${certificateArn})`)
  }
  await iot.send(new aws.DetachThingPrincipalCommand({ thingName: 'owner', principal: certificateArn }))
  await refused(t, remove(), 'DeleteConflictException', 409, `Certificate policies must be detached before deletion (arn: ${certificateArn})`)
  await remove(true)
  await refused(t, remove(), 'ResourceNotFoundException', 404, certificateId)

  const other = await make()
  await set(other.certificateId, 'REVOKED')
  await iot.send(new aws.DeleteCertificateCommand({ certificateId: other.certificateId }))
  await t.rejects(status(other.certificateId), { name: 'ResourceNotFoundException' }, 'a REVOKED certificate can be deleted')
})

await t.test('certificates are described as they are', async t => {
  const before = Date.now()
  const made = await iot.send(new aws.CreateKeysAndCertificateCommand({ setAsActive: true }))
  t.match(made.keyPair, { PublicKey: /BEGIN PUBLIC KEY/, PrivateKey: /BEGIN RSA PRIVATE KEY/ })
  const { certificateDescription: told } = await iot.send(new aws.DescribeCertificateCommand({ certificateId: made.certificateId }))
  t.match(told, {
    certificateId: made.certificateId,
    certificateArn: arn(made.certificateId ?? ''),
    certificatePem: made.certificatePem,
    status: 'ACTIVE',
    ownedBy: '000000000000',
    customerVersion: 1,
    certificateMode: 'DEFAULT'
  })
  t.equal(told?.validity?.notAfter?.toISOString(), '2049-12-31T23:59:59.000Z')
  t.ok(Math.abs((told?.creationDate?.getTime() ?? 0) - before) < 60_000, 'dates are epoch seconds')
  t.notOk(JSON.stringify(told).includes('PRIVATE'), 'the key is in the first answer only')
})

await t.test('lists come in pages', async t => {
  const made = []
  for (let n = 0; n < 5; n++) made.push((await make()).certificateId)
  const walk = async (isAscendingOrder: boolean): Promise<string[]> => {
    const seen: string[] = []
    for await (const { certificates } of aws.paginateListCertificates({ client: iot, pageSize: 2 }, { ascendingOrder: isAscendingOrder })) {
      t.ok((certificates?.length ?? 0) <= 2)
      seen.push(...(certificates ?? []).map(({ certificateId }) => certificateId ?? ''))
    }
    return seen
  }
  const up = await walk(true)
  t.same(up.slice(-5), made, 'oldest first')
  t.same(await walk(false), up.toReversed(), 'newest first')
  t.equal(new Set(up).size, up.length)
  t.equal((await iot.send(new aws.ListCertificatesCommand({}))).certificates?.length, 25, 'the default page has 25')

  const { nextMarker } = await iot.send(new aws.ListCertificatesCommand({ pageSize: 2 }))
  await iot.send(new aws.DeleteCertificateCommand({ certificateId: made[3] }))
  const after = await iot.send(new aws.ListCertificatesCommand({ pageSize: 2, marker: nextMarker }))
  t.same(after.certificates?.map(({ certificateId }) => certificateId), [made[2], made[1]], 'a marker survives the deletion of what it points at')
})

await t.test('things and policies of a certificate', async t => {
  const { certificateId, certificateArn } = await make()
  const attach = async (thingName: string, thingPrincipalType?: aws.ThingPrincipalType) =>
    await iot.send(new aws.AttachThingPrincipalCommand({ thingName, principal: certificateArn, thingPrincipalType }))
  for (const thingName of ['one', 'two']) {
    const first = await iot.send(new aws.CreateThingCommand({ thingName, attributePayload: { attributes: { a: 'b' } } }))
    t.equal((await iot.send(new aws.CreateThingCommand({ thingName, attributePayload: { attributes: { a: 'b' } } }))).thingId, first.thingId, 'the same thing again is a success')
  }
  t.match(await iot.send(new aws.DescribeThingCommand({ thingName: 'one' })), { thingName: 'one', attributes: { a: 'b' }, version: 1, defaultClientId: 'one' })
  for (let twice = 0; twice < 2; twice++) await attach('one', 'EXCLUSIVE_THING')
  await refused(t, attach('two'), 'InvalidRequestException', 400, /exclusively/)
  await refused(t, attach('one', 'NON_EXCLUSIVE_THING'), 'InvalidRequestException', 400, /already/)
  t.same((await iot.send(new aws.ListThingPrincipalsCommand({ thingName: 'one' }))).principals, [certificateArn])
  t.same((await iot.send(new aws.ListPrincipalThingsCommand({ principal: certificateArn }))).things, ['one'])
  for (let twice = 0; twice < 2; twice++) await iot.send(new aws.DetachThingPrincipalCommand({ thingName: 'one', principal: certificateArn }))
  t.same((await iot.send(new aws.ListThingPrincipalsCommand({ thingName: 'one' }))).principals, [])
  await attach('one')
  await attach('two')
  t.same((await iot.send(new aws.ListPrincipalThingsCommand({ principal: certificateArn }))).things, ['one', 'two'])
  await iot.send(new aws.CreateThingCommand({ thingName: 'three' }))
  await refused(t, attach('three', 'EXCLUSIVE_THING'), 'InvalidRequestException', 400, /other things/)

  const policyDocument = '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iot:Connect","Resource":"*"}]}'
  const names = Array.from({ length: 11 }, (_, n) => `limit-${String(n).padStart(2, '0')}`)
  for (const policyName of names) await iot.send(new aws.CreatePolicyCommand({ policyName, policyDocument }))
  t.equal((await iot.send(new aws.GetPolicyCommand({ policyName: 'limit-00' }))).policyDocument, policyDocument)
  for (const policyName of [...names.slice(0, 10), 'limit-00']) await iot.send(new aws.AttachPolicyCommand({ policyName, target: certificateArn }))
  await refused(t, iot.send(new aws.AttachPolicyCommand({ policyName: 'limit-10', target: certificateArn })), 'LimitExceededException', 410, /10/)
  const attached: string[] = []
  for await (const { policies } of aws.paginateListAttachedPolicies({ client: iot, pageSize: 3 }, { target: certificateArn })) {
    attached.push(...(policies ?? []).map(({ policyName }) => policyName ?? ''))
  }
  t.same(attached, names.slice(0, 10))
  for (let twice = 0; twice < 2; twice++) await iot.send(new aws.DetachPolicyCommand({ policyName: 'limit-00', target: certificateArn }))
  t.equal((await iot.send(new aws.ListAttachedPoliciesCommand({ target: certificateArn }))).policies?.length, 9)
  t.equal(await status(certificateId), 'INACTIVE')
})

await t.test('the device endpoint', async t => {
  const { port } = new URL(local.mqttUrl)
  t.equal((await iot.send(new aws.DescribeEndpointCommand({ endpointType: 'iot:Data-ATS' }))).endpointAddress, `localhost:${port}`)
})

await t.test('what no SDK would send', async t => {
  const signed = (service: string): string =>
    `AWS4-HMAC-SHA256 Credential=AKIA/20261120/us-east-1/${service}/aws4_request, SignedHeaders=host;x-amz-date, Signature=00`
  const cases: Array<[string, string, RequestInit, number, string]> = [
    ['no signature', '/endpoint', {}, 403, 'MissingAuthenticationTokenException'],
    ['no signature at a path that is not there', '/nothing', {}, 403, 'MissingAuthenticationTokenException'],
    ['another scheme', '/endpoint', { headers: { authorization: 'Bearer x' } }, 403, 'MissingAuthenticationTokenException'],
    ['another service', '/endpoint', { headers: { authorization: signed('s3') } }, 403, 'InvalidSignatureException'],
    ['the service that older SDKs sign for', '/policies/none', { headers: { authorization: signed('execute-api') } }, 404, 'ResourceNotFoundException'],
    ['no JSON', '/policies/x', { method: 'POST', body: '{', headers: { authorization: signed('iot') } }, 400, 'SerializationException'],
    ['a list', '/policies/x', { method: 'POST', body: '[]', headers: { authorization: signed('iot') } }, 400, 'SerializationException'],
    ['a number for text', '/policies/x', { method: 'POST', body: '{"policyDocument":1}', headers: { authorization: signed('iot') } }, 400, 'InvalidRequestException'],
    ['an array in the query', '/certificates?marker=a&marker=b', { headers: { authorization: signed('iot') } }, 400, 'InvalidRequestException'],
    ['a broken path', '/things/%zz', { headers: { authorization: signed('iot') } }, 400, 'InvalidRequestException'],
    ['a body too large', '/policies/x', { method: 'POST', body: 'x'.repeat(2_000_000), headers: { authorization: signed('iot') } }, 400, 'InvalidRequestException'],
    ['another method', '/endpoint', { method: 'PATCH', headers: { authorization: signed('iot') } }, 404, 'UnknownOperationException']
  ]
  for (const [name, path, init, code, errorType] of cases) {
    const answer = await fetch(local.iotUrl + path, init)
    t.equal(answer.status, code, name)
    t.equal(answer.headers.get('x-amzn-errortype'), errorType, name)
    t.type((await answer.json() as { message: string }).message, 'string')
  }
})
