import swagger from '@fastify/swagger'
import swaggerUi from '@fastify/swagger-ui'
import fp from 'fastify-plugin'
import { API, completeAnswers, describeRoute, problemSchema } from './api-description.ts'

/** Swagger UI's own files, the small pictures inside its style sheet, and this service to read the document from and to try. */
const CONTENT = {
  'default-src': "'none'",
  'script-src': "'self'",
  'style-src': "'self'",
  'img-src': "'self' data:",
  'connect-src': "'self'",
  'base-uri': "'none'",
  'form-action': "'none'",
  'frame-ancestors': "'none'"
}

/**
 * The description of the API from the routes' schemas: `/openapi.json` (OpenAPI 3.1), and `/docs` to read it in a browser. Register before
 * the routes.
 */
export const apiDocs = fp<{ version: string }>(async (app, { version }) => {
  app.addSchema(problemSchema)
  await app.register(swagger, {
    openapi: { ...API, info: { ...API.info, version } },
    refResolver: { buildLocalReference: ({ $id }, _baseUri, _fragment, index) => typeof $id === 'string' ? $id : `def-${index}` },
    transform: describeRoute,
    transformObject: completeAnswers
  })
  await app.register(async docs => {
    docs.addHook('onRoute', route => { route.config = { ...route.config, access: 'anyone' } })
    let document: string | undefined
    docs.get('/openapi.json', { schema: { hide: true } }, async (_request, reply) => {
      document ??= JSON.stringify(app.swagger())
      return reply.type('application/json').send(document)
    })
    await docs.register(swaggerUi, {
      routePrefix: '/docs',
      staticCSP: CONTENT,
      theme: { title: API.info.title },
      uiConfig: { layout: 'BaseLayout', docExpansion: 'list', tryItOutEnabled: false, defaultModelsExpandDepth: 0, displayRequestDuration: true }
    })
  })
}, { name: 'api-docs', dependencies: ['authenticate', '@fastify/rate-limit'] })
