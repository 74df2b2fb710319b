import type { RouteOptions } from 'fastify'
import fp from 'fastify-plugin'

/** The roles of callers. */
export const ROLES = ['operator', 'line', 'auditor'] as const
export type Role = typeof ROLES[number]

/** Who may call a route: `device` where the proof is in the body, `anyone` for documents, else callers with one of these roles. */
type Access = 'device' | 'anyone' | readonly Role[]

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
  const routes: RouteOptions[] = []
  app.addHook('onRoute', route => { routes.push(route) })
  app.addHook('onReady', async () => {
    for (const { config, url, method } of routes) {
      if (!config?.access) throw new Error(`route ${[method].flat().join(',')} ${url} does not say who may call it`)
    }
  })
  app.decorate('routeAccess', () => routes.flatMap(({ config, url, method }) =>
    config?.access && !config.noSuchMethod ? [{ methods: [method].flat(), url, access: config.access }] : []))
}, { name: 'access' })
