import { monitorEventLoopDelay } from 'node:perf_hooks'
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import fp from 'fastify-plugin'
import { CvmError } from '../errors.ts'
import { isStream } from './unread.ts'

interface OverloadOptions {
  maxInFlight: number
  /** Of these, the most of one address. */
  maxOfAddress: number
  /** Requests with many items of one API key or token at once. */
  maxBatchesOfCaller: number
  maxEventLoopDelayMs: number
  /** Told of the number of requests being worked on, whenever it changes. */
  onInFlight: (count: number) => void
  /** Counts a request that is turned away for its address; raises `CvmError('rate-limited')` where that has too many. */
  limitAddress?: (request: FastifyRequest, reply: FastifyReply) => Promise<unknown>
  /** The event loop's mean delay in milliseconds since it was last asked; measured by Node unless given. */
  meanDelayMs?: () => number
}

class Overloaded extends CvmError {
  constructor () {
    super('overloaded', { retryAfterMs: 1_000 })
  }
}

const SAMPLE_MS = 50
/** Samples after which the delay is judged at which everything is refused. */
const SLOW_SAMPLES = 20
const RESOLUTION_MS = 10
/** Of the delay at which everything is refused: from here on fewer requests are worked on, so that a refusal is still quick. */
const EARLY = 1 / 40
const LEAST_IN_FLIGHT = 16

/**
 * Answers 503 early rather than everything late: bounds what is worked on at once, and watches the event loop. The bound follows the loop:
 * requests that wait for AWS cost nothing and many may wait, but of those that need the CPU only as many get in as it keeps up with.
 * A request counts from when it is whole until its answer is made; slow clients hold connections, and no slots. One address, and one caller
 * with many items, has a bound of its own.
 */
export const overload = fp<OverloadOptions>(async (app: FastifyInstance, options) => {
  const { maxInFlight, maxOfAddress, maxBatchesOfCaller, maxEventLoopDelayMs, onInFlight, limitAddress, meanDelayMs } = options
  const ofAddress = new Counts()
  const ofCaller = new Counts()
  const releases = new WeakMap<FastifyRequest, () => void>()
  let inFlight = 0
  let bound = maxInFlight
  let isSlow = false
  const loop = monitorEventLoopDelay({ resolution: RESOLUTION_MS })
  let delays: number[] = []
  const measured = () => {
    const delayMs = loop.mean / 1e6 - RESOLUTION_MS
    loop.reset()
    return delayMs
  }
  const timer = setInterval(() => {
    const delayMs = (meanDelayMs ?? measured)()
    if (!Number.isNaN(delayMs)) delays.push(delayMs)
    if (delays.length >= SLOW_SAMPLES) {
      isSlow = delays.reduce((sum, each) => sum + each, 0) / delays.length > maxEventLoopDelayMs
      delays = []
    }
    const isLate = delayMs > maxEventLoopDelayMs * EARLY
    if (!isLate) bound = Math.min(maxInFlight, Math.ceil(bound * 1.1))
    // Where few are worked on, it is not their number that makes the loop late.
    else if (inFlight > LEAST_IN_FLIGHT) bound = Math.max(LEAST_IN_FLIGHT, Math.floor(Math.min(bound, inFlight) / 2))
  }, SAMPLE_MS).unref()
  loop.enable()
  app.addHook('onClose', async () => {
    clearInterval(timer)
    loop.disable()
  })
  const refuseWhenFull = async (request: FastifyRequest, reply: FastifyReply) => {
    if (!isSlow && inFlight < Math.min(bound, maxInFlight)) return
    // A refused request counts against the address as well, so that a client cannot ask more often for it.
    await limitAddress?.(request, reply)
    throw new Overloaded()
  }
  // Before the body is read: a refusal should cost little.
  app.addHook('onRequest', refuseWhenFull)
  app.addHook('preValidation', async (request, reply) => {
    await refuseWhenFull(request, reply)
    const { ip, raw: { socket }, caller } = request
    const batch = request.routeOptions.config.lines && caller && hasMany(request.body) ? caller.name : undefined
    if (ofAddress.of(ip) >= maxOfAddress) throw tooMany(`address has ${maxOfAddress} requests`)
    if (batch !== undefined && ofCaller.of(batch) >= maxBatchesOfCaller) throw tooMany(`caller has ${maxBatchesOfCaller} batches`)
    ofAddress.add(ip, 1)
    if (batch !== undefined) ofCaller.add(batch, 1)
    onInFlight(++inFlight)
    const release = () => {
      if (!releases.delete(request)) return
      socket.off('close', release)
      ofAddress.add(ip, -1)
      if (batch !== undefined) ofCaller.add(batch, -1)
      onInFlight(--inFlight)
    }
    releases.set(request, release)
    // A response that never had its connection does not close with it on Node 20.
    socket.once('close', release)
    reply.raw.once('close', release)
  })
  app.addHook('onSend', async (request, _reply, payload) => { if (!isStream(payload)) releases.get(request)?.() })
  app.decorate('isOverloaded', () => inFlight >= maxInFlight || isSlow)
}, { name: 'overload' })

/** Whether a body is a list or lines, and no single item. */
function hasMany (body: unknown): boolean {
  return Array.isArray(body) || Symbol.asyncIterator in Object(body)
}

function tooMany (atWork: string): CvmError {
  return new CvmError('rate-limited', { detail: `the ${atWork} at work already`, retryAfterMs: 1_000 })
}

/** Numbers by name; those of zero are forgotten. */
class Counts {
  readonly #counts = new Map<string, number>()

  of (name: string): number {
    return this.#counts.get(name) ?? 0
  }

  add (name: string, more: number): void {
    const count = this.of(name) + more
    if (count > 0) this.#counts.set(name, count)
    else this.#counts.delete(name)
  }
}

declare module 'fastify' {
  interface FastifyInstance {
    /** Whether requests are being turned away. */
    isOverloaded: () => boolean
  }
}
