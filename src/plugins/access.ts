import type { RouteOptions } from 'fastify'
import fp from 'fastify-plugin'

/** The roles of callers. */
export const ROLES = ['operator', 'line', 'auditor'] as const
export type Role = typeof ROLES[number]

/**
 * Who may call a route: `device` where the proof is in the body, `aws-iot` where a rule's secret is, `anyone` for documents, else callers
 * with one of these roles.
 */
type Access = 'device' | 'aws-iot' | 'anyone' | readonly Role[]

/** What a route says of itself. */
export interface RouteAccess { methods: readonly string[], url: string, access: Access }

declare module 'fastify' {
  interface FastifyContextConfig {
    /** Who may call the route. Must be there before the service is ready. */
    access?: Access
    /** For the routes that answer 405 where there is no such method; not listed. */
    noSuchMethod?: true
  }
  interface FastifyInstance {
    /** Every route with who may call it, in the order of registration. */
    routeAccess: () => RouteAccess[]
  }
}

/**
 * Sees to it that every route says who may call it: the service does not get ready otherwise. A plugin that brings routes of its own
 * is registered in a scope whose `onRoute` hook sets `config.access` for them.
 */
export const access = fp(async app => {
  const routes: { url: string, method: RouteOptions['method'], route: RouteOptions }[] = []
  // The address as it is now: for the root of a prefix Fastify goes on with the same object at another one.
  app.addHook('onRoute', route => { routes.push({ url: route.url, method: route.method, route }) })
  app.addHook('onReady', async () => {
    for (const { url, method, route } of routes) {
      if (!route.config?.access) throw new Error(`route ${[method].flat().join(',')} ${url} does not say who may call it`)
    }
  })
  app.decorate('routeAccess', () => {
    const listed = new Map<string, RouteAccess>()
    for (const { url, method, route: { config } } of routes) {
      if (!config?.access || config.noSuchMethod) continue
      // Every HEAD is that of a GET, which Fastify does not tell of at a prefix's root with a slash.
      const methods = method === 'HEAD' ? ['GET', 'HEAD'] : [method].flat()
      for (const each of methods) listed.set(`${each} ${url}`, { methods: [each], url, access: config.access })
    }
    return [...listed.values()]
  })
}, { name: 'access' })
