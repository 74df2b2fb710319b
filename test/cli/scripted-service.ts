// An HTTP(S) server on this machine that answers as its script says, one entry per request, and remembers what it was sent.
import { createServer } from 'node:http'
import { createServer as createTlsServer } from 'node:https'
import { text } from 'node:stream/consumers'
import type { IncomingHttpHeaders, IncomingMessage, ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { Test } from 'tap'
import type { Pair } from './openssl-authority.ts'

export interface Said { status: number, headers?: Record<string, string>, body?: unknown }
export type Line = Said | 'reset' | 'half an answer' | 'silence' | ((request: Record<string, string>) => Said | 'reset')

export interface ScriptedService {
  readonly url: URL
  readonly bodies: string[]
  readonly paths: string[]
  readonly headers: IncomingHttpHeaders[]
}

/** Starts the server; the last entry of the script is repeated. */
export async function scriptedService (t: Test, script: Line[], tls?: Pair): Promise<ScriptedService> {
  const bodies: string[] = []
  const paths: string[] = []
  const headers: IncomingHttpHeaders[] = []
  const handle = async (request: IncomingMessage, response: ServerResponse) => {
    const body = await text(request)
    const line = script[Math.min(bodies.length, script.length - 1)]!
    bodies.push(body)
    paths.push(`${request.method} ${request.url}`)
    headers.push(request.headers)
    answer(typeof line === 'function' ? line(JSON.parse(body)) : line, response)
  }
  const listener = (request: IncomingMessage, response: ServerResponse) => {
    handle(request, response).catch(error => response.destroy(error))
  }
  const server = tls === undefined ? createServer(listener) : createTlsServer({ cert: tls.certificate, key: tls.privateKey }, listener)
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
  t.teardown(() => new Promise(resolve => {
    server.close(resolve)
    server.closeAllConnections()
  }))
  const { port } = server.address() as AddressInfo
  return { url: new URL(`${tls === undefined ? 'http' : 'https'}://localhost:${port}/`), bodies, paths, headers }
}

/** A problem document as the service makes them. */
export function problem (status: number, code: string, headers: Record<string, string> = {}): Said {
  const told = { title: `Title of ${code}`, detail: `Detail of ${code}`, code, remedy: 'Do something.', requestId: 'req-1' }
  const body = { type: 'about:blank', status, ...told }
  return { status, headers: { 'content-type': 'application/problem+json', ...headers }, body }
}

function answer (line: Exclude<Line, (...args: never[]) => unknown>, response: ServerResponse): void {
  if (line === 'silence') return
  if (line === 'reset') { response.destroy(); return }
  if (line === 'half an answer') {
    response.writeHead(201, { 'content-length': 1000 })
    response.write('{"serial', () => response.destroy())
    return
  }
  response.writeHead(line.status, { 'content-type': 'application/json', ...line.headers })
  response.end(typeof line.body === 'string' ? line.body : JSON.stringify(line.body))
}
