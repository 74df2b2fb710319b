import fp from 'fastify-plugin'
import { type JsonReader, refuseEncodings, strictJson } from './strict-json.ts'

/** Refuses bodies that are not plain JSON, which Fastify lets through. */
export const strictInput = fp(async app => {
  const read = strictJson(app)
  app.removeAllContentTypeParsers()
  const readJson: JsonReader = async (request, body) => {
    refuseEncodings(request)
    return read(request, body)
  }
  app.decorate('readJson', readJson)
  app.addContentTypeParser('application/json', { parseAs: 'buffer' }, readJson)
}, { name: 'strict-input' })

declare module 'fastify' {
  interface FastifyInstance {
    /** Reads a body as that of `application/json` is, for routes that take it under other names. */
    readJson: JsonReader
  }
}
