// Rows that cannot be read, because somebody changed them past the service: each is set apart and named, and keeps nobody else waiting.
import { createHash, randomBytes } from 'node:crypto'
import { DynamoDBClient } from '@aws-sdk/client-dynamodb'
import { DynamoDBDocumentClient, GetCommand, UpdateCommand } from '@aws-sdk/lib-dynamodb'
import t from 'tap'
import { ENGINES } from '../fixtures/engines.ts'
import { startService } from '../fixtures/service.ts'
import { newDevice, vend } from '../fixtures/vending.ts'

const key = randomBytes(32).toString('base64url')
const engine = await ENGINES[0]!.start()
const service = await startService({
  API_KEYS: `operator-1:operator:${createHash('sha256').update(key).digest('hex')}`, AWS_ENDPOINT_URL_DYNAMODB: engine.url
})
const client = new DynamoDBClient({ endpoint: engine.url, region: service.config.AWS_REGION, credentials: { accessKeyId: 'test', secretAccessKey: 'test' } })
const documents = DynamoDBDocumentClient.from(client)
t.teardown(async () => { client.destroy(); await service.close(); await engine.close() })

type Device = Awaited<ReturnType<typeof newDevice>>

function ask (method: 'GET' | 'POST', url: string) {
  return service.app.service.inject({ method, url, headers: { authorization: `Bearer ${key}` }, ...(method === 'POST' && { payload: { reason: 'test' } }) })
}

async function reconcile () {
  const answer = await service.app.service.inject({ method: 'POST', url: '/v1/reconcile', headers: { authorization: `Bearer ${key}` }, payload: {} })
  t.equal(answer.statusCode, 200, answer.body)
  return answer.json() as { quarantined: number, backlog: number, actions: { step: string, outcome: string, serialNumber?: string }[] }
}

/** Changes a row as a hand in the console does; undefined takes the attribute away. */
async function write (serialNumber: string, attributes: Record<string, unknown>): Promise<void> {
  for (const [name, value] of Object.entries(attributes)) {
    await documents.send(new UpdateCommand({
      TableName: service.config.DEVICE_TABLE,
      Key: { serialNumber },
      ExpressionAttributeNames: { '#name': name },
      UpdateExpression: value === undefined ? 'REMOVE #name' : 'SET #name = :value',
      ...(value !== undefined && { ExpressionAttributeValues: { ':value': value } })
    }))
  }
}

async function read (serialNumber: string): Promise<Record<string, unknown>> {
  return (await documents.send(new GetCommand({ TableName: service.config.DEVICE_TABLE, Key: { serialNumber } }))).Item ?? {}
}

async function quarantined (): Promise<{ serialNumber: string, attribute: string, detail: string }[]> {
  const devices = []
  for (let cursor = ''; ;) {
    const page = (await ask('GET', `/v1/quarantined-devices?limit=3${cursor && `&cursor=${cursor}`}`)).json()
    devices.push(...page.devices)
    if (page.nextCursor === undefined) return devices
    cursor = page.nextCursor
  }
}

const SECRET = 'hand-written-secret'

/** What a hand can do to a row of a device that was vended, and the attribute that is named then. */
const POISONS: [attributes: Record<string, unknown>, attribute: string, found: string][] = [
  [{ retiring: 7 }, 'retiring', 'is a number where a string set belongs'],
  [{ retiring: [SECRET] }, 'retiring', 'is a list where a string set belongs'],
  [{ suspects: 7 }, 'suspects', 'is a number where a string set belongs'],
  [{ state: SECRET }, 'state', 'is another string where one of REGISTERED'],
  [{ state: null }, 'state', 'is null where one of REGISTERED'],
  [{ certificatePem: undefined }, 'certificatePem', 'is missing'],
  [{ history: [{ at: 'yesterday', event: 'issued', requestId: 'r' }] }, 'history.0.at', 'is another string where a time'],
  [{ renewal: { phase: 'issued', claimId: 'c', expiresAt: 1, publicKeyFingerprint: 'f' } }, 'renewal.certificate', 'is missing'],
  [{ pending: { operation: 'revoke' } }, 'pending.operationId', 'is missing'],
  [{ suspectClaimId: 'c' }, 'suspectSince', 'is missing'],
  [{ notAfter: SECRET }, 'notAfter', 'is another string where a time'],
  [{ claimId: 'c' }, 'claimExpiresAt', 'is missing']
]

await t.test('each fault is named, and answered with its own code wherever the device is asked for', async t => {
  const devices: Device[] = []
  for (const [attributes] of POISONS) {
    const device = await newDevice(service)
    t.equal((await vend(service, device)).statusCode, 201)
    await write(device.serialNumber, attributes)
    devices.push(device)
  }
  const refused = (await vend(service, { ...await newDevice(service), registrationToken: 'wrong' })).json()
  t.equal(refused.code, 'device-not-authorized')
  for (const [n, [, attribute, found]] of POISONS.entries()) {
    const { serialNumber } = devices[n] as Device
    const shown = await ask('GET', `/v1/devices/${serialNumber}`)
    t.equal(shown.statusCode, 500, attribute)
    t.match(shown.json(), { code: 'device-unreadable', detail: new RegExp(`^\`${attribute}\` ${found}`) }, attribute)
    t.equal((await ask('POST', `/v1/devices/${serialNumber}/revoke`)).json().code, 'device-unreadable', attribute)
    t.equal((await vend(service, devices[n] as Device)).json().code, 'device-unreadable', attribute)
    const wrong = (await vend(service, { ...devices[n] as Device, registrationToken: 'wrong' })).json()
    t.same({ ...wrong, requestId: '' }, { ...refused, requestId: '' }, `${attribute}: a wrong token is answered as it is for any device`)
    t.notMatch(shown.body + service.logs(), new RegExp(SECRET), 'what was written by hand is told to nobody')
  }
  const listed = await quarantined()
  t.same(listed.map(({ serialNumber }) => serialNumber).sort(), devices.map(({ serialNumber }) => serialNumber).sort())
  for (const [n, [, attribute]] of POISONS.entries()) {
    t.match(listed.find(({ serialNumber }) => serialNumber === devices[n]?.serialNumber), { attribute })
  }
  t.equal((await ask('GET', '/v1/devices?limit=500')).statusCode, 200, 'the list goes on')
  t.equal((await ask('GET', '/v1/quarantined-devices?cursor=bm9uc2Vuc2U')).json().code, 'invalid-request')
  t.match(service.logs(), /"attribute":"retiring".*quarantined/)
})

await t.test('reconcile goes on with all others, and takes up again what was mended', async t => {
  const poisoned = await newDevice(service)
  t.equal((await vend(service, poisoned)).statusCode, 201)
  const healthy = await newDevice(service)
  t.equal((await vend(service, healthy)).statusCode, 201)
  const { certificateId } = await read(healthy.serialNumber)
  // Both are due; the one that cannot be read is first.
  await write(poisoned.serialNumber, { retiring: 7, unfinished: 'unfinished', claimExpiresAt: 1 })
  await write(healthy.serialNumber, { unfinished: 'unfinished', claimExpiresAt: 2 })
  const before = await reconcile()
  t.equal((await read(healthy.serialNumber))['unfinished'], undefined, 'the healthy device is at rest')
  t.ok(before.quarantined > 0)
  t.equal(before.backlog, 0, 'and what cannot be read is no backlog')
  t.ok((await quarantined()).some(({ serialNumber }) => serialNumber === poisoned.serialNumber))
  t.match((await service.app.ops.inject('/metrics')).body, new RegExp(`cvm_quarantined_devices ${before.quarantined}\\n`))

  await write(poisoned.serialNumber, { retiring: undefined })
  const mended = await reconcile()
  t.match(mended.actions.find(({ serialNumber }) => serialNumber === poisoned.serialNumber), { step: 'readmit-device', outcome: 'done' })
  t.equal(mended.quarantined, before.quarantined - 1)
  await reconcile()
  t.equal((await read(poisoned.serialNumber))['unfinished'], undefined)
  t.match((await ask('GET', `/v1/devices/${poisoned.serialNumber}`)).json(), { state: 'ACTIVE' })
  t.ok(certificateId)
})
