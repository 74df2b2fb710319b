import type { Server } from 'node:http'
import fp from 'fastify-plugin'
import { CvmError } from '../errors.ts'
import { type JsonReader, refuseEncodings, strictJson } from './strict-json.ts'

/** Refuses what Node and Fastify let through or answer without a word: bodies that are not plain JSON, and requests without `Host`. */
export const strictInput = fp(async app => {
  const read = strictJson(app)
  app.removeAllContentTypeParsers()
  const readJson: JsonReader = async (request, body) => {
    refuseEncodings(request)
    return read(request, body)
  }
  app.decorate('readJson', readJson)
  app.addContentTypeParser('application/json', { parseAs: 'buffer' }, readJson)
  app.addHook('onRequest', async ({ raw }) => {
    if (raw.httpVersion === '1.1' && raw.headers.host === undefined) throw new CvmError('invalid-request', { detail: 'the Host header is missing' })
  })
  // RFC 9110 lets a server ignore expectations that it does not know; Node would answer 417 with nothing in it.
  const server = app.server as Server
  server.on('checkExpectation', (request, response) => server.emit('request', request, response))
}, { name: 'strict-input' })

declare module 'fastify' {
  interface FastifyInstance {
    /** Reads a body as that of `application/json` is, for routes that take it under other names. */
    readJson: JsonReader
  }
}
