import underPressure from '@fastify/under-pressure'
import type { FastifyInstance } from 'fastify'
import fp from 'fastify-plugin'
import { CvmError } from '../errors.ts'

interface OverloadOptions {
  maxInFlight: number
  maxEventLoopDelayMs: number
  /** Told of the number of requests being worked on, whenever it changes. */
  onInFlight: (count: number) => void
}

class Overloaded extends CvmError {
  constructor () {
    super('overloaded', { retryAfterMs: 1_000 })
  }
}

/** Answers 503 early rather than everything late: bounds what is worked on at once, and watches the event loop. */
export const overload = fp<OverloadOptions>(async (app: FastifyInstance, { maxInFlight, maxEventLoopDelayMs, onInFlight }) => {
  let inFlight = 0
  app.addHook('onRequest', async (_request, reply) => {
    onInFlight(++inFlight)
    reply.raw.once('close', () => onInFlight(--inFlight))
    if (inFlight > maxInFlight) throw new Overloaded()
  })
  // A sample without a measurement counts as infinite there; it says nothing, and the next one comes within a second.
  const isSlow = (delayMs: number) => delayMs > maxEventLoopDelayMs && delayMs !== Infinity
  await app.register(underPressure, {
    maxEventLoopDelay: maxEventLoopDelayMs,
    pressureHandler: async (_request, _reply, _type, delayMs) => { if (isSlow(delayMs ?? 0)) throw new Overloaded() }
  })
  app.decorate('isOverloaded', () => inFlight >= maxInFlight || isSlow(app.memoryUsage().eventLoopDelay))
}, { name: 'overload' })

declare module 'fastify' {
  interface FastifyInstance {
    /** Whether requests are being turned away. */
    isOverloaded: () => boolean
  }
}
