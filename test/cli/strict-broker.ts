// An MQTT broker behind TLS on this machine, as strict as AWS IoT in what the CLI's tests need.
import { createServer } from 'node:tls'
import type { AddressInfo } from 'node:net'
import { Aedes } from 'aedes'
import type { Test } from 'tap'
import type { Authority, Pair } from './openssl-authority.ts'

interface Parties { readonly servers: Authority, readonly devices: Authority, readonly admitsAnyone?: boolean }

/** Admits only `thing-1` with a certificate of `devices`, and only under its own topics; with `admitsAnyone` every certificate or none. */
export async function strictBroker (t: Test, { servers, devices, admitsAnyone = false }: Parties) {
  const received: string[] = []
  const serverNames: unknown[] = []
  const aedes = await Aedes.createBroker()
  aedes.authenticate = (client, _user, _password, done) => done(null, client.id === 'thing-1')
  aedes.authorizePublish = (_client, packet, done) => done(packet.topic.startsWith('devices/thing-1/') ? null : new Error('not allowed'))
  aedes.on('publish', (packet, client) => { if (client !== null) received.push(`${packet.topic} ${packet.qos} ${packet.payload.toString()}`) })
  const { certificate: cert, privateKey: key }: Pair = servers.issueServer()
  const server = createServer({ cert, key, ca: devices.certificate, requestCert: true, rejectUnauthorized: !admitsAnyone }, socket => {
    serverNames.push(socket.servername)
    aedes.handle(socket)
  })
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
  t.teardown(async () => {
    await new Promise<void>(resolve => aedes.close(() => resolve()))
    await new Promise(resolve => server.close(resolve))
  })
  const { port } = server.address() as AddressInfo
  return { endpoint: `localhost:${port}`, received, serverNames }
}
