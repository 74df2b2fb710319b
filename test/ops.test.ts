// The ops listener: health that tells the truth, and metrics that machines can read and that tell no secret.
import { X509Certificate } from 'node:crypto'
import t from 'tap'
import { buildOps } from '../src/ops.ts'
import { createMetrics } from '../src/plugins/metrics.ts'
import { RECONCILE_STEPS } from '../src/vending/reconcile-run.ts'
import { startFaultyProxy } from './fixtures/faulty-proxy.ts'
import { scrape, total } from './fixtures/scrape.ts'
import { startService } from './fixtures/service.ts'
import { CERTIFICATES, KEYS, newDevice, vend, vendKeys } from './fixtures/vending.ts'

const iot = await startFaultyProxy(t)
const dynamodb = await startFaultyProxy(t)
const service = await startService({ AWS_ENDPOINT_URL_IOT: iot.url, RATE_LIMIT_SERIAL_MAX: '4', AWS_IOT_QUOTA_FACTOR: '1000', MAX_EVENT_LOOP_DELAY_MS: '60000' })
iot.forwardTo(service.aws.iotUrl)
t.teardown(() => service.close())
const { ops } = service.app

const NOTHING_MISSING = { report: { faults: [], unchecked: [] }, fatal: [], isUnusable: () => false }

await t.test('alive and ready', async t => {
  t.match(await ops.inject('/livez'), { statusCode: 200, body: '{"status":"alive"}' })
  t.match(await ops.inject('/readyz'), { statusCode: 200, body: '{"status":"ready"}' })
  const health = await ops.inject('/healthz')
  t.strictSame([health.statusCode, health.json()], [200, { status: 'healthy', dependencies: { dynamodb: 'up', 'aws-iot': 'up' } }])
  t.equal((await ops.inject('/nope')).statusCode, 404)
})

await t.test('the service port does not tell', async t => {
  for (const url of ['/livez', '/readyz', '/healthz', '/metrics']) t.equal((await service.app.service.inject(url)).statusCode, 404, url)
})

await t.test('what alarms count is at 0 before it happens, so that the first time shows as a rise', async t => {
  const samples = await scrape(service)
  for (const step of RECONCILE_STEPS) {
    for (const outcome of ['done', 'later', 'failed']) {
      t.ok(samples.some(({ name, labels }) => name === 'cvm_reconcile_actions_total' && labels['step'] === step && labels['outcome'] === outcome), `${step} ${outcome}`)
    }
  }
})

await t.test('metrics', async t => {
  const device = await newDevice(service)
  const vended = (await vend(service, device)).json()
  await vend(service, device)
  t.equal((await vendKeys(service, device)).statusCode, 409)
  t.equal((await vend(service, { ...device, registrationToken: 'a-wrong-token' })).statusCode, 401)
  t.equal((await vend(service, device)).statusCode, 429)
  t.equal((await vend(service, { ...device, serialNumber: 7 })).statusCode, 400)
  await service.app.service.inject({ url: `/${device.serialNumber}?token=${device.registrationToken}` })
  const keyed = await service.register()
  await vendKeys(service, keyed)

  await t.test('are Prometheus text, each with help and type', async t => {
    const { headers, payload } = await ops.inject('/metrics')
    t.match(headers['content-type'], /^text\/plain;.*version=/)
    const samples = await scrape(service)
    t.ok(samples.length > 50)
    for (const name of new Set(samples.map(({ name }) => name.replace(/_(bucket|sum|count)$/, '')))) {
      const family = payload.includes(`# TYPE ${name} `) ? name : samples.find(sample => sample.name.startsWith(name))!.name
      t.ok(payload.includes(`# HELP ${family} `) && payload.includes(`# TYPE ${family} `), name)
    }
  })
  await t.test('have the names that dashboards and alarms use', async t => {
    const names = new Set((await scrape(service)).map(({ name }) => name))
    const expected = [
      'cvm_vends_total', 'cvm_refusals_total', 'cvm_vend_step_duration_seconds_bucket', 'cvm_aws_calls_total',
      'cvm_aws_call_duration_seconds_bucket', 'cvm_rate_limited_total', 'cvm_http_requests_in_flight', 'cvm_http_request_duration_seconds_bucket',
      'cvm_aws_iot_queue_length', 'cvm_aws_iot_queue_wait_seconds_bucket', 'cvm_aws_iot_queue_refusals_total', 'cvm_aws_iot_pace', 'cvm_aws_iot_throttles_total',
      'cvm_renewals_total', 'cvm_signatures_repaired_total', 'cvm_key_reuse_total', 'cvm_adoptions_total', 'cvm_batch_lines_total', 'cvm_dependency_up', 'cvm_reconcile_backlog', 'cvm_reconcile_last_run_timestamp_seconds', 'cvm_drift', 'cvm_build_info', 'cvm_crl_fetches_total', 'cvm_crl_unavailable_total', 'process_cpu_seconds_total', 'nodejs_eventloop_lag_seconds'
    ]
    for (const name of expected) t.ok(names.has(name), name)
  })
  await t.test('move', async t => {
    const counts: ReadonlyArray<readonly [name: string, labels: Record<string, string>, atLeast: number]> = [
      ['cvm_vends_total', { way: 'csr', outcome: 'vended' }, 1],
      ['cvm_vends_total', { way: 'csr', outcome: 'replayed' }, 1],
      ['cvm_vends_total', { way: 'csr', outcome: 'refused' }, 1],
      ['cvm_vends_total', { way: 'keys', outcome: 'vended' }, 1],
      ['cvm_vends_total', { way: 'keys', outcome: 'refused' }, 1],
      ['cvm_refusals_total', { code: 'already-vended' }, 1],
      ['cvm_refusals_total', { code: 'device-not-authorized' }, 1],
      ['cvm_refusals_total', { code: 'invalid-request' }, 1],
      ['cvm_refusals_total', { code: 'not-found' }, 1],
      ['cvm_rate_limited_total', { limit: 'serial' }, 1],
      ['cvm_aws_calls_total', { service: 'iot', operation: 'CreateCertificateFromCsr', result: 'ok' }, 1],
      ['cvm_aws_calls_total', { service: 'dynamodb', operation: 'UpdateItem', result: 'ConditionalCheckFailedException' }, 1],
      ['cvm_aws_call_duration_seconds_count', { service: 'iot', operation: 'UpdateCertificate' }, 2],
      ...['check', 'claim', 'issue', 'record', 'bind', 'commit'].map(step => ['cvm_vend_step_duration_seconds_count', { step, result: 'ok' }, 2] as const),
      ['cvm_vend_step_duration_seconds_count', { step: 'claim', result: 'failed' }, 2],
      ['cvm_http_request_duration_seconds_count', { method: 'POST', route: CERTIFICATES, status: '201' }, 1],
      ['cvm_http_request_duration_seconds_count', { method: 'POST', route: CERTIFICATES, status: '200' }, 1],
      ['cvm_http_request_duration_seconds_count', { method: 'POST', route: KEYS, status: '201' }, 1],
      ['cvm_http_request_duration_seconds_count', { method: 'GET', route: 'unknown', status: '404' }, 1],
      ['cvm_dependency_up', { dependency: 'aws-iot' }, 1],
      ['cvm_build_info', { version: 'test', node: process.version }, 1]
    ]
    for (const [name, labels, atLeast] of counts) t.ok(await total(service, name, labels) >= atLeast, `${name} ${JSON.stringify(labels)}`)
    t.equal(await total(service, 'cvm_http_requests_in_flight'), 0)
  })
  await t.test('hold nothing about a device', async t => {
    const { payload } = await ops.inject('/metrics')
    const secrets = [device.serialNumber, device.registrationToken, 'a-wrong-token', keyed.serialNumber, keyed.registrationToken, vended.certificateId, 'BEGIN']
    for (const secret of secrets) t.notMatch(payload, secret)
    t.notMatch(payload, /[0-9a-f]{64}/)
    for (const secret of [device.registrationToken, 'a-wrong-token', keyed.registrationToken, 'PRIVATE KEY', device.certificateSigningRequest.slice(60, 120)]) {
      t.notMatch(service.logs(), secret, 'nor does the log')
    }
    const values = new Map<string, Set<string>>()
    for (const { name, labels } of (await scrape(service)).filter(({ name }) => name.startsWith('cvm_'))) {
      for (const [label, value] of Object.entries(labels)) values.set(`${name} ${label}`, (values.get(`${name} ${label}`) ?? new Set()).add(value))
    }
    for (const [label, found] of values) t.ok(found.size < 30, `${label} takes few values`)
  })
})

await t.test('the service\'s own certificate says when it expires, where TLS ends here', async t => {
  const name = 'cvm_tls_certificate_not_after_timestamp_seconds'
  const overTls = await startService({}, { tls: true })
  t.teardown(() => overTls.close())
  const { validTo } = new X509Certificate(overTls.aws.serverTls.cert)
  t.strictSame((await scrape(overTls)).filter(sample => sample.name === name), [{ name, labels: {}, value: Date.parse(validTo) / 1000 }])
  t.strictSame((await scrape(service)).filter(sample => sample.name === name), [], 'where it does not, nothing is said: 0 would be long expired')
  t.strictSame((await scrape(service)).filter(sample => sample.name.startsWith('cvm_crl_next_update')), [], 'nor of CRLs, before there is one')
})

await t.test('a dependency that is down makes the service unhealthy, yet not unready', async t => {
  const endpoints = { AWS_ENDPOINT_URL_IOT: iot.url, AWS_ENDPOINT_URL_DYNAMODB: dynamodb.url }
  const sick = await startService({ ...endpoints, CREATE_TABLES: 'false', AWS_CALL_TIMEOUT_MS: '3000' })
  t.teardown(() => sick.close())
  for (const dependency of [iot, dynamodb]) dependency.fail(() => 'silence')
  const [iotBefore, dynamodbBefore] = [iot.seen.length, dynamodb.seen.length]
  const [health, again] = await Promise.all([sick.app.ops.inject('/healthz'), sick.app.ops.inject('/healthz')])
  t.strictSame([iot.seen.length - iotBefore, dynamodb.seen.length - dynamodbBefore], [1, 1], 'one call to each, which has not ended yet when the answer comes')
  t.strictSame([health.statusCode, health.json()], [503, { status: 'degraded', dependencies: { dynamodb: 'down', 'aws-iot': 'down' } }])
  t.equal(again.body, health.body)
  for (const dependency of ['dynamodb', 'aws-iot']) t.equal(await total(sick, 'cvm_dependency_up', { dependency }), 0, dependency)
  t.equal((await sick.app.ops.inject('/readyz')).statusCode, 200)
  t.equal((await sick.app.ops.inject('/livez')).statusCode, 200)
})

await t.test('checks are rare, however often they are asked for', async t => {
  let clock = 1_000_000
  const checks: string[] = []
  let isUp = true
  const check = (name: string) => async () => {
    checks.push(name)
    if (name === 'b' && !isUp) throw new Error('down')
  }
  const app = buildOps({
    metrics: createMetrics({ version: '1', node: '1' }), unready: () => undefined, setup: NOTHING_MISSING, dependencies: { a: check('a'), b: check('b') }, now: () => clock
  })
  t.teardown(() => app.close())
  const ask = async () => (await app.inject('/healthz')).json().dependencies
  await Promise.all([ask(), ask(), ask()])
  t.strictSame(checks, ['a', 'b'], 'once for many at once')
  isUp = false
  clock += 10_000
  t.strictSame(await ask(), { a: 'up', b: 'up' }, 'the last finding is repeated for ten seconds')
  t.equal(checks.length, 2)
  clock += 1
  t.strictSame(await ask(), { a: 'up', b: 'down' })
  t.equal(checks.length, 4)
})

await t.test('who drains is not ready', async t => {
  const leaving = await startService()
  t.teardown(() => leaving.close())
  t.equal((await leaving.app.ops.inject('/readyz')).statusCode, 200)
  const drained = leaving.app.service.drain(50, 1_000)
  t.match(await leaving.app.ops.inject('/readyz'), { statusCode: 503, body: '{"status":"draining"}' })
  await drained
  t.match(await leaving.app.ops.inject('/readyz'), { statusCode: 503, body: '{"status":"draining"}' }, 'also when it has closed')
  t.equal((await leaving.app.ops.inject('/livez')).statusCode, 200)
})
