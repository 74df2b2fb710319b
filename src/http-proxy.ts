import { EnvHttpProxyAgent } from 'undici'

/** This machine is never reached through a proxy: a proxy's loopback is another machine. */
const LOOPBACK = ['localhost', '127.0.0.1', '[::1]']

/** Whether the environment names a proxy: `HTTPS_PROXY` or `HTTP_PROXY`, in either case, as curl reads them. */
export function isProxied (env: NodeJS.ProcessEnv = process.env): boolean {
  return ['https_proxy', 'HTTPS_PROXY', 'http_proxy', 'HTTP_PROXY'].some(name => env[name])
}

/**
 * Connects through the proxies that the environment names (`HTTPS_PROXY`, `HTTP_PROXY`, `NO_PROXY`), and directly where it names none.
 * @param ca Authorities (PEM) that the server's certificate is checked against, in place of Node's own roots.
 * @throws {TypeError} where the environment's proxy is no address.
 */
export function proxyAgent (ca?: string): EnvHttpProxyAgent {
  const tls = ca === undefined ? {} : { connect: { ca }, requestTls: { ca } }
  const named = process.env.no_proxy ?? process.env.NO_PROXY ?? ''
  return new EnvHttpProxyAgent({ ...tls, noProxy: named === '*' ? named : [named, ...LOOPBACK].join(',') })
}
