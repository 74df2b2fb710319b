// Taking over the devices of an old service: what each kind of row becomes, that nothing in AWS IoT changes, and that a device's own
// request comes first.
import { randomUUID } from 'node:crypto'
import { type AttributeValue, PutItemCommand, ScanCommand } from '@aws-sdk/client-dynamodb'
import {
  AttachThingPrincipalCommand, CreateKeysAndCertificateCommand, CreateThingCommand, DeleteCertificateCommand, UpdateCertificateCommand
} from '@aws-sdk/client-iot'
import t from 'tap'
import { ensureDeviceTable } from '../../src/adapters/device-table.ts'
import { MIGRATION_NOTES } from '../../src/vending/migrate.ts'
import { certificateIn } from '../fixtures/account.ts'
import { API_KEYS, ask } from '../fixtures/api-keys.ts'
import { clientOf } from '../fixtures/engines.ts'
import { awsError, startFaultyProxy } from '../fixtures/faulty-proxy.ts'
import { isProblem } from '../fixtures/problems.ts'
import { awsCallsDuring } from '../fixtures/scrape.ts'
import { startService } from '../fixtures/service.ts'
import { csrFor, vend } from '../fixtures/vending.ts'

const iotProxy = await startFaultyProxy(t)
const service = await startService({
  API_KEYS, LEGACY_CVM: 'true', MAX_EVENT_LOOP_DELAY_MS: '600000', RATE_LIMIT_ADDRESS_MAX: '100000', AWS_ENDPOINT_URL_IOT: iotProxy.url
})
t.teardown(() => service.close())
iotProxy.forwardTo(service.aws.iotUrl)
const { iot, config: { DEVICE_TABLE } } = service
const dynamodb = clientOf(service.aws.dynamodbUrl)
t.teardown(() => dynamodb.destroy())

const token = () => `old-token-${randomUUID()}`
const migrate = (body: object = {}) => ask(service, 'POST', '/v1/migration', body)
const show = async (serialNumber: string) => (await ask(service, 'GET', `/v1/devices/${serialNumber}`)).json()
const operate = (serialNumber: string, operation: string) => ask(service, 'POST', `/v1/devices/${serialNumber}/${operation}`, { reason: 'test' })

async function put (serialNumber: string, marks: Record<string, AttributeValue>, TableName = DEVICE_TABLE): Promise<void> {
  await dynamodb.send(new PutItemCommand({ TableName, Item: { serialNumber: { S: serialNumber }, ...marks } }))
}

/** A certificate as the old service made it, on the thing of the device. */
async function vendedThere (thingName: string, isAttached = true) {
  await iot.send(new CreateThingCommand({ thingName }))
  const { certificateArn = '', certificateId = '' } = await iot.send(new CreateKeysAndCertificateCommand({ setAsActive: true }))
  if (isAttached) await iot.send(new AttachThingPrincipalCommand({ thingName, principal: certificateArn }))
  return { certificateArn, certificateId }
}

const update = (certificateId: string, newStatus: 'ACTIVE' | 'INACTIVE' | 'REVOKED') => iot.send(new UpdateCertificateCommand({ certificateId, newStatus }))
const rows = async () => (await dynamodb.send(new ScanCommand({ TableName: DEVICE_TABLE, ConsistentRead: true }))).Items ?? []

await t.test('every kind of row: foreseen without a write, then taken over, then not found again', async t => {
  const tokens: Record<string, string> = {}
  const ids: Record<string, string> = {}
  const row = async (serialNumber: string, marks: Record<string, AttributeValue> = {}) => {
    tokens[serialNumber] = token()
    await put(serialNumber, { deviceToken: { S: tokens[serialNumber] as string }, ...marks })
  }
  const vended = async (serialNumber: string, isAttached = true) => {
    const { certificateArn, certificateId } = await vendedThere(serialNumber, isAttached)
    ids[serialNumber] = certificateId
    await row(serialNumber, { certinfo: { S: certificateArn } })
    return certificateId
  }
  await row('fresh')
  await row('not-vended', { certinfo: { S: '' }, applyState: { N: '0' } })
  await put('weak', { deviceToken: { S: '1234567890' } })
  await put('number', { deviceToken: { N: '42' } })
  await vended('active')
  await update(await vended('inactive'), 'INACTIVE')
  await update(await vended('revoked'), 'REVOKED')
  const gone = await vended('gone', false)
  await update(gone, 'INACTIVE')
  await iot.send(new DeleteCertificateCommand({ certificateId: gone }))
  await vended('detached', false)
  await vended('two')
  ids['second'] = (await vendedThere('two')).certificateId
  ids['by-thing'] = (await vendedThere('by-thing')).certificateId
  await row('by-thing', { applyState: { S: '-1' } })
  await row('nothing-there', { applyState: { N: '-1' } })
  for (let n = 0; n < 2; n++) await vendedThere('ambiguous')
  await row('ambiguous', { certinfo: { S: 'no ARN' } })
  await row('not usable')
  await row('foreign', { product: { S: 'toaster' } })

  const is = (outcome: string, state: string, ...notes: string[]) => ({ outcome, state, notes })
  const expected = {
    fresh: is('migrated', 'REGISTERED'),
    'not-vended': is('migrated', 'REGISTERED'),
    weak: is('migrated', 'REGISTERED', 'weak-token'),
    number: is('migrated', 'REGISTERED', 'no-token'),
    active: is('migrated', 'ACTIVE'),
    inactive: is('migrated', 'DISABLED', 'certificate-inactive'),
    revoked: is('migrated', 'REVOKED', 'certificate-revoked'),
    gone: is('migrated', 'REVOKED', 'certificate-gone'),
    detached: is('migrated', 'ACTIVE', 'not-on-its-thing'),
    two: is('migrated', 'ACTIVE', 'other-certificates'),
    'by-thing': is('migrated', 'ACTIVE', 'certificate-of-its-thing'),
    'nothing-there': is('migrated', 'REVOKED', 'certificate-gone'),
    ambiguous: { outcome: 'left', notes: ['certificate-ambiguous'] },
    'not usable': { outcome: 'left', notes: ['serial-number-not-usable'] },
    foreign: { outcome: 'left', notes: ['unknown-product'] }
  }
  const byName = (answer: { json: () => { results: { serialNumber: string }[] } }) => {
    const { results } = answer.json()
    t.equal(new Set(results.map(({ serialNumber }) => serialNumber)).size, results.length)
    return Object.fromEntries(results.map(({ serialNumber, ...result }) => [serialNumber, result]))
  }
  const before = await rows()
  const wouldBe = byName(await migrate({ dryRun: true }))
  t.strictSame(await rows(), before, 'a dry run writes nothing')
  const done = await migrate()
  t.notOk('nextCursor' in done.json())
  t.match(byName(done), expected)
  for (const [name, result] of Object.entries(byName(done))) {
    t.strictSame(wouldBe[name], { ...result, outcome: (result as { outcome: string }).outcome.replace(/^migrated$/, 'would-migrate') }, `${name}: as foreseen`)
  }
  t.match(byName(done)['two'], { certificateId: ids['two'], otherCertificates: [ids['second']] })
  t.strictSame(Object.keys(byName(await migrate())).sort(), ['ambiguous', 'foreign', 'not usable'], 'again: only what was left')

  for (const secret of Object.values(tokens)) t.notMatch(done.body + service.logs(), secret)
  const left = JSON.stringify((await rows()).filter(({ state }) => state !== undefined))
  for (const mark of ['deviceToken', 'certinfo', 'applyState', '1234567890']) t.notMatch(left, mark)
  const audited = service.logs().split('\n').filter(line => line.includes('"device-migrated"')).map(line => JSON.parse(line).audit)
  t.equal(audited.length, 12)
  t.match(audited.find(({ serialNumber }) => serialNumber === 'two'),
    { outcome: 'done', actor: 'operator-1', role: 'operator', certificateId: ids['two'], reason: 'other-certificates' })
  const seen = new Set(Object.values(expected).flatMap(({ notes }) => notes))
  t.strictSame([...seen, 'certificate-not-usable'].sort(), Object.keys(MIGRATION_NOTES).sort(), 'every note but one, which AWS IoT gives no occasion for')

  for (const name of ['active', 'inactive', 'revoked']) {
    t.match(await certificateIn(iot, ids[name] as string), { status: name.toUpperCase(), things: [name] }, `${name}: AWS IoT is as it was`)
  }
  await t.test('and they are devices like any other', async t => {
    const history = [{ event: 'migrated', actor: 'operator-1' }]
    t.match(await show('active'), { state: 'ACTIVE', thingName: 'active', certificateId: ids['active'], notAfter: /^2049/, history })
    const listed = (await ask(service, 'GET', '/v1/devices?limit=500')).json().devices.map(({ serialNumber }: { serialNumber: string }) => serialNumber)
    t.ok(['fresh', 'active', 'gone'].every(name => listed.includes(name)), 'listed')
    t.match((await ask(service, 'GET', `/v1/certificates/${ids['by-thing']}`)).json(), { serialNumber: 'by-thing' })
    const of = (serialNumber: string) =>
      ({ serialNumber, registrationToken: tokens[serialNumber], certificateSigningRequest: csrFor(serialNumber) })
    t.equal((await vend(service, of('fresh'))).statusCode, 201)
    isProblem(t, await vend(service, of('active')), 'already-vended')
    isProblem(t, await vend(service, of('gone')), 'device-revoked', {}, 'an old token opens nothing that was closed')
    const query = `?serialNumber=active&deviceToken=${tokens['active']}`
    t.match(await service.app.service.inject(`/shadow${query}`), { statusCode: 200, body: '{}' }, 'old firmware is known by the same token')
    t.match((await operate('inactive', 'enable')).json(), { state: 'ACTIVE' })
    t.match(await certificateIn(iot, ids['inactive'] as string), { status: 'ACTIVE' })
    t.match((await operate('active', 'revoke')).json(), { state: 'REVOKED' })
    t.match(await certificateIn(iot, ids['active'] as string), { status: 'REVOKED' })
    const { registrationToken } = (await operate('gone', 'reset')).json()
    t.equal((await vend(service, { ...of('gone'), registrationToken })).statusCode, 201)
  })
})

await t.test('a device that asks meanwhile comes first, and none is vended for twice (G1)', async t => {
  const devices = await Promise.all(Array.from({ length: 16 }, async (_, n) => {
    const serialNumber = `race-${n}`
    const device = { serialNumber, registrationToken: token(), certificateSigningRequest: csrFor(serialNumber) }
    await put(device.serialNumber, { deviceToken: { S: device.registrationToken } })
    return device
  }))
  const pages = ['first', 'second', 'third'].map(async () => await migrate({ limit: 200 }))
  const calls = await awsCallsDuring(service, async () => {
    const answers = await Promise.all(devices.map(device => vend(service, device)))
    t.ok(answers.every(({ statusCode }) => statusCode === 201), answers.map(({ statusCode }) => statusCode).join(' '))
    await Promise.all(pages)
  })
  t.equal(calls['CreateCertificateFromCsr ok'], 16)
  const outcomes = (await Promise.all(pages)).flatMap(page => page.json().results).filter(({ serialNumber }) => /^race/.test(serialNumber))
  t.ok(outcomes.every(({ outcome }) => ['migrated', 'changed'].includes(outcome)), outcomes.map(({ outcome }) => outcome).join(' '))
  for (const { serialNumber, registrationToken } of devices) {
    t.match(await service.app.registry.find(serialNumber), { state: 'ACTIVE', legacyToken: undefined, tokenHash: service.app.hashToken(serialNumber, registrationToken) })
  }
})

await t.test('while AWS IoT is away, what needs it is left for the next time', async t => {
  const { certificateArn } = await vendedThere('later')
  await put('later', { deviceToken: { S: token() }, certinfo: { S: certificateArn } })
  await put('at-once', { deviceToken: { S: token() } })
  iotProxy.fail(() => awsError('InternalFailureException', 500))
  const results = (await migrate()).json().results
  const outcomeOf = (name: string) => results.find(({ serialNumber }: { serialNumber: string }) => serialNumber === name)
  t.match(outcomeOf('later'), { outcome: 'failed', code: 'aws-iot-unavailable' })
  t.match(outcomeOf('at-once'), { outcome: 'migrated' })
  iotProxy.fail()
  t.match((await migrate()).json().results.find(({ serialNumber }: { serialNumber: string }) => serialNumber === 'later'), { outcome: 'migrated', state: 'ACTIVE' })
})

await t.test('from another table, page by page', async t => {
  const theirs = `deviceInfo-${randomUUID()}`
  await ensureDeviceTable(dynamodb, theirs)
  for (let n = 0; n < 5; n++) await put(`copied-${n}`, { deviceToken: { S: token() } }, theirs)
  await service.register({ serialNumber: 'copied-2' })
  const all = async (wish: object) => {
    const outcomes: Record<string, string> = {}
    let cursor: string | undefined
    do {
      const { results, nextCursor } = (await migrate({ table: theirs, limit: 2, ...wish, ...cursor !== undefined && { cursor } })).json()
      for (const { serialNumber, outcome } of results) outcomes[serialNumber] = outcome
      cursor = nextCursor
    } while (cursor !== undefined)
    return outcomes
  }
  const outcomes = (copied: string) => Object.fromEntries(Array.from({ length: 5 }, (_, n) => [`copied-${n}`, n === 2 ? 'exists' : copied]))
  t.strictSame(await all({ dryRun: true }), outcomes('would-migrate'))
  t.strictSame(await all({}), outcomes('migrated'))
  t.strictSame(await all({}), outcomes('exists'), 'again')
  t.match(await show('copied-4'), { state: 'REGISTERED', product: 'default' })
  await put('own', { deviceToken: { S: token() } })
  t.match((await migrate({ table: DEVICE_TABLE })).json().results.find(({ serialNumber }: { serialNumber: string }) => serialNumber === 'own'), { outcome: 'migrated' },
    'the service\'s own table by its name is no other')
})

await t.test('what is not taken', async t => {
  for (const body of [{ limit: 0 }, { limit: 201 }, { limit: 1.5 }, { table: 'a b' }, { table: 'x' }, { cursor: '' }, { cursor: '%' }, { dryRun: 'yes' }, { more: 1 }]) {
    isProblem(t, await migrate(body), 'invalid-request', {}, JSON.stringify(body))
  }
  isProblem(t, await migrate({ table: 'no-such-table' }), 'invalid-request', { detail: /there is no such table/ })
  isProblem(t, await migrate({ cursor: 'AAAA' }), 'invalid-request', { detail: /cursor/ })
  isProblem(t, await ask(service, 'POST', '/v1/migration', {}, { as: 'auditor' }), 'forbidden')
})
