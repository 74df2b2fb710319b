// The AWS IoT adapter against a scripted endpoint: what is retried, what is not, and that timeouts really end a call.
import { once } from 'node:events'
import { type IncomingHttpHeaders, type IncomingMessage, type ServerResponse, createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { text } from 'node:stream/consumers'
import t, { type Test } from 'tap'
import { iotBindingClient, iotIssuingClient, iotTendingClient } from '../../src/adapters/aws-clients.ts'
import { IotControlPlane } from '../../src/adapters/iot-control-plane.ts'
import { CertificateStateConflict } from '../../src/vending/control-plane.ts'

type Answer = [status: number, error: string] | [half: number] | 'hang' | 'cut' | object

const ID = 'a'.repeat(64)
const ARN = `arn:aws:iot:us-east-1:000000000000:cert/${ID}`
const ISSUED = { certificateId: ID, certificateArn: ARN, certificatePem: 'pem' }
const THING = { thingName: 'thing', thingType: undefined, thingGroups: [], attributes: {} }
const never = new AbortController().signal
const code = (name: string) => ({ name: 'CvmError', code: name })

await t.test('a certificate is asked for once, whatever the answer', async t => {
  const table: [Answer, string][] = [
    [[500, 'InternalFailureException'], 'aws-iot-unavailable'],
    [[503, 'ServiceUnavailableException'], 'aws-iot-unavailable'],
    [[400, 'ThrottlingException'], 'aws-iot-throttled'],
    [[429, 'TooManyRequestsException'], 'aws-iot-throttled'],
    [[400, 'InvalidRequestException'], 'csr-rejected'],
    [[403, 'AccessDeniedException'], 'aws-iot-refused'],
    ['cut', 'aws-iot-unavailable'],
    [[200], 'aws-iot-unavailable'],
    [[404], 'aws-iot-unavailable'],
    [[400], 'aws-iot-unavailable'],
    ['hang', 'aws-iot-unavailable'],
    [{}, 'aws-iot-unavailable']
  ]
  for (const [answer, expected] of table) {
    const { plane, requests } = await scripted(t, [answer, ISSUED])
    await t.rejects(plane.createCertificateFromCsr('csr', never), code(expected), JSON.stringify(answer))
    t.equal(requests.length, 1)
  }
})

await t.test('what the SDK\'s own middleware would have added is on the wire', async t => {
  const { plane, headers } = await scripted(t, [{}, ISSUED])
  await plane.activate(ID, never)
  await plane.createCertificateFromCsr('csr', never)
  const lengths = headers.map(each => each['content-length'])
  t.same(lengths, ['0', String(JSON.stringify({ certificateSigningRequest: 'csr' }).length)], 'a PUT without a body says so: servers may ask for a length')
  const named = /^aws-sdk-js\/\d+\.\d+\.\d+ ua\/2\.1 os\/\w+#\S+ lang\/js md\/nodejs#\d+\S+ api\/IoT#\d+\.\d+\.\d+$/
  for (const each of headers) t.match(each, { 'user-agent': named, authorization: /^AWS4-HMAC-SHA256 .*SignedHeaders=.*host;.*x-amz-date/, host: /^127/ })
})

await t.test('an abort ends the wait for another attempt', async t => {
  const { plane, requests } = await scripted(t, Array(20).fill([429, 'ThrottlingException']))
  await t.rejects(plane.activate(ID, AbortSignal.timeout(100)), code('deadline-exceeded'))
  t.ok(requests.length < 6, 'which is before the last')
})

await t.test('binding is tried again where that may help', async t => {
  for (const answer of [[500, 'InternalFailureException'], [400, 'ThrottlingException'], 'cut', 'hang', [200], [404], [400]] as Answer[]) {
    const { plane, requests } = await scripted(t, [answer, {}])
    await plane.activate(ID, never)
    t.equal(requests.length, 2, JSON.stringify(answer))
  }
})

await t.test('what was made a moment ago may not be found yet', async t => {
  const missing: Answer = [404, 'ResourceNotFoundException']
  const soon = await scripted(t, [missing, missing, {}])
  await soon.plane.activate(ID, never)
  const gone = await scripted(t, Array(20).fill(missing))
  await t.rejects(gone.plane.activate(ID, never), CertificateStateConflict, 'but not for ever')
  t.ok(gone.requests.length < 10)
  await t.resolves(gone.plane.revoke(ID, never), 'a certificate that is gone counts as revoked')
  await t.resolves(gone.plane.deleteUnbound(ID, never), 'and as deleted')
})

await t.test('a limit of AWS IoT is permanent and not retried', async t => {
  const { plane, requests } = await scripted(t, Array(20).fill([410, 'LimitExceededException']))
  await t.rejects(plane.activate(ID, never), code('aws-iot-refused'))
  t.equal(requests.length, 1)
})

await t.test('a revoked certificate says so; an existing thing is fine', async t => {
  const revoked = await scripted(t, [[406, 'CertificateStateException']])
  await t.rejects(revoked.plane.activate(ID, never), CertificateStateConflict)
  const exists = await scripted(t, [[409, 'ResourceAlreadyExistsException']])
  await t.resolves(exists.plane.ensureThing(THING, never))
})

await t.test('a thing gets what its product says, and joins its groups also where it is there already', async t => {
  const thing = { thingName: 'thing', thingType: 'sensor', thingGroups: ['fleet', 'floor-1'], attributes: { site: 'a' } }
  for (const answer of [{}, [409, 'ResourceAlreadyExistsException']] as Answer[]) {
    const { plane, requests, bodies } = await scripted(t, [answer])
    await plane.ensureThing(thing, never)
    t.same(requests, ['/things/thing', '/thing-groups/addThingToThingGroup', '/thing-groups/addThingToThingGroup'])
    t.same(bodies[0], { thingTypeName: 'sensor', attributePayload: { attributes: { site: 'a' } } })
    t.same(bodies.slice(1).map(body => (body as { thingGroupName: string }).thingGroupName).sort(), ['fleet', 'floor-1'])
  }
  const refused = await scripted(t, [{}, [403, 'AccessDeniedException']])
  await t.rejects(refused.plane.ensureThing({ ...thing, thingGroups: ['fleet'] }, never), code('aws-iot-refused'))
  const { plane, bodies } = await scripted(t, [{}])
  await plane.ensureThing(THING, never)
  t.same(bodies, [{}], 'nothing that was not asked for')
})

await t.test('the caller\'s deadline ends a call at once', async t => {
  const { plane } = await scripted(t, ['hang'], 60_000)
  await t.rejects(plane.activate(ID, AbortSignal.timeout(50)), code('deadline-exceeded'))
})

await t.test('the endpoint is asked for once, and again after a failure', async t => {
  const { plane, requests } = await scripted(t, [[403, 'AccessDeniedException'], { endpointAddress: 'x-ats.iot.example' }])
  await t.rejects(plane.endpoint(), code('aws-iot-refused'))
  t.equal(await plane.endpoint(), 'x-ats.iot.example')
  t.equal(await plane.endpoint(), 'x-ats.iot.example')
  t.equal(requests.length, 2)
})

await t.test('a list that its bound ends goes on at its marker, and says where AWS IoT does not take that any more', async t => {
  const listed = (certificateId: string, seconds: number) => ({ certificateId, status: 'INACTIVE', creationDate: seconds })
  const { plane, requests } = await scripted(t, [
    { certificates: [listed('c', 30)], nextMarker: 'bWFya2Vy' }, { certificates: [listed('b', 20), listed('a', 9)], nextMarker: 'bW9yZQ==' },
    [400, 'InvalidRequestException']
  ])
  const first = await plane.listRecent(10_000, 1, never)
  t.match(first, { complete: false, marker: 'bWFya2Vy', certificates: [{ certificateId: 'c', createdAt: 30_000 }] })
  t.match(await plane.listRecent(10_000, 1, never, first.marker), { complete: true, certificates: [{ certificateId: 'b' }] })
  await t.rejects(plane.listRecent(10_000, 1, never, first.marker), code('aws-iot-refused'))
  t.same(requests.map(url => new URL(url, 'http://iot').searchParams.get('marker')), [null, 'bWFya2Vy', 'bWFya2Vy'])
})

async function scripted (t: Test, answers: Answer[], callTimeoutMs = 250) {
  const script = [...answers]
  const requests: string[] = []
  const bodies: unknown[] = []
  const headers: IncomingHttpHeaders[] = []
  const server = createServer(async (request: IncomingMessage, response: ServerResponse) => {
    requests.push(request.url ?? '')
    headers.push(request.headers)
    const place = requests.length - 1
    const answer = script.shift() ?? {}
    if (answer === 'hang') return
    if (answer === 'cut') return request.socket.destroy()
    bodies[place] = JSON.parse(await text(request) || '{}') as unknown
    const [status, error] = Array.isArray(answer) ? answer as [number, string | undefined] : [200, undefined]
    if (Array.isArray(answer) && error === undefined) {
      response.writeHead(status, { 'content-type': 'application/json', 'content-length': 100 })
      return response.write('{"message":', () => request.socket.destroy())
    }
    response.writeHead(status, { 'content-type': 'application/json', ...(error && { 'x-amzn-errortype': error }) })
    response.end(JSON.stringify(error ? { message: error } : answer))
  }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  const settings = {
    region: 'us-east-1',
    dynamodbEndpoint: undefined,
    iotEndpoint: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    callTimeoutMs,
    credentials: { accessKeyId: 'test', secretAccessKey: 'test' },
    observe: () => {},
    pace: <T>(_operation: string, _signal: unknown, call: () => Promise<T>) => call()
  }
  const [issuing, binding, tending] = [iotIssuingClient(settings), iotBindingClient(settings), iotTendingClient(settings)]
  t.teardown(() => {
    issuing.destroy()
    binding.destroy()
    tending.destroy()
    server.closeAllConnections()
    server.close()
  })
  return { plane: new IotControlPlane({ issuing, binding, tending, endpoint: undefined }), requests, bodies, headers }
}
