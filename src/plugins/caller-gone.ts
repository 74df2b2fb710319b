import fp from 'fastify-plugin'

/** Lets routes and plugins know when nobody is left to take an answer. */
export const callerGone = fp(async app => {
  app.decorateReply('callerGone', function () {
    const gone = new AbortController()
    this.raw.once('close', () => { if (!this.raw.writableFinished) gone.abort() })
    return gone.signal
  })
}, { name: 'caller-gone' })

declare module 'fastify' {
  interface FastifyReply {
    /**
     * Aborted when the connection ends before the answer is out. Not `request.signal`: on a real socket that one is aborted once the
     * body has been read.
     */
    callerGone: () => AbortSignal
  }
}
