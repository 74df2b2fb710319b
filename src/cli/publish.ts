import { isIP } from 'node:net'
import { connect as connectTls } from 'node:tls'
import { MqttClient } from 'mqtt'
import type { TLSSocket } from 'node:tls'
import { EXIT, Failure, codeOf, messageOf } from './failure.ts'

/** One message over mutual TLS; without certificate and key the attempt shows what a stranger meets. */
export interface Hello {
  readonly endpoint: string
  readonly ca: string
  readonly certificate?: string
  readonly privateKey?: string
  readonly clientId: string
  readonly topic: string
  readonly message: string
  readonly timeoutMs: number
}

/** Splits `host`, `host:port` or `[v6]:port`; 8883 is the port of MQTT over TLS. Throws a `Failure` for anything else. */
export function hostAndPort (endpoint: string): { host: string, port: number } {
  const url = URL.canParse(`tls://${endpoint}`) ? new URL(`tls://${endpoint}`) : undefined
  if (url === undefined || url.hostname === '' || !/^(\[[^\]]+\]|[^:/?#@\s]+)(:\d+)?$/.test(endpoint)) {
    throw new Failure(EXIT.failed, 'the endpoint is not host or host:port', { detail: endpoint })
  }
  return { host: url.hostname.replace(/^\[|\]$/g, ''), port: Number(url.port || 8883) }
}

/**
 * Connects with MQTT 3.1.1 and publishes with QoS 1; returns once the broker acknowledged the message. Throws a `Failure`: 3 when the
 * broker refused the certificate, the connection or the message, 4 when it could not be reached, 1 when it cannot be trusted.
 */
export async function publish (hello: Hello): Promise<void> {
  const signal = AbortSignal.timeout(hello.timeoutMs)
  const socket = await secured(hello, signal)
  const { clientId, timeoutMs } = hello
  const client = new MqttClient(() => socket, { clientId, protocolVersion: 4, reconnectPeriod: 0, connectTimeout: timeoutMs })
  let lastError: unknown
  client.on('error', error => { lastError = error })
  socket.on('error', error => { lastError ??= error })
  // AWS IoT refuses by closing the connection, most often without a word: a close is an answer too.
  const closed = (what: string) => new Promise<never>((_resolve, reject) => {
    client.once('close', () => reject(refusal(what, hello, lastError)))
    signal.addEventListener('abort', () => reject(unreachable(hello, `no answer within ${hello.timeoutMs / 1000} s`)))
  })
  try {
    await Promise.race([new Promise<void>(resolve => client.once('connect', () => resolve())), closed('the connection')])
    const acknowledged = client.publishAsync(hello.topic, hello.message, { qos: 1 }).catch(error => {
      throw refusal(`the message to ${hello.topic}`, hello, lastError ?? error)
    })
    await Promise.race([acknowledged, closed(`the message to ${hello.topic}`)])
    await Promise.race([client.endAsync(), new Promise<void>(resolve => client.once('close', () => resolve()))])
  } finally {
    client.end(true)
    socket.destroy()
  }
}

function secured (hello: Hello, signal: AbortSignal): Promise<TLSSocket> {
  const { host, port } = hostAndPort(hello.endpoint)
  return new Promise((resolve, reject) => {
    const socket = connectTls({
      host,
      port,
      ca: hello.ca,
      ...(hello.certificate === undefined ? {} : { cert: hello.certificate }),
      ...(hello.privateKey === undefined ? {} : { key: hello.privateKey }),
      // AWS IoT picks the account's endpoint by SNI; an address cannot be a server name.
      ...(isIP(host) === 0 ? { servername: host } : {}),
      // On 443 AWS IoT speaks several protocols and wants to be told which.
      ...(port === 443 ? { ALPNProtocols: ['x-amzn-mqtt-ca'] } : {})
    })
    signal.addEventListener('abort', () => socket.destroy(new Error(`no TLS connection within ${hello.timeoutMs / 1000} s`)))
    socket.once('secureConnect', () => resolve(socket))
    socket.on('error', error => reject(handshakeFailure(error, hello)))
    socket.once('close', () => reject(unreachable(hello, 'the connection was closed during the TLS handshake')))
  })
}

function handshakeFailure (error: Error, hello: Hello): Failure {
  const code = codeOf(error)
  if (isAlert(error)) return refusal('the certificate', hello, error)
  if (/^(CERT_|DEPTH_ZERO|SELF_SIGNED|UNABLE_TO_|ERR_TLS_CERT|INVALID_|HOSTNAME_)/.test(code)) {
    const remedy = 'Check that the endpoint and iot-root-ca.crt belong together'
    return new Failure(EXIT.failed, `the broker ${hello.endpoint} is not trusted`, { code, detail: error.message, remedy }, error)
  }
  return unreachable(hello, error.message)
}

function isAlert (error: unknown): boolean {
  return /^ERR_SSL_.*ALERT/.test(codeOf(error)) || / alert /.test(messageOf(error))
}

function refusal (what: string, hello: Hello, cause: unknown): Failure {
  const reason = cause === undefined || /ECONNRESET|EPIPE/.test(codeOf(cause)) ? 'it closed the connection' : messageOf(cause)
  // CONNACK 3 is "server unavailable", the one refusal that passes.
  if (typeof cause === 'object' && cause !== null && 'code' in cause && cause.code === 3) return unreachable(hello, reason)
  const remedy = 'The certificate must be ACTIVE with a policy that allows this client id and topic; the client id must be the thing name'
  return new Failure(EXIT.refused, `the broker ${hello.endpoint} refused ${what}`, { detail: reason, remedy }, cause)
}

function unreachable (hello: Hello, detail: string): Failure {
  return new Failure(EXIT.later, `the broker ${hello.endpoint} could not be reached`, { detail, remedy: 'Check endpoint, port and network' })
}
