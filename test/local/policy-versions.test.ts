import * as aws from '@aws-sdk/client-iot'
import t, { type Test } from 'tap'
import { opensslCsr, P256, startRig } from './rig.ts'

const { iot, close } = await startRig()
t.teardown(close)

const I = 'InvalidRequestException'
const N = 'ResourceNotFoundException'
const D = 'DeleteConflictException'
type Case = [call: () => Promise<unknown>, name: string, status: number, message: RegExp]
const refuse = async (t: Test, cases: Case[]): Promise<void> => {
  for (const [call, name, status, message] of cases) await t.rejects(call(), { name, message, $metadata: { httpStatusCode: status } })
}
const document = (resource = '*'): string => JSON.stringify({ Version: '2012-10-17', Statement: [{ Effect: 'Allow', Action: 'iot:Connect', Resource: resource }] })
const certificate = async (): Promise<string> =>
  (await iot.send(new aws.CreateCertificateFromCsrCommand({ certificateSigningRequest: opensslCsr(P256).csr }))).certificateArn ?? ''

await t.test('versions: five, one of them the default, no id twice', async t => {
  const policyName = 'versioned'
  const add = async (setAsDefault?: boolean, policyDocument = document('two')) => await iot.send(new aws.CreatePolicyVersionCommand({ policyName, policyDocument, setAsDefault }))
  const drop = async (policyVersionId: string) => await iot.send(new aws.DeletePolicyVersionCommand({ policyName, policyVersionId }))
  const versions = async () => ((await iot.send(new aws.ListPolicyVersionsCommand({ policyName }))).policyVersions ?? []).map(({ versionId, isDefaultVersion }) => `${versionId}${isDefaultVersion === true ? '*' : ''}`)
  await iot.send(new aws.CreatePolicyCommand({ policyName, policyDocument: document('one') }))
  t.match(await add(), { policyVersionId: '2', isDefaultVersion: false, policyDocument: document('two') })
  t.match(await iot.send(new aws.GetPolicyCommand({ policyName })), { defaultVersionId: '1', policyDocument: document('one') })
  t.match(await add(true), { policyVersionId: '3', isDefaultVersion: true })
  t.match(await iot.send(new aws.GetPolicyCommand({ policyName })), { defaultVersionId: '3', policyDocument: document('two') })
  await add()
  await add()
  t.same(await versions(), ['5', '4', '3*', '2', '1'])
  await refuse(t, [
    [() => add(), 'VersionsLimitExceededException', 409, /5/],
    [() => drop('3'), D, 409, /default version/],
    [() => drop('9'), N, 404, /version=9/],
    [() => drop('x'), I, 400, /policyVersionId/],
    [() => iot.send(new aws.DeletePolicyCommand({ policyName })), D, 409, /policy versions/]
  ])
  await drop('5')
  t.equal((await add()).policyVersionId, '6')
  await iot.send(new aws.SetDefaultPolicyVersionCommand({ policyName, policyVersionId: '1' }))
  t.same(await versions(), ['6', '4', '3', '2', '1*'])
  t.match(await iot.send(new aws.GetPolicyVersionCommand({ policyName, policyVersionId: '1' })), { policyDocument: document('one'), isDefaultVersion: true, policyName })
  await drop('2')
  await refuse(t, [
    [() => add(false, '{'), 'MalformedPolicyException', 400, /JSON/],
    [() => add(false, document('x'.repeat(2048))), 'MalformedPolicyException', 400, /2048/],
    [() => iot.send(new aws.CreatePolicyVersionCommand({ policyName, policyDocument: undefined })), I, 400, /policyDocument/],
    [() => iot.send(new aws.CreatePolicyVersionCommand({ policyName: 'none', policyDocument: document() })), N, 404, /none/],
    [() => iot.send(new aws.GetPolicyVersionCommand({ policyName, policyVersionId: '2' })), N, 404, /version=2/],
    [() => iot.send(new aws.SetDefaultPolicyVersionCommand({ policyName, policyVersionId: '2' })), N, 404, /version=2/],
    [() => iot.send(new aws.ListPolicyVersionsCommand({ policyName: 'none' })), N, 404, /none/]
  ])
  for (const id of ['3', '4', '6']) await drop(id)
  await iot.send(new aws.DeletePolicyCommand({ policyName }))
  await refuse(t, [[() => iot.send(new aws.DeletePolicyCommand({ policyName })), N, 404, /versioned/]])
})

await t.test('targets: certificates and thing groups', async t => {
  const policyName = 'wide'
  const { policyArn } = await iot.send(new aws.CreatePolicyCommand({ policyName, policyDocument: document() }))
  const arns: string[] = []
  for (let n = 0; n < 3; n++) arns.push(await certificate())
  for (const target of arns) await iot.send(new aws.AttachPolicyCommand({ policyName, target }))
  const { thingGroupArn = '' } = await iot.send(new aws.CreateThingGroupCommand({ thingGroupName: 'top' }))
  const child = await iot.send(new aws.CreateThingGroupCommand({ thingGroupName: 'below', parentGroupName: 'top' }))
  await iot.send(new aws.AttachPolicyCommand({ policyName, target: thingGroupArn }))
  const targets: string[] = []
  for await (const page of aws.paginateListTargetsForPolicy({ client: iot, pageSize: 3 }, { policyName })) {
    targets.push(...page.targets ?? [])
  }
  t.same(targets, [...arns, thingGroupArn].sort())
  const attached = async (recursive?: boolean) =>
    (await iot.send(new aws.ListAttachedPoliciesCommand({ target: child.thingGroupArn, recursive }))).policies
  t.same(await attached(), [])
  t.same(await attached(true), [{ policyName, policyArn }])
  await iot.send(new aws.CreatePolicyCommand({ policyName: 'second', policyDocument: document() }))
  await iot.send(new aws.AttachPolicyCommand({ policyName: 'second', target: thingGroupArn }))
  await refuse(t, [
    [() => iot.send(new aws.AttachPolicyCommand({ policyName: 'device-policy', target: thingGroupArn })), 'LimitExceededException', 410, /2/],
    [() => iot.send(new aws.AttachPolicyCommand({ policyName, target: thingGroupArn.replace('top', 'none') })), N, 404, /none/],
    [() => iot.send(new aws.ListTargetsForPolicyCommand({ policyName: 'none' })), N, 404, /none/],
    [() => iot.send(new aws.DeletePolicyCommand({ policyName })), D, 409, /^The policy cannot be deleted as the policy is attached to one or more principals \(name=wide\)$/]
  ])
  await iot.send(new aws.DeleteThingGroupCommand({ thingGroupName: 'below' }))
  await iot.send(new aws.DeleteThingGroupCommand({ thingGroupName: 'top' }))
  for (const target of arns) await iot.send(new aws.DetachPolicyCommand({ policyName, target }))
  await iot.send(new aws.DeletePolicyCommand({ policyName }))
})

await t.test('the older calls by principal mean the same', async t => {
  const principal = await certificate()
  const policyName = 'device-policy'
  await iot.send(new aws.AttachPrincipalPolicyCommand({ policyName, principal }))
  t.match((await iot.send(new aws.ListPrincipalPoliciesCommand({ principal }))).policies, [{ policyName }])
  t.same((await iot.send(new aws.ListPolicyPrincipalsCommand({ policyName }))).principals, [principal])
  t.same((await iot.send(new aws.ListTargetsForPolicyCommand({ policyName }))).targets, [principal])
  await iot.send(new aws.DetachPrincipalPolicyCommand({ policyName, principal }))
  await refuse(t, [
    [() => iot.send(new aws.DetachPrincipalPolicyCommand({ policyName: 'none', principal })), N, 404, /none/],
    [() => iot.send(new aws.AttachPrincipalPolicyCommand({ policyName, principal: 'x' })), I, 400, /ARN/]
  ])
})

await t.test('policies in pages, newest first unless asked', async t => {
  for (let n = 0; n < 4; n++) await iot.send(new aws.CreatePolicyCommand({ policyName: `p${n}`, policyDocument: document() }))
  const walk = async (ascendingOrder: boolean): Promise<string[]> => {
    const names: string[] = []
    for await (const { policies } of aws.paginateListPolicies({ client: iot, pageSize: 2 }, { ascendingOrder })) names.push(...(policies ?? []).map(({ policyName }) => policyName ?? ''))
    return names
  }
  t.same((await walk(true)).slice(-4), ['p0', 'p1', 'p2', 'p3'])
  t.same((await walk(false)).slice(0, 4), ['p3', 'p2', 'p1', 'p0'])
})

await t.test('tags', async t => {
  const { policyArn: resourceArn = '' } = await iot.send(new aws.CreatePolicyCommand({ policyName: 'tagged', policyDocument: document(), tags: [{ Key: 'b', Value: '1' }] }))
  await iot.send(new aws.TagResourceCommand({ resourceArn, tags: [{ Key: 'a', Value: '2' }, { Key: 'b', Value: '3' }] }))
  t.same((await iot.send(new aws.ListTagsForResourceCommand({ resourceArn }))).tags, [{ Key: 'a', Value: '2' }, { Key: 'b', Value: '3' }])
  await iot.send(new aws.UntagResourceCommand({ resourceArn, tagKeys: ['b', 'c'] }))
  t.same((await iot.send(new aws.ListTagsForResourceCommand({ resourceArn }))).tags, [{ Key: 'a', Value: '2' }])
  const tag = async (tags: aws.Tag[] | undefined) => await iot.send(new aws.TagResourceCommand({ resourceArn, tags }))
  await refuse(t, [
    [() => tag(undefined), I, 400, /'tags'/],
    [() => tag([{ Key: 'a', Value: '1' }, { Key: 'a', Value: '2' }]), I, 400, /Duplicate/],
    [() => tag([{ Key: 'aws:x', Value: '1' }]), I, 400, /aws:/],
    [() => tag([{ Key: 'a', Value: 'x'.repeat(257) }]), I, 400, /tags\.1\.member\.value/],
    [() => tag(Array.from({ length: 50 }, (_, n) => ({ Key: `k${n}`, Value: '' }))), 'LimitExceededException', 410, /50/],
    [() => iot.send(new aws.ListTagsForResourceCommand({ resourceArn: `${resourceArn}-not` })), N, 404, /tagged-not/],
    [() => iot.send(new aws.ListTagsForResourceCommand({ resourceArn: undefined })), I, 400, /resourceArn/],
    [() => iot.send(new aws.UntagResourceCommand({ resourceArn, tagKeys: undefined })), I, 400, /tagKeys/]
  ])
  await iot.send(new aws.DeletePolicyCommand({ policyName: 'tagged' }))
  await refuse(t, [[() => iot.send(new aws.ListTagsForResourceCommand({ resourceArn })), N, 404, /tagged/]])
})
