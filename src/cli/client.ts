import { pipeline } from 'node:stream'
import type { IncomingHttpHeaders } from 'node:http'
import split2 from 'split2'
import { type Dispatcher, request } from 'undici'
import { proxyAgent } from '../http-proxy.ts'
import { EXIT, Failure, codeOf, messageOf } from './failure.ts'

/**
 * Where the service is, the authorities (PEM) its certificate is checked against (Node's own roots when there are none), and the API
 * key for the routes that want one.
 */
export interface Service { readonly url: URL, readonly ca?: string, readonly apiKey?: string }

/** A call: a GET without a body, a POST with one unless it says otherwise. */
export interface Call { readonly path: string, readonly method?: 'PUT' | 'PATCH' | 'DELETE', readonly body?: Buffer, readonly headers?: Readonly<Record<string, string>> }

export interface Answer { readonly status: number, readonly headers: IncomingHttpHeaders, readonly text: string }

/** A connection that failed before a whole answer was read: whether the service did the work is unknown. */
export class NoAnswer extends Error {}

// The longest answers, a thousand lines of a registration, stay below 2 MB: whatever sends this much is something else.
const MOST_BYTES = 4 * 1024 * 1024

// A certificate with its key pair stays below 16 KB.
const LONGEST_LINE = 256 * 1024

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
export async function send (service: Service, call: Call, timeoutMs: number): Promise<Answer> {
  const url = new URL(call.path, service.url)
  try {
    return await readWhole(await begin(url, service, call, AbortSignal.timeout(timeoutMs)), url)
  } catch (error) {
    throw classified(error, url, timeoutMs)
  }
}

/** An answer of lines; they are read as they come, and end as `send` does when the connection fails or nothing comes for too long. */
export interface Lines { readonly lines: AsyncIterable<string> }

/**
 * Calls once. A good answer of lines (NDJSON) is handed over as soon as it begins; any other is read whole, as by `send`, and fails as
 * there. `idleMs` is for the time between two lines; `signal` ends everything.
 */
export async function sendForLines (
  service: Service, call: Call & { body: Buffer }, idleMs: number, signal: AbortSignal): Promise<Answer | Lines> {
  const url = new URL(call.path, service.url)
  const quiet = new AbortController()
  const timer = setTimeout(() => quiet.abort(), idleMs)
  try {
    const response = await begin(url, service, call, AbortSignal.any([quiet.signal, signal]))
    if (response.statusCode === 200 && String(response.headers['content-type']).startsWith('application/x-ndjson')) {
      return { lines: linesOf(response.body, timer, error => classified(error, url, idleMs)) }
    }
    const answer = await readWhole(response, url)
    clearTimeout(timer)
    return answer
  } catch (error) {
    clearTimeout(timer)
    throw classified(error, url, idleMs)
  }
}

async function * linesOf (body: Dispatcher.ResponseData['body'], timer: NodeJS.Timeout, failed: (error: unknown) => Error): AsyncGenerator<string> {
  try {
    for await (const line of pipeline(body, split2({ maxLength: LONGEST_LINE }), () => {}) as AsyncIterable<string>) {
      timer.refresh()
      yield line
    }
  } catch (error) {
    throw failed(error)
  } finally {
    clearTimeout(timer)
    body.destroy()
  }
}

/** Each call has a connection of its own, and only the signal ends it. */
function begin (url: URL, service: Service, { method, body, headers }: Call, signal: AbortSignal): Promise<Dispatcher.ResponseData> {
  return request(url, {
    method: method ?? (body === undefined ? 'GET' : 'POST'),
    dispatcher: proxyAgent(service.ca),
    reset: true,
    headersTimeout: 0,
    bodyTimeout: 0,
    signal,
    body: body ?? null,
    headers: {
      ...(body && { 'content-type': 'application/json' }),
      ...(service.apiKey && { authorization: `Bearer ${service.apiKey}` }),
      accept: 'application/json',
      'user-agent': 'cvm',
      ...headers
    }
  })
}

async function readWhole ({ statusCode, headers, body }: Dispatcher.ResponseData, { host }: URL): Promise<Answer> {
  const chunks: Buffer[] = []
  let size = 0
  for await (const chunk of body as AsyncIterable<Buffer>) {
    size += chunk.length
    if (size > MOST_BYTES) throw new Failure(EXIT.failed, `${host} sent more than ${MOST_BYTES} bytes: it is no CVM`)
    chunks.push(chunk)
  }
  return { status: statusCode, headers, text: Buffer.concat(chunks).toString('utf8') }
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
  if (['AbortError', 'TimeoutError'].includes((error as Error).name)) return new NoAnswer(`no answer within ${timeoutMs / 1000} s`, { cause: error })
  return new NoAnswer(code === '' ? messageOf(error) : `${messageOf(error)} (${code})`, { cause: error })
}
