import { monitorEventLoopDelay } from 'node:perf_hooks'
import underPressure from '@fastify/under-pressure'
import type { FastifyInstance } from 'fastify'
import fp from 'fastify-plugin'
import { CvmError } from '../errors.ts'

interface OverloadOptions {
  maxInFlight: number
  maxEventLoopDelayMs: number
  /** Told of the number of requests being worked on, whenever it changes. */
  onInFlight: (count: number) => void
  /** The event loop's mean delay in milliseconds since it was last asked; measured by Node unless given. */
  meanDelayMs?: () => number
}

class Overloaded extends CvmError {
  constructor () {
    super('overloaded', { retryAfterMs: 1_000 })
  }
}

const SAMPLE_MS = 50
const RESOLUTION_MS = 10
/** Of the delay at which everything is refused: from here on fewer requests are worked on, so that a refusal is still quick. */
const EARLY = 1 / 40
const LEAST_IN_FLIGHT = 16

/**
 * Answers 503 early rather than everything late: bounds what is worked on at once, and watches the event loop. The bound follows the loop:
 * requests that wait for AWS cost nothing and many may wait, but of those that need the CPU only as many get in as it keeps up with.
 */
export const overload = fp<OverloadOptions>(async (app: FastifyInstance, { maxInFlight, maxEventLoopDelayMs, onInFlight, meanDelayMs }) => {
  let inFlight = 0
  let bound = maxInFlight
  const loop = monitorEventLoopDelay({ resolution: RESOLUTION_MS })
  const measured = () => {
    const delayMs = loop.mean / 1e6 - RESOLUTION_MS
    loop.reset()
    return delayMs
  }
  const timer = setInterval(() => {
    const isLate = (meanDelayMs ?? measured)() > maxEventLoopDelayMs * EARLY
    if (!isLate) bound = Math.min(maxInFlight, Math.ceil(bound * 1.1))
    // Where few are worked on, it is not their number that makes the loop late.
    else if (inFlight > LEAST_IN_FLIGHT) bound = Math.max(LEAST_IN_FLIGHT, Math.floor(Math.min(bound, inFlight) / 2))
  }, SAMPLE_MS).unref()
  loop.enable()
  app.addHook('onClose', async () => {
    clearInterval(timer)
    loop.disable()
  })
  app.addHook('onRequest', async (_request, reply) => {
    onInFlight(++inFlight)
    reply.raw.once('close', () => onInFlight(--inFlight))
    if (inFlight > Math.min(bound, maxInFlight)) throw new Overloaded()
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
