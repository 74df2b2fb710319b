import { isIP } from 'node:net'
import fp from 'fastify-plugin'

/** An address with a port, as `host:port` of RFC 3986 section 3.2; or an IPv6 address in brackets alone. */
const WITH_PORT = /^(?:\[(?<v6>[^\]]+)\]|(?<v4>[^:]+))(?::\d{1,5})?$/

/**
 * Takes the ports from the addresses in `X-Forwarded-For`, so that a client is one address however many connections it opens. An
 * Application Load Balancer writes them when its attribute `routing.http.xff_client_port.enabled` is on. Register before what reads
 * `request.ip`. What is no address stays as it is.
 */
export const forwardedPorts = fp(async app => {
  app.addHook('onRequest', async ({ raw: { headers } }) => {
    const forwarded = headers['x-forwarded-for']
    if (typeof forwarded === 'string' && forwarded.includes(':')) {
      headers['x-forwarded-for'] = forwarded.split(',').map(entry => withoutPort(entry.trim())).join(', ')
    }
  })
}, { name: 'forwarded-ports' })

function withoutPort (entry: string): string {
  if (isIP(entry)) return entry
  const { v4, v6 } = WITH_PORT.exec(entry)?.groups ?? {}
  const address = v6 ?? v4 ?? ''
  return isIP(address) ? address : entry
}
