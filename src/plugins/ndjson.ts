import type { IncomingMessage } from 'node:http'
import type { Socket } from 'node:net'
import type { FastifyInstance, FastifyRequest } from 'fastify'
import fp from 'fastify-plugin'
import split2 from 'split2'
import { CvmError } from '../errors.ts'
import { type JsonReader, refuseEncodings, strictJson } from './strict-json.ts'

export const NDJSON = 'application/x-ndjson'

/** How much one request may bring. Fastify's body limit does not hold for bodies that are read as streams. */
export interface LineLimits {
  maxLines: number
  maxLineBytes: number
  maxBytes: number
  /** How long the next line may take to arrive, once it is wanted. */
  idleMs: number
}

/** A line as it came; `read` raises for what is no strict JSON. */
interface Line { line: number, read: () => Promise<unknown> }

/** How long a caller may go on sending after the answer has ended early: dropping them at once could lose them the answer. */
const LINGER_MS = 5_000

const readAtOwnPace = new WeakSet<Socket>()

/** Whether Node's limit on the time for one request is to be ignored here: lines are read as fast as they are worked on. */
export function isReadAtOwnPace (error: { code?: string }, socket: Socket): boolean {
  return error.code === 'ERR_HTTP_REQUEST_TIMEOUT' && readAtOwnPace.has(socket)
}

/** Bodies of `application/x-ndjson`, for the routes that take them: a {@link Lines} as `request.body`. */
export const ndjson = fp<LineLimits>(async (app: FastifyInstance, limits) => {
  const read = strictJson(app)
  app.addContentTypeParser(NDJSON, async (request: FastifyRequest, payload: IncomingMessage) => {
    if (!request.routeOptions.config.lines) throw new CvmError('unsupported-media-type')
    refuseEncodings(request)
    if (Number(request.headers['content-length'] ?? 0) > limits.maxBytes) throw new CvmError('body-too-large')
    return new Lines(request, payload, { ...limits, read, isDraining: app.isDraining })
  })
}, { name: 'ndjson', dependencies: ['drain', 'strict-input'] })

interface Settings extends LineLimits { read: JsonReader, isDraining: () => boolean }

/**
 * The lines of a body, read no faster than they are taken. Iterating raises `CvmError`: `body-too-large` when a limit is reached,
 * `request-timeout` when no line arrives, `overloaded` when the service is shutting down. Blank lines are counted and left out.
 */
export class Lines implements AsyncIterable<Line> {
  /** The number of the last line that was taken. */
  taken = 0
  readonly #request: FastifyRequest
  readonly #payload: IncomingMessage
  readonly #settings: Settings

  constructor (request: FastifyRequest, payload: IncomingMessage, settings: Settings) {
    this.#request = request
    this.#payload = payload
    this.#settings = settings
    readAtOwnPace.add(request.raw.socket)
  }

  async * [Symbol.asyncIterator] (): AsyncGenerator<Line> {
    const { maxLines, maxLineBytes, maxBytes, read } = this.#settings
    // One character a byte, so that lengths are bytes, and what is no UTF-8 is still there to be refused.
    const texts = this.#payload.setEncoding('latin1').pipe(split2({ maxLength: maxLineBytes }))
    this.#payload.once('error', cause => texts.destroy(cause))
    try {
      const iterator = texts[Symbol.asyncIterator]() as AsyncIterator<string, undefined>
      let bytes = 0
      let wantedAt = performance.now()
      const next = () => this.#next(iterator, texts, wantedAt)
      for (let text = await next(); text !== undefined; text = await next()) {
        bytes += text.length + 1
        if (text.length > maxLineBytes) throw tooLong(maxLineBytes)
        if (this.taken >= maxLines) throw new CvmError('body-too-large', { detail: `the body has more than ${maxLines} lines` })
        if (bytes > maxBytes) throw new CvmError('body-too-large', { detail: `the body has more than ${maxBytes} bytes` })
        const line = ++this.taken
        const content = Buffer.from(text, 'latin1')
        // Blank lines keep no body open.
        if (text.trim() === '') continue
        yield { line, read: () => read(this.#request, content) }
        wantedAt = performance.now()
      }
    } finally {
      texts.destroy()
      this.#dropRest()
    }
  }

  async #next (
    iterator: AsyncIterator<string, undefined>, texts: ReturnType<typeof split2>, wantedAt: number
  ): Promise<string | undefined> {
    const { idleMs, maxLineBytes, isDraining } = this.#settings
    if (isDraining()) throw new CvmError('overloaded', { detail: 'the service is shutting down' })
    const late = () => texts.destroy(new CvmError('request-timeout', { detail: 'no line arrived in time' }))
    const timer = setTimeout(late, wantedAt + idleMs - performance.now())
    try {
      return (await iterator.next()).value
    } catch (cause) {
      throw (cause as Error).message === 'maximum buffer reached' ? tooLong(maxLineBytes) : cause
    } finally {
      clearTimeout(timer)
    }
  }

  /** Destroying the request would cut the connection under the answer. */
  #dropRest (): void {
    const payload = this.#payload
    readAtOwnPace.delete(this.#request.raw.socket)
    if (payload.readableEnded || payload.destroyed) return
    const cut = setTimeout(() => payload.destroy(), LINGER_MS)
    payload.once('close', () => clearTimeout(cut))
    payload.unpipe().resume()
  }
}

function tooLong (maxLineBytes: number): CvmError {
  return new CvmError('body-too-large', { detail: `the line is longer than ${maxLineBytes} bytes` })
}

declare module 'fastify' {
  interface FastifyContextConfig {
    /** Takes `application/x-ndjson` too, and answers it with `reply.answerItems`. */
    lines?: true
  }
}
