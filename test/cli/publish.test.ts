import { createServer } from 'node:tls'
import type { AddressInfo } from 'node:net'
import t from 'tap'
import type { Test } from 'tap'
import type { Failure } from '../../src/cli/failure.ts'
import { hostAndPort, publish } from '../../src/cli/publish.ts'
import type { Hello } from '../../src/cli/publish.ts'
import { makeStranger } from '../../src/cli/stranger.ts'
import { Authority } from './openssl-authority.ts'
import { strictBroker } from './strict-broker.ts'

const servers = new Authority(t, 'Server authority')
const devices = new Authority(t, 'Device authority')
const device = devices.issue('/CN=AWS IoT Certificate')

async function broker (t: Test) {
  const { endpoint, received, serverNames } = await strictBroker(t, { servers, devices })
  const topic = 'devices/thing-1/hello'
  const hello: Hello = { endpoint, ca: servers.certificate, ...device, clientId: 'thing-1', topic, message: 'hi', timeoutMs: 5000 }
  return { hello, received, serverNames }
}

async function exitCode (attempt: Promise<unknown>): Promise<number> {
  return await attempt.then(() => 0, error => (error as Failure).exitCode)
}

await t.test('a message is acknowledged', async t => {
  const { hello, received, serverNames } = await broker(t)
  await publish(hello)
  await publish({ ...hello, endpoint: hello.endpoint.replace('localhost', '127.0.0.1') })
  t.strictSame(received, ['devices/thing-1/hello 1 hi', 'devices/thing-1/hello 1 hi'])
  t.strictSame(serverNames, ['localhost', false], 'SNI for a name, none for an address')
})

await t.test('refusals of the broker: exit code 3', async t => {
  const { hello, received } = await broker(t)
  const { certificate, privateKey, ...stranger } = hello
  t.equal(await exitCode(publish(stranger)), 3, 'no certificate')
  t.equal(await exitCode(publish({ ...stranger, ...await makeStranger('thing-1') })), 3, 'self-signed certificate')
  t.equal(await exitCode(publish({ ...hello, clientId: 'thing-2' })), 3, 'another client id')
  t.equal(await exitCode(publish({ ...hello, topic: 'devices/thing-2/hello' })), 3, 'another topic')
  t.strictSame(received, [])
})

await t.test('no broker: exit code 4; one that is not trusted, or nonsense: 1', async t => {
  const { hello, received } = await broker(t)
  t.equal(await exitCode(publish({ ...hello, endpoint: 'localhost:1' })), 4, 'nobody listens')
  t.equal(await exitCode(publish({ ...hello, ca: devices.certificate })), 1, 'unknown authority')
  t.equal(await exitCode(publish({ ...hello, endpoint: 'a b' })), 1)
  t.strictSame(received, [])
})

await t.test('a broker that says nothing: exit code 4 at the deadline', async t => {
  const { certificate: cert, privateKey: key } = servers.issueServer()
  const silent = createServer({ cert, key }, socket => { socket.on('error', () => {}) })
  await new Promise<void>(resolve => silent.listen(0, '127.0.0.1', resolve))
  t.teardown(() => silent.close())
  const { port } = silent.address() as AddressInfo
  const hello = { endpoint: `localhost:${port}`, ca: servers.certificate, ...device, clientId: 'c', topic: 't', message: 'm', timeoutMs: 300 }
  t.equal(await exitCode(publish(hello)), 4)
})

await t.test('endpoints', async t => {
  t.strictSame(hostAndPort('a.iot.example'), { host: 'a.iot.example', port: 8883 })
  t.strictSame(hostAndPort('localhost:1883'), { host: 'localhost', port: 1883 })
  t.strictSame(hostAndPort('[::1]:443'), { host: '::1', port: 443 })
  for (const wrong of ['', 'https://a', 'a/b', 'a:b', 'a:99999', 'u@a', 'a:1:2', '::1']) t.throws(() => hostAndPort(wrong), wrong)
})
