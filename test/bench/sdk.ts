// What a call through the AWS SDK costs in this process: the client as AWS ships it against the one that the service builds.
import { DynamoDBClient, UpdateItemCommand } from '@aws-sdk/client-dynamodb'
import { IoTClient, UpdateCertificateCommand } from '@aws-sdk/client-iot'
import { dynamodbClient, iotBindingClient } from '../../src/adapters/aws-clients.ts'
import { forked } from './children.ts'
import { type Result, type Size, cpuMs, crowd, paired } from './harness.ts'

const AT_ONCE = 8
const common = { region: 'us-east-1', credentials: { accessKeyId: 'test', secretAccessKey: 'test' } }

export async function sdkCalls ({ rounds, scale }: Size): Promise<Result[]> {
  const aws = await forked<string>('aws-answers.ts')
  const endpoint = aws.first
  const settings = { ...common, dynamodbEndpoint: endpoint, iotEndpoint: endpoint, callTimeoutMs: 10_000, observe () {} }
  const iot = { ...settings, pace: async <T>(_operation: string, _signal: unknown, call: () => Promise<T>) => await call() }
  const [ourDynamoDb, theirDynamoDb] = [dynamodbClient(settings), new DynamoDBClient({ ...common, endpoint })]
  const [ourIot, theirIot] = [iotBindingClient(iot), new IoTClient({ ...common, endpoint })]
  const update = (client: DynamoDBClient) => client.send(new UpdateItemCommand({
    TableName: 'devices',
    Key: { serialNumber: { S: 'sn-1' } },
    UpdateExpression: 'SET #s = :s',
    ConditionExpression: 'claimId = :c',
    ExpressionAttributeNames: { '#s': 'state' },
    ExpressionAttributeValues: { ':s': { S: 'ACTIVE' }, ':c': { S: 'claim' } }
  }))
  const activate = (client: IoTClient) => client.send(new UpdateCertificateCommand({ certificateId: 'a'.repeat(64), newStatus: 'ACTIVE' }))
  const repeat = (call: () => Promise<unknown>) => async () => await cpuMs(() => crowd(AT_ONCE, Math.ceil(3_000 * scale), call))
  const goal = { against: 'the client as AWS ships it', atMost: 0.6 }
  try {
    return [
      await paired({ ...goal, what: 'CPU of a call to DynamoDB' }, rounds, repeat(() => update(ourDynamoDb)), repeat(() => update(theirDynamoDb))),
      await paired({ ...goal, what: 'CPU of a call to AWS IoT' }, rounds, repeat(() => activate(ourIot)), repeat(() => activate(theirIot)))
    ]
  } finally {
    for (const client of [ourDynamoDb, theirDynamoDb, ourIot, theirIot]) client.destroy()
    await aws.stop()
  }
}
