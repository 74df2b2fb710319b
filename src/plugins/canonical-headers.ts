import type { OutgoingHttpHeaders } from 'node:http'
import fp from 'fastify-plugin'

/** What a client must find: cisco/libest keeps 16 headers, and balancers and proxies put their own in front of the last ones. */
const FIRST = ['content-type', 'www-authenticate', 'content-length', 'content-transfer-encoding', 'retry-after']

/**
 * Writes the names of headers as `Content-Type`, and those that a client needs before the others, for the routes that ask for it. Names do
 * not depend on case (RFC 9110 section 5.1), but cisco/libest compares them letter by letter, and Fastify writes them in lower case.
 * Register before what answers early.
 */
export const canonicalHeaders = fp(async app => {
  app.addHook('onRequest', async ({ routeOptions }, { raw }) => {
    if (!routeOptions.config.canonicalHeaders) return
    const writeHead = raw.writeHead.bind(raw) as (status: number, headers: OutgoingHttpHeaders) => typeof raw
    raw.writeHead = ((status: number, headers: OutgoingHttpHeaders) => {
      const all = { ...raw.getHeaders(), ...headers }
      for (const name of raw.getHeaderNames()) raw.removeHeader(name)
      for (const name of Object.keys(all).sort((one, other) => rankOf(one) - rankOf(other))) {
        const value = all[name]
        if (value !== undefined) raw.setHeader(canonical(name), value)
      }
      return writeHead(status, {})
    }) as typeof raw.writeHead
  })
}, { name: 'canonical-headers' })

function rankOf (name: string): number {
  const at = FIRST.indexOf(name)
  return at < 0 ? FIRST.length : at
}

function canonical (name: string): string {
  return name === 'www-authenticate' ? 'WWW-Authenticate' : name.replace(/(^|-)[a-z]/g, letter => letter.toUpperCase())
}

declare module 'fastify' {
  interface FastifyContextConfig {
    /** Whether the names of the answer's headers are written as `Content-Type`, errors too. */
    canonicalHeaders?: true
  }
}
