/* eslint no-template-curly-in-string: off -- policy variables */
import * as aws from '@aws-sdk/client-iot'
import t from 'tap'
import { connect, opensslCsr, P256, startRig } from './rig.ts'

const { local, iot, close } = await startRig()
t.teardown(close)

interface Device { key: string, cert: string, arn: string }
const ARN = 'arn:aws:iot:us-east-1:000000000000:'

async function device (subject: string): Promise<Device> {
  const { key, csr } = opensslCsr(P256, subject)
  const made = await iot.send(new aws.CreateCertificateFromCsrCommand({ certificateSigningRequest: csr, setAsActive: true }))
  return { key, cert: made.certificatePem ?? '', arn: made.certificateArn ?? '' }
}
let policies = 0
/** A policy that lets connect as `client/<name>` under the condition, attached to the target. */
async function allow (target: string, name: string, Condition?: object): Promise<void> {
  const policyName = `p${++policies}`
  const statement = { Effect: 'Allow', Action: 'iot:Connect', Resource: `${ARN}client/${name}`, ...(Condition === undefined ? {} : { Condition }) }
  await iot.send(new aws.CreatePolicyCommand({ policyName, policyDocument: JSON.stringify({ Version: '2012-10-17', Statement: [statement] }) }))
  await iot.send(new aws.AttachPolicyCommand({ policyName, target }))
}
const connects = async ({ key, cert }: Device, clientId: string): Promise<boolean> =>
  await connect(local, { clientId, key, cert }).then(async client => { await client.endAsync(); return true }, () => false)

await t.test('variables of the certificate', async t => {
  const one = await device('/O=Acme/OU=eu/OU=de/CN=dev-1/serialNumber=S1')
  await allow(one.arn, '${iot:Certificate.Subject.CommonName}-${iot:Certificate.Subject.OrganizationalUnit.1}-${iot:Certificate.Subject.SerialNumber}')
  t.equal(await connects(one, 'dev-1-de-S1'), true)
  t.equal(await connects(one, 'dev-2-de-S1'), false)

  const two = await device('/O=Acme/O=Other/CN=dev\\+2')
  await allow(two.arn, '${iot:Certificate.Subject.CommonName}')
  t.equal(await connects(two, 'dev+2'), false, 'a value that could be a filter is not substituted')
  await allow(two.arn, 'any', { 'ForAnyValue:StringEquals': { 'iot:Certificate.Subject.Organization.List': 'Other' } })
  t.equal(await connects(two, 'any'), true)

  const three = await device('/CN=dev-3')
  await allow(three.arn, '*', { StringLike: { 'iot:Certificate.Issuer.OrganizationalUnit': 'Amazon Web Services*' }, StringEquals: { 'iot:Certificate.Subject.Country': 'DE' } })
  t.equal(await connects(three, 'x'), false, 'a value that the certificate has not')
  await allow(three.arn, '*', { StringLike: { 'iot:Certificate.Issuer.OrganizationalUnit': 'Amazon Web Services*' } })
  t.equal(await connects(three, 'x'), true)
})

await t.test('the address', async t => {
  const near = await device('/CN=near')
  await allow(near.arn, '*', { IpAddress: { 'aws:SourceIp': '127.0.0.0/8' } })
  t.equal(await connects(near, 'x'), true)
  const far = await device('/CN=far')
  await allow(far.arn, '*', { IpAddress: { 'aws:SourceIp': '10.0.0.0/8' } })
  t.equal(await connects(far, 'x'), false)
})

await t.test('the thing: attributes, type, groups, exclusive attachment', async t => {
  await iot.send(new aws.CreateThingTypeCommand({ thingTypeName: 'lamp' }))
  await iot.send(new aws.CreateThingCommand({ thingName: 'thing-1', thingTypeName: 'lamp', attributePayload: { attributes: { site: 'b1' } } }))
  const one = await device('/CN=one')
  await allow(one.arn, '*', { StringEquals: { 'iot:Connection.Thing.Attributes[site]': 'b1', 'iot:Connection.Thing.ThingTypeName': 'lamp' } })
  t.equal(await connects(one, 'thing-1'), false, 'not attached')
  await iot.send(new aws.AttachThingPrincipalCommand({ thingName: 'thing-1', principal: one.arn }))
  t.equal(await connects(one, 'thing-1'), true)
  t.equal(await connects(one, 'elsewhere'), false, 'another client id')

  await iot.send(new aws.CreateThingGroupCommand({ thingGroupName: 'all' }))
  await iot.send(new aws.CreateThingGroupCommand({ thingGroupName: 'some', parentGroupName: 'all' }))
  await iot.send(new aws.CreateThingCommand({ thingName: 'thing-2' }))
  const two = await device('/CN=two')
  await iot.send(new aws.AttachThingPrincipalCommand({ thingName: 'thing-2', principal: two.arn }))
  await allow(`${ARN}thinggroup/all`, '${iot:Connection.Thing.ThingName}')
  t.equal(await connects(two, 'thing-2'), false)
  await iot.send(new aws.AddThingToThingGroupCommand({ thingGroupName: 'some', thingName: 'thing-2' }))
  t.equal(await connects(two, 'thing-2'), true, 'the policy of a group above its own')

  await iot.send(new aws.CreateThingCommand({ thingName: 'thing-3' }))
  const three = await device('/CN=three')
  await iot.send(new aws.AttachThingPrincipalCommand({ thingName: 'thing-3', principal: three.arn, thingPrincipalType: 'EXCLUSIVE_THING' }))
  await allow(three.arn, 'session-of-${iot:Connection.Thing.ThingName}', { Bool: { 'iot:Connection.Thing.IsAttached': 'true' } })
  t.equal(await connects(three, 'session-of-thing-3'), true, 'an exclusive thing needs no client id of its name')
})
