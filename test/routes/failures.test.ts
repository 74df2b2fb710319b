// AWS at fault: the right problem, advice when to come back, and the same request then succeeds with one ACTIVE certificate (G1, G3).
import t from 'tap'
import type { ErrorCode } from '../../src/errors.ts'
import { errorFacts } from '../../src/plugins/error-handler.ts'
import { certificatesMadeDuring } from '../fixtures/account.ts'
import { BEST_ENGINE } from '../fixtures/engines.ts'
import { type Fault, awsError, startFaultyProxy } from '../fixtures/faulty-proxy.ts'
import { gate } from '../fixtures/gate.ts'
import { isProblem } from '../fixtures/problems.ts'
import { total } from '../fixtures/scrape.ts'
import { startService } from '../fixtures/service.ts'
import { until } from '../fixtures/until.ts'
import { CERTIFICATES, KEYS, certificateIdOf, newDevice, vend, vendKeys } from '../fixtures/vending.ts'
import { listen, open, rawPost } from '../fixtures/wire.ts'

const UNLIMITED = { RATE_LIMIT_SERIAL_MAX: '1000', RATE_LIMIT_ADDRESS_MAX: '10000' }
/** For faults that take all the time there is. */
const QUICK = { ...UNLIMITED, AWS_CALL_TIMEOUT_MS: '1000', VEND_DEADLINE_MS: '2000', CLAIM_LIFETIME_MS: '6000' }
const engine = await BEST_ENGINE.start()
const [iot, dynamodb] = [await startFaultyProxy(t), await startFaultyProxy(t)]
dynamodb.forwardTo(engine.url)
const endpoints = { AWS_ENDPOINT_URL_IOT: iot.url, AWS_ENDPOINT_URL_DYNAMODB: dynamodb.url }
const patient = await startService({ ...UNLIMITED, ...endpoints })
const quick = await startService({ ...QUICK, ...endpoints })
// One AWS account for both.
iot.forwardTo(patient.aws.iotUrl)
t.teardown(async () => { await patient.close(); await quick.close(); await engine.close() })
const serviceFor = (fault: Fault) => fault === 'silence' ? quick : patient

const HTML: Fault = { status: 503, headers: { 'content-type': 'text/html' }, body: '<html><body>Service Unavailable</body></html>' }
const DENIED = awsError('AccessDeniedException', 403)

type Case = readonly [what: string, operation: string, fault: Fault, code: ErrorCode, certificates: number]

/** `certificates`: how many AWS IoT may have made when the device has its own; more than one is left for reconcile, never ACTIVE (G4). */
const IOT_FAULTS: readonly Case[] = [
  ['throttled', 'CreateCertificateFromCsr', awsError('ThrottlingException', 400), 'aws-iot-throttled', 1],
  ['throttled in other words', 'CreateCertificateFromCsr', awsError('TooManyRequestsException', 429), 'aws-iot-throttled', 1],
  ['an internal failure', 'CreateCertificateFromCsr', awsError('InternalFailureException', 500), 'aws-iot-unavailable', 1],
  ['unavailable', 'CreateCertificateFromCsr', awsError('ServiceUnavailableException', 503), 'aws-iot-unavailable', 1],
  ['a page instead of an answer', 'CreateCertificateFromCsr', HTML, 'aws-iot-unavailable', 1],
  ['a page that says 200', 'CreateCertificateFromCsr', { status: 200, body: '<html>' }, 'aws-iot-unavailable', 1],
  ['an empty answer', 'CreateCertificateFromCsr', { status: 200, headers: { 'content-type': 'application/json' }, body: '{}' }, 'aws-iot-unavailable', 1],
  ['no permission', 'CreateCertificateFromCsr', DENIED, 'aws-iot-refused', 1],
  ['cut before', 'CreateCertificateFromCsr', 'reset', 'aws-iot-unavailable', 1],
  ['cut after success', 'CreateCertificateFromCsr', 'lost answer', 'aws-iot-unavailable', 2],
  ['silence', 'CreateCertificateFromCsr', 'silence', 'aws-iot-unavailable', 1],
  ['no permission for things', 'CreateThing', DENIED, 'aws-iot-refused', 1],
  ['silence about the thing', 'CreateThing', 'silence', 'deadline-exceeded', 2],
  ['too many policies', 'AttachPolicy', awsError('LimitExceededException', 410), 'aws-iot-refused', 1],
  ['no such policy', 'AttachPolicy', awsError('InvalidRequestException', 400), 'aws-iot-refused', 1],
  ['no permission for principals', 'AttachThingPrincipal', DENIED, 'aws-iot-refused', 1],
  ['silence about the thing principal', 'AttachThingPrincipal', 'silence', 'deadline-exceeded', 1],
  ['no permission to activate', 'UpdateCertificate', DENIED, 'aws-iot-refused', 1],
  ['silence about activation', 'UpdateCertificate', 'silence', 'deadline-exceeded', 1]
]

/** What a retry makes good by itself, once. */
const PASSING: readonly (readonly [what: string, operation: string, fault: Fault])[] = [
  ['throttled', 'AttachPolicy', awsError('ThrottlingException', 400)],
  ['not found yet', 'AttachThingPrincipal', awsError('ResourceNotFoundException', 404)],
  ['cut after success', 'CreateThing', 'lost answer'],
  ['cut after success', 'AttachPolicy', 'lost answer'],
  ['cut after success', 'AttachThingPrincipal', 'lost answer'],
  ['cut after success', 'UpdateCertificate', 'lost answer'],
  ['silence', 'UpdateCertificate', 'silence'],
  ['a page instead of an answer', 'UpdateCertificate', HTML]
]

t.teardown(() => { iot.fail(); dynamodb.fail() })
await t.test('the endpoint that devices are told is asked for first', async t => {
  const device = await newDevice(patient)
  const faults: readonly (readonly [Fault, ErrorCode])[] = [[DENIED, 'aws-iot-refused'], [HTML, 'aws-iot-unavailable'], ['reset', 'aws-iot-unavailable']]
  for (const [fault, code] of faults) {
    iot.fail(() => fault)
    isProblem(t, await vend(patient, device), code)
  }
  t.equal((await patient.app.registry.find(device.serialNumber))?.state, 'REGISTERED', 'nothing is claimed')
  iot.fail()
  t.equal((await vend(patient, device)).statusCode, 201, 'a failure is not remembered')
})

for (const [what, operation, fault, code, certificates] of IOT_FAULTS) {
  await t.test(`${operation}: ${what}`, async t => {
    const service = serviceFor(fault)
    const device = await newDevice(service)
    const made = await certificatesMadeDuring(patient.iot, async () => {
      iot.fail(seen => seen === operation ? fault : undefined)
      const refused = await vend(service, device)
      isProblem(t, refused, code)
      if (code !== 'aws-iot-refused') t.match(refused.headers['retry-after'], /^[1-9]\d*$/)
      t.notMatch(refused.body, /faulty|html|Exception/i, 'AWS\'s words stay inside')
      iot.fail()
      const retried = await vend(service, device)
      t.ok(retried.statusCode === 201, 'the same request then succeeds at once', { found: retried.body })
      t.equal((await vend(service, device)).body, retried.body, 'and is remembered')
    })
    t.strictSame(made.map(([, status]) => status).filter(status => status !== 'INACTIVE'), ['ACTIVE'], 'one is ACTIVE, what is left over never was')
    t.ok(made.length <= certificates, `${made.length} there are`)
  })
}

for (const [what, operation, fault] of PASSING) {
  await t.test(`${operation}, once: ${what}`, async t => {
    const service = serviceFor(fault)
    const device = await newDevice(service)
    const made = await certificatesMadeDuring(patient.iot, async () => {
      let failed = false
      iot.fail(seen => {
        if (seen !== operation || failed) return undefined
        failed = true
        return fault
      })
      // A back-off may take longer than the short deadline of this test; then the caller's retry makes it good.
      const answer = await vend(service, device)
      iot.fail()
      t.ok(failed)
      if (answer.statusCode !== 201) isProblem(t, answer, 'deadline-exceeded')
      t.ok((await vend(service, device)).statusCode < 300)
    })
    t.strictSame(made.map(([, status]) => status), ['ACTIVE'])
  })
}

await t.test('key pairs: a lost answer of AWS IoT is not handed out, and the device is not locked out', async t => {
  for (const fault of ['lost answer', awsError('ThrottlingException', 400), 'silence'] as const) {
    const service = serviceFor(fault)
    const device = await service.register()
    const made = await certificatesMadeDuring(patient.iot, async () => {
      iot.fail(seen => seen === 'CreateKeysAndCertificate' ? fault : undefined)
      isProblem(t, await vendKeys(service, device), typeof fault === 'object' ? 'aws-iot-throttled' : 'aws-iot-unavailable')
      iot.fail()
      // A key pair takes its time to be made, perhaps longer than the short deadline of this test.
      t.ok(await until(async () => (await vendKeys(service, device)).statusCode === 201))
    })
    t.strictSame(made.map(([, status]) => status).filter(status => status !== 'INACTIVE'), ['ACTIVE'])
  }
})

await t.test('key pairs: nothing is committed for a caller who went away', async t => {
  const port = await listen(patient)
  const device = await patient.register()
  const made = await certificatesMadeDuring(patient.iot, async () => {
    const hold = gate()
    iot.fail(seen => seen === 'AttachPolicy' ? hold.passed : undefined)
    const socket = open(port)
    socket.on('error', () => {}).write(rawPost(KEYS, { 'content-type': 'application/json' }, JSON.stringify(device)))
    const bindings = iot.seen.filter(seen => seen === 'AttachPolicy').length
    t.ok(await until(() => iot.seen.filter(seen => seen === 'AttachPolicy').length > bindings), 'its certificate is being bound')
    socket.resetAndDestroy()
    t.ok(await until(async () => await total(patient, 'cvm_http_requests_in_flight') === 0), 'it is gone')
    hold.open()
    t.ok(await until(async () => (await patient.app.registry.find(device.serialNumber))?.history.at(-1)?.event === 'released'), 'the claim is given back')
    iot.fail()
    const answer = await vendKeys(patient, device)
    t.equal(answer.statusCode, 201, 'it gets another one')
    t.ok(answer.json().keyPair.privateKey)
  })
  t.strictSame(made.map(([, status]) => status).sort(), ['ACTIVE', 'REVOKED'], 'the one that nobody has is revoked')
})

await t.test('DynamoDB at fault', async t => {
  const faults: Record<string, Fault> = {
    'an internal error': { status: 500, body: '{"__type":"com.amazonaws.dynamodb.v20120810#InternalServerError"}' },
    'no permission': { status: 400, body: '{"__type":"com.amazon.coral.service#AccessDeniedException"}' },
    'no such table': { status: 400, body: '{"__type":"com.amazonaws.dynamodb.v20120810#ResourceNotFoundException"}' },
    'a page': HTML,
    cut: 'reset',
    silence: 'silence'
  }
  for (const [what, fault] of Object.entries(faults)) {
    const service = serviceFor(fault)
    const device = await newDevice(service)
    dynamodb.fail(() => fault)
    const refused = await vend(service, device)
    isProblem(t, refused, 'registry-unavailable', {}, what)
    t.match(refused.headers['retry-after'], /^[1-9]\d*$/)
    dynamodb.fail()
    t.equal((await vend(service, device)).statusCode, 201, `${what}: the same request then succeeds`)
  }
})

/** Of a vend: the claim, the key's owner, the certificate's record, the commit. */
const WRITES = 4

await t.test('DynamoDB: each write done, its answer lost', async t => {
  for (let nth = 1; nth <= WRITES; nth++) {
    for (const tries of [1, 3]) {
      const device = await newDevice(quick)
      const made = await certificatesMadeDuring(patient.iot, async () => {
        let count = 0
        dynamodb.fail(seen => seen === 'UpdateItem' && ++count >= nth && count < nth + tries ? 'lost answer' : undefined)
        const answer = await vend(quick, device)
        dynamodb.fail()
        if (tries === 1) t.equal(answer.statusCode, 201, `write ${nth}: the retry finds its own write`)
        else if (nth === WRITES) t.equal(answer.statusCode, 201, 'a commit is looked up')
        else isProblem(t, answer, 'registry-unavailable', {}, `write ${nth}`)
        t.ok(await until(async () => (await vend(quick, device)).statusCode < 300), 'within a claim\'s life it is had')
        t.equal(certificateIdOf((await vend(quick, device)).json().certificatePem).length, 64)
      })
      t.equal(made.filter(([, status]) => status === 'ACTIVE').length, 1, `write ${nth}, lost ${tries} times: one ACTIVE`)
    }
  }
})

await t.test('nothing listens where AWS should be', async t => {
  const nobody = 'http://127.0.0.1:1'
  const lost = await startService({ ...QUICK, AWS_ENDPOINT_URL_IOT: nobody, IOT_ENDPOINT: 'iot.example' })
  t.teardown(() => lost.close())
  isProblem(t, await vend(lost, await newDevice(lost)), 'aws-iot-unavailable')
  const blind = await startService({ ...QUICK, AWS_ENDPOINT_URL_DYNAMODB: nobody, CREATE_TABLES: 'false', IOT_ENDPOINT: 'iot.example' })
  t.teardown(() => blind.close())
  const payload = { serialNumber: 'sn-1', registrationToken: 'x' }
  isProblem(t, await blind.app.service.inject({ method: 'POST', url: KEYS, payload }), 'registry-unavailable')
  t.equal((await blind.app.service.inject({ method: 'POST', url: CERTIFICATES, payload })).statusCode, 400, 'bad requests are refused as ever')
})

await t.test('every failure was foreseen', async t => {
  for (const { logs } of [patient, quick]) t.notMatch(logs(), 'internal-error')
})

await t.test('a registry that stays silent is given up with its calls, and the line about it has no word of AWS', async t => {
  const late = await startService({ AWS_CALL_TIMEOUT_MS: '400', VEND_DEADLINE_MS: '100', CLAIM_LIFETIME_MS: '200', AWS_ENDPOINT_URL_DYNAMODB: dynamodb.url })
  t.teardown(() => late.close())
  const device = await newDevice(late)
  dynamodb.fail(() => 'silence')
  const refused = await vend(late, device)
  isProblem(t, refused, 'registry-unavailable')
  t.match(refused.headers['retry-after'], /^[1-9]\d*$/)
  dynamodb.fail()
  t.match(late.logs(), /"code":"registry-unavailable".*"causeCode":"UND_ERR_HEADERS_TIMEOUT"/)
  t.notMatch(late.logs(), 'Headers Timeout Error')
})

await t.test('of an error that Fastify logs by itself there is what it is, and nothing of what it says or carries', async t => {
  const error = Object.assign(new TypeError('a word\nof AWS'), { code: 'E_SOME', $response: { body: 'a body' } })
  const { frames, ...facts } = errorFacts(error)
  t.strictSame(facts, { name: 'TypeError', code: 'E_SOME' })
  t.ok(frames.length > 0 && frames.every(frame => frame.startsWith('    at ')))
})
