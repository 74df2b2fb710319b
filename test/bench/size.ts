// Whether a vend costs more where more devices are registered: time and request units on DynamoDB Local.
import { X509Certificate, hash, randomUUID } from 'node:crypto'
import { BatchWriteItemCommand, DeleteItemCommand, DeleteTableCommand, DynamoDBClient, PutItemCommand } from '@aws-sdk/client-dynamodb'
import { startMeter } from '../fixtures/request-units.ts'
import { forked } from './children.ts'
import { dynamodbLocal } from './dynamodb-local.ts'
import { type Result, type Size, crowd, median, resultOf } from './harness.ts'
import { OPEN, clientOf, material, mustBe, startServer, vendBody } from './service.ts'

const LEAST = 1_000
const SIZES = [10_000, 100_000]
const BATCH = 25
const TOKEN = 'bench-0123456789-abcdefgh'

export async function sizes ({ rounds, scale }: Size): Promise<Result[]> {
  const engine = await dynamodbLocal()
  if (typeof engine === 'string') {
    console.log(`left out, because DynamoDB Local is not there (${engine}): cost of a vend by the number of devices`)
    return []
  }
  const { csr, certificatePem, folder } = material()
  const fingerprint = hash('sha256', new X509Certificate(certificatePem).publicKey.export({ type: 'spki', format: 'der' }), 'hex')
  const aws = await forked<string>('aws-answers.ts', ['0', certificatePem])
  const teardowns: (() => unknown)[] = []
  const meter = await startMeter({ teardown: work => { teardowns.push(work as () => unknown) } }, engine.url, () => Promise.reject(new Error('a write was refused')))
  const client = new DynamoDBClient({ region: 'us-east-1', credentials: { accessKeyId: 'bench', secretAccessKey: 'bench' }, endpoint: engine.url })

  /** A table with so many devices, and a service on it; one vend's time and units. */
  const table = async (devices: number) => {
    const DEVICE_TABLE = `bench-${randomUUID()}`
    const IOT_ENDPOINT = 'bench.iot.us-east-1.amazonaws.com'
    const aside = { ...OPEN, IOT_ENDPOINT, ROOT_CA_FILE: `${folder}/ca.pem`, AWS_ENDPOINT_URL_IOT: aws.first, DEVICE_TABLE, CREATE_TABLES: 'true' }
    const service = await startServer({ ...aside, AWS_ENDPOINT_URL_DYNAMODB: meter.url })
    await crowd(4, Math.ceil(devices / BATCH), async () => {
      const items = Array.from({ length: BATCH }, () => ({ PutRequest: { Item: registered(`sn-${randomUUID()}`) } }))
      await client.send(new BatchWriteItemCommand({ RequestItems: { [DEVICE_TABLE]: items } }))
    })
    const http = clientOf(service.url, 1)
    const vend = async () => {
      const serialNumber = `sn-${randomUUID()}`
      const Item = { serialNumber: { S: serialNumber }, deviceToken: { S: TOKEN } }
      await client.send(new PutItemCommand({ TableName: DEVICE_TABLE, Item }))
      // The stand-in for AWS IoT has the certificate of one key, which no device may keep from the next one.
      await client.send(new DeleteItemCommand({ TableName: DEVICE_TABLE, Key: { serialNumber: { S: `#key/${fingerprint}` } } }))
      const answer = await http.post(vendBody(serialNumber, csr, TOKEN))
      mustBe(201, answer)
      return answer.ms
    }
    const times = Math.ceil(100 * scale)
    const cost = async () => {
      const took: number[] = []
      const { writes } = await meter.during(async () => { for (let n = 0; n < times; n++) took.push(await vend()) })
      return { ms: median(took), units: writes / times }
    }
    await cost()
    const stop = async () => {
      await Promise.all([http.close(), service.stop()])
      await client.send(new DeleteTableCommand({ TableName: DEVICE_TABLE }))
    }
    return { cost, stop }
  }
  const least = await table(LEAST)
  const results: Result[] = []
  for (const devices of SIZES) {
    const more = await table(Math.ceil(devices * scale))
    const [times, units, controls]: [number[], number[], number[]] = [[], [], []]
    for (let round = 0; round < rounds; round++) {
      const [before, own, after] = [await least.cost(), await more.cost(), await least.cost()]
      times.push(own.ms / ((before.ms + after.ms) / 2))
      units.push(own.units / before.units)
      controls.push(before.ms / after.ms)
    }
    const at = `with ${devices.toLocaleString('en')} devices registered`
    const against = `with ${LEAST.toLocaleString('en')}`
    results.push(resultOf({ what: `time of a vend ${at}`, against, atMost: 1.1 }, times, { control: median(controls) }))
    results.push(resultOf({ what: `write units of a vend ${at}`, against, atMost: 1 }, units))
    await more.stop()
  }
  await Promise.all([least.stop(), aws.stop(), ...teardowns.map(work => work())])
  client.destroy()
  await engine.stop()
  return results
}

const registered = (serialNumber: string) => ({
  serialNumber: { S: serialNumber },
  state: { S: 'REGISTERED' },
  product: { S: 'default' },
  listing: { S: `REGISTERED#${serialNumber}` },
  tokenHash: { S: 'x'.repeat(43) },
  revision: { N: '1' },
  history: { L: [] }
})
