// A client with many connections at once, on Node's own HTTP: what curl cannot do in one process.
import { readFileSync } from 'node:fs'
import { Agent as HttpAgent, type AgentOptions, request as requestHttp } from 'node:http'
import { Agent as HttpsAgent, request as requestHttps } from 'node:https'
import type { HttpAnswer } from './tools.ts'

/** Connections to a service: over TLS, trusting the given root; over plain HTTP without one. */
export function agentFor (rootCa: string | undefined, options: AgentOptions): HttpAgent {
  return rootCa === undefined ? new HttpAgent(options) : new HttpsAgent({ ...options, ca: readFileSync(rootCa) })
}

/** A request that got no answer; `sent` when all of it had been handed to the kernel. */
export class Unanswered extends Error {
  readonly sent: boolean
  constructor (cause: Error, sent: boolean) {
    super(`${sent ? 'sent, but not answered' : 'not sent'}: ${cause.message}`, { cause })
    this.sent = sent
  }
}

/** POSTs JSON; rejects with `Unanswered` when there is no complete answer. `onSent` is told once all of it was handed to the kernel. */
export function post (agent: HttpAgent, url: string, body: string, onSent = () => {}): Promise<HttpAnswer> {
  const payload = Buffer.from(body)
  const headers = { 'content-type': 'application/json', 'content-length': payload.length }
  const request = url.startsWith('https:') ? requestHttps : requestHttp
  return new Promise((resolve, reject) => {
    const sending = request(url, { method: 'POST', agent, headers, timeout: 300_000 }, response => {
      let text = ''
      response.setEncoding('utf8').on('data', chunk => { text += chunk }).on('error', reject)
      response.on('end', () => resolve({ status: response.statusCode ?? 0, headers: response.headers, text }))
    })
    sending.on('error', cause => reject(new Unanswered(cause, sending.writableFinished)))
    sending.on('timeout', () => sending.destroy(new Error('no answer within five minutes')))
    sending.end(payload, onSent)
  })
}
