import type { IncomingMessage, Server } from 'node:http'
import type { Duplex } from 'node:stream'
import type { Socket } from 'node:net'
import fp from 'fastify-plugin'
import { CvmError } from '../errors.ts'
import { answerAndClose } from './error-handler.ts'

/** What a host and port are never written with (RFC 3986 section 3.2.2). */
const NOT_IN_HOST = /[\s/?#@\\]/

/**
 * Headers that decide where a request ends, whose it is, and what is sent before its answer (RFC 9110 section 10.1.1, RFC 9112 sections
 * 3.2, 6.1 and 9.6). Node dispatches such a request once for each listener or answers without a word; here it is dispatched once, and the
 * refusal is a problem document. `100 Continue` is sent only once the body is wanted: not to a caller that is refused before.
 */
export const framing = fp(async app => {
  const server = app.server as Server & { httpAllowHalfOpen: boolean }
  const waiting = new WeakSet<IncomingMessage>()
  server.on('checkContinue', (request, response) => {
    waiting.add(request)
    server.emit('request', request, response)
  })
  server.on('checkExpectation', (request, response) => server.emit('request', request, response))
  server.on('connect', (_request: IncomingMessage, socket: Duplex) => {
    socket.on('error', () => socket.destroy())
    answerAndClose(new CvmError('invalid-request', { detail: 'this is no proxy' }), socket as Socket)
  })
  // A client that sends no more may still wait for its answer.
  server.httpAllowHalfOpen = true
  app.addHook('onRequest', async ({ raw }, reply) => {
    const fault = faultIn(raw)
    // Where its body ends is unknown, or another reader would find another end.
    // Node reads nothing more after a request to upgrade, which is ignored here.
    if (fault?.isFraming || raw.headers.upgrade !== undefined) reply.header('connection', 'close')
    if (fault) throw fault.error
  })
  app.addHook('preParsing', async ({ raw }, reply) => { if (waiting.delete(raw)) reply.raw.writeContinue() })
}, { name: 'framing', dependencies: ['error-handler'] })

interface Fault { error: CvmError, isFraming?: true }

function faultIn ({ headers, rawHeaders, httpVersion }: IncomingMessage): Fault | undefined {
  const invalid = (detail: string) => new CvmError('invalid-request', { detail })
  const { host, 'transfer-encoding': coding, expect } = headers
  if (httpVersion === '1.1' && host === undefined) return { error: invalid('the Host header is missing') }
  if (rawHeaders.filter((name, at) => at % 2 === 0 && name.toLowerCase() === 'host').length > 1) return { error: invalid('there is more than one Host header') }
  if (host !== undefined && NOT_IN_HOST.test(host)) return { error: invalid('the Host header is no host and port') }
  if (coding !== undefined && httpVersion !== '1.1') return { error: invalid('HTTP/1.0 has no Transfer-Encoding'), isFraming: true }
  if (coding !== undefined && coding.trim().toLowerCase() !== 'chunked') return { error: invalid('the only Transfer-Encoding is chunked'), isFraming: true }
  if (httpVersion === '1.1' && expectations(expect).some(each => each !== '100-continue')) return { error: new CvmError('expectation-failed') }
  return undefined
}

/** An empty list of expectations is none. */
function expectations (expect = ''): string[] {
  return expect.split(',').map(each => each.trim().toLowerCase()).filter(Boolean)
}
