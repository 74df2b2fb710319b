// A process of its own that makes a vend's calls with the SDK as AWS ships it, in the order in which they wait for each other, and does
// nothing else.
// Each message { inFlight, times } is answered by how long each such vend took, in milliseconds.
import { DynamoDBClient, UpdateItemCommand } from '@aws-sdk/client-dynamodb'
import {
  AttachPolicyCommand, AttachThingPrincipalCommand, CreateCertificateFromCsrCommand, CreateThingCommand, IoTClient, UpdateCertificateCommand
} from '@aws-sdk/client-iot'
import { crowd } from './harness.ts'

const [endpoint = '', csr = ''] = process.argv.slice(2)
const common = { region: 'us-east-1', credentials: { accessKeyId: 'test', secretAccessKey: 'test' }, endpoint }
const [iot, dynamodb] = [new IoTClient(common), new DynamoDBClient(common)]

async function vend (n: number): Promise<void> {
  const thingName = `sn-${n}`
  const write = (state: string) => dynamodb.send(new UpdateItemCommand({
    TableName: 'devices',
    Key: { serialNumber: { S: thingName } },
    UpdateExpression: 'SET #state = :state',
    ExpressionAttributeNames: { '#state': 'state' },
    ExpressionAttributeValues: { ':state': { S: state } },
    ReturnValues: 'ALL_NEW'
  }))
  await write('ISSUING')
  const [{ certificateId, certificateArn: principal }] = await Promise.all([
    iot.send(new CreateCertificateFromCsrCommand({ certificateSigningRequest: csr, setAsActive: false })),
    iot.send(new CreateThingCommand({ thingName }))
  ])
  await write('ISSUED')
  await Promise.all([
    iot.send(new AttachPolicyCommand({ policyName: 'bench', target: principal })),
    iot.send(new AttachThingPrincipalCommand({ thingName, principal }))
  ])
  await iot.send(new UpdateCertificateCommand({ certificateId, newStatus: 'ACTIVE' }))
  await write('ACTIVE')
}

process.on('message', async ({ inFlight, times }: { inFlight: number, times: number }) => {
  const took: number[] = []
  await crowd(inFlight, times, async n => {
    const began = performance.now()
    await vend(n)
    took.push(performance.now() - began)
  })
  process.send!(took)
})
process.on('disconnect', () => process.exit())
process.send!('ready')
