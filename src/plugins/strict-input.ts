import type { Server } from 'node:http'
import type { FastifyBodyParser, FastifyRequest } from 'fastify'
import fp from 'fastify-plugin'
import { CvmError } from '../errors.ts'

/**
 * Refuses what Node and Fastify let through or answer without a word: bodies that are not plain JSON in UTF-8, members given
 * twice (two readers, such as a firewall and this service, could see two different values), and requests without `Host`.
 */
export const strictInput = fp(async app => {
  // Its type allows a promise, which this one never returns.
  const parse = app.getDefaultJsonParser('error', 'error') as (...args: Parameters<FastifyBodyParser<string>>) => void
  app.removeAllContentTypeParsers()
  app.addContentTypeParser('application/json', { parseAs: 'buffer' }, async (request: FastifyRequest, body: Buffer) => {
    const text = textOf(request, body)
    const value = await new Promise((resolve, reject) => parse(request, text, (error, value) => error ? reject(error) : resolve(value)))
    refuseRepeats(text, value)
    return value
  })
  app.addHook('onRequest', async ({ raw }) => {
    if (raw.httpVersion === '1.1' && raw.headers.host === undefined) throw new CvmError('invalid-request', { detail: 'the Host header is missing' })
  })
  // RFC 9110 lets a server ignore expectations that it does not know; Node would answer 417 with nothing in it.
  const server = app.server as Server
  server.on('checkExpectation', (request, response) => server.emit('request', request, response))
}, { name: 'strict-input' })

function textOf (request: FastifyRequest, body: Buffer): string {
  const { 'content-type': type = '', 'content-encoding': encoding = 'identity' } = request.headers
  const [, charset = 'utf-8'] = /;\s*charset\s*=\s*"?([^";\s]*)/i.exec(type) ?? []
  if (charset.toLowerCase() !== 'utf-8') throw new CvmError('unsupported-media-type', { detail: 'JSON is sent in UTF-8' })
  if (encoding !== 'identity') throw new CvmError('unsupported-media-type', { detail: 'the body must not be compressed' })
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(body)
  } catch (cause) {
    throw new CvmError('malformed-json', { detail: 'the body is not valid UTF-8', cause })
  }
}

/** `JSON.parse` keeps the last of members with the same name, so fewer are left than the text has. */
function refuseRepeats (text: string, value: unknown): void {
  const written = [...text.matchAll(/"[^"\\]*(?:\\.[^"\\]*)*"\s*(:?)/g)].filter(([, colon]) => colon).length
  if (written !== countMembers(value)) throw new CvmError('malformed-json', { detail: 'a member is given more than once' })
}

function countMembers (value: unknown): number {
  let count = 0
  const pending = [value]
  while (pending.length > 0) {
    const next = pending.pop()
    if (typeof next !== 'object' || next === null) continue
    const members = Object.values(next)
    if (!Array.isArray(next)) count += members.length
    for (const member of members) pending.push(member)
  }
  return count
}
