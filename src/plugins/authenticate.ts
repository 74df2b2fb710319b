import { createHash, timingSafeEqual } from 'node:crypto'
import type { FastifyRequest, RouteOptions } from 'fastify'
import fp from 'fastify-plugin'
import { CvmError } from '../errors.ts'

type Role = 'operator' | 'line' | 'auditor'

interface ApiKey { name: string, role: Role, hash: string }

declare module 'fastify' {
  interface FastifyContextConfig {
    /** Who may call the route: `device` for the routes whose proof is in the body, else the roles of API keys. */
    access?: 'device' | readonly Role[]
  }
  interface FastifyRequest {
    /** The API key's name and role; null on routes for devices. */
    caller: Pick<ApiKey, 'name' | 'role'> | null
  }
}

/**
 * API keys as bearer tokens (RFC 6750). Refuses by default: a route that does not say who may call it cannot be registered. Keys are
 * known by their SHA-256 only, and every one is compared, in constant time.
 */
export const authenticate = fp<{ apiKeys: readonly ApiKey[] }>(async (app, { apiKeys }) => {
  app.decorateRequest('caller', null)
  app.addHook('onRoute', ({ config, url, method }: RouteOptions) => {
    if (!config?.access) throw new Error(`route ${[method].flat().join(',')} ${url} does not say who may call it`)
  })
  app.addHook('onRequest', async request => {
    const { access } = request.routeOptions.config
    if (request.is404 || access === 'device') return
    const caller = callerOf(request, apiKeys)
    if (!caller) throw new CvmError('unauthenticated')
    if (!access?.includes(caller.role)) throw new CvmError('forbidden')
    request.caller = { name: caller.name, role: caller.role }
  })
}, { name: 'authenticate' })

function callerOf ({ headers }: FastifyRequest, apiKeys: readonly ApiKey[]): ApiKey | undefined {
  const token = /^Bearer ([!-~]{1,512})$/i.exec(headers.authorization ?? '')?.[1]
  if (!token) return undefined
  const presented = createHash('sha256').update(token).digest()
  return apiKeys.filter(({ hash }) => timingSafeEqual(Buffer.from(hash, 'hex'), presented))[0]
}
