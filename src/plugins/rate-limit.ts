import rateLimit, { type CreateRateLimitOptions, type FastifyRateLimitStoreCtor } from '@fastify/rate-limit'
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import fp from 'fastify-plugin'
import { CvmError } from '../errors.ts'

interface RateLimitOptions {
  addressMax: number
  serialMax: number
  windowMs: number
  /** Counts serial numbers for all replicas together; without it each replica counts for itself. */
  serialStore?: FastifyRateLimitStoreCtor | undefined
  onLimited: (limit: 'address' | 'serial') => void
  /** The shared store did not decide about a request, which this replica then counted for itself. */
  onFallback: (cause: Error) => void
}

type Limiter = ReturnType<FastifyInstance['createRateLimit']>

/** Counters kept per limit; beyond, the ones not used for longest are forgotten, so it must be more than an attacker can cycle. */
const COUNTERS = 100_000

/**
 * Two limits on one request: per address before the body is read, and per serial number once it is known to be one. The plugin
 * runs a route's limiter once per request and skips any second one in silence, hence the hand-called limiter for serials. Addresses are
 * counted in memory always: a shared count would let anybody who knocks cause a write.
 */
export const rateLimits = fp<RateLimitOptions>(async (app, { addressMax, serialMax, windowMs, serialStore, onLimited, onFallback }) => {
  const serials = new WeakMap<FastifyRequest, string>()
  const ofSerials: CreateRateLimitOptions = {
    max: serialMax,
    timeWindow: windowMs,
    // Honoured by the plugin's store, though missing in its types.
    ...{ cache: COUNTERS },
    keyGenerator: request => serials.get(request) ?? ''
  }
  const limiters: { shared?: Limiter } = {}
  // The plugin has one store for each time it is registered: this is in a room of its own, before the plugin is there for all.
  if (serialStore) {
    await app.register(async room => {
      await room.register(rateLimit, { global: false, store: serialStore })
      limiters.shared = room.createRateLimit(ofSerials)
    })
  }
  await app.register(rateLimit, {
    max: addressMax,
    timeWindow: windowMs,
    cache: COUNTERS,
    onExceeded: () => onLimited('address'),
    errorResponseBuilder: (_request, { ttl }) => limited('address', ttl)
  })
  const own = app.createRateLimit(ofSerials)
  const count: Limiter = request => limiters.shared === undefined
    ? own(request)
    : limiters.shared(request).catch((cause: Error) => {
      onFallback(cause)
      return own(request)
    })
  app.decorate('limitSerialNumber', async (serialNumber: string, request: FastifyRequest, reply: FastifyReply) => {
    serials.set(request, serialNumber)
    const result = await count(request)
    if (result.isAllowed || !result.isExceeded) return
    onLimited('serial')
    reply.headers({ 'x-ratelimit-limit': result.max, 'x-ratelimit-remaining': 0, 'x-ratelimit-reset': result.ttlInSeconds })
    throw limited('serial number', result.ttl)
  })
  app.decorate('limitSerial', async (request: FastifyRequest, reply: FastifyReply) => {
    await app.limitSerialNumber((request.body as { serialNumber: string }).serialNumber, request, reply)
  })
}, { name: 'rate-limits' })

function limited (of: string, ttl: number): CvmError {
  return new CvmError('rate-limited', { detail: `the limit of requests per ${of} is reached`, retryAfterMs: ttl })
}

declare module 'fastify' {
  interface FastifyInstance {
    /** A `preHandler` for routes whose validated body has a `serialNumber`. Raises `CvmError('rate-limited')`. */
    limitSerial: (request: FastifyRequest, reply: FastifyReply) => Promise<void>
    /** The same for routes that are given it elsewhere. */
    limitSerialNumber: (serialNumber: string, request: FastifyRequest, reply: FastifyReply) => Promise<void>
  }
}
