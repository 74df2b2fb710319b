// A route that does not say who may call it keeps the service from getting ready; a plugin's routes are spoken for by their scope.
import Fastify, { type FastifyInstance } from 'fastify'
import fp from 'fastify-plugin'
import rateLimit from '@fastify/rate-limit'
import t from 'tap'
import { authenticate } from '../../src/plugins/authenticate.ts'

async function started (): Promise<FastifyInstance> {
  const app = Fastify()
  await app.register(rateLimit)
  await app.register(authenticate, { apiKeys: [], callerOfToken: undefined, audit: () => {} })
  return app
}

/** A plugin from elsewhere, with a route that knows nothing of access. */
const pages = fp(async app => { app.get('/page', async () => 'page') })

await t.test('a route without a word on access', async t => {
  const app = await started()
  app.get('/silent', async () => 'let in')
  await t.rejects(async () => { await app.ready() }, /GET \/silent does not say who may call it/)
  await app.close()
})

await t.test('a plugin\'s routes', async t => {
  const app = await started()
  await app.register(async scope => {
    scope.addHook('onRoute', route => { route.config = { ...route.config, access: 'anyone' } })
    await scope.register(pages)
  })
  app.get('/closed', { config: { access: [] } }, async () => 'let in')
  await app.ready()
  t.strictSame(app.routeAccess().map(({ methods, url, access }) => [methods.join(), url, access]), [
    ['GET', '/page', 'anyone'], ['HEAD', '/page', 'anyone'], ['GET', '/closed', []], ['HEAD', '/closed', []]
  ])
  t.equal((await app.inject('/page')).body, 'page')
  t.notMatch(await app.inject('/closed'), { statusCode: 200 })
  await app.close()
})
