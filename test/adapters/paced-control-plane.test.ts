// The paced control plane against a scripted endpoint: every call waits for its turn, and throttling is dealt with here.
import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import t, { type Test } from 'tap'
import { pacedControlPlanes } from '../../src/adapters/paced-control-plane.ts'
import type { Clock, Priority } from '../../src/adapters/pacer.ts'
import { CvmError } from '../../src/errors.ts'
import { HandClock } from '../fixtures/hand-clock.ts'
import { until } from '../fixtures/until.ts'

const ID = 'a'.repeat(64)
const ARN = `arn:aws:iot:us-east-1:000000000000:cert/${ID}`
const ISSUED = { certificateId: ID, certificateArn: ARN, certificatePem: 'pem' }
const THROTTLED = [400, 'ThrottlingException'] as const
const never = new AbortController().signal

type Answer = readonly [status: number, error: string] | object
interface Rig {
  clock?: Clock
  quotaFactor?: number
  quotas?: Record<string, number>
  maxWaitMs?: Record<Priority, number>
  onThrottled?: () => void
}

/** Calls to AWS IoT: the n-th request is answered as `answer` says. */
async function rig (t: Test, answer: (request: string, n: number) => Answer, { onThrottled = () => {}, ...settings }: Rig = {}) {
  const requests: string[] = []
  const waited: string[] = []
  const observed: string[] = []
  const throttled: string[] = []
  const server = createServer((request, response) => {
    const name = `${request.method} ${decodeURIComponent(request.url ?? '')}`
    const content = answer(name, requests.push(name))
    const [status, error] = Array.isArray(content) ? content as [number, string] : [200, undefined]
    response.writeHead(status, { 'content-type': 'application/json', ...(error && { 'x-amzn-errortype': error }) })
    response.end(JSON.stringify(error ? { message: error } : content))
  }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  const planes = pacedControlPlanes({
    region: 'us-east-1',
    dynamodbEndpoint: undefined,
    iotEndpoint: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    callTimeoutMs: 60_000,
    credentials: { accessKeyId: 'test', secretAccessKey: 'test' },
    observe: (_service, operation, result) => { observed.push(`${operation} ${result}`) }
  }, { endpoint: undefined }, {
    quotaFactor: 100,
    quotas: {},
    maxWaitMs: { device: 60_000, bulk: 60_000, sweep: 60_000 },
    clock: { now: () => performance.now(), later (delayMs, work) { setTimeout(work, delayMs) } },
    observer: {
      queue () {},
      pace () {},
      refused () {},
      waited: (operation, priority) => { waited.push(`${operation} ${priority}`) },
      throttled (operation) { throttled.push(operation); onThrottled() }
    },
    ...settings
  })
  t.teardown(() => {
    planes.release()
    server.closeAllConnections()
    server.close()
  })
  return { ...planes, requests, waited, observed, throttled }
}

await t.test('a throttled call is made again, also the one that makes a certificate', async t => {
  const { forDevices, requests, observed, throttled } = await rig(t, (_request, n) => n <= 2 ? THROTTLED : ISSUED)
  t.match(await forDevices.createCertificateFromCsr('csr', never), ISSUED)
  t.strictSame(requests, Array(3).fill('POST /certificates?setAsActive=false'))
  t.strictSame(throttled, ['CreateCertificateFromCsr', 'NewCertificates', 'CreateCertificateFromCsr', 'NewCertificates'])
  t.strictSame(observed, [...Array(2).fill('CreateCertificateFromCsr ThrottlingException'), 'CreateCertificateFromCsr ok'])
})

await t.test('other failures pass as they are', async t => {
  const { forDevices, requests } = await rig(t, () => [500, 'InternalFailureException'])
  await t.rejects(forDevices.createCertificateFromCsr('csr', never), { code: 'aws-iot-unavailable' })
  t.equal(requests.length, 1)
})

await t.test('throttled until the deadline: nothing was done, and when to come back', async t => {
  const quotas = { CreateCertificateFromCsr: 0.1, UpdateCertificate: 0.1 }
  for (const call of ['createCertificateFromCsr', 'activate'] as const) {
    const deadline = new AbortController()
    let throttles = 0
    // By then it waits for its turn again, which is not to come soon.
    const onThrottled = () => { if (++throttles === 1) setImmediate(() => deadline.abort()) }
    const { forDevices, requests } = await rig(t, () => THROTTLED, { onThrottled, quotas })
    const error = await forDevices[call](ID, deadline.signal).then(() => undefined, (cause: unknown) => cause)
    t.ok(error instanceof CvmError && error.code === 'aws-iot-throttled' && error.retryAfterMs! >= 1_000, call, { error })
    t.equal(requests.length, 1)
  }
})

await t.test('a device overtakes a batch', async t => {
  const { forDevices, forBulk, requests, waited } = await rig(t, () => ({}), { quotas: { UpdateCertificate: 2 } })
  const bulk = Array.from({ length: 6 }, () => forBulk.activate('b'.repeat(64), never))
  await Promise.all([...bulk, forDevices.activate(ID, never)])
  t.ok(requests.findIndex(request => request.includes(ID)) <= 3, 'however many wait', { requests })
  t.equal(requests.length, 7)
  t.strictSame(waited.filter(name => name === 'UpdateCertificate bulk').length, 6)
})

await t.test('what cannot be served in time is refused at once, before AWS hears of it', async t => {
  const maxWaitMs = { device: 1_000, bulk: 60_000, sweep: 60_000 }
  const settings = { clock: new HandClock(), quotas: { CreateCertificateFromCsr: 0.5 }, maxWaitMs }
  const { forDevices, requests, observed } = await rig(t, () => ISSUED, settings)
  await forDevices.createCertificateFromCsr('csr', never)
  const refused = await Promise.allSettled([1, 2].map(() => forDevices.createCertificateFromCsr('csr', never)))
  const told = refused.map(result => result.status === 'rejected' && result.reason instanceof CvmError ? result.reason.retryAfterMs! : 0)
  t.strictSame(told, [2_000, 4_000], 'each is told when its turn would be')
  t.equal(requests.length, 1)
  t.strictSame(observed, ['CreateCertificateFromCsr ok'], 'no call, so it counts as none')
})

await t.test('a vend is not begun while the calls that it will need have a queue', async t => {
  const clock = new HandClock()
  const settings = { clock, quotas: { UpdateCertificate: 0.2 }, maxWaitMs: { device: 3_000, bulk: 60_000, sweep: 60_000 } }
  const { forDevices, requests } = await rig(t, () => ISSUED, settings)
  await forDevices.activate(ID, never)
  await t.rejects(forDevices.createCertificateFromCsr('csr', never), { code: 'aws-iot-throttled', retryAfterMs: 5_000 })
  t.equal(requests.length, 1, 'no certificate was made')
  const begun = forDevices.activate(ID, never)
  await until(() => clock.timers > 0)
  await clock.turn(5_000)
  await t.resolves(begun, 'one that was begun may wait longer')
})

await t.test('pages and retries wait for their turn too', async t => {
  const { forBulk, waited } = await rig(t, (request, n) => {
    if (n === 1) return [500, 'InternalFailureException']
    if (request.startsWith(`GET /certificates/${ID}`)) return { certificateDescription: { certificateArn: ARN } }
    if (request.startsWith('GET /principals/things')) return request.includes('nextToken') ? { things: ['two'] } : { things: ['one'], nextToken: 'next' }
    return request.startsWith('POST /attached-policies') ? { policies: [{ policyName: 'policy' }] } : {}
  })
  t.equal(await forBulk.dispose(ID, never), true)
  t.strictSame(waited, [
    'DescribeCertificate', 'DescribeCertificate', 'UpdateCertificate', 'ListPrincipalThings', 'DetachThingPrincipal', 'ListPrincipalThings',
    'DetachThingPrincipal', 'ListAttachedPolicies', 'DetachPolicy', 'DeleteCertificate'
  ].map(operation => `${operation} bulk`))
})

await t.test('a call without a deadline ends all the same', async t => {
  const maxWaitMs = { device: 100, bulk: 100, sweep: 100 }
  const { forDevices } = await rig(t, () => THROTTLED, { maxWaitMs, quotas: { DescribeEndpoint: 0.5 } })
  await t.rejects(forDevices.endpoint(), { code: 'aws-iot-throttled' })
})

await t.test('without quotas nothing waits', async t => {
  const { forDevices, waited } = await rig(t, () => ISSUED, { quotaFactor: 0, quotas: { UpdateCertificate: 100 } })
  await forDevices.createCertificateFromCsr('csr', never)
  t.strictSame(waited, [])
  await forDevices.activate(ID, never)
  t.strictSame(waited, ['UpdateCertificate device'], 'but where one is set')
})
