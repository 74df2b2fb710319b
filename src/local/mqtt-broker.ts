import { constants, createHash } from 'node:crypto'
import type { Socket } from 'node:net'
import { createServer, type TLSSocket } from 'node:tls'
import { Aedes, type AedesOptions, type Client } from 'aedes'
import type { Account } from './account.ts'
import type { Credentials } from './ca.ts'
import type { Certificate } from './certificates.ts'
import { authority, listen } from './listen.ts'
import type { Log } from './log.ts'
import { MqttAccess } from './mqtt-access.ts'

const HANDSHAKE_MS = 10_000
const MAX_PAYLOAD_BYTES = 128 * 1024
/** CONNACK return code of MQTT 3.1.1. */
const NOT_AUTHORIZED = 5
const SUBACK_FAILURE = null

/**
 * The MQTT side of AWS IoT Core: TLS with a client certificate that is registered here and ACTIVE, whose policies allow what the
 * client does. Policies, attachments and status are read at each step, so a change counts from the next packet on; a session ends
 * when its certificate leaves ACTIVE.
 */
export async function startMqttBroker (
  account: Account, tls: Credentials, host: string, port: number, log: Log
): Promise<{ url: string, port: number, close: () => Promise<void> }> {
  const sessions = new Sessions(account)
  const broker = await Aedes.createBroker({ ...rules(sessions), connectTimeout: HANDSHAKE_MS, maxClientsIdLength: 128 })
  broker.on('clientError', (client, error) => { log.debug({ clientId: client.id, err: error }, 'local MQTT session ended') })
  broker.on('connectionError', (_client, error) => { log.debug({ err: error }, 'local MQTT connection refused') })

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
    const certificate = presented(socket, account)
    if (certificate?.status !== 'ACTIVE' || certificate.notAfter < Date.now()) {
      log.info({ certificateId: certificate?.id, status: certificate?.status ?? 'not registered' }, 'local MQTT connection refused')
      socket.destroy()
      return
    }
    sessions.add(certificate, socket)
    broker.handle(socket)
  })

  const changed = (certificate: Certificate): void => { if (certificate.status !== 'ACTIVE') sessions.end(certificate) }
  account.certificates.on('changed', changed)
  const close = async (): Promise<void> => {
    account.certificates.off('changed', changed)
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

/** The registered certificate the client proved to hold, if it sent one. */
function presented (socket: TLSSocket, account: Account): Certificate | undefined {
  const certificate = socket.getPeerX509Certificate()
  return certificate === undefined ? undefined : account.certificates.find(createHash('sha256').update(certificate.raw).digest('hex'))
}

/** AWS IoT's answers in aedes' terms: refused connect, closed connection after a forbidden publish, failed entry in SUBACK. */
function rules (sessions: Sessions): AedesOptions {
  return {
    authenticate: (client, _username, _password, done) => {
      if (sessions.accessOf(client)?.mayConnect() === true) done(null, true)
      else done(Object.assign(new Error('not authorized to connect'), { returnCode: NOT_AUTHORIZED }), false)
    },
    authorizePublish: (client, { topic, qos, retain, payload }, done) => {
      const allowed = client !== null && qos < 2 && payload.length <= MAX_PAYLOAD_BYTES &&
        sessions.accessOf(client)?.mayPublish(topic, retain) === true
      done(allowed ? null : new Error(`not allowed to publish to ${topic} with QoS ${qos}`))
    },
    authorizeSubscribe: (client, subscription, done) => {
      // AWS answers a subscription with QoS 2 by closing the connection, without SUBACK.
      if (subscription.qos === 2) done(new Error('QoS 2 is not supported'))
      else done(null, sessions.accessOf(client)?.maySubscribe(subscription.topic) === true ? subscription : SUBACK_FAILURE)
    },
    authorizeForward: (client, packet) => sessions.accessOf(client)?.mayReceive(packet.topic) === true ? packet : null
  }
}

/** The live connections, and by certificate those that were let in. */
class Sessions {
  readonly #account: Account
  readonly #open = new Set<Socket>()
  readonly #byCertificate = new Map<string, Set<TLSSocket>>()
  readonly #certificates = new WeakMap<object, Certificate>()

  constructor (account: Account) {
    this.#account = account
  }

  /** Remembers every connection from its first byte, so that one that never finishes its handshake cannot hold up the close. */
  track (socket: Socket): void {
    this.#open.add(socket)
    socket.once('close', () => { this.#open.delete(socket) })
  }

  add (certificate: Certificate, socket: TLSSocket): void {
    const sockets = this.#byCertificate.get(certificate.id) ?? new Set()
    this.#byCertificate.set(certificate.id, sockets.add(socket))
    this.#certificates.set(socket, certificate)
    socket.once('close', () => {
      sockets.delete(socket)
      if (sockets.size === 0 && this.#byCertificate.get(certificate.id) === sockets) this.#byCertificate.delete(certificate.id)
    })
  }

  accessOf (client: Client): MqttAccess | undefined {
    const certificate = this.#certificates.get(client.conn)
    return certificate === undefined ? undefined : new MqttAccess(this.#account, certificate, client.id)
  }

  end ({ id }: Certificate): void {
    for (const socket of this.#byCertificate.get(id) ?? []) socket.destroy()
  }

  endAll (): void {
    for (const socket of this.#open) socket.destroy()
  }
}
