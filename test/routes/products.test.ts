// What products make of vending, over HTTP with the production app: refusals, names, things, policies, times, the grace.
import { X509Certificate } from 'node:crypto'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import {
  CreatePolicyCommand, CreateThingCommand, CreateThingGroupCommand, CreateThingTypeCommand, DescribeThingCommand,
  ListThingGroupsForThingCommand
} from '@aws-sdk/client-iot'
import t, { type Test } from 'tap'
import type { ErrorCode } from '../../src/errors.ts'
import { publish } from '../../src/cli/publish.ts'
import { certificateIn, certificatesMadeDuring } from '../fixtures/account.ts'
import { API_KEYS, ask } from '../fixtures/api-keys.ts'
import { fieldText } from '../fixtures/field.ts'
import { isProblem } from '../fixtures/problems.ts'
import { total } from '../fixtures/scrape.ts'
import { startService } from '../fixtures/service.ts'
import { opensslCsr } from '../fixtures/openssl.ts'
import { handmadeCsr, name, utf8 } from '../x509/handmade.ts'
import { csrFor, newDevice, newKey, vend, vendKeys } from '../fixtures/vending.ts'

const folder = mkdtempSync(join(tmpdir(), 'cvm-products-'))
t.teardown(() => rmSync(folder, { recursive: true, force: true }))

const HERE = '${serialNumber}' // eslint-disable-line no-template-curly-in-string -- written so in the file
const PRODUCTS = [
  {
    name: 'sensor',
    policyName: 'sensors',
    thingType: 'sensor',
    thingGroups: ['fleet', 'floor-1'],
    attributes: { site: 'a', floor: '1', line: '7', batch: '42' },
    thingNameTemplate: `sensor-${HERE}`,
    renewAfterMs: 3_600_000,
    replayWindowMs: 86_400_000
  },
  { name: 'strict', keyTypes: ['EC-P384', 'RSA'], minRsaBits: 3072, subject: 'serial-number', generatedKeys: false },
  { name: 'grace', reVendGraceMs: 3_600_000 },
  { name: 'constant', subject: 'any' },
  { name: 'by-serial', serialNumberFrom: 'SerialNumber' },
  { name: 'by-serial-strict', serialNumberFrom: 'SerialNumber', subject: 'serial-number' },
  { name: 'no-policy', policyName: 'missing' },
  { name: 'no-type', thingType: 'missing' },
  { name: 'no-group', thingGroups: ['missing'] },
  { name: 'long', thingNameTemplate: `${'x'.repeat(120)}${HERE}` }
]

const service = await startService({ PRODUCTS_FILE: products('first', PRODUCTS), API_KEYS, RATE_LIMIT_ADDRESS_MAX: '100000' })
t.teardown(() => service.close())
const { iot } = service
const policyDocument = JSON.stringify({ Version: '2012-10-17', Statement: [{ Effect: 'Allow', Action: 'iot:*', Resource: '*' }] })
await iot.send(new CreatePolicyCommand({ policyName: 'sensors', policyDocument }))
await iot.send(new CreateThingTypeCommand({ thingTypeName: 'sensor' }))
for (const thingGroupName of ['fleet', 'floor-1']) await iot.send(new CreateThingGroupCommand({ thingGroupName }))
// The endpoint is asked for once.
await vend(service, await newDevice(service))

await t.test('a product that refuses: nothing is written, AWS IoT is not called', async t => {
  const refused = async (options: object, expected: ErrorCode, reason?: string, ask = vend) => {
    const device = await service.register({ product: 'strict' })
    const certificateSigningRequest = (await opensslCsr({ serialNumber: device.serialNumber, ...options })).csrPem
    await untouched(t, device.serialNumber, async () => {
      const answer = await ask(service, { ...device, certificateSigningRequest })
      isProblem(t, answer, expected, reason ? { reason } : {}, `${expected} ${reason}`)
      const wrong = await ask(service, { ...device, registrationToken: 'wrong', certificateSigningRequest })
      isProblem(t, wrong, 'device-not-authorized', {}, 'only who holds the token is told')
    })
  }
  await refused({}, 'csr-rejected', 'key-type-not-allowed-by-product')
  await refused({ key: 'rsa' }, 'csr-rejected', 'key-type-not-allowed-by-product')
  await refused({ key: 'ec-p384', subject: '/O=Acme' }, 'csr-rejected', 'common-name-required-by-product')
  await refused({}, 'generated-keys-not-allowed', undefined, vendKeys)

  const device = await service.register({ product: 'strict' })
  const csr = await opensslCsr({ serialNumber: device.serialNumber, key: 'ec-p384' })
  t.equal((await vend(service, { ...device, certificateSigningRequest: csr.csrPem })).statusCode, 201, 'and what it takes')
  t.equal((await vendKeys(service, await service.register())).statusCode, 201, 'other products do not mind')

  const long = await newDevice(service, { product: 'long' })
  await untouched(t, long.serialNumber, async () => isProblem(t, await vend(service, long), 'thing-name-too-long'))
})

await t.test('thing name, type, attributes, groups, policy and times are the product\'s', async t => {
  const before = Date.now()
  const key = newKey()
  const registered = await service.register({ product: 'sensor' })
  const { serialNumber } = registered
  const device = { ...registered, certificateSigningRequest: csrFor(serialNumber, key) }
  const answer = await vend(service, device)
  t.equal(answer.statusCode, 201)
  const { thingName, certificateId, certificatePem, rootCaPem, renewAfter, endpoint } = answer.json()
  t.match(answer.json(), { serialNumber, thingName: `sensor-${serialNumber}` })
  t.match(await certificateIn(iot, certificateId), { status: 'ACTIVE', policies: ['sensors'], things: [thingName] })
  t.match(await iot.send(new DescribeThingCommand({ thingName })), { thingTypeName: 'sensor', attributes: PRODUCTS[0]?.attributes })
  t.same(await groupsOf(thingName), ['fleet', 'floor-1'])
  t.ok(Date.parse(renewAfter) <= before + 3_600_000 + 60_000 && Date.parse(renewAfter) > before, renewAfter)

  const files = { ca: rootCaPem, certificate: certificatePem, privateKey: key }
  const hello = { endpoint, ...files, topic: `devices/${thingName}/hello`, message: 'hello', timeoutMs: 30_000 }
  await t.resolves(publish({ ...hello, clientId: thingName }), 'the thing\'s name is the client id to connect with')

  const usual = await newDevice(service)
  const { certificateId: other } = (await vend(service, usual)).json()
  t.match(await certificateIn(iot, other), { policies: ['cvm-device-policy'], things: [usual.serialNumber] })
  t.same(await groupsOf(usual.serialNumber), [])
})

await t.test('a thing that is there keeps its settings, and joins the groups', async t => {
  const device = await newDevice(service, { product: 'sensor' })
  const thingName = `sensor-${device.serialNumber}`
  await iot.send(new CreateThingCommand({ thingName, attributePayload: { attributes: { site: 'b' } } }))
  t.equal((await vend(service, device)).statusCode, 201)
  const { thingTypeName, attributes } = await iot.send(new DescribeThingCommand({ thingName }))
  t.same([thingTypeName, attributes], [undefined, { site: 'b' }])
  t.same(await groupsOf(thingName), ['fleet', 'floor-1'])
})

await t.test('what a product names and AWS IoT has not: 502, and no certificate is left ACTIVE', async t => {
  for (const product of ['no-type', 'no-group', 'no-policy']) {
    const device = await newDevice(service, { product })
    const made = await certificatesMadeDuring(iot, async () => isProblem(t, await vend(service, device), 'aws-iot-refused', {}, product))
    // The policy comes last: what was recorded by then is kept, INACTIVE, for the next try.
    t.same(made.map(([, status]) => status), product === 'no-policy' ? ['INACTIVE'] : [], product)
  }
})

await t.test('the grace: on, another key is vended anew; off, it is not', async t => {
  const device = await newDevice(service, { product: 'grace' })
  const { certificateId: first } = (await vend(service, device)).json()
  const again = await vend(service, { ...device, certificateSigningRequest: csrFor(device.serialNumber) })
  t.equal(again.statusCode, 201)
  t.match(await certificateIn(iot, first), { status: 'REVOKED' })
  t.match(await certificateIn(iot, again.json().certificateId), { status: 'ACTIVE', things: [device.serialNumber] })
  t.equal((await vendKeys(service, device)).statusCode, 201)
  t.match(await certificateIn(iot, again.json().certificateId), { status: 'REVOKED' })

  const usual = await newDevice(service)
  await vend(service, usual)
  isProblem(t, await vend(service, { ...usual, certificateSigningRequest: csrFor(usual.serialNumber) }), 'already-vended')
})

await t.test('01b: a constant common name, of AWS\'s embedded-C demo with mbedTLS, is taken where the product takes any', async t => {
  const certificateSigningRequest = fieldText('01b-mbedtls-aws-demo-settings.csr')
  const strict = await service.register()
  isProblem(t, await vend(service, { ...strict, certificateSigningRequest }), 'csr-rejected', { reason: 'subject-other-device' })
  const device = await service.register({ product: 'constant' })
  const first = await vend(service, { ...device, certificateSigningRequest })
  t.equal(first.statusCode, 201)
  t.match(new X509Certificate(first.json().certificatePem), { subject: 'CN=Fleet Provisioning Demo' })
  const credentials = Buffer.from(`${device.serialNumber}:${device.registrationToken}`).toString('base64')
  const enrolled = await service.app.service.inject({
    method: 'POST',
    url: '/.well-known/est/simpleenroll',
    payload: certificateSigningRequest,
    headers: { authorization: `Basic ${credentials}`, 'content-type': 'application/pkcs10' }
  })
  t.equal(enrolled.statusCode, 200, 'over EST')
  const batch = await ask(service, 'POST', '/v1/batches', [{ ...device, certificateSigningRequest }], { as: 'line' })
  t.match(batch.json(), { results: [{ status: 'replayed', certificateId: first.json().certificateId }] }, 'in a batch')
})

await t.test('11: a serial number in the subject that is another device\'s is refused where the product reads it', async t => {
  for (const [product, file] of [['by-serial', 'attacker'], ['by-serial-strict', 'strict2']] as const) {
    const device = await service.register({ serialNumber: file, product })
    const certificateSigningRequest = fieldText(`11-subject-serial-number/${file}.csr`)
    await untouched(t, file, async () => {
      const answer = await vend(service, { ...device, certificateSigningRequest })
      isProblem(t, answer, 'csr-rejected', { reason: 'subject-other-device' }, file)
      t.match(answer.json().detail, /^SerialNumber in the subject .* \(it is "victim"\)\.$/)
    })
    const right = handmadeCsr(newKey(), { subject: name(['550405', utf8(file)]) })
    t.equal((await vend(service, { ...device, certificateSigningRequest: right })).statusCode, 201, 'its own serial number')
  }
  const unnamed = await newDevice(service, { product: 'by-serial' })
  t.equal((await vend(service, unnamed)).statusCode, 201, 'none at all')
})

await t.test('a file that was changed: names stay, what is gone is said, and nothing is lost', async t => {
  const device = await newDevice(service, { product: 'sensor' })
  const first = (await vend(service, device)).json()
  const [waiting, going] = [await newDevice(service, { product: 'sensor' }), await newDevice(service, { product: 'grace' })]
  const gone = (await vend(service, going)).json()
  const next = async (content: object[]) => {
    const { DEVICE_TABLE } = service.config
    const endpoints = { AWS_ENDPOINT_URL_DYNAMODB: service.aws.dynamodbUrl, AWS_ENDPOINT_URL_IOT: service.aws.iotUrl }
    const started = await startService({ PRODUCTS_FILE: products('next', content), DEVICE_TABLE, ...endpoints })
    t.teardown(() => started.close())
    return started
  }
  const restarted = await next([{ ...PRODUCTS[0], thingNameTemplate: `new-${HERE}` }])
  const replay = await vend(restarted, device)
  t.equal(replay.statusCode, 200)
  t.match(replay.json(), { thingName: first.thingName, certificateId: first.certificateId })
  t.match((await vend(restarted, waiting)).json(), { thingName: `new-${waiting.serialNumber}` })

  t.match((await vend(restarted, going)).json(), { certificateId: gone.certificateId }, 'what was vended is replayed without its product')
  const late = await newDevice(service, { product: 'grace' })
  const answer = await vend(restarted, late)
  isProblem(t, answer, 'product-not-configured')
  t.equal(answer.headers['retry-after'], '60')
  t.equal((await vend(service, late)).statusCode, 201, 'a replica that has it vends')
})

/** Writes a file of products. */
function products (name: string, content: object[]): string {
  const file = join(folder, `${name}.json`)
  writeFileSync(file, JSON.stringify(content))
  return file
}

async function groupsOf (thingName: string): Promise<(string | undefined)[]> {
  const { thingGroups = [] } = await iot.send(new ListThingGroupsForThingCommand({ thingName }))
  return thingGroups.map(({ groupName }) => groupName).sort()
}

/** Asserts that a device's row and AWS IoT stay as they are while `work` runs. */
async function untouched (t: Test, serialNumber: string, work: () => Promise<unknown>): Promise<void> {
  const state = async () => ({
    revision: (await service.app.registry.find(serialNumber))?.revision, calls: await total(service, 'cvm_aws_calls_total', { service: 'iot' })
  })
  const before = await state()
  await work()
  t.same(await state(), before, 'nothing was written, AWS IoT was not called')
}
