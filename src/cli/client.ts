import { request as requestHttp } from 'node:http'
import { request as requestHttps } from 'node:https'
import type { IncomingHttpHeaders, RequestOptions } from 'node:http'
import { EXIT, Failure, codeOf, messageOf } from './failure.ts'

/**
 * Where the service is, the authorities (PEM) its certificate is checked against (Node's own roots when there are none), and the API
 * key for the routes that want one.
 */
export interface Service { readonly url: URL, readonly ca?: string, readonly apiKey?: string }

/** A call: a GET without a body, a POST with one. */
export interface Call { readonly path: string, readonly body?: Buffer, readonly headers?: Readonly<Record<string, string>> }

export interface Answer { readonly status: number, readonly headers: IncomingHttpHeaders, readonly text: string }

/** A connection that failed before a whole answer was read: whether the service did the work is unknown. */
export class NoAnswer extends Error {}

// The longest answers, a thousand lines of a registration, stay below 2 MB: whatever sends this much is something else.
const MOST_BYTES = 4 * 1024 * 1024

// The machine at the other end will not become another one by waiting. OpenSSL's names, as Node passes them on.
const UNTRUSTED = /^(CERT_|DEPTH_ZERO|SELF_SIGNED|UNABLE_TO_|ERR_TLS_CERT|INVALID_|PATH_LENGTH|HOSTNAME_)/
const NOT_TLS = /EPROTO|ERR_SSL_|HPE_/

/**
 * Reads the address of a service. Plain http is for this machine only, because a registration token would travel in the clear.
 * Throws a usage `Failure` for anything else.
 */
export function serviceUrl (text: string): URL {
  const url = URL.canParse(text) ? new URL(text) : undefined
  const usage = (why: string) => new Failure(EXIT.usage, `--url ${why}`, { remedy: 'Give the address of the service, as https://host:port' })
  if (url === undefined || !/^https?:$/.test(url.protocol)) throw usage('is not an http(s) address')
  if (url.username !== '' || url.password !== '' || url.search !== '' || url.hash !== '') throw usage('may hold host, port and path only')
  if (url.protocol === 'http:' && !isThisMachine(url)) throw usage('must be https: the registration token is a secret')
  if (!url.pathname.endsWith('/')) url.pathname += '/'
  return url
}

/** Whether the address is a loopback one. */
export function isThisMachine (url: URL): boolean {
  return ['localhost', '127.0.0.1', '[::1]'].includes(url.hostname)
}

/**
 * Calls once and reads the whole answer, whatever its status. Throws `NoAnswer` when trying again may help, a `Failure` when it
 * will not (certificate not trusted, not HTTP, more than 4 MiB).
 */
export async function send (service: Service, { path, body, headers }: Call, timeoutMs: number): Promise<Answer> {
  const url = new URL(path, service.url)
  const options: RequestOptions & { ca?: string } = {
    method: body === undefined ? 'GET' : 'POST',
    agent: false,
    signal: AbortSignal.timeout(timeoutMs),
    headers: {
      ...(body && { 'content-type': 'application/json', 'content-length': body.length }),
      ...(service.apiKey && { authorization: `Bearer ${service.apiKey}` }),
      accept: 'application/json',
      'user-agent': 'cvm',
      ...headers
    },
    ...(service.ca === undefined ? {} : { ca: service.ca })
  }
  try {
    return await exchange(url, options, body)
  } catch (error) {
    throw classified(error, url, timeoutMs)
  }
}

function exchange (url: URL, options: RequestOptions, body: Buffer | undefined): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const request = (url.protocol === 'https:' ? requestHttps : requestHttp)(url, options, response => {
      const chunks: Buffer[] = []
      let size = 0
      response.on('error', reject)
      response.on('data', (chunk: Buffer) => {
        size += chunk.length
        if (size > MOST_BYTES) response.destroy(new Failure(EXIT.failed, `${url.host} sent more than ${MOST_BYTES} bytes: it is no CVM`))
        else chunks.push(chunk)
      })
      response.on('end', () =>
        resolve({ status: response.statusCode ?? 0, headers: response.headers, text: Buffer.concat(chunks).toString('utf8') }))
    })
    request.on('error', reject)
    request.end(body)
  })
}

function classified (error: unknown, url: URL, timeoutMs: number): Error {
  if (error instanceof Failure) return error
  const code = codeOf(error)
  const problem = { code, detail: messageOf(error) }
  if (UNTRUSTED.test(code)) {
    const remedy = 'Name the authority that signed the service\'s certificate: --ca <file> (local mode: .cvm/root-ca.pem)'
    return new Failure(EXIT.failed, `the TLS certificate of ${url.host} is not trusted`, { ...problem, remedy }, error)
  }
  if (NOT_TLS.test(code)) return new Failure(EXIT.failed, `${url.host} does not speak ${url.protocol.slice(0, -1)}`, problem, error)
  if (code === 'ABORT_ERR') return new NoAnswer(`no answer within ${timeoutMs / 1000} s`, { cause: error })
  return new NoAnswer(code === '' ? messageOf(error) : `${messageOf(error)} (${code})`, { cause: error })
}
