// The adapter of AWS IoT's data plane against a scripted endpoint: what its errors mean here, what is tried again, and when a call ends.
import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { text } from 'node:stream/consumers'
import t, { type Test } from 'tap'
import { iotDataClient } from '../../src/adapters/aws-clients.ts'
import { IotDataPlane } from '../../src/adapters/iot-data-plane.ts'
import { CvmError } from '../../src/errors.ts'

type Answer = [status: number, error: string] | 'hang' | 'cut' | 'page' | object

const DOCUMENT = { state: { desired: { a: 1 } }, metadata: { desired: { a: { timestamp: 1 } } }, version: 3, timestamp: 1 }
const SETTINGS = { region: 'us-east-1', dynamodbEndpoint: undefined, iotEndpoint: undefined, credentials: { accessKeyId: 'test', secretAccessKey: 'test' } }
const CLASSIC = { thingName: 'sn:1' }
const never = new AbortController().signal
const code = (name: string) => ({ name: 'CvmError', code: name })

await t.test('the classic shadow and a named one', async t => {
  const { plane, requests, bodies } = await scripted(t, [DOCUMENT, DOCUMENT, DOCUMENT, DOCUMENT])
  t.same(await plane.find(CLASSIC, never), DOCUMENT)
  await plane.find({ ...CLASSIC, name: 'config' }, never)
  t.same(await plane.setDesired(CLASSIC, { desired: { a: 1 } }, never), DOCUMENT)
  await plane.setDesired({ ...CLASSIC, name: 'config' }, { desired: null, version: 0 }, never)
  t.same(requests, ['GET', 'POST'].flatMap(method => ['', '?name=config'].map(query => `${method} /things/sn%3A1/shadow${query}`)))
  t.same(bodies, ['', '', '{"state":{"desired":{"a":1}}}', '{"state":{"desired":null},"version":0}'])
})

await t.test('what AWS IoT says about a shadow', async t => {
  const table: [Answer, string][] = [
    [[409, 'ConflictException'], 'shadow-conflict'],
    [[413, 'RequestEntityTooLargeException'], 'shadow-too-large'],
    [[400, 'InvalidRequestException'], 'shadow-rejected'],
    [[403, 'ForbiddenException'], 'aws-iot-refused']
  ]
  for (const [answer, expected] of table) {
    const { plane, requests } = await scripted(t, [answer])
    await t.rejects(plane.setDesired(CLASSIC, { desired: {}, version: 1 }, never), code(expected), expected)
    t.equal(requests.length, 1, 'and is not asked again')
  }
  const none = await scripted(t, [[404, 'ResourceNotFoundException'], [404, 'ResourceNotFoundException']])
  t.equal(await none.plane.find(CLASSIC, never), undefined)
  await t.rejects(none.plane.setDesired(CLASSIC, { desired: {} }, never), code('aws-iot-refused'))
})

await t.test('passing trouble is tried again; what stays has its code', async t => {
  const table: [Answer, string][] = [
    [[429, 'ThrottlingException'], 'aws-iot-throttled'], [[500, 'InternalFailureException'], 'aws-iot-unavailable'],
    [[503, 'ServiceUnavailableException'], 'aws-iot-unavailable'], ['cut', 'aws-iot-unavailable'], ['hang', 'aws-iot-unavailable']
  ]
  for (const [answer, expected] of table) {
    const passing = await scripted(t, [answer, DOCUMENT])
    t.same(await passing.plane.setDesired(CLASSIC, { desired: {} }, never), DOCUMENT, JSON.stringify(answer))
    const lasting = await scripted(t, [answer, answer, answer, DOCUMENT])
    await t.rejects(lasting.plane.find(CLASSIC, never), code(expected), JSON.stringify(answer))
    t.equal(lasting.requests.length, 3)
  }
  const { plane } = await scripted(t, ['page'])
  await t.rejects(plane.find(CLASSIC, never), code('aws-iot-unavailable'), 'a page of a proxy is no shadow')
})

await t.test('the caller\'s deadline ends a call at once', async t => {
  const { plane } = await scripted(t, ['hang'], 60_000)
  await t.rejects(plane.find(CLASSIC, AbortSignal.timeout(50)), code('deadline-exceeded'))
})

await t.test('each attempt is observed, under the name of its service', async t => {
  const { plane, seen } = await scripted(t, [[429, 'ThrottlingException'], DOCUMENT])
  await plane.find(CLASSIC, never)
  t.same(seen, ['iot-data GetThingShadow ThrottlingException', 'iot-data GetThingShadow ok'])
})

await t.test('an endpoint that cannot be asked for is what fails', async t => {
  const client = iotDataClient({ ...SETTINGS, callTimeoutMs: 250, observe: () => {} }, async () => { throw new CvmError('aws-iot-throttled') })
  t.teardown(() => client.destroy())
  await t.rejects(new IotDataPlane(client).find(CLASSIC, never), code('aws-iot-throttled'))
})

async function scripted (t: Test, answers: Answer[], callTimeoutMs = 250) {
  const script = [...answers]
  const [requests, bodies, seen]: string[][] = [[], [], []]
  const server = createServer(async (request, response) => {
    requests!.push(`${request.method} ${request.url}`)
    bodies!.push(await text(request))
    const answer = script.shift() ?? {}
    if (answer === 'hang') return
    if (answer === 'cut') return request.socket.destroy()
    if (answer === 'page') return response.end('<html>')
    const [status, error] = Array.isArray(answer) ? answer as [number, string] : [200, undefined]
    response.writeHead(status, { 'content-type': 'application/json', ...(error && { 'x-amzn-errortype': error }) })
    response.end(JSON.stringify(error ? { message: error } : answer))
  }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  const observe = (service: string, operation: string, result: string) => { seen!.push(`${service} ${operation} ${result}`) }
  const client = iotDataClient({ ...SETTINGS, callTimeoutMs, observe }, async () => url)
  t.teardown(() => {
    client.destroy()
    server.closeAllConnections()
    server.close()
  })
  return { plane: new IotDataPlane(client), requests: requests!, bodies: bodies!, seen: seen! }
}
