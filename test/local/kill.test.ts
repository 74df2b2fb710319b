// The local AWS is killed while it is written to. What it has answered is there afterwards: 200 kills in a whole run, three in a sample.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import path from 'node:path'
import { CreateTableCommand, DynamoDBClient, GetItemCommand, QueryCommand, UpdateItemCommand } from '@aws-sdk/client-dynamodb'
import * as aws from '@aws-sdk/client-iot'
import { GetThingShadowCommand, IoTDataPlaneClient, UpdateThingShadowCommand } from '@aws-sdk/client-iot-data-plane'
import t, { type Test } from 'tap'
import { randomFrom } from '../fixtures/interleaver.ts'
import { isWhole, proofDay, proofSize } from '../fixtures/proof-size.ts'
import { opensslCsr, P256 } from './rig.ts'

const MAIN = path.resolve(import.meta.dirname, '../../dist/local/main.js')
const KILLS = isWhole ? 200 : 3
const CREDENTIALS = { region: 'us-east-1', credentials: { accessKeyId: 'any', secretAccessKey: 'key' }, maxAttempts: 1 }
const { csr } = opensslCsr(P256)
t.setTimeout(1_200_000)

/** What is written one step after the other: `write` takes step n, `read` says which one is there. */
interface Subject {
  readonly name: string
  answered: number
  asked: number
  write: (n: number, at: Clients) => Promise<unknown>
  read: (at: Clients, t: Test) => Promise<unknown>
}
interface Clients { readonly iot: aws.IoTClient, readonly data: IoTDataPlaneClient, readonly db: DynamoDBClient }

/** Certificates that were answered, with the status that was answered last; undefined while a change of it is unanswered. */
const certificates = new Map<string, string | undefined>()

async function serve (dir: string) {
  const env = { PATH: process.env['PATH'], LOCAL_IOT_PORT: '0', LOCAL_MQTT_PORT: '0', LOCAL_DYNAMODB_PORT: '0', CVM_LOCAL_DIR: dir }
  const child = spawn(process.execPath, [MAIN], { env, stdio: ['ignore', 'pipe', 'inherit'] })
  const ended = once(child, 'exit')
  const [text] = await Promise.race([once(child.stdout, 'data'), ended.then(([code]) => { throw new Error(`ended with ${code}`) })]) as [Buffer]
  const [iotUrl = '', , dynamodbUrl = ''] = text.toString().match(/\S+:\/\/\S+/g) ?? []
  const clients = {
    iot: new aws.IoTClient({ endpoint: iotUrl, ...CREDENTIALS }),
    data: new IoTDataPlaneClient({ endpoint: iotUrl, ...CREDENTIALS }),
    db: new DynamoDBClient({ endpoint: dynamodbUrl, ...CREDENTIALS })
  }
  const end = async (signal: NodeJS.Signals) => {
    child.kill(signal)
    await ended
    for (const client of Object.values(clients)) client.destroy()
  }
  return { child, clients, end }
}

/** A row with an index on an attribute that changes with each step; its answer tells whether the index agrees. */
function row (id: string): Subject {
  const state = (n: number) => `${id}-${n % 2}`
  return {
    name: `row ${id}`,
    answered: 0,
    asked: 0,
    write: (n, { db }) => db.send(new UpdateItemCommand({
      TableName: 'rows', Key: { id: { S: id } }, UpdateExpression: 'SET n = :n, s = :s', ExpressionAttributeValues: { ':n': { N: String(n) }, ':s': { S: state(n) } }
    })),
    async read ({ db }, t) {
      const { Item } = await db.send(new GetItemCommand({ TableName: 'rows', Key: { id: { S: id } }, ConsistentRead: true }))
      const n = Number(Item?.['n']?.N ?? 0)
      const listed = async (s: string) => (await db.send(new QueryCommand({
        TableName: 'rows', IndexName: 'by-s', KeyConditionExpression: 's = :s', ExpressionAttributeValues: { ':s': { S: s } }
      }))).Items?.map(item => item['n']?.N)
      t.same([await listed(state(n)), await listed(state(n + 1))], [n === 0 ? [] : [String(n)], []], `${id}: the index lists the row as it is, and once`)
      return n
    }
  }
}

const thing: Subject = {
  name: 'thing',
  answered: 0,
  asked: 0,
  write: (n, { iot }) => iot.send(new aws.UpdateThingCommand({ thingName: 'thing', attributePayload: { attributes: { n: String(n) } } })),
  read: async ({ iot }) => Number((await iot.send(new aws.DescribeThingCommand({ thingName: 'thing' }))).attributes?.['n'] ?? 0)
}

const shadow: Subject = {
  name: 'shadow',
  answered: 0,
  asked: 0,
  write: (n, { data }) => data.send(new UpdateThingShadowCommand({
    thingName: 'thing', payload: JSON.stringify({ state: { desired: { n } } })
  })),
  async read ({ data }) {
    const { payload } = await data.send(new GetThingShadowCommand({ thingName: 'thing' })).catch((error: Error) => {
      if (error.name === 'ResourceNotFoundException') return { payload: undefined }
      throw error
    })
    if (payload === undefined) return 0
    return (JSON.parse(Buffer.from(payload).toString()) as { state: { desired: { n: number } } }).state.desired.n
  }
}

/** Attached after odd steps, detached after even ones: only its last bit is told. */
const attachment: Subject = {
  name: 'attachment',
  answered: 0,
  asked: 0,
  async write (n, { iot }) {
    const membership = { thingGroupName: 'group', thingName: 'thing' }
    if (n % 2 === 1) await iot.send(new aws.AddThingToThingGroupCommand(membership))
    else await iot.send(new aws.RemoveThingFromThingGroupCommand(membership))
  },
  async read ({ iot }) {
    const { thingGroups = [] } = await iot.send(new aws.ListThingGroupsForThingCommand({ thingName: 'thing' }))
    return attachment.asked % 2 === thingGroups.length ? attachment.asked : attachment.asked - 1
  }
}

const subjects = [row('a'), row('b'), thing, shadow, attachment]

async function vend ({ iot }: Clients): Promise<void> {
  const { certificateId = '', certificateArn } = await iot.send(new aws.CreateCertificateFromCsrCommand({ certificateSigningRequest: csr }))
  certificates.set(certificateId, 'INACTIVE')
  await iot.send(new aws.AttachPolicyCommand({ policyName: 'cvm-device-policy', target: certificateArn }))
  for (const newStatus of ['ACTIVE', 'REVOKED'] as const) {
    certificates.set(certificateId, undefined)
    await iot.send(new aws.UpdateCertificateCommand({ certificateId, newStatus }))
    certificates.set(certificateId, newStatus)
  }
}

async function step (subject: Subject, clients: Clients): Promise<void> {
  await subject.write(subject.asked = subject.answered + 1, clients)
  subject.answered = subject.asked
}

/** That everything answered is there; an unanswered step may have been taken or not. */
async function verify (t: Test, clients: Clients): Promise<void> {
  for (const subject of subjects) {
    const found = await subject.read(clients, t)
    t.ok(found === subject.answered || found === subject.asked, `${subject.name}: ${String(found)}, where ${subject.answered} was answered and ${subject.asked} asked`)
    subject.answered = subject.asked = Number(found)
  }
  const listed = new Map<string, string>()
  for await (const page of aws.paginateListCertificates({ client: clients.iot }, { pageSize: 250 })) {
    for (const { certificateId = '', status = '' } of page.certificates ?? []) listed.set(certificateId, status)
  }
  const lost = [...certificates].filter(([id, status]) => status === undefined ? !listed.has(id) : listed.get(id) !== status)
  t.same(lost, [], `${certificates.size} certificates are as they were answered`)
}

await t.test(`killed ${KILLS} times (${proofSize})`, async t => {
  const dir = path.join(t.testdir({}), 'state')
  const random = randomFrom(proofDay + 1)
  let { clients, end } = await serve(dir)
  t.teardown(async () => { await end('SIGKILL') })
  await clients.iot.send(new aws.CreateThingCommand({ thingName: 'thing' }))
  await clients.iot.send(new aws.CreateThingGroupCommand({ thingGroupName: 'group' }))
  await clients.db.send(new CreateTableCommand({
    TableName: 'rows',
    BillingMode: 'PAY_PER_REQUEST',
    KeySchema: [{ AttributeName: 'id', KeyType: 'HASH' }],
    AttributeDefinitions: [{ AttributeName: 'id', AttributeType: 'S' }, { AttributeName: 's', AttributeType: 'S' }],
    GlobalSecondaryIndexes: [{ IndexName: 'by-s', KeySchema: [{ AttributeName: 's', KeyType: 'HASH' }], Projection: { ProjectionType: 'INCLUDE', NonKeyAttributes: ['n'] } }]
  }))

  for (let kill = 0; kill < KILLS; kill++) {
    let left = 20 + random(60)
    let isKilled = false
    const write = async (work: () => Promise<void>): Promise<void> => {
      while (!isKilled) {
        try {
          await work()
        } catch (error) {
          if (!isKilled) throw error
        }
        if (--left === 0) {
          isKilled = true
          await end('SIGKILL')
        }
      }
    }
    const now = clients
    await Promise.all([...subjects.map(subject => write(() => step(subject, now))), write(() => vend(now)), write(() => vend(now))])
    ;({ clients, end } = await serve(dir))
    await verify(t, clients)
  }
  t.ok(subjects.every(({ answered }) => answered > 0) && certificates.size > KILLS, 'there was something to lose')
  await end('SIGTERM')
  ;({ clients, end } = await serve(dir))
  await verify(t, clients)
})
