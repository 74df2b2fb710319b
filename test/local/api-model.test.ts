// Every response of every control plane operation against AWS's own description of it: the schemas inside the JavaScript SDK, and
// botocore's service model where Python has botocore. No member unknown, none mistyped, and none missing but those listed in ABSENT.
import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { Readable } from 'node:stream'
import { gunzipSync } from 'node:zlib'
import * as aws from '@aws-sdk/client-iot'
import { NormalizedSchema } from '@smithy/core/schema'
import t from 'tap'
import { Account } from '../../src/local/account.ts'
import { DeviceIssuer } from '../../src/local/issuer.ts'
import { operationsOf } from '../../src/local/operations.ts'
import { selfSigned } from './maker.ts'
import { opensslCsr, P256, startRig } from './rig.ts'

type Json = Record<string, unknown>
/** An operation in the SDK's own schema language. */
type Operation = [kind: number, namespace: string, name: string, traits: { http: [string, string] }, input: unknown, output: () => unknown]
type Request = { [name in 'method' | 'protocol' | 'hostname' | 'path']: string } & {
  port?: number
  query?: Record<string, string>
  headers: Record<string, string>
  body?: unknown
}
type Check = (value: unknown, path: string) => string[]

/** Members that AWS leaves out, too, in the calls made below, each with its reason. */
const ABSENT: ReadonlySet<string> = new Set([
  // never transferred
  'previousOwnedBy', 'transferMessage', 'rejectReason', 'transferDate', 'acceptDate', 'rejectDate',
  // the last page
  'nextMarker', 'nextToken',
  // no billing groups, MQTT 5 settings, dynamic groups; `merge` belongs to requests
  'billingGroupName', 'mqtt5Configuration', 'indexName', 'queryString', 'queryVersion', 'merge',
  // a destination is of one kind, and has a reason only when it failed; a rule has an error action when it was given one
  'vpcProperties', 'vpcDestinationSummary', 'influxDBProperties', 'influxDBSummary', 'statusReason', 'errorAction'
])

const { local, close } = await startRig()
t.teardown(close)
const operations = operationsOf(new Account('us-east-1', await DeviceIssuer.create()))
const control = Object.entries(operations).filter(([, { plane }]) => plane === undefined)

/** The SDK's client with our eyes on the wire: what it received last, before it made objects of it. */
let received = ''
const iot = new aws.IoTClient({
  endpoint: local.iotUrl,
  region: 'us-east-1',
  credentials: { accessKeyId: 'any', secretAccessKey: 'key' },
  maxAttempts: 1,
  requestHandler: {
    handle: async ({ method, protocol, hostname, port, path, query, headers, body }: Request) => {
      const url = new URL(`${protocol}//${hostname}:${port}${path}`)
      for (const [name, value] of Object.entries(query ?? {})) url.searchParams.set(name, String(value))
      const { host, 'content-length': _length, ...sent } = headers
      const answer = await fetch(url, { method, headers: sent, ...(body === undefined ? {} : { body: body as string }) })
      received = await answer.text()
      return { response: { statusCode: answer.status, headers: Object.fromEntries(answer.headers), body: Readable.from([received]) } }
    }
  }
})

const answers = new Map<string, Json[]>()
/** Calls an operation by its name, and keeps what came back as it was on the wire. */
async function call<T = Json> (name: string, input: Json = {}): Promise<T> {
  const Command = (aws as unknown as Record<string, new (input: Json) => aws.GetPolicyCommand>)[`${name}Command`]
  if (Command === undefined) throw new Error(`the SDK has no ${name}`)
  const answer = await iot.send(new Command(input))
  const body = JSON.parse(received === '' ? '{}' : received) as Json
  answers.set(name, [...answers.get(name) ?? [], body])
  return answer as T
}

await t.test('every operation is called', async t => {
  const ca = await selfSigned({ name: 'CN=Model' })
  const { registrationCode } = await call<aws.GetRegistrationCodeResponse>('GetRegistrationCode')
  const verificationCertificate = (await ca.sign({ name: `CN=${registrationCode}` })).pem
  const tags = [{ Key: 'k', Value: 'v' }]
  const registrationConfig = { templateBody: '{}', roleArn: 'arn:aws:iam::000000000000:role/jitp', templateName: 'jitp' }
  const registered = await call<aws.RegisterCACertificateResponse>('RegisterCACertificate', { caCertificate: ca.pem, verificationCertificate, registrationConfig, tags, setAsActive: true })
  const caId = { certificateId: registered.certificateId }
  await call('DescribeCACertificate', caId)
  await call('ListCACertificates')
  await call('UpdateCACertificate', { ...caId, newAutoRegistrationStatus: 'ENABLE' })
  const device = await call<aws.RegisterCertificateResponse>('RegisterCertificate', { certificatePem: (await ca.sign()).pem, status: 'ACTIVE' })
  await call('DescribeCertificate', { certificateId: device.certificateId })
  await call('ListCertificatesByCA', { caCertificateId: registered.certificateId })
  await call('RegisterCertificateWithoutCA', { certificatePem: opensslCsr(P256).foreign })
  await call('CreateKeysAndCertificate')
  const { certificateId = '', certificateArn: principal } = await call<aws.CreateCertificateFromCsrResponse>('CreateCertificateFromCsr', { certificateSigningRequest: opensslCsr(P256).csr })
  await call('ListCertificates', { pageSize: 2 })
  await call('DescribeEndpoint', { endpointType: 'iot:Data-ATS' })

  const attributePayload = { attributes: { a: 'b' } }
  const type = await call<aws.CreateThingTypeResponse>('CreateThingType', { thingTypeName: 'T', thingTypeProperties: { thingTypeDescription: 'd', searchableAttributes: ['a'] } })
  await call('CreateThing', { thingName: 'x', thingTypeName: 'T', attributePayload })
  await call('DescribeThing', { thingName: 'x' })
  await call('UpdateThing', { thingName: 'x', attributePayload })
  await call('ListThings')
  await call('CreateThingGroup', { thingGroupName: 'root' })
  await call('CreateThingGroup', { thingGroupName: 'G', parentGroupName: 'root', thingGroupProperties: { thingGroupDescription: 'd', attributePayload } })
  await call('DescribeThingGroup', { thingGroupName: 'G' })
  await call('UpdateThingGroup', { thingGroupName: 'G', thingGroupProperties: {} })
  await call('ListThingGroups', { maxResults: 1 })
  await call('AddThingToThingGroup', { thingGroupName: 'G', thingName: 'x' })
  await call('ListThingGroupsForThing', { thingName: 'x' })
  await call('ListThingsInThingGroup', { thingGroupName: 'G' })
  await call('RemoveThingFromThingGroup', { thingGroupName: 'G', thingName: 'x' })
  await call('DeleteThingGroup', { thingGroupName: 'G' })
  await call('AttachThingPrincipal', { thingName: 'x', principal })
  for (const name of ['ListThingPrincipals', 'ListThingPrincipalsV2']) await call(name, { thingName: 'x' })
  for (const name of ['ListPrincipalThings', 'ListPrincipalThingsV2']) await call(name, { principal })
  await call('DetachThingPrincipal', { thingName: 'x', principal })
  await call('DeleteThing', { thingName: 'x' })
  await call('DeprecateThingType', { thingTypeName: 'T' })
  await call('DescribeThingType', { thingTypeName: 'T' })
  await call('ListThingTypes')
  await t.rejects(call('DeleteThingType', { thingTypeName: 'T' }), { message: /5 minutes/ })
  answers.set('DeleteThingType', [{}]) // its answer is empty, and nobody waits five minutes for it

  const policyName = 'P'
  const policyDocument = '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iot:Connect","Resource":"*"}]}'
  await call('CreatePolicy', { policyName, policyDocument })
  await call('GetPolicy', { policyName })
  await call('ListPolicies')
  await call('CreatePolicyVersion', { policyName, policyDocument })
  await call('GetPolicyVersion', { policyName, policyVersionId: '2' })
  await call('ListPolicyVersions', { policyName })
  await call('SetDefaultPolicyVersion', { policyName, policyVersionId: '2' })
  await call('DeletePolicyVersion', { policyName, policyVersionId: '1' })
  await call('AttachPolicy', { policyName, target: principal })
  await call('ListAttachedPolicies', { target: principal })
  await call('ListTargetsForPolicy', { policyName })
  await call('ListPrincipalPolicies', { principal })
  await call('ListPolicyPrincipals', { policyName })
  await call('DetachPolicy', { policyName, target: principal })
  await call('AttachPrincipalPolicy', { policyName, principal })
  await call('DetachPrincipalPolicy', { policyName, principal })
  await call('DeletePolicy', { policyName })
  const resourceArn = type.thingTypeArn
  await call('TagResource', { resourceArn, tags })
  await call('ListTagsForResource', { resourceArn })
  await call('UntagResource', { resourceArn, tagKeys: ['k'] })

  const made = await call<aws.CreateTopicRuleDestinationResponse>('CreateTopicRuleDestination', { destinationConfiguration: { httpUrlConfiguration: { confirmationUrl: 'http://127.0.0.1:9' } } })
  const arn = made.topicRuleDestination?.arn
  await call('GetTopicRuleDestination', { arn })
  await call('ListTopicRuleDestinations')
  await t.rejects(call('ConfirmTopicRuleDestination', { confirmationToken: 'wrong' }))
  answers.set('ConfirmTopicRuleDestination', [{}]) // empty as well; the rules' own tests confirm
  await call('UpdateTopicRuleDestination', { arn, status: 'IN_PROGRESS' })
  const topicRulePayload = { sql: "SELECT * FROM 'a/b'", description: 'd', awsIotSqlVersion: '2016-03-23', actions: [{ republish: { roleArn: registrationConfig.roleArn, topic: 'c', qos: 1 } }] }
  await call('CreateTopicRule', { ruleName: 'r', topicRulePayload })
  await call('ReplaceTopicRule', { ruleName: 'r', topicRulePayload })
  await call('GetTopicRule', { ruleName: 'r' })
  await call('ListTopicRules')
  await call('DisableTopicRule', { ruleName: 'r' })
  await call('EnableTopicRule', { ruleName: 'r' })
  await call('DeleteTopicRule', { ruleName: 'r' })
  await call('DeleteTopicRuleDestination', { arn })

  await call('UpdateCertificate', { certificateId, newStatus: 'REVOKED' })
  await call('DeleteCertificate', { certificateId })
  await call('UpdateCACertificate', { ...caId, newStatus: 'INACTIVE' })
  await call('DeleteCACertificate', caId)
  await call('DeleteRegistrationCode')

  t.same(control.map(([name]) => name).filter(name => !answers.has(name)), [], 'not called')
})

await t.test('answers, method and address as in the SDK', async t => {
  for (const [name, { method, url }] of control) {
    const operation = (aws as unknown as Record<string, Operation>)[`${name}$`]
    if (operation === undefined) throw new Error(`the SDK has no ${name}`)
    const [, , , traits, , output] = operation
    t.same([method, address(url)], [traits.http[0], address(traits.http[1])], name)
    const faults = (answers.get(name) ?? []).flatMap(answer => sdkCheck(NormalizedSchema.of(output() as never))(answer, name))
    t.same(faults, [], name)
  }
})

const botocore = botocoreModel()
await t.test('answers as in botocore', { skip: typeof botocore === 'string' ? botocore : false }, async t => {
  if (typeof botocore === 'string') return
  for (const [name] of control) {
    const output = botocore.operations[name]?.output?.shape
    const check: Check = output === undefined
      ? (value, path) => Object.keys(value as Json).map(member => `${path}.${member} is unknown`)
      : botocoreCheck(botocore.shapes, output)
    t.same((answers.get(name) ?? []).flatMap(answer => check(answer, name)), [], name)
  }
})

/** A path without the names of its parameters, which each side chooses for itself. */
function address (url: string): string {
  return url.replace(/\{[^}]*\}|:\w+|\*/g, '*')
}

function sdkCheck (schema: NormalizedSchema): Check {
  if (schema.isStructSchema()) {
    return structure(Object.fromEntries([...schema.structIterator()].map(([name, member]) => [name, sdkCheck(member)])))
  }
  if (schema.isListSchema()) return list(() => sdkCheck(schema.getValueSchema()))
  if (schema.isMapSchema()) return map(() => sdkCheck(schema.getValueSchema()))
  if (schema.isNumericSchema() || schema.isTimestampSchema()) return scalar('number')
  if (schema.isBooleanSchema()) return scalar('boolean')
  if (schema.isStringSchema()) return scalar('string')
  return (value, path) => schema.isUnitSchema() ? structure({})(value, path) : [`${path} is of a kind this test does not know`]
}

interface Shape {
  type: string
  members?: Record<string, { shape: string, location?: string, locationName?: string }>
  member?: { shape: string }
  value?: { shape: string }
  required?: string[]
  min?: number
  max?: number
  pattern?: string
  enum?: string[]
}
interface Model { operations: Record<string, { output?: { shape: string } }>, shapes: Record<string, Shape> }

/** botocore's model of AWS IoT, or why there is none. */
function botocoreModel (): Model | string {
  try {
    const find = 'import botocore, os; print(os.path.join(os.path.dirname(botocore.__file__), "data/iot/2015-05-28/service-2.json.gz"))'
    const file = execFileSync('python3', ['-c', find], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }).trim()
    return JSON.parse(gunzipSync(readFileSync(file)).toString()) as Model
  } catch (error) {
    return `no botocore for python3 on this machine: ${(error as Error).message.split('\n')[0]}`
  }
}

function botocoreCheck (shapes: Model['shapes'], name: string): Check {
  const shape = shapes[name]
  const inner = ({ shape: name }: { shape: string }): Check => botocoreCheck(shapes, name)
  switch (shape?.type) {
    case 'structure': return structure(Object.fromEntries(Object.entries(shape.members ?? {}).map(([name, member]) => [name, (value, path) => inner(member)(value, path)])))
    case 'list': return list(() => inner(shape.member ?? { shape: '' }))
    case 'map': return map(() => inner(shape.value ?? { shape: '' }))
    case 'string': return (value, path) => {
      const faults = scalar('string')(value, path)
      if (faults.length > 0) return faults
      const text = value as string
      const { min = 0, max = Infinity, pattern, enum: values } = shape
      if (text.length < min || text.length > max) return [`${path} has ${text.length} characters`]
      if (values?.includes(text) === false) return [`${path} is ${text}, not one of ${values.join(', ')}`]
      // \p{Graph} is Java's; JavaScript has no word for it.
      if (pattern !== undefined && !pattern.includes('Graph') && !new RegExp(`^(?:${pattern})$`, 'u').test(text)) return [`${path} is ${text}, not like ${pattern}`]
      return []
    }
    case 'boolean': return scalar('boolean')
    case 'integer': case 'long': case 'double': case 'timestamp': return scalar('number')
    default: return (_value, path) => [`${path} is of a kind this test does not know`]
  }
}

function structure (members: Readonly<Record<string, Check>>): Check {
  return (value, path) => {
    if (typeof value !== 'object' || value === null || Array.isArray(value)) return [`${path} is no object`]
    const had = value as Json
    return [
      ...Object.keys(had).filter(name => !(name in members)).map(name => `${path}.${name} is unknown`),
      ...Object.entries(members).flatMap(([name, check]) => had[name] === undefined
        ? ABSENT.has(name) || absentHere(path, name) ? [] : [`${path}.${name} is missing`]
        : check(had[name], `${path}.${name}`))
    ]
  }
}

/** What is absent in one place and not in another. */
function absentHere (path: string, name: string): boolean {
  // Only dynamic groups have a status; an action is of one kind, with the settings that it was given.
  return (path === 'DescribeThingGroup' && name === 'status') || /\.actions\[\d+\]/.test(path)
}

function list (item: () => Check): Check {
  return (value, path) => {
    if (!Array.isArray(value)) return [`${path} is no list`]
    return value.length === 0 ? [`${path} is empty, so it shows nothing`] : value.flatMap((one, index) => item()(one, `${path}[${index}]`))
  }
}

function map (value: () => Check): Check {
  return (had, path) => typeof had !== 'object' || had === null
    ? [`${path} is no map`]
    : Object.entries(had).flatMap(([key, one]) => value()(one, `${path}.${key}`))
}

function scalar (type: 'string' | 'number' | 'boolean'): Check {
  return (value, path) => kindOf(value) === type ? [] : [`${path} is ${JSON.stringify(value)}, not a ${type}`]
}

function kindOf (value: unknown): string {
  return typeof value
}
