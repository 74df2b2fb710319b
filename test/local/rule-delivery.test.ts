/* eslint no-template-curly-in-string: off -- substitution templates */
import { once } from 'node:events'
import { createServer } from 'node:http'
import { createServer as createSecureServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import * as aws from '@aws-sdk/client-iot'
import t from 'tap'
import { CustomerCa } from './ca-rig.ts'
import { endpoint, ok, type Behaviour, type Received } from './endpoint.ts'
import { connect, startRig } from './rig.ts'

const logged: Array<(message: string) => boolean> = []
const note = (_fields: object, message: string): void => {
  const at = logged.findIndex(wanted => wanted(message))
  if (at >= 0) logged.splice(at, 1)
}
/** Resolves when the local AWS logs such a line. */
const line = (pattern: RegExp): Promise<void> => new Promise(resolve => {
  logged.push(message => { if (pattern.test(message)) resolve(); return pattern.test(message) })
})
const { local, iot, close } = await startRig({ ruleTimeoutMs: 600, log: { debug: () => {}, info: note, warn: note, error: note } })
t.teardown(close)

const SIGNED = 'AWS4-HMAC-SHA256 Credential=AKIA/20261120/us-east-1/iotdata/aws4_request, SignedHeaders=host;x-amz-date, Signature=00'
const publish = async (topic: string, body: string): Promise<void> => {
  await fetch(`${local.iotUrl}/topics/${encodeURIComponent(topic)}?qos=1`, { method: 'POST', headers: { authorization: SIGNED }, body })
}
const destinationOf = async (url: string): Promise<aws.TopicRuleDestinationSummary | undefined> => {
  const { destinationSummaries = [] } = await iot.send(new aws.ListTopicRuleDestinationsCommand({}))
  return destinationSummaries.find(({ httpUrlSummary }) => httpUrlSummary?.confirmationUrl === url)
}
const confirm = async (challenge: Received): Promise<void> => {
  const { enableUrl } = JSON.parse(challenge.body) as { enableUrl: string }
  if ((await fetch(enableUrl)).status !== 200) throw new Error('not confirmed')
}
const rule = async (ruleName: string, sql: string, actions: aws.Action[], more: Partial<aws.TopicRulePayload> = {}): Promise<void> => {
  await iot.send(new aws.CreateTopicRuleCommand({ ruleName, topicRulePayload: { sql, actions, ...more } }))
}

await t.test('a destination must be confirmed, and may be disabled', async t => {
  const { url, challenge, deliveries, delivered } = await endpoint(t)
  const create = new aws.CreateTopicRuleDestinationCommand({ destinationConfiguration: { httpUrlConfiguration: { confirmationUrl: url } } })
  const { topicRuleDestination: made } = await iot.send(create)
  const arn = made?.arn ?? ''
  t.match(made, { arn: /^arn:aws:iot:us-east-1:000000000000:ruledestination\/http\/[\da-f-]{36}$/, status: 'IN_PROGRESS', httpUrlProperties: { confirmationUrl: url } })
  const asked = await challenge()
  const body = JSON.parse(asked.body) as Record<string, string>
  t.same(body, { arn, confirmationToken: body['confirmationToken'], enableUrl: `${local.iotUrl}/confirmdestination/${body['confirmationToken']}`, messageType: 'DestinationConfirmation' })
  t.equal(asked.path, `/?confirmationToken=${body['confirmationToken']}`)
  t.match(asked.headers, {
    'x-amz-rules-engine-message-type': 'DestinationConfirmation', 'x-amz-rules-engine-destination-arn': arn, 'content-type': 'application/json'
  })

  await rule('confirmed', "SELECT * FROM 'c'", [{ http: { url } }])
  const status = async (): Promise<unknown> =>
    (await iot.send(new aws.GetTopicRuleDestinationCommand({ arn }))).topicRuleDestination?.status
  const set = async (status: aws.TopicRuleDestinationStatus): Promise<void> => {
    await iot.send(new aws.UpdateTopicRuleDestinationCommand({ arn, status }))
  }
  const dropped = async (): Promise<void> => {
    const failed = line(/rule action failed/)
    await publish('c', '"dropped"')
    await failed
  }
  await dropped()
  await t.rejects(set('ENABLED'), { name: 'InvalidRequestException' }, 'not before it is confirmed')
  await t.rejects(iot.send(new aws.ConfirmTopicRuleDestinationCommand({ confirmationToken: 'wrong' })), { name: 'InvalidRequestException' })
  await iot.send(new aws.ConfirmTopicRuleDestinationCommand({ confirmationToken: body['confirmationToken'] }))
  t.equal(await status(), 'DISABLED', 'the API call confirms only')
  await dropped()
  await set('ENABLED')
  await publish('c', '"kept"')
  await delivered(1)
  await set('DISABLED')
  await dropped()
  await set('IN_PROGRESS')
  const again = await challenge()
  await dropped()
  await confirm(again)
  t.equal(await status(), 'ENABLED', 'the link enables')
  await confirm(again)
  await publish('c', '"again"')
  await delivered(2)
  t.same(deliveries.map(({ body }) => body), ['"kept"', '"again"'])
  await t.rejects(set('DELETING'), { name: 'InvalidRequestException' })
  await t.rejects(iot.send(create), { name: 'ResourceAlreadyExistsException' })
  await iot.send(new aws.DeleteTopicRuleDestinationCommand({ arn }))
  await t.rejects(status(), { name: 'UnauthorizedException', message: `Access to TopicRuleDestination '${arn}' was denied` })
  await dropped()
})

await t.test('an endpoint that does not take its confirmation message', async t => {
  const server = createServer((_request, response) => { response.writeHead(404).end() }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.teardown(() => { server.close(); server.closeAllConnections() })
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  const failed = line(/did not take its confirmation message/)
  await rule('deaf', "SELECT * FROM 'd'", [{ http: { url } }])
  await failed
  t.match(await destinationOf(url), { status: 'IN_PROGRESS', statusReason: /answered 404/ })
})

await t.test('the http action: retries, time limit, headers, SQL', async t => {
  const server = await endpoint(t)
  const { url, deliveries, delivered, behave } = server
  await rule('http', "SELECT state.x AS y, state, topic(2) AS second, 'lit' AS kind FROM 'in/+' WHERE state.x >= 2 AND topic(2) <> 'not'", [{
    http: {
      url: `${url}/hook/\${topic(2)}`,
      confirmationUrl: `${url}/hook`,
      headers: [{ key: 'X-Topic', value: '${topic()}' }, { key: 'X-Secret', value: 's-${state.x}-${nothing}' }]
    }
  }], { errorAction: { sqs: { roleArn: 'arn:aws:iam::000000000000:role/any', queueUrl: 'https://queue.example/dead' } } })
  await confirm(await server.challenge())
  const run = async (behaviour: Behaviour, tries: number): Promise<void> => {
    deliveries.length = 0
    behave(behaviour)
    await publish('in/a', '{"state":{"x":2}}')
    await delivered(tries)
  }
  const dead = async (behaviour: Behaviour, tries: number): Promise<string> => {
    const kept = line(/kept a message for SQS/)
    await run(behaviour, tries)
    await kept
    t.equal(deliveries.length, tries)
    const { queueUrl, body } = local.queued().at(-1) ?? { queueUrl: '', body: '{}' }
    t.equal(queueUrl, 'https://queue.example/dead')
    const report = JSON.parse(body) as { failures: Array<{ errorMessage: string }> }
    t.match(report, { ruleName: 'http', topic: 'in/a', clientId: 'N/A', base64OriginalPayload: Buffer.from('{"state":{"x":2}}').toString('base64'), failures: [{ failedAction: 'HttpAction' }] })
    return report.failures[0]?.errorMessage ?? ''
  }
  await run(ok, 1)
  t.same(JSON.parse(deliveries[0]?.body ?? ''), { y: 2, state: { x: 2 }, second: 'a', kind: 'lit' })
  t.match(deliveries[0], { path: '/hook/a', headers: { 'x-topic': 'in/a', 'x-secret': 's-2-', 'content-type': 'application/json' } })

  await run((response, n) => { response.writeHead(n < 3 ? 500 : 200).end() }, 3)
  t.equal(new Set(deliveries.map(({ body }) => body)).size, 1, 'the same message, so that receivers can tell repetitions')
  await run((response, n) => { response.writeHead(n < 2 ? 429 : 204).end() }, 2)
  t.match(await dead(response => { response.writeHead(503).end() }, 3), /answered 503 at try 3/)
  t.match(await dead(response => { response.writeHead(400).end() }, 1), /answered 400 at try 1/)
  t.match(await dead(response => { response.writeHead(301, { location: '/' }).end() }, 1), /answered 301/)
  t.match(await dead(response => { response.writeHead(500, { connection: 'close' }).end() }, 1), /answered 500 at try 1/)
  t.match(await dead(response => { response.writeHead(500).end('x'.repeat(20_000)) }, 1), /answered 500 at try 1/)
  t.match(await dead(response => { response.destroy() }, 1), /hang up/)
  t.match(await dead(() => {}, 1), /within 600 ms/)

  deliveries.length = 0
  behave(ok)
  for (const [topic, body] of [['in/a', '{"state":{"x":1}}'], ['in/a', 'no JSON'], ['in/not', '{"state":{"x":3}}'], ['in/a/b', '{"state":{"x":3}}'], ['in/last', '{"state":{"x":3}}']] as const) {
    await publish(topic, body)
  }
  await delivered(1)
  t.same(deliveries.map(({ path }) => path), ['/hook/last'])
  await iot.send(new aws.DisableTopicRuleCommand({ ruleName: 'http' }))
  await publish('in/off', '{"state":{"x":3}}')
  await iot.send(new aws.EnableTopicRuleCommand({ ruleName: 'http' }))
  await publish('in/on', '{"state":{"x":3}}')
  await delivered(2)
  t.same(deliveries.map(({ path }) => path), ['/hook/last', '/hook/on'])
})

await t.test('over https to a server of the local root', async t => {
  const server = createSecureServer(local.serverTls, (request, response) => {
    response.end()
    if (request.headers['x-amz-rules-engine-message-type'] === undefined) server.emit('delivered', request.headers['content-type'])
    else server.emit('challenged', request.url)
  }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.teardown(() => { server.close(); server.closeAllConnections() })
  const challenged = once(server, 'challenged')
  await rule('tls', "SELECT * FROM 'tls'", [{ http: { url: `https://localhost:${(server.address() as AddressInfo).port}/` } }])
  const [path] = await challenged as [string]
  t.equal((await fetch(`${local.iotUrl}/confirmdestination/${path.split('=')[1]}`)).status, 200)
  const delivered = once(server, 'delivered')
  await publish('tls', 'no JSON')
  t.same(await delivered, ['application/octet-stream'])
})

await t.test('other actions', async t => {
  const republish = (topic: string): aws.Action => ({ republish: { roleArn: 'arn:aws:iam::000000000000:role/any', topic } })
  await rule('loop', "SELECT *, 1 AS again FROM 'loop/#'", [republish('loop/${topic(2)}')])
  const tired = line(/rule action failed/)
  await publish('loop/x', '{}')
  await tired
  await rule('relay', "SELECT * FROM 'relay/in'", [republish('relay/out'), { lambda: { functionArn: 'arn:aws:lambda:us-east-1:000000000000:function:f' } }])
  await rule('sink', "SELECT * FROM 'relay/out'", [{ sqs: { roleArn: 'arn:aws:iam::000000000000:role/any', queueUrl: 'https://queue.example/q', useBase64: true } }])
  const said = Promise.all([line(/action not delivered/), line(/kept a message for SQS/)])
  await publish('relay/in', 'bytes')
  await said
  t.same(local.queued().at(-1), { queueUrl: 'https://queue.example/q', body: Buffer.from('bytes').toString('base64') })
  await rule('forbidden', "SELECT * FROM 'f'", [republish('$$aws/events/mine')])
  const failed = line(/rule action failed/)
  await publish('f', '{}')
  await failed
})

await t.test('JITR by rule: the event reaches the endpoint each time', async t => {
  const server = await endpoint(t)
  const ca = new CustomerCa('/CN=Rule CA')
  const caCertificateId = await ca.register(iot)
  await rule('jitr', `SELECT * FROM '$aws/events/certificates/registered/${caCertificateId}'`, [{
    http: { url: server.url, headers: [{ key: 'x-certificate', value: '${certificateId}' }] }
  }])
  await confirm(await server.challenge())
  const leaf = ca.sign('/CN=ruled')
  server.behave((response, n) => { response.writeHead(n === 1 ? 500 : 200).end() })
  await t.rejects(connect(local, { clientId: 'x', key: leaf.key, cert: leaf.chain }))
  await server.delivered(2)
  await t.rejects(connect(local, { clientId: 'x', key: leaf.key, cert: leaf.chain }))
  await server.delivered(3)
  const events = server.deliveries.map(({ body }) => JSON.parse(body) as Record<string, unknown>)
  t.same(events[1], events[0], 'a retry repeats the event')
  t.match(events[2], { certificateId: leaf.id, caCertificateId, certificateStatus: 'PENDING_ACTIVATION', certificateRegistrationTimestamp: null })
  t.equal(server.deliveries[0]?.headers['x-certificate'], leaf.id)
})
