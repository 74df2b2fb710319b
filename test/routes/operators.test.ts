// The routes for people: API keys and roles, a device's story, what operators do to devices, reconcile on demand.
import { createHash, randomBytes } from 'node:crypto'
import t from 'tap'
import { certificateIn } from '../fixtures/account.ts'
import { startService } from '../fixtures/service.ts'
import { newDevice, vend } from '../fixtures/vending.ts'

const keys = { operator: key(), auditor: key(), line: key() }
const entries = Object.entries(keys).map(([role, secret]) => `${role}-1:${role}:${createHash('sha256').update(secret).digest('hex')}`)
const service = await startService({ API_KEYS: entries.join(',') })
t.teardown(() => service.close())

type Method = 'GET' | 'POST'

function ask (method: Method, url: string, { as = 'operator', body = { reason: 'test' } }: { as?: keyof typeof keys, body?: object } = {}) {
  const headers = { authorization: `Bearer ${keys[as]}` }
  return service.app.service.inject({ method, url, headers, ...(method === 'POST' && { payload: body }) })
}

await t.test('a device\'s story, without its secrets', async t => {
  const device = await newDevice(service)
  const { serialNumber } = device
  t.equal((await ask('GET', '/v1/devices/unknown')).statusCode, 404)
  await vend(service, device, { 'x-request-id': 'vend-request-1' })
  const answer = await ask('GET', `/v1/devices/${serialNumber}`, { as: 'auditor' })
  t.match(answer.json(), { serialNumber, state: 'ACTIVE', thingName: serialNumber, certificateId: /^[0-9a-f]{64}$/ })
  t.same(answer.json().history.map(({ event }: { event: string }) => event), ['registered', 'claimed', 'issued', 'activated'])
  t.equal(answer.json().history[3].requestId, 'vend-request-1')
  t.notMatch(answer.body, new RegExp(device.registrationToken))
  t.notMatch(answer.body, /hash/i)
})

await t.test('revoke, and reset with a new token', async t => {
  const device = await newDevice(service)
  const url = `/v1/devices/${device.serialNumber}`
  const { certificateId } = (await vend(service, device)).json()
  t.match((await ask('POST', `${url}/revoke`, { body: { reason: 'stolen' } })).json(), { state: 'REVOKED' })
  t.match(await certificateIn(service.iot, certificateId), { status: 'REVOKED' })
  t.equal((await vend(service, device)).json().code, 'device-revoked')
  t.match((await ask('POST', `${url}/revoke`)).json(), { state: 'REVOKED' }, 'again changes nothing')
  t.equal((await ask('POST', `${url}/enable`)).json().code, 'state-conflict')

  const reset = (await ask('POST', `${url}/reset`, { body: { reason: 'found again' } })).json()
  t.match(reset, { state: 'REGISTERED', retiring: [certificateId], registrationToken: /^[\w-]{43}$/ })
  t.equal((await vend(service, device)).json().code, 'device-not-authorized', 'the old token is out')
  const again = await vend(service, { ...device, registrationToken: reset.registrationToken })
  t.equal(again.statusCode, 201)
  t.not(again.json().certificateId, certificateId)
  const { history } = (await ask('GET', url)).json()
  t.match(history.find(({ event }: { event: string }) => event === 'revoked'), { actor: 'operator-1', reason: 'stolen', certificateId })
})

await t.test('disable and enable', async t => {
  const device = await newDevice(service)
  const url = `/v1/devices/${device.serialNumber}`
  const { certificateId } = (await vend(service, device)).json()
  t.match((await ask('POST', `${url}/disable`)).json(), { state: 'DISABLED' })
  t.match(await certificateIn(service.iot, certificateId), { status: 'INACTIVE' })
  t.equal((await vend(service, device)).json().code, 'device-disabled')
  t.equal((await vend(service, { ...device, registrationToken: 'wrong' })).json().code, 'device-not-authorized')
  t.match((await ask('POST', `${url}/enable`)).json(), { state: 'ACTIVE' })
  t.match(await certificateIn(service.iot, certificateId), { status: 'ACTIVE' })
  t.equal((await vend(service, device)).statusCode, 200)
})

await t.test('decommission is for ever', async t => {
  const device = await newDevice(service)
  const url = `/v1/devices/${device.serialNumber}`
  await vend(service, device)
  t.match((await ask('POST', `${url}/decommission`)).json(), { state: 'DECOMMISSIONED' })
  t.equal((await vend(service, device)).json().code, 'device-decommissioned')
  for (const operation of ['reset', 'revoke', 'enable', 'disable']) {
    t.equal((await ask('POST', `${url}/${operation}`)).json().code, 'state-conflict', operation)
  }
})

await t.test('bad input', async t => {
  const { serialNumber } = await newDevice(service)
  for (const body of [{}, { reason: '' }, { reason: 'x'.repeat(201) }, { reason: 'a\u0000b' }, { reason: 1 }, { reason: 'a', more: 1 }]) {
    t.equal((await ask('POST', `/v1/devices/${serialNumber}/revoke`, { body })).json().code, 'invalid-request', JSON.stringify(body).slice(0, 40))
  }
  t.equal((await ask('GET', '/v1/devices/a%20b')).json().code, 'invalid-request')
  t.equal((await ask('POST', '/v1/devices/unknown/revoke')).json().code, 'device-not-found')
})

await t.test('reconcile on demand', async t => {
  const quiet = (await ask('POST', '/v1/reconcile', { body: { dryRun: true } })).json()
  t.match(quiet, { actions: Array, backlog: Number, drift: 0, complete: true })
  const { statusCode } = await ask('POST', '/v1/reconcile', { body: {} })
  t.equal(statusCode, 200)
})

function key (): string {
  return `cvm_${randomBytes(32).toString('base64url')}`
}
