import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import * as aws from '@aws-sdk/client-iot'
import t from 'tap'
import { faultPlan, Faults, type FaultRule } from '../../src/local/faults.ts'
import { Quotas } from '../../src/local/quotas.ts'
import { startRig } from './rig.ts'

const created = async (iot: aws.IoTClient, thingName: string): Promise<boolean> =>
  await iot.send(new aws.DescribeThingCommand({ thingName })).then(() => true, () => false)

await t.test('each kind of fault, as a client meets it', async t => {
  const { local, iot, close } = await startRig({ faults: { rules: [] } })
  t.teardown(close)
  const set = async (rules: FaultRule[], seed = 0) => await fetch(`${local.iotUrl}/_local/faults`, { method: 'PUT', body: JSON.stringify({ seed, rules }) })
  const create = async (thingName: string, abortSignal?: AbortSignal) =>
    await iot.send(new aws.CreateThingCommand({ thingName }), { ...(abortSignal && { abortSignal }) })
  const operation = 'CreateThing'

  await set([{ operation, kind: 'error', times: 1 }])
  await t.rejects(create('error'), { name: 'InternalFailureException', $metadata: { httpStatusCode: 500 } })
  t.notOk(await created(iot, 'error'), 'nothing was done')
  await create('error')
  await set([{ operation, kind: 'error', status: 503 }])
  await t.rejects(create('busy'), { name: 'ServiceUnavailableException', $metadata: { httpStatusCode: 503 } })
  await set([{ operation: '*', kind: 'throttle', skip: 1 }])
  await create('second-is-throttled')
  await t.rejects(create('throttled'), { name: 'ThrottlingException', message: 'Rate exceeded', $metadata: { httpStatusCode: 400 } })

  await set([{ operation, kind: 'cut' }])
  await t.rejects(create('cut'), { code: /^ECONNRESET$|^UND_ERR_SOCKET$/ })
  t.notOk(await created(iot, 'cut'))
  await set([{ operation, kind: 'cut-after' }])
  await t.rejects(create('cut-after'), { code: /^ECONNRESET$|^UND_ERR_SOCKET$/ })
  t.ok(await created(iot, 'cut-after'), 'the work was done, the answer was lost')

  for (const [kind, done] of [['hang', false], ['hang-after', true]] as const) {
    await set([{ operation, kind }])
    const call = create(kind, AbortSignal.timeout(200))
    await t.rejects(call, { name: /AbortError|TimeoutError/ })
    t.equal(await created(iot, kind), done, kind)
  }

  await set([{ operation, kind: 'latency', latencyMs: 80 }])
  const started = performance.now()
  await create('late')
  t.ok(performance.now() - started >= 79)

  t.match(await (await fetch(`${local.iotUrl}/_local/faults`)).json(), { rules: [{ operation, kind: 'latency', latencyMs: 80, fired: 1 }] })
  await fetch(`${local.iotUrl}/_local/faults`, { method: 'DELETE' })
  t.match(await (await fetch(`${local.iotUrl}/_local/faults`)).json(), { rules: [] })
})

await t.test('rules that are not understood are refused, and the old ones stay', async t => {
  const { local, close } = await startRig({ faults: { rules: [{ operation: 'GetPolicy', kind: 'cut' }] } })
  t.teardown(close)
  const cases: Array<[unknown, RegExp]> = [
    ['x', /list of rules/],
    [{}, /list of rules/],
    [{ rules: [], seed: 'x' }, /"seed"/],
    [[1], /must be an object/],
    [[{ kind: 'cut' }], /"operation"/],
    [[{ operation: 'Nothing', kind: 'cut' }], /no operation Nothing/],
    [[{ operation: '*', kind: 'explode' }], /"kind"/],
    [[{ operation: '*', kind: 'latency' }], /"latencyMs"/],
    [[{ operation: '*', kind: 'error', status: 404 }], /"status"/],
    [[{ operation: '*', kind: 'cut', times: -1 }], /"times"/],
    [[{ operation: '*', kind: 'cut', probability: 2 }], /"probability"/],
    [[{ operation: '*', kind: 'cut', chance: 1 }], /no "chance"/]
  ]
  for (const [body, message] of cases) {
    const answer = await fetch(`${local.iotUrl}/_local/faults`, { method: 'PUT', body: JSON.stringify(body) })
    t.equal(answer.status, 400, JSON.stringify(body))
    t.match(await answer.json(), { message })
  }
  t.match(await (await fetch(`${local.iotUrl}/_local/faults`)).json(), { rules: [{ operation: 'GetPolicy' }] })
  await t.rejects(startRig({ faults: { rules: [{ operation: 'Nothing', kind: 'cut' }] } }), { message: /no operation Nothing/ })
})

await t.test('without the setting there is no such door', async t => {
  const { local, close } = await startRig()
  t.teardown(close)
  for (const method of ['GET', 'PUT', 'DELETE']) t.equal((await fetch(`${local.iotUrl}/_local/faults`, { method })).status, 403, method)
})

await t.test('the same seed, the same faults, whatever else is called', async t => {
  const fired = async (seed: number, disturbed: boolean): Promise<string> => {
    const faults = new Faults(faultPlan({ seed, rules: [{ operation: 'A', kind: 'throttle', probability: 0.3 }, { operation: 'B', kind: 'throttle', probability: 0.5 }] }))
    let pattern = ''
    for (let n = 0; n < 200; n++) {
      if (disturbed) await faults.apply('B', () => {}).catch(() => {})
      pattern += await faults.apply('A', () => {}).then(() => '.', () => 'x')
    }
    return pattern
  }
  const one = await fired(1, false)
  t.equal(await fired(1, true), one)
  t.not(await fired(2, false), one)
  const share = one.replaceAll('.', '').length / 200
  t.ok(share > 0.2 && share < 0.4, `fired at ${share}`)
})

await t.test('quotas: a second\'s worth at once, then at the rate', async t => {
  let now = 0
  const spend = (quotas: Quotas, name: string): number => {
    for (let n = 0; ; n++) {
      try {
        quotas.takeOperation(name)
      } catch (error) {
        t.match(error, { code: 'ThrottlingException', message: 'Rate exceeded', status: 400 })
        return n
      }
    }
  }
  const quotas = new Quotas(1, () => now)
  t.equal(spend(quotas, 'AttachPolicy'), 15)
  t.equal(spend(quotas, 'DescribeThing'), 350, 'each operation has its own')
  now = 200
  t.equal(spend(quotas, 'AttachPolicy'), 3)
  now = 60_000
  t.equal(spend(quotas, 'AttachPolicy'), 15, 'no more is saved up')
  t.equal(spend(quotas, 'RegisterCertificate'), 10)
  t.equal(spend(quotas, 'CreateCertificateFromCsr'), 5, 'all new certificates together: 15')
  t.equal(spend(new Quotas(10, () => now), 'AttachPolicy'), 150)
  t.equal(spend(new Quotas(0.01, () => now), 'AttachPolicy'), 1)
  const none = new Quotas()
  for (let n = 0; n < 1000; n++) none.takeOperation('AttachPolicy')
})

await t.test('quotas over the wire', async t => {
  const { iot, close } = await startRig({ quotas: 1 })
  t.teardown(close)
  const calls = await Promise.allSettled(Array.from({ length: 60 }, async () => await iot.send(new aws.ListPoliciesCommand({}))))
  const throttled = calls.filter(call => call.status === 'rejected')
  t.ok(throttled.length >= 20, `${throttled.length} of 60 throttled`)
  for (const { reason } of throttled) t.match(reason, { name: 'ThrottlingException', message: 'Rate exceeded', $metadata: { httpStatusCode: 400 } })
})

await t.test('a crash comes before the work, or when it is done', async t => {
  for (const [kind, works] of [['crash', []], ['crash-after', ['work']]] as const) {
    const events: string[] = []
    const faults = new Faults({ rules: [{ operation: '*', kind, times: 1 }] }, () => { events.push('crash') })
    t.same(await faults.apply('CreateThing', () => { events.push('work') }), { ending: 'hang' })
    t.same(events, [...works, 'crash'])
  }
})

await t.test('a crash kills the process', async t => {
  const main = new URL('../../dist/local/main.js', import.meta.url).pathname
  const env = { ...process.env, LOCAL_IOT_PORT: '0', LOCAL_MQTT_PORT: '0', LOCAL_DYNAMODB_PORT: 'off', CVM_LOCAL_DIR: '', LOCAL_FAULTS: '[{"operation":"CreateThing","kind":"crash"}]' }
  const child = spawn(process.execPath, [main], { env, stdio: ['ignore', 'pipe', 'ignore'] })
  t.teardown(() => child.kill('SIGKILL'))
  const exit = once(child, 'exit')
  let endpoint = ''
  for await (const line of createInterface({ input: child.stdout })) {
    endpoint = /^AWS IoT API\s+(\S+)/.exec(line)?.[1] ?? endpoint
    if (endpoint) break
  }
  const iot = new aws.IoTClient({ endpoint, region: 'us-east-1', maxAttempts: 1, credentials: { accessKeyId: 'a', secretAccessKey: 'b' } })
  await t.rejects(iot.send(new aws.CreateThingCommand({ thingName: 'crash' })))
  t.same(await exit, [null, 'SIGKILL'])
  iot.destroy()
})
