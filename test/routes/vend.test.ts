// The two vend routes on the production app, and what AWS IoT and the table then hold.
import { GetItemCommand, PutItemCommand } from '@aws-sdk/client-dynamodb'
import { DescribeEndpointCommand } from '@aws-sdk/client-iot'
import t, { type Test } from 'tap'
import { clientOf } from '../fixtures/engines.ts'
import { certificateIn, certificatesMadeDuring } from '../fixtures/account.ts'
import { isProblem } from '../fixtures/problems.ts'
import { awsCallsDuring, total } from '../fixtures/scrape.ts'
import { startService } from '../fixtures/service.ts'
import { CERTIFICATES, KEYS, certificateIdOf, csrFor, newDevice, newKey, publicKeyOf, vend, vendKeys } from '../fixtures/vending.ts'

const service = await startService({ RATE_LIMIT_SERIAL_MAX: '1000', RATE_LIMIT_ADDRESS_MAX: '100000' })
const dynamodb = clientOf(service.aws.dynamodbUrl)
t.teardown(async () => { dynamodb.destroy(); await service.close() })

const { endpointAddress } = await service.iot.send(new DescribeEndpointCommand({ endpointType: 'iot:Data-ATS' }))

await t.test('a CSR gets a certificate: every member, and AWS IoT agrees', async t => {
  const { serialNumber, registrationToken } = await service.register()
  const key = newKey()
  const answer = await vend(service, { serialNumber, registrationToken, certificateSigningRequest: csrFor(serialNumber, key) })
  t.equal(answer.statusCode, 201)
  t.match(answer.headers, { 'content-type': /^application\/json/, 'cache-control': 'no-store', 'x-content-type-options': 'nosniff' })
  isVended(t, answer.json(), serialNumber)
  t.notOk('keyPair' in answer.json(), 'no key pair')
  t.equal(publicKeyOf(answer.json().certificatePem), publicKeyOf(key), 'for the key of the CSR (G6)')
  await isActive(t, answer.json())
})

await t.test('a key pair is made on request', async t => {
  const device = await service.register()
  const answer = await vendKeys(service, device)
  t.equal(answer.statusCode, 201)
  t.equal(answer.headers['cache-control'], 'no-store')
  const { keyPair, ...vended } = answer.json()
  isVended(t, vended, device.serialNumber)
  t.strictSame(Object.keys(keyPair), ['publicKey', 'privateKey'])
  t.equal(publicKeyOf(keyPair.privateKey), publicKeyOf(vended.certificatePem), 'the private key is that of the certificate')
  t.equal(publicKeyOf(keyPair.publicKey), publicKeyOf(vended.certificatePem), 'and so is the public key')
  await isActive(t, answer.json())
  t.notMatch(service.logs(), /PRIVATE KEY/, 'no private key is logged')
})

await t.test('the same request again is answered with the same bytes (G2)', async t => {
  const device = await newDevice(service)
  const made = await certificatesMadeDuring(service.iot, async () => {
    const first = await vend(service, device)
    t.equal(first.statusCode, 201)
    for (let i = 0; i < 3; i++) {
      const again = await vend(service, device)
      t.equal(again.statusCode, 200)
      t.equal(again.body, first.body, 'byte for byte')
      t.equal(again.headers['cache-control'], 'no-store')
    }
    const pem = await vend(service, { ...device, certificateSigningRequest: device.certificateSigningRequest.replaceAll('\n', '\r\n') })
    t.equal(pem.body, first.body, 'the same CSR in another form')
  })
  t.equal(made.length, 1, 'AWS IoT made one certificate')
})

await t.test('many at once get one certificate', async t => {
  const device = await newDevice(service)
  const made = await certificatesMadeDuring(service.iot, async () => {
    const answers = await Promise.all(Array.from({ length: 20 }, () => vend(service, device)))
    t.equal(answers.filter(({ statusCode }) => statusCode === 201).length, 1, 'one first answer')
    const pem = answers.find(({ statusCode }) => statusCode === 201)?.json().certificatePem
    for (const answer of answers) {
      if (answer.statusCode < 300) t.equal(answer.json().certificatePem, pem)
      else isProblem(t, answer, 'vend-in-progress')
      if (answer.statusCode === 409) t.match(answer.headers['retry-after'], /^[1-9]\d*$/)
    }
  })
  t.strictSame(made.map(([, status]) => status), ['ACTIVE'])
})

await t.test('a device that has its certificate is refused another', async t => {
  const device = await newDevice(service)
  t.equal((await vend(service, device)).statusCode, 201)
  const withCsr = await service.register()
  t.equal((await vendKeys(service, withCsr)).statusCode, 201)
  const made = await certificatesMadeDuring(service.iot, async () => {
    isProblem(t, await vend(service, { ...device, certificateSigningRequest: csrFor(device.serialNumber) }), 'already-vended', {}, 'another key')
    isProblem(t, await vendKeys(service, device), 'already-vended', {}, 'a key pair after a CSR')
    isProblem(t, await vendKeys(service, withCsr), 'key-not-recoverable', {}, 'the key pair again')
    isProblem(t, await vend(service, { ...withCsr, certificateSigningRequest: csrFor(withCsr.serialNumber) }), 'already-vended', {}, 'a CSR after a key pair')
  })
  t.strictSame(made, [], 'nothing is made')
})

await t.test('who lacks the right token learns nothing (G7)', async t => {
  const vended = await newDevice(service)
  t.equal((await vend(service, vended)).statusCode, 201)
  const disabled = await newDevice(service)
  await put({ serialNumber: { S: disabled.serialNumber }, state: { S: 'DISABLED' }, tokenHash: { S: 'x'.repeat(43) } })
  const legacy = 'sn-legacy'
  await put({ serialNumber: { S: legacy }, deviceToken: { S: 'plain' } })
  const cases = {
    'unknown serial': { ...await newDevice(service), serialNumber: 'sn-unknown' },
    'wrong token': { ...await newDevice(service), registrationToken: 'wrong' },
    'token of another device': { ...await newDevice(service), registrationToken: vended.registrationToken },
    'expired token': await newDevice(service, { tokenExpiresAt: Date.now() - 1 }),
    'wrong token, vended': { ...vended, registrationToken: 'wrong' },
    'wrong token, disabled': disabled,
    'wrong token, row of the old services': { serialNumber: legacy, registrationToken: 'wrong' }
  }
  for (const [url, withCsr] of [[CERTIFICATES, true], [KEYS, false]] as const) {
    const seen: { what: string, headers: object, body: object, calls: object }[] = []
    for (const [what, { serialNumber, registrationToken }] of Object.entries(cases)) {
      const payload = { serialNumber, registrationToken, ...(withCsr && { certificateSigningRequest: csrFor(serialNumber) }) }
      const calls = await awsCallsDuring(service, async () => {
        const answer = await service.app.service.inject({ method: 'POST', url, payload })
        isProblem(t, answer, 'device-not-authorized', {}, what)
        const { requestId, ...body } = answer.json()
        seen.push({ what, headers: plain(answer.headers), body, calls: {} })
      })
      seen.at(-1)!.calls = calls
    }
    t.match(seen[0]!.headers, { 'www-authenticate': /^RegistrationToken/ })
    for (const { what, headers, body, calls } of seen) {
      t.strictSame(headers, seen[0]!.headers, `${url}: ${what}: same headers`)
      t.strictSame(body, seen[0]!.body, `${url}: ${what}: same body`)
      t.strictSame(calls, seen[0]!.calls, `${url}: ${what}: same calls`)
    }
  }
})

await t.test('states tell only who holds the token', async t => {
  for (const state of ['REVOKED', 'DISABLED', 'DECOMMISSIONED'] as const) {
    const device = await newDevice(service)
    const tokenHash = service.app.hashToken(device.serialNumber, device.registrationToken)
    await put({ serialNumber: { S: device.serialNumber }, state: { S: state }, tokenHash: { S: tokenHash } })
    const code = `device-${state.toLowerCase()}` as 'device-revoked' | 'device-disabled' | 'device-decommissioned'
    isProblem(t, await vend(service, device), code)
    isProblem(t, await vendKeys(service, device), code)
  }
})

await t.test('rows of the old services', async t => {
  await t.test('vend, and lose their plain token', async t => {
    for (const call of [vend, vendKeys]) {
      const serialNumber = `sn-legacy-${call.name}`
      const device = { serialNumber, registrationToken: 'plain-old-token', ...(call === vend && { certificateSigningRequest: csrFor(serialNumber) }) }
      await put({ serialNumber: { S: serialNumber }, deviceToken: { S: device.registrationToken } })
      t.equal((await call(service, device)).statusCode, 201)
      const key = { TableName: service.config.DEVICE_TABLE, Key: { serialNumber: { S: serialNumber } } }
      const { Item = {} } = await dynamodb.send(new GetItemCommand(key))
      t.notOk('deviceToken' in Item)
      t.notMatch(JSON.stringify(Item), 'plain-old-token', 'it is nowhere in the row')
      t.strictSame(Item['tokenHash'], { S: service.app.hashToken(serialNumber, device.registrationToken) })
      if (call === vend) t.equal((await vend(service, device)).statusCode, 200, 'a replay with the token, which is hashed now')
    }
  })
  await t.test('that were vended there are not vended again', async t => {
    const marks = {
      certinfo: { certinfo: { S: '{"certificateArn":"arn:aws:iot:us-east-1:1:cert/a"}' } },
      'applyState -1': { applyState: { N: '-1' } },
      'applyState "-1"': { applyState: { S: '-1' } },
      both: { certinfo: { S: 'x' }, applyState: { N: '-1' } }
    }
    for (const [what, mark] of Object.entries(marks)) {
      const serialNumber = `sn-vended-${what.replace(/\W/g, '')}`
      await put({ serialNumber: { S: serialNumber }, deviceToken: { S: 'plain' }, ...mark })
      const device = { serialNumber, registrationToken: 'plain', certificateSigningRequest: csrFor(serialNumber) }
      isProblem(t, await vend(service, device), 'already-vended', {}, what)
      isProblem(t, await vendKeys(service, device), 'already-vended', {}, `${what}, key pair`)
      isProblem(t, await vend(service, { ...device, registrationToken: 'wrong' }), 'device-not-authorized', {}, `${what}, wrong token`)
    }
  })
  await t.test('that were not are', async t => {
    for (const [what, mark] of Object.entries({ zero: { applyState: { N: '0' } }, 'no certinfo': { certinfo: { S: '' } } })) {
      const serialNumber = `sn-fresh-${what.replace(/\W/g, '')}`
      await put({ serialNumber: { S: serialNumber }, deviceToken: { S: 'plain' }, ...mark })
      t.equal((await vend(service, { serialNumber, registrationToken: 'plain', certificateSigningRequest: csrFor(serialNumber) })).statusCode, 201, what)
    }
  })
})

await t.test('PEM for who asks for it', async t => {
  const device = await newDevice(service)
  const { certificatePem } = (await vend(service, device)).json()
  for (const accept of ['application/pem-certificate-chain', 'application/json;q=0.5, Application/PEM-Certificate-Chain;q=1']) {
    const answer = await vend(service, device, { accept })
    t.match(answer.headers, { 'content-type': /^application\/pem-certificate-chain/, 'cache-control': 'no-store' }, accept)
    t.equal(answer.body, certificatePem)
  }
  for (const accept of ['*/*', 'application/*', 'application/json', 'text/html', '', ',;,', 'application/pem-certificate-chainx']) {
    t.match((await vend(service, device, { accept })).headers, { 'content-type': /^application\/json/ }, accept)
  }
  isProblem(t, await vend(service, { ...device, registrationToken: 'x' }, { accept: 'application/pem-certificate-chain' }), 'device-not-authorized', {}, 'a refusal stays JSON')
})

await t.test('a request id is the caller\'s where it is a plain one', async t => {
  const device = await newDevice(service)
  for (const given of ['line-7:0001', 'a'.repeat(8), 'Root=1-67891233'.replace('=', '.'), 'x'.repeat(64)]) {
    const answer = await vend(service, { ...device, registrationToken: 'x' }, { 'x-request-id': given })
    t.equal(answer.headers['x-request-id'], given)
    t.equal(answer.json().requestId, given)
  }
  for (const odd of ['', 'short', 'y'.repeat(65), 'with space here', 'new\tline-tab', '"><script>alert(1)', '${jndi:ldap://a}', 'ümläut-umlaut', 'a,b,c,d,e,f']) { // eslint-disable-line no-template-curly-in-string
    t.match((await vend(service, device, { 'x-request-id': odd })).headers['x-request-id'], /^[0-9a-f-]{36}$/, `not ${odd}`)
  }
})

await t.test('other methods are refused with those that there are', async t => {
  const calls = await awsCallsDuring(service, async () => {
    for (const url of [CERTIFICATES, KEYS]) {
      for (const method of ['GET', 'HEAD', 'PUT', 'PATCH', 'DELETE', 'OPTIONS'] as const) {
        const answer = await service.app.service.inject({ method, url, ...(method !== 'HEAD' && { payload: '{', headers: { 'content-type': 'application/json' } }) })
        t.equal(answer.headers['allow'], 'POST', `${method} ${url}`)
        if (method === 'HEAD') t.strictSame([answer.statusCode, answer.body], [405, ''])
        else isProblem(t, answer, 'method-not-allowed', {}, `${method} ${url}`)
      }
    }
  })
  t.strictSame(calls, {})
})

await t.test('the use case is counted', async t => {
  for (const way of ['csr', 'keys']) t.ok(await total(service, 'cvm_vends_total', { way, outcome: 'vended' }) > 0, way)
  t.ok(await total(service, 'cvm_vends_total', { way: 'csr', outcome: 'replayed' }) > 0)
  t.ok(await total(service, 'cvm_vends_total', { way: 'csr', outcome: 'refused' }) > 0)
  t.equal(await total(service, 'cvm_vends_total', { outcome: 'failed' }), 0)
})

function isVended (t: Test, vended: Record<string, string>, serialNumber: string): void {
  const { certificatePem = '', notAfter = '', renewAfter = '', ...members } = vended
  const certificateId = certificateIdOf(certificatePem)
  t.match(members, {
    serialNumber,
    thingName: serialNumber,
    certificateId,
    certificateArn: new RegExp(`^arn:aws:iot:us-east-1:\\d{12}:cert/${certificateId}$`),
    rootCaPem: service.aws.rootCaPem,
    endpoint: endpointAddress
  })
  for (const time of [notAfter, renewAfter]) t.match(time, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/)
  t.ok(Date.now() < Date.parse(renewAfter) && renewAfter < notAfter, 'to be renewed in time')
}

async function isActive (t: Test, { certificateId, certificateArn, certificatePem, thingName }: Record<string, string>): Promise<void> {
  t.strictSame(await certificateIn(service.iot, certificateId!), {
    certificateArn, certificatePem, status: 'ACTIVE', policies: [service.config.IOT_POLICY_NAME], things: [thingName]
  }, 'AWS IoT agrees')
}

async function put (item: Record<string, { S: string } | { N: string }>): Promise<void> {
  await dynamodb.send(new PutItemCommand({ TableName: service.config.DEVICE_TABLE, Item: item }))
}

/** Without what differs between any two answers. */
function plain (headers: object): object {
  const varying = ['x-request-id', 'date', 'x-ratelimit-remaining', 'x-ratelimit-reset']
  return Object.fromEntries(Object.entries(headers).filter(([name]) => !varying.includes(name)))
}
