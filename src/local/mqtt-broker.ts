import { constants, X509Certificate } from 'node:crypto'
import type { Socket } from 'node:net'
import { createServer, type TLSSocket } from 'node:tls'
import { Aedes, type AedesOptions, type Client } from 'aedes'
import type { Account } from './account.ts'
import type { Credentials } from './ca.ts'
import type { Certificate } from './certificates.ts'
import { authority, listen } from './listen.ts'
import type { Log } from './log.ts'
import type { Message } from './messages.ts'
import { Door } from './mqtt-door.ts'
import { addressOf, Sessions } from './mqtt-sessions.ts'
import { Presence } from './presence.ts'
import { covers } from './topic.ts'

const HANDSHAKE_MS = 10_000
const MAX_PAYLOAD_BYTES = 128 * 1024
/** CONNACK return code of MQTT 3.1.1. */
const NOT_AUTHORIZED = 5
const SUBACK_FAILURE = null

/**
 * The MQTT side of AWS IoT Core: TLS with a client certificate that is registered here and ACTIVE, whose policies allow what the
 * client does. Policies, attachments and status are read at each step, so a change counts from the next packet on; a session ends
 * when its certificate leaves ACTIVE. A certificate that is not ACTIVE yet but may become so is turned away at its CONNECT packet.
 */
export async function startMqttBroker (
  account: Account, tls: Credentials, host: string, port: number, log: Log
): Promise<{ url: string, port: number, close: () => Promise<void> }> {
  const sessions = new Sessions(account)
  const presence = new Presence(account.messages)
  const door = new Door(account, new X509Certificate(tls.cert), log)
  const broker = await Aedes.createBroker({ ...rules(sessions, presence, door), connectTimeout: HANDSHAKE_MS, maxClientsIdLength: 128 })
  broker.on('clientError', (client, error) => {
    presence.blame(client.conn, 'CLIENT_ERROR')
    log.debug({ clientId: client.id, err: error }, 'local MQTT session ended')
  })
  broker.on('connectionError', (_client, error) => { log.debug({ err: error }, 'local MQTT connection refused') })
  broker.on('keepaliveTimeout', client => { presence.blame(client.conn, 'MQTT_KEEP_ALIVE_TIMEOUT') })
  broker.on('clientReady', client => {
    presence.connected(client.conn, client.id, sessions.certificateOf(client)?.id ?? '', addressOf(client))
  })
  broker.on('clientDisconnect', client => {
    // aedes tells nobody else that a DISCONNECT packet came first.
    if ((client as Client & { _disconnected?: boolean })._disconnected === true) presence.blame(client.conn, 'CLIENT_INITIATED_DISCONNECT')
    presence.disconnected(client.conn)
  })
  broker.on('publish', ({ topic, payload }, client) => {
    const certificateId = client === null ? undefined : sessions.certificateOf(client)?.id
    if (client === null || certificateId === undefined) return
    account.messages.received({ topic, payload: Buffer.from(payload), clientId: client.id, certificateId })
  })
  const outgoing = ({ topic, payload, qos = 0, retain = false }: Message): void => {
    if (!broker.closed) broker.publish({ cmd: 'publish', topic, payload, qos, retain, dup: false }, () => {})
  }
  account.messages.on('outgoing', outgoing)

  const server = createServer({
    cert: tls.cert,
    key: tls.key,
    minVersion: 'TLSv1.2',
    requestCert: true,
    // Whom to let in is decided below by the registry: the issuers of device certificates are no authorities to TLS. That the
    // client holds the certificate's key is proven by the handshake either way.
    rejectUnauthorized: false,
    // A resumed session would bring no certificate.
    secureOptions: constants.SSL_OP_NO_TICKET,
    handshakeTimeout: HANDSHAKE_MS
  })
  server.on('tlsClientError', error => { log.debug({ err: error }, 'local MQTT handshake failed') })
  server.on('connection', (socket: Socket) => { sessions.track(socket) })
  server.on('secureConnection', socket => {
    // aedes listens for errors only once it has taken over, and an error without listener would end the process.
    socket.on('error', error => { log.debug({ err: error }, 'local MQTT connection failed') })
    if (door.opens(socket)) broker.handle(socket)
    else socket.destroy()
  })

  const changed = (certificate: Certificate): void => {
    if (certificate.status === 'ACTIVE') return
    for (const connection of sessions.of(certificate)) {
      presence.blame(connection, 'AUTH_ERROR')
      connection.destroy()
    }
  }
  account.certificates.on('changed', changed)
  const close = async (): Promise<void> => {
    account.certificates.off('changed', changed)
    account.messages.off('outgoing', outgoing)
    const closed = new Promise<void>(resolve => { server.close(() => { resolve() }) })
    sessions.endAll()
    await new Promise<void>(resolve => { broker.close(resolve) })
    await closed
  }
  try {
    const taken = await listen(server, host, port, 'LOCAL_MQTT_PORT')
    return { url: `mqtts://${authority(host, taken)}`, port: taken, close }
  } catch (error) {
    await close()
    throw error
  }
}

/** AWS IoT's answers in aedes' terms: refused connect, closed connection after a forbidden publish, failed entry in SUBACK. */
function rules (sessions: Sessions, presence: Presence, door: Door): AedesOptions {
  return {
    preConnect: (client, _packet, done) => {
      const certificate = door.admitted(client.conn as TLSSocket)
      if (certificate !== undefined) sessions.add(certificate, client.conn)
      done(certificate === undefined ? new Error('the certificate is not ACTIVE') : null, certificate !== undefined)
    },
    authenticate: (client, _username, _password, done) => {
      const allowed = sessions.accessOf(client)?.mayConnect() === true
      if (allowed) presence.replaced(client.id)
      if (allowed) done(null, true)
      else done(Object.assign(new Error('not authorized to connect'), { returnCode: NOT_AUTHORIZED }), false)
    },
    authorizePublish: (client, { topic, qos, retain, payload }, done) => {
      const allowed = client !== null && qos < 2 && payload.length <= MAX_PAYLOAD_BYTES &&
        sessions.accessOf(client)?.mayPublish(topic, retain) === true
      if (client !== null && !allowed) presence.blame(client.conn, 'AUTH_ERROR')
      done(allowed ? null : new Error(`not allowed to publish to ${topic} with QoS ${qos}`))
    },
    authorizeSubscribe: (client, subscription, done) => {
      // AWS answers a subscription with QoS 2 by closing the connection, without SUBACK.
      if (subscription.qos === 2) done(new Error('QoS 2 is not supported'))
      else done(null, sessions.accessOf(client)?.maySubscribe(subscription.topic) === true ? subscription : SUBACK_FAILURE)
    },
    authorizeForward: (client, packet) =>
      subscribed(client, packet.topic) && sessions.accessOf(client)?.mayReceive(packet.topic) === true ? packet : null
  }
}

/** aedes lets `#` and `+` cover all reserved topics but its own; MQTT has them cover none. */
function subscribed (client: Client, topic: string): boolean {
  const { subscriptions } = client as Client & { subscriptions: Record<string, unknown> }
  return !topic.startsWith('$') || Object.keys(subscriptions).some(filter => covers(filter, topic))
}
