// Which devices there are, whose certificate this is, and changes on the condition that nobody came between.
import { randomUUID } from 'node:crypto'
import { PutItemCommand } from '@aws-sdk/client-dynamodb'
import t from 'tap'
import { API_KEYS, ask } from '../fixtures/api-keys.ts'
import { certificateIn } from '../fixtures/account.ts'
import { clientOf } from '../fixtures/engines.ts'
import { isProblem } from '../fixtures/problems.ts'
import { startService } from '../fixtures/service.ts'
import { newDevice, vend } from '../fixtures/vending.ts'

const service = await startService({ API_KEYS, RATE_LIMIT_ADDRESS_MAX: '100000' })
t.teardown(() => service.close())

const get = (url: string) => ask(service, 'GET', url, undefined, { as: 'auditor' })
const operate = (serialNumber: string, operation: string, ifMatch?: string) =>
  ask(service, 'POST', `/v1/devices/${serialNumber}/${operation}`, { reason: 'test' }, ifMatch === undefined ? {} : { 'if-match': ifMatch })

await t.test('the list, page by page, and by state', async t => {
  t.same((await get('/v1/devices')).json(), { devices: [] })
  const devices = []
  for (let n = 0; n < 5; n++) devices.push(await newDevice(service, { serialNumber: `sn-${n}` }))
  const { certificateId, notAfter } = (await vend(service, devices[3] ?? {})).json()

  const registered = (n: number) => ({ serialNumber: `sn-${n}`, product: 'default', state: 'REGISTERED' })
  const active = { serialNumber: 'sn-3', product: 'default', state: 'ACTIVE', certificateId, notAfter }
  const all = await get('/v1/devices')
  t.same(all.json(), { devices: [active, ...[0, 1, 2, 4].map(registered)] })
  t.equal(all.headers['cache-control'], 'no-store')
  t.same((await get('/v1/devices?state=ACTIVE')).json(), { devices: [active] })
  t.same((await get('/v1/devices?product=default&state=REGISTERED')).json(), { devices: [0, 1, 2, 4].map(registered) })
  t.same((await get('/v1/devices?product=toaster')).json(), { devices: [] })

  const first = (await get('/v1/devices?state=REGISTERED&limit=2')).json()
  t.same(first.devices, [0, 1].map(registered))
  const second = (await get(`/v1/devices?state=REGISTERED&limit=2&cursor=${first.nextCursor}`)).json()
  t.same(second, { devices: [2, 4].map(registered) }, 'and no cursor on the last page')
  isProblem(t, await get(`/v1/devices?state=ACTIVE&cursor=${first.nextCursor}`), 'invalid-request', { detail: /cursor/ })
  isProblem(t, await get(`/v1/devices?cursor=${first.nextCursor}`), 'invalid-request', { detail: /cursor/ })
})

await t.test('the list: what it does not take', async t => {
  for (const query of [
    'limit=0', 'limit=501', 'limit=1.5', 'limit=-1', 'limit=', 'limit=1e2', 'limit=5&limit=6', 'state=active', 'state=', 'state=ACTIVE&state=REVOKED',
    'product=', 'product=a%20b', 'cursor=', 'cursor=%00', 'cursor=AAAA', 'page=2'
  ]) isProblem(t, await get(`/v1/devices?${query}`), 'invalid-request', {}, query)
  t.equal((await get('/v1/devices?limit=500')).statusCode, 200)
})

await t.test('whose certificate this is', async t => {
  const device = await newDevice(service)
  const vended = (await vend(service, device)).json()
  const { serialNumber } = device
  const url = `/v1/certificates/${vended.certificateId}`
  const found = await get(url)
  t.match(found.json(), {
    certificateId: vended.certificateId,
    certificateArn: vended.certificateArn,
    certificatePem: vended.certificatePem,
    serialNumber,
    product: 'default',
    thingName: serialNumber,
    state: 'ACTIVE',
    issuedAt: /Z$/,
    notAfter: vended.notAfter
  })
  t.equal(found.headers['cache-control'], 'no-store')
  await operate(serialNumber, 'revoke')
  t.equal((await get(url)).json().state, 'REVOKED')
  await operate(serialNumber, 'reset')
  isProblem(t, await get(url), 'certificate-not-found')
  isProblem(t, await get(`/v1/certificates/${'0'.repeat(64)}`), 'certificate-not-found')
  for (const id of ['0'.repeat(63), 'A'.repeat(64), 'x']) isProblem(t, await get(`/v1/certificates/${id}`), 'invalid-request')
})

await t.test('If-Match: a change since then refuses the wish, whatever it is', async t => {
  const device = await newDevice(service)
  const { serialNumber } = device
  const etag = async () => (await get(`/v1/devices/${serialNumber}`)).headers['etag'] as string
  const before = await etag()
  t.match(before, /^"\d+"$/)
  t.equal(await etag(), before, 'a look changes nothing')
  const { certificateId } = (await vend(service, device)).json()
  const after = await etag()
  t.not(after, before)
  isProblem(t, await operate(serialNumber, 'revoke', before), 'precondition-failed')
  t.match(await certificateIn(service.iot, certificateId), { status: 'ACTIVE' }, 'and nothing was done')
  t.equal(await etag(), after)
  t.match((await operate(serialNumber, 'revoke', after)).json(), { state: 'REVOKED' })
  isProblem(t, await operate(serialNumber, 'revoke', after), 'precondition-failed', {}, 'also where it is fulfilled already')
  t.equal((await operate(serialNumber, 'revoke', await etag())).statusCode, 200)
  t.equal((await operate(serialNumber, 'revoke', '*')).statusCode, 200)
  isProblem(t, await operate('unknown', 'revoke', '*'), 'device-not-found')
  for (const tag of ['', '3', 'W/"3"', '"x"', '"03"', '"1", "2"', '"-1"', `"${'9'.repeat(16)}"`]) {
    isProblem(t, await operate(serialNumber, 'reset', tag), 'invalid-request', {}, `If-Match: ${tag}`)
  }
})

await t.test('If-Match: of many who saw the same, one changes it', async t => {
  const { serialNumber } = await newDevice(service)
  const seen = (await get(`/v1/devices/${serialNumber}`)).headers['etag'] as string
  const statuses = (await Promise.all(Array.from({ length: 8 }, () => operate(serialNumber, 'reset', seen)))).map(({ statusCode }) => statusCode)
  t.same(statuses.sort(), [200, ...Array(7).fill(412)])
})

await t.test('If-Match: a row of the old services is at "0"', async t => {
  const dynamodb = clientOf(service.aws.dynamodbUrl)
  t.teardown(() => dynamodb.destroy())
  const serialNumber = `legacy-${randomUUID()}`
  await dynamodb.send(new PutItemCommand({ TableName: service.config.DEVICE_TABLE, Item: { serialNumber: { S: serialNumber }, deviceToken: { S: 'plain' } } }))
  t.equal((await get(`/v1/devices/${serialNumber}`)).headers['etag'], '"0"')
  isProblem(t, await operate(serialNumber, 'disable', '"1"'), 'precondition-failed')
  t.match((await operate(serialNumber, 'disable', '"0"')).json(), { state: 'DISABLED', product: 'default' })
  t.match((await get('/v1/devices?state=DISABLED')).json().devices, [{ serialNumber }], 'and is listed from then on')
})
