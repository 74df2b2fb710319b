import type { ServerResponse } from 'node:http'
import fp from 'fastify-plugin'

/** Lets routes and plugins know when nobody is left to take an answer. */
export const callerGone = fp(async app => {
  app.decorateReply('callerGone', function () {
    const gone = new AbortController()
    const { raw, request: { raw: { socket, httpVersion } } } = this
    const onEnd = () => {
      if (httpVersion === '1.1') return askWhetherItReads(raw)
      gone.abort()
    }
    if (socket.readableEnded) onEnd()
    else socket.once('end', onEnd)
    raw.once('close', () => {
      socket.off('end', onEnd)
      if (!raw.writableFinished) gone.abort()
    })
    return gone.signal
  })
}, { name: 'caller-gone' })

/**
 * A client that sends no more either waits for its answer or has closed. An interim answer (RFC 9110 section 15.2), which every client
 * must skip, tells: the system of one that has closed resets the connection, which closes `raw`.
 */
function askWhetherItReads (raw: ServerResponse): void {
  if (!raw.headersSent && !raw.destroyed) raw.writeProcessing()
}

declare module 'fastify' {
  interface FastifyReply {
    /**
     * Aborted when the connection ends before the answer is out. Not `request.signal`: on a real socket that one is aborted once the
     * body has been read.
     */
    callerGone: () => AbortSignal
  }
}
