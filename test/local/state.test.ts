import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { CreateTableCommand, DynamoDBClient, GetItemCommand, PutItemCommand } from '@aws-sdk/client-dynamodb'
import * as aws from '@aws-sdk/client-iot'
import t, { type Test } from 'tap'
import { startDynamodb } from '../../src/local/dynamodb.ts'
import { connect, opensslCsr, P256, sdkClient, startRig } from './rig.ts'
import { selfSigned } from './maker.ts'

const MAIN = path.resolve(import.meta.dirname, '../../dist/local/main.js')
const folder = (t: Test): string => path.join(t.testdir({}), 'state')
const file = (dir: string): string => path.join(dir, 'aws-iot.json')

await t.test('everything is there again, and a device connects as before', async t => {
  const dir = folder(t)
  const before = await startRig({ dir })
  const { iot } = before
  const { key, csr } = opensslCsr(P256, '/CN=dev-1')
  const { certificateId = '', certificateArn = '', certificatePem = '' } = await iot.send(new aws.CreateCertificateFromCsrCommand({ certificateSigningRequest: csr, setAsActive: true }))
  const { registrationCode } = await iot.send(new aws.GetRegistrationCodeCommand({}))
  const ca = await selfSigned({ name: 'CN=Kept' })
  await iot.send(new aws.RegisterCACertificateCommand({ caCertificate: ca.pem, certificateMode: 'SNI_ONLY', setAsActive: true, tags: [{ Key: 'a', Value: 'b' }] }))
  await iot.send(new aws.CreateThingTypeCommand({ thingTypeName: 'T' }))
  await iot.send(new aws.CreateThingCommand({ thingName: 'dev-1', thingTypeName: 'T', attributePayload: { attributes: { a: 'b' } } }))
  await iot.send(new aws.AttachThingPrincipalCommand({ thingName: 'dev-1', principal: certificateArn, thingPrincipalType: 'EXCLUSIVE_THING' }))
  await iot.send(new aws.CreateThingGroupCommand({ thingGroupName: 'G' }))
  await iot.send(new aws.AddThingToThingGroupCommand({ thingGroupName: 'G', thingName: 'dev-1' }))
  await iot.send(new aws.AttachPolicyCommand({ policyName: 'device-policy', target: certificateArn }))
  const { policyDocument } = await iot.send(new aws.GetPolicyCommand({ policyName: 'device-policy' }))
  await iot.send(new aws.CreatePolicyVersionCommand({ policyName: 'device-policy', policyDocument, setAsDefault: true }))
  const seen = async (iot: aws.IoTClient): Promise<unknown[]> => (await Promise.all([
    iot.send(new aws.DescribeCertificateCommand({ certificateId })),
    iot.send(new aws.ListCertificatesCommand({})),
    iot.send(new aws.DescribeCACertificateCommand({ certificateId: ca.id })),
    iot.send(new aws.ListTagsForResourceCommand({ resourceArn: `arn:aws:iot:us-east-1:000000000000:cacert/${ca.id}` })),
    iot.send(new aws.DescribeThingCommand({ thingName: 'dev-1' })),
    iot.send(new aws.DescribeThingTypeCommand({ thingTypeName: 'T' })),
    iot.send(new aws.ListThingPrincipalsV2Command({ thingName: 'dev-1' })),
    iot.send(new aws.ListThingGroupsForThingCommand({ thingName: 'dev-1' })),
    iot.send(new aws.ListAttachedPoliciesCommand({ target: certificateArn })),
    iot.send(new aws.ListPolicyVersionsCommand({ policyName: 'device-policy' })),
    iot.send(new aws.GetPolicyCommand({ policyName: 'device-policy' }))
  ])).map(({ $metadata, ...answer }) => answer)
  const told = await seen(iot)
  await before.close()
  t.equal(statSync(file(dir)).mode & 0o777, 0o600)

  const after = await startRig({ dir })
  t.same(await seen(after.iot), told)
  t.equal((await after.iot.send(new aws.GetRegistrationCodeCommand({}))).registrationCode, registrationCode)
  const client = await connect(after.local, { clientId: 'dev-1', key, cert: certificatePem })
  await client.endAsync(true)
  const next = await after.iot.send(new aws.CreateCertificateFromCsrCommand({ certificateSigningRequest: csr }))
  t.equal(keyIdOf(next.certificatePem), keyIdOf(certificatePem), 'the same issuer')
  t.equal((await after.iot.send(new aws.ListCertificatesCommand({ pageSize: 1 }))).certificates?.[0]?.certificateId, next.certificateId, 'and it is the newest')
  await after.close()
})

await t.test('a process that is killed loses nothing that it answered; the folder is free again', async t => {
  const dir = folder(t)
  const run = async () => {
    const child = spawn(process.execPath, [MAIN], {
      env: { PATH: process.env['PATH'], LOCAL_IOT_PORT: '0', LOCAL_MQTT_PORT: '0', LOCAL_DYNAMODB_PORT: '0', CVM_LOCAL_DIR: dir }, stdio: ['ignore', 'pipe', 'pipe']
    })
    t.teardown(() => child.kill('SIGKILL'))
    const [text] = await once(child.stdout, 'data') as [Buffer]
    const [iotUrl = '', , dynamodbUrl = ''] = text.toString().match(/\S+:\/\/\S+/g) ?? []
    return { child, iot: sdkClient(iotUrl), db: dynamodb(dynamodbUrl) }
  }
  const first = await run()
  await first.db.send(table('devices'))
  await first.db.send(new PutItemCommand({ TableName: 'devices', Item: { id: { S: 'one' } } }))
  await first.iot.send(new aws.CreateThingCommand({ thingName: 'kept' }))
  await t.rejects(startRig({ dir }), { message: new RegExp(`in use by process ${first.child.pid}; .*CVM_LOCAL_DIR`) })
  first.child.kill('SIGKILL')
  await once(first.child, 'exit')
  first.iot.destroy()
  first.db.destroy()

  const second = await run()
  t.match(await second.iot.send(new aws.DescribeThingCommand({ thingName: 'kept' })), { thingName: 'kept' })
  t.match((await second.db.send(new GetItemCommand({ TableName: 'devices', Key: { id: { S: 'one' } } }))).Item, { id: { S: 'one' } })
  second.iot.destroy()
  second.db.destroy()
  second.child.kill()
  await once(second.child, 'exit')
  t.notOk(existsSync(path.join(dir, 'lock')))
})

await t.test('a table can be used the moment it is created', async t => {
  const { url, close } = await startDynamodb('127.0.0.1', 0, folder(t))
  const db = dynamodb(url)
  for (let n = 0; n < 40; n++) {
    await db.send(table(`table-${n}`))
    await db.send(new PutItemCommand({ TableName: `table-${n}`, Item: { id: { S: 'one' } } }))
  }
  await t.rejects(db.send(table('table-0')), { name: 'ResourceInUseException' })
  db.destroy()
  await close()
})

await t.test('a write of the store that was interrupted is made again, one that was answered is not', async t => {
  const dir = folder(t)
  const note = (id: number, n: string): string => JSON.stringify({
    id, target: 'DynamoDB_20120810.PutItem', body: JSON.stringify({ TableName: 'rows', Item: { id: { S: n } } })
  })
  const seen = async (): Promise<unknown[]> => {
    const { url, close } = await startDynamodb('127.0.0.1', 0, dir)
    const db = dynamodb(url)
    await db.send(table('rows')).catch((error: Error) => { if (error.name !== 'ResourceInUseException') throw error })
    const items = await Promise.all(['answered', 'interrupted', 'torn'].map(async id =>
      (await db.send(new GetItemCommand({ TableName: 'rows', Key: { id: { S: id } } }))).Item?.['id']?.S))
    db.destroy()
    await close()
    return items
  }
  t.strictSame(await seen(), [undefined, undefined, undefined])
  writeFileSync(`${dir}.journal`, `${note(1, 'answered')}\n${note(2, 'interrupted')}\n{"done":1}\n${note(3, 'torn').slice(0, -3)}`)
  t.strictSame(await seen(), [undefined, 'interrupted', undefined])
  t.equal(readFileSync(`${dir}.journal`, 'utf8'), '', 'nothing is left to do')
})

await t.test('a journal: a torn end is dropped, another line that cannot be read is named', async t => {
  const dir = folder(t)
  const journal = path.join(dir, 'aws-iot.us-east-1.journal')
  await (await startRig({ dir })).close()
  const snapshot = JSON.parse(readFileSync(file(dir), 'utf8')) as { generations: Record<string, number> }
  const entry = (name: string): string => {
    const things = [[name, { name, id: name, arn: name, attributes: {}, version: 1 }]]
    return JSON.stringify({ changes: { things: { things, principals: [] } } })
  }
  const write = (generation: number, ...lines: string[]): void => {
    writeFileSync(journal, [JSON.stringify({ format: 1, generation }), ...lines].join('\n'))
  }
  const generation = snapshot.generations['us-east-1'] ?? 0
  write(generation, 'no JSON', entry('a'), '')
  await t.rejects(startRig({ dir }), { message: /cannot go on from .*us-east-1\.journal: .*JSON/ })
  write(generation - 1, entry('old'), '')
  const { iot, close } = await startRig({ dir })
  t.same((await iot.send(new aws.ListThingsCommand({}))).things, [], 'a journal of before the snapshot is in it already')
  await close()
  write((JSON.parse(readFileSync(file(dir), 'utf8')) as typeof snapshot).generations['us-east-1'] ?? 0, entry('whole'), entry('torn').slice(0, -4))
  const after = await startRig({ dir })
  await after.iot.send(new aws.CreateThingCommand({ thingName: 'next' }))
  t.same((await after.iot.send(new aws.ListThingsCommand({}))).things?.map(({ thingName }) => thingName), ['next', 'whole'])
  await after.close()
  t.notOk(existsSync(journal), 'a snapshot has it all')
})

await t.test('a file that cannot be understood is named, and left as it is', async t => {
  const dir = folder(t)
  await (await startRig({ dir })).close()
  const good = readFileSync(file(dir), 'utf8')
  const spoilt = JSON.parse(good) as { regions: { 'us-east-1': Record<string, unknown> } }
  spoilt.regions['us-east-1']['policies'] = { policies: [{ name: 'x', versions: [] }], attached: [] }
  const cases: Array<[string, RegExp]> = [
    [good.slice(0, -9), /JSON/],
    ['{}', /not of the format/],
    [JSON.stringify(spoilt), /policy x has no default version/]
  ]
  for (const [content, message] of cases) {
    writeFileSync(file(dir), content)
    await t.rejects(startRig({ dir }), { message })
    await t.rejects(startRig({ dir }), { message: /cannot go on from .*aws-iot\.json: .*; remove the file to start anew/ })
    t.equal(readFileSync(file(dir), 'utf8'), content)
  }
  writeFileSync(file(dir), good)
  await (await startRig({ dir })).close()
})

await t.test('Regions are kept apart in one file', async t => {
  const dir = folder(t)
  const things = async (region: string, add?: string): Promise<unknown> => {
    const { iot, close } = await startRig({ dir, region })
    if (add !== undefined) await iot.send(new aws.CreateThingCommand({ thingName: add }))
    const { things } = await iot.send(new aws.ListThingsCommand({}))
    await close()
    return things?.map(({ thingName }) => thingName)
  }
  t.same(await things('us-east-1', 'here'), ['here'])
  t.same(await things('eu-west-1', 'there'), ['there'])
  t.same(await things('us-east-1'), ['here'])
})

function dynamodb (endpoint: string): DynamoDBClient {
  return new DynamoDBClient({ endpoint, region: 'us-east-1', credentials: { accessKeyId: 'any', secretAccessKey: 'key' } })
}

function table (TableName: string): CreateTableCommand {
  return new CreateTableCommand({
    TableName,
    BillingMode: 'PAY_PER_REQUEST',
    KeySchema: [{ AttributeName: 'id', KeyType: 'HASH' }],
    AttributeDefinitions: [{ AttributeName: 'id', AttributeType: 'S' }]
  })
}

/** The authority key identifier of a certificate: which key signed it. */
function keyIdOf (pem = ''): string | undefined {
  const der = Buffer.from(pem.replace(/-----[^-]+-----|\s/g, ''), 'base64').toString('hex')
  return /0603551d23041830168014(.{40})/.exec(der)?.[1]
}
