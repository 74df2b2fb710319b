import { randomUUID } from 'node:crypto'
import { STATUS_CODES } from 'node:http'
import type { Socket } from 'node:net'
import { Readable } from 'node:stream'
import type { FastifyBaseLogger, FastifyError, FastifyInstance, FastifyReply, FastifyRequest, HTTPMethods, RouteOptions } from 'fastify'
import fp from 'fastify-plugin'
import { CvmError, ERRORS, type ErrorCode } from '../errors.ts'
import { endsAfterAnswer } from './one-at-a-time.ts'
import { problemOf, toCvmError } from './problem.ts'

const PROBLEM_JSON = 'application/problem+json'
const METHODS: readonly HTTPMethods[] = ['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS']

/** For a 503 whose cause does not say when to come back: every one promises it (G9). */
const COME_BACK_MS = 2_000

/** The most of a body too large that is read to its end, so that its sender sees the answer. */
const BEARABLE_BYTES = 1_048_576

/** For a last answer to be taken. */
const CUT_MS = 5_000

/** An answer that is no problem document. */
interface PlainAnswer {
  status: number
  type: string
  text: string
  challenge?: string
  /** Whether the text goes out in a chunk, without a length. */
  isChunked?: boolean
}

interface ErrorHandlerOptions {
  /** Told of every failure that is answered. */
  onFailure: (code: ErrorCode) => void
  /** Whether a failure is in the log already, as a security event. */
  isAudited: (error: Error) => boolean
}

/** Renders every failure as problem+json: those of handlers, schemas and the framework, unknown addresses and wrong methods. */
export const errorHandler = fp<ErrorHandlerOptions>(async (app, { onFailure, isAudited }) => {
  app.setErrorHandler((thrown, request, reply) => {
    const error = toCvmError(thrown)
    onFailure(error.code)
    if (!isAudited(error)) logFailure(request, error)
    // Fastify would close at once, and the reset for the unread rest can overtake the answer; Node reads and drops a bearable rest.
    if (error.code === 'body-too-large' && Number(request.headers['content-length']) <= BEARABLE_BYTES) reply.removeHeader('connection')
    return send(request, reply, error)
  })
  // Fastify would read the body first, and answer for that; and the plugin counts no request that has no route.
  const limitAddress = app.rateLimit()
  app.addHook('onRequest', async (request, reply) => {
    if (!request.is404) return
    await limitAddress.call(app, request, reply)
    throw new CvmError('not-found')
  })
  app.setNotFoundHandler(() => { throw new CvmError('not-found') })
  answerWrongMethods(app)
}, { name: 'error-handler', dependencies: ['@fastify/rate-limit'] })

/** Every address answers the methods that it has no handler for with 405 and `Allow` (RFC 9110 section 15.5.6). */
function answerWrongMethods (app: FastifyInstance): void {
  const urls = new Set<string>()
  app.addHook('onRoute', ({ url }: RouteOptions) => { urls.add(url) })
  app.addHook('onReady', async () => { urls.clear() })
  app.decorate('refuseOtherMethods', () => {
    for (const url of [...urls]) {
      // Asked of the router: not every route with a prefix and a slash is told to the hook.
      const methods = METHODS.filter(method => app.hasRoute({ url, method }))
      const allow = [...methods].sort().join(', ')
      app.route({
        url,
        method: METHODS.filter(method => !methods.includes(method)),
        config: { access: 'anyone', noSuchMethod: true },
        schema: { hide: true } as object,
        onRequest: [app.rateLimit(), async (_request, reply) => {
          reply.header('allow', allow)
          throw new CvmError('method-not-allowed')
        }],
        handler: () => { throw new CvmError('method-not-allowed') }
      })
    }
  })
}

declare module 'fastify' {
  interface FastifyContextConfig {
    /** What the route says to a failure instead of a problem document, for clients that know another contract. */
    answerFailure?: (error: CvmError, request: FastifyRequest) => PlainAnswer
  }
  interface FastifyInstance {
    /** Call once, after the last route. */
    refuseOtherMethods: () => void
  }
}

function send (request: FastifyRequest, reply: FastifyReply, error: CvmError) {
  const { status } = ERRORS[error.code]
  const { retryAfterMs = status === 503 ? COME_BACK_MS : undefined } = error
  if (retryAfterMs !== undefined) reply.header('retry-after', Math.max(1, Math.ceil(retryAfterMs / 1000)))
  reply.header('cache-control', 'no-store')
  const plain = request.routeOptions.config?.answerFailure?.(error, request)
  if (plain?.challenge) reply.header('www-authenticate', plain.challenge)
  if (plain?.isChunked) return reply.code(plain.status).type(plain.type).send(Readable.from([plain.text]))
  if (plain) return reply.code(plain.status).type(plain.type).serializer(String).send(plain.text)
  // RFC 9110 wants a challenge with every 401; a device's token travels in the body, so its scheme is our own.
  if (status === 401) reply.header('www-authenticate', `${error.code === 'unauthenticated' ? 'Bearer' : 'RegistrationToken'} realm="cvm"`)
  return reply.code(status).type(PROBLEM_JSON)
    .serializer((body: unknown) => JSON.stringify(body)).send(problemOf(error, request.id))
}

/** For what fails before routing, such as a URL that cannot be decoded (Fastify's `frameworkErrors`). */
export function sendFrameworkError (error: FastifyError, request: FastifyRequest, reply: FastifyReply): void {
  send(request, reply.header('x-request-id', request.id), toCvmError(error))
}

/** For errors that Fastify logs by itself, such as those of a handler that fails once its answer is out: no message, no member. */
export function errorFacts ({ name, code, stack = '' }: Partial<FastifyError>) {
  return { name, code, frames: stack.split('\n').filter(line => /^ +at /.test(line)) }
}

/** An allow-list: SDK and parser errors carry bodies and headers, so only names and codes are logged. */
export function logFailure (request: FastifyRequest, error: CvmError, more: { line?: number } = {}): void {
  const { name, code, $metadata } = (error.cause ?? {}) as { name?: string, code?: string, $metadata?: { requestId?: string } }
  const facts = { ...more, code: error.code, reason: error.reason, cause: name, causeCode: code, awsRequestId: $metadata?.requestId }
  // Texts of the service's own, which name what is missing: never AWS's.
  if (error.code === 'aws-iot-refused') return request.log.warn({ ...facts, detail: error.message }, 'refused')
  if (error.code !== 'internal-error') return request.log.info(facts, 'refused')
  request.log.error({ ...facts, stack: (error.cause as Error | undefined)?.stack }, 'failed')
}

/** For requests that never become one: answers what the HTTP parser could not read, and closes (Node's `clientError`). */
export function answerUnreadable (error: Error & { code?: string }, socket: Socket, log: FastifyBaseLogger): void {
  if (error.code === 'ECONNRESET' || socket.destroyed) return
  // Nothing can be written before the handshake, nor does such a connection ever end by itself.
  if (/^ERR_(TLS|SSL)_/.test(error.code ?? '')) {
    socket.destroy()
    return
  }
  if (endsAfterAnswer(socket)) return
  const code: ErrorCode = error.code === 'ERR_HTTP_REQUEST_TIMEOUT'
    ? 'request-timeout'
    : error.code === 'HPE_HEADER_OVERFLOW' ? 'headers-too-large' : 'invalid-request'
  const detail = code === 'invalid-request' ? { detail: 'this is not an HTTP/1.1 request' } : {}
  log.debug({ code, cause: error.code }, 'unreadable request')
  answerAndClose(new CvmError(code, detail), socket)
}

/** Writes a problem document onto a connection that Fastify has no request of, and closes it. */
export function answerAndClose (error: CvmError, socket: Socket): void {
  const requestId = randomUUID()
  const body = JSON.stringify(problemOf(error, requestId))
  const { status } = ERRORS[error.code]
  if (socket.writable) {
    socket.write(`HTTP/1.1 ${status} ${STATUS_CODES[status]}\r\nContent-Type: ${PROBLEM_JSON}\r\nContent-Length: ${Buffer.byteLength(body)}\r\n` +
      `Date: ${new Date().toUTCString()}\r\nX-Request-Id: ${requestId}\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n${body}`)
  }
  // Once written, and without waiting for the other side to hang up as well.
  socket.destroySoon()
  const cut = setTimeout(() => socket.destroy(), CUT_MS)
  socket.once('close', () => clearTimeout(cut))
}
