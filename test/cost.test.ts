// What requests cost in calls and request units: counted here, and the README's table.
// To renew it after a change, with a DynamoDB Local: UPDATE_README=1 TEST_DYNAMODB_LOCAL_URL=http://127.0.0.1:8000 npm test -- test/cost.test.ts
import { randomUUID } from 'node:crypto'
import { CreateTableCommand, DeleteTableCommand, PutItemCommand, type PutItemCommandInput } from '@aws-sdk/client-dynamodb'
import t from 'tap'
import { API_KEYS, ask } from './fixtures/api-keys.ts'
import { BEST_ENGINE, clientOf } from './fixtures/engines.ts'
import { isInReadme, table } from './fixtures/readme.ts'
import { startMeter } from './fixtures/request-units.ts'
import { awsCallsDuring } from './fixtures/scrape.ts'
import { startService } from './fixtures/service.ts'
import { newDevice, vend, vendKeys } from './fixtures/vending.ts'

const DYNAMODB = ['UpdateItem', 'GetItem', 'Query', 'PutItem', 'DeleteItem']

if (BEST_ENGINE.name !== 'DynamoDB Local') {
  const reason = 'not tested, because only DynamoDB Local counts as DynamoDB does (TEST_DYNAMODB_LOCAL_URL is not set): what requests cost'
  console.error(reason)
  t.pass(reason, { skip: reason })
} else {
  await t.test('what a request costs is in the README', async t => {
    const { url, close } = await BEST_ENGINE.start()
    const client = clientOf(url)
    const scratch = `scratch-${randomUUID()}`
    await client.send(new CreateTableCommand({
      TableName: scratch,
      BillingMode: 'PAY_PER_REQUEST',
      AttributeDefinitions: [{ AttributeName: 'serialNumber', AttributeType: 'S' }],
      KeySchema: [{ AttributeName: 'serialNumber', KeyType: 'HASH' }]
    }))
    // What a write of the item costs that was in the way of a refused one; the indexes stay as they are.
    const meter = await startMeter(t, url, async item => {
      const Item = { serialNumber: { S: 'none' }, ...item } as PutItemCommandInput['Item']
      const { ConsumedCapacity } = await client.send(new PutItemCommand({ TableName: scratch, Item, ReturnConsumedCapacity: 'TOTAL' }))
      return ConsumedCapacity?.CapacityUnits ?? NaN
    })
    const service = await startService({ AWS_ENDPOINT_URL_DYNAMODB: meter.url, API_KEYS, MAX_EVENT_LOOP_DELAY_MS: '60000', CLAIM_LIFETIME_MS: '600000' })
    t.teardown(async () => {
      await service.close()
      await client.send(new DeleteTableCommand({ TableName: scratch }))
      client.destroy()
      await close()
    })
    // The first vend asks for the endpoint, which is then known.
    t.equal((await vend(service, await newDevice(service))).statusCode, 201)

    const [device, keyed, serialNumber] = [await newDevice(service), await newDevice(service), `sn-${randomUUID()}`]
    const requests: ReadonlyArray<readonly [what: string, status: number, work: () => Promise<{ statusCode: number }>]> = [
      ['a run of reconcile with nothing to do', 200, () => ask(service, 'POST', '/v1/reconcile', {})],
      ['a device is registered', 201, () => ask(service, 'POST', '/v1/devices', { serialNumber })],
      ['a vend with a CSR', 201, () => vend(service, device)],
      ['its replay', 200, () => vend(service, device)],
      ['a wrong token', 401, () => vend(service, { ...device, registrationToken: 'x'.repeat(43) })],
      ['a vend with a key pair of AWS IoT', 201, () => vendKeys(service, keyed)],
      ['a look at a device', 200, () => ask(service, 'GET', `/v1/devices/${device.serialNumber}`)],
      ['a reset', 200, () => ask(service, 'POST', `/v1/devices/${device.serialNumber}/reset`, { reason: 'test' })]
    ]
    const rows: string[][] = []
    for (const [what, status, work] of requests) {
      let units = { writes: 0, reads: 0 }
      const calls = await awsCallsDuring(service, async () => {
        units = await meter.during(async () => { t.equal((await work()).statusCode, status, what) })
      })
      const operations = Object.entries(calls).map(([call, times]) => ({ operation: call.split(' ')[0] ?? '', times }))
      const [dynamodb, iot] = [true, false].map(of => operations.filter(({ operation }) => DYNAMODB.includes(operation) === of)
        .map(({ operation, times }) => times === 1 ? operation : `${times} ${operation}`).sort().join(', '))
      rows.push([what, dynamodb!, String(units.writes), String(units.reads), iot!])
    }
    isInReadme(t, 'cost', table(['request', 'DynamoDB calls', 'write units', 'read units', 'AWS IoT calls'], rows))
  })
}
