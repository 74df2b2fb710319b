import { Agent as HttpAgent, request as httpRequest, type IncomingMessage } from 'node:http'
import { Agent as HttpsAgent, request as httpsRequest } from 'node:https'
import { rootCertificates } from 'node:tls'
import { setTimeout as delay } from 'node:timers/promises'

/** An answer, and whether another try is worth it. */
interface Answer { readonly status: number, readonly retry: boolean }

// The retry rules of the HTTP action (aws-facts 4).
const MAX_TRIES = 3
const MAX_RESPONSE_BYTES = 16384
const PAUSE_MS = 100

/** Sends what AWS IoT sends by itself: POST, no redirects, and trust in the public roots and the local one. */
export class Outbound {
  readonly #http = new HttpAgent({ keepAlive: true })
  readonly #https: HttpsAgent
  readonly #timeoutMs: number

  constructor (rootCaPem: string, timeoutMs: number) {
    this.#https = new HttpsAgent({ keepAlive: true, ca: [...rootCertificates, rootCaPem] })
    this.#timeoutMs = timeoutMs
  }

  /** Resolves when a try was answered 2xx; rejects with the reason of the last one. The time limit is for all tries together. */
  async post (url: string, headers: Readonly<Record<string, string>>, body: Buffer): Promise<void> {
    const signal = AbortSignal.timeout(this.#timeoutMs)
    try {
      for (let tries = 1; ; tries++) {
        const { status, retry } = await this.#once(url, headers, body, signal)
        if (status >= 200 && status < 300) return
        if (!retry || tries === MAX_TRIES) throw new Error(`answered ${status} at try ${tries}`)
        await delay(PAUSE_MS, undefined, { signal })
      }
    } catch (error) {
      throw signal.aborted ? new Error(`no success within ${this.#timeoutMs} ms`) : error
    }
  }

  close (): void {
    this.#http.destroy()
    this.#https.destroy()
  }

  #once (url: string, headers: Readonly<Record<string, string>>, body: Buffer, signal: AbortSignal): Promise<Answer> {
    return new Promise((resolve, reject) => {
      const answered = (response: IncomingMessage): void => {
        let bytes = 0
        const { statusCode: status = 0, headers: { connection } } = response
        response.on('data', (chunk: Buffer) => {
          bytes += chunk.length
          // A response without end must not be read for ever.
          if (bytes > MAX_RESPONSE_BYTES) response.destroy()
        })
        response.on('error', () => {})
        response.on('close', () => {
          const again = (status === 429 || status >= 500) && bytes <= MAX_RESPONSE_BYTES && connection?.toLowerCase() !== 'close'
          resolve({ status, retry: again && response.complete })
        })
      }
      const options = { method: 'POST', headers: { ...headers, 'content-length': String(body.length) }, signal }
      const request = url.startsWith('https:')
        ? httpsRequest(url, { ...options, agent: this.#https }, answered)
        : httpRequest(url, { ...options, agent: this.#http }, answered)
      request.on('error', (error: NodeJS.ErrnoException) => {
        // The server closed a kept connection just as it was taken up again: nothing was tried yet.
        if (request.reusedSocket && error.code === 'ECONNRESET') resolve(this.#once(url, headers, body, signal))
        else reject(error)
      })
      request.end(body)
    })
  }
}
