import { createHash, timingSafeEqual } from 'node:crypto'
import type { FastifyRequest } from 'fastify'
import fp from 'fastify-plugin'
import { CvmError } from '../errors.ts'
import type { Audit } from '../vending/audit.ts'
import { type Role, access } from './access.ts'
import type { Caller } from './oidc.ts'

interface ApiKey { name: string, role: Role, hash: string }

declare module 'fastify' {
  interface FastifyRequest {
    /** The caller's name, and the role that lets them in here; null on routes for devices and for anyone. */
    caller: { name: string, role: Role } | null
  }
  interface FastifyInstance {
    /** Audits the refusal of somebody whom a route looked at itself. */
    auditRefusal: (request: FastifyRequest, error: CvmError) => void
  }
}

interface AuthenticateOptions {
  apiKeys: readonly ApiKey[]
  /** Whose a token is that is no API key; absent where such tokens are not taken. Raises `CvmError`. */
  callerOfToken: ((token: string) => Promise<Caller>) | undefined
  audit: Audit
}

/** The refusals that are somebody's who should not be here. */
const OF_ACCESS: ReadonlySet<string> = new Set(['unauthenticated', 'forbidden', 'event-not-authentic', 'other-account'])

/** Room for a token with many groups in it; a request's headers end at twice that. */
const BEARER = /^Bearer ([!-~]{1,8192})$/i

/**
 * API keys and OIDC tokens as bearer tokens (RFC 6750). Refuses by default: a route without a word on access lets nobody in. Keys are
 * known by their SHA-256 only, and every one is compared, in constant time. Refusals are audited.
 */
export const authenticate = fp<AuthenticateOptions>(async (app, { apiKeys, callerOfToken, audit }) => {
  await app.register(access)
  app.decorateRequest('caller', null)
  app.decorate('auditRefusal', (request: FastifyRequest, error: CvmError) => { refused(request, error) })
  // The route's own limiter would come after this hook, and guesses must count; the plugin counts a request once.
  const limitAddress = app.rateLimit()
  app.addHook('onRequest', async (request, reply) => {
    const { access } = request.routeOptions.config
    if (request.is404 || access === 'device' || access === 'aws-iot' || access === 'anyone') return
    await limitAddress.call(app, request, reply)
    const caller = await identify(request).catch((cause: CvmError) => { throw refused(request, cause) })
    const role = access?.find(allowed => caller.roles.includes(allowed))
    if (!role) throw refused(request, new CvmError('forbidden'), caller)
    request.caller = { name: caller.name, role }
  })

  async function identify ({ headers: { authorization } }: FastifyRequest): Promise<Caller> {
    if (authorization === undefined) throw new CvmError('unauthenticated', { reason: 'credential-missing' })
    const token = BEARER.exec(authorization)?.[1]
    if (!token) throw new CvmError('unauthenticated', { reason: 'credential-malformed' })
    const key = keyOf(token, apiKeys)
    if (key) return { name: key.name, roles: [key.role] }
    if (!callerOfToken) throw new CvmError('unauthenticated', { reason: 'credential-unknown' })
    return callerOfToken(token)
  }

  /** Audits a refusal; that the identity provider is away is none. */
  function refused (request: FastifyRequest, error: CvmError, caller?: Caller): CvmError {
    if (!OF_ACCESS.has(error.code)) return error
    const { id: requestId, ip: address, method, routeOptions: { url: route } } = request
    const who = caller && { actor: caller.name, role: caller.roles.join(' ') }
    audit({ event: 'access-refused', outcome: 'refused', requestId, ...who, code: error.code, reason: error.reason, method, route, address }, error)
    return error
  }
}, { name: 'authenticate', dependencies: ['@fastify/rate-limit'] })

function keyOf (token: string, apiKeys: readonly ApiKey[]): ApiKey | undefined {
  const presented = createHash('sha256').update(token).digest()
  return apiKeys.filter(({ hash }) => timingSafeEqual(Buffer.from(hash, 'hex'), presented))[0]
}
