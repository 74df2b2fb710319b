import type { OutgoingHttpHeaders } from 'node:http'
import fp from 'fastify-plugin'

/**
 * Writes the names of headers as `Content-Type`, for the routes that ask for it. Names do not depend on case (RFC 9110 section 5.1), but
 * cisco/libest compares them letter by letter, and Fastify writes them in lower case. Register before what answers early.
 */
export const canonicalHeaders = fp(async app => {
  app.addHook('onRequest', async ({ routeOptions }, { raw }) => {
    if (!routeOptions.config.canonicalHeaders) return
    const writeHead = raw.writeHead.bind(raw) as (status: number, headers: OutgoingHttpHeaders) => typeof raw
    raw.writeHead = ((status: number, headers: OutgoingHttpHeaders) => {
      for (const name of raw.getHeaderNames()) {
        const value = raw.getHeader(name)
        raw.removeHeader(name)
        if (value !== undefined) raw.setHeader(canonical(name), value)
      }
      return writeHead(status, Object.fromEntries(Object.entries(headers).map(([name, value]) => [canonical(name), value])))
    }) as typeof raw.writeHead
  })
}, { name: 'canonical-headers' })

function canonical (name: string): string {
  return name === 'www-authenticate' ? 'WWW-Authenticate' : name.replace(/(^|-)[a-z]/g, letter => letter.toUpperCase())
}

declare module 'fastify' {
  interface FastifyContextConfig {
    /** Whether the names of the answer's headers are written as `Content-Type`, errors too. */
    canonicalHeaders?: true
  }
}
