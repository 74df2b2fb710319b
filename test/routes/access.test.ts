// Refused by default: every route that the app has × every role × no, expired and foreign credentials, against the README's one table.
import { createHash, randomBytes } from 'node:crypto'
import type { HTTPMethods } from 'fastify'
import t from 'tap'
import { documentedAccess, pathOf } from '../fixtures/access.ts'
import { AUDIENCE, signingKey, startIdentityProvider } from '../fixtures/identity-provider.ts'
import { isProblem } from '../fixtures/problems.ts'
import { total } from '../fixtures/scrape.ts'
import { type TestService, startService } from '../fixtures/service.ts'

const ROLES = ['operator', 'line', 'auditor']
const METHODS = ['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS'] as const

const provider = await startIdentityProvider()
t.teardown(() => provider.close())
const keys = Object.fromEntries(ROLES.map(role => [role, `cvm_${randomBytes(32).toString('base64url')}`]))
const hashes = Object.entries(keys).map(([role, key]) => [role, createHash('sha256').update(key).digest('hex')] as const)
const OIDC = { OIDC_ISSUER: provider.issuer, OIDC_AUDIENCE: AUDIENCE }
const SETTINGS = {
  ...OIDC,
  LEGACY_CVM: 'true',
  JITR_SECRET: 'x'.repeat(32),
  API_KEYS: hashes.map(([role, hash]) => `${role}-1:${role}:${hash}`).join(','),
  RATE_LIMIT_ADDRESS_MAX: '1000000',
  // A busy machine must not answer in the place of what is asked.
  MAX_EVENT_LOOP_DELAY_MS: '600000'
}
const service = await startService(SETTINGS)
t.teardown(() => service.close())

interface Credential { name: string, authorization: string | undefined, roles: string[] | undefined }

const credentials: Credential[] = [
  ...ROLES.map(role => ({ name: `the API key of ${role}`, authorization: `Bearer ${keys[role]}`, roles: [role] })),
  ...await Promise.all([['operator'], ['line'], ['auditor'], ['line', 'auditor'], ROLES, [], ['root', 'device', 'anyone']].map(async roles =>
    ({ name: `a token of ${roles.join(' and ') || 'nobody'}`, authorization: `Bearer ${await provider.token({ roles })}`, roles }))),
  ...Object.entries({
    none: undefined,
    empty: '',
    'no key': 'Bearer',
    'another scheme': `Basic ${keys['operator']}`,
    'a foreign API key': `Bearer cvm_${randomBytes(32).toString('base64url')}`,
    'an API key and more': `Bearer ${keys['operator']}x`,
    'the hash of an API key': `Bearer ${hashes[0]![1]}`,
    'an expired token': `Bearer ${await provider.token({}, { expiresIn: -60 })}`,
    'a foreign token': `Bearer ${await provider.token({}, { key: signingKey() })}`,
    'a token for another service': `Bearer ${await provider.token({ aud: 'other' })}`,
    'a token that is too long': `Bearer ${await provider.token({ padding: 'x'.repeat(8_192) })}`
  }).map(([name, authorization]) => ({ name, authorization, roles: undefined }))
]

/** A request that does nothing where it is let in: its address names nothing and its body is refused. */
function ask (method: HTTPMethods, url: string, authorization: string | undefined, { app }: TestService = service) {
  const body = ['GET', 'HEAD'].includes(method) ? {} : { payload: { nonsense: true } }
  const headers = authorization === undefined ? {} : { authorization }
  return app.service.inject({ method, url: url.replace(/:\w+|\*/g, 'nothing'), headers, ...body } as object)
}

const documented = documentedAccess()
const routes = service.app.service.routeAccess()
  .flatMap(route => route.methods.map(method => ({ method: method as HTTPMethods, ...route })))

await t.test('the README names every route, and no other', async t => {
  t.ok(routes.length >= 10, 'the routes are found')
  t.strictSame([...documented.keys()].sort(), routes.map(route => `${route.method} ${pathOf(route)}`).sort())
})

await t.test('every route with every credential', async t => {
  for (const route of routes) {
    const name = `${route.method} ${pathOf(route)}`
    const who = documented.get(name) ?? []
    await t.test(name, async t => {
      for (const { name, authorization, roles } of credentials) {
        const answer = await ask(route.method, route.url, authorization)
        const isOpen = who.includes('anyone') || who.includes('device') || who.includes('aws-iot')
        const expected = isOpen || roles?.some(role => who.includes(role)) ? 'let in' : roles ? 403 : 401
        const isRefused = [401, 403].includes(answer.statusCode)
        t.equal(isRefused ? answer.statusCode : 'let in', expected, name)
        t.ok(answer.statusCode < 500 || answer.body === 'Access Denied', `${name}: and nothing fails`)
        if (answer.statusCode === 401) t.match(answer.headers['www-authenticate'], /^Bearer/)
        if (isRefused && route.method !== 'HEAD') isProblem(t, answer, answer.statusCode === 401 ? 'unauthenticated' : 'forbidden', {}, name)
      }
    })
  }
})

await t.test('other methods and addresses are there for nobody', async t => {
  const [{ authorization }] = credentials as [Credential]
  for (const url of new Set(routes.map(({ url }) => url))) {
    for (const method of METHODS.filter(method => !routes.some(route => route.url === url && route.method === method))) {
      t.equal((await ask(method, url, authorization)).statusCode, 405, `${method} ${url}`)
    }
  }
  isProblem(t, await ask('GET', '/v1/nope', authorization), 'not-found')
})

await t.test('guesses count against the limit of their address', async t => {
  const limited = await startService({ ...SETTINGS, RATE_LIMIT_ADDRESS_MAX: '3', RATE_LIMIT_WINDOW_MS: '600000' })
  t.teardown(() => limited.close())
  for (let i = 0; i < 3; i++) isProblem(t, await ask('GET', '/v1/devices/nothing', 'Bearer guess', limited), 'unauthenticated')
  isProblem(t, await ask('GET', '/v1/devices/nothing', 'Bearer guess', limited), 'rate-limited')
  t.equal(await total(limited, 'cvm_rate_limited_total', { limit: 'address' }), 1)
})

await t.test('while the identity provider is away, its tokens are answered 503 and API keys go on working', async t => {
  const alone = await startService(SETTINGS)
  t.teardown(() => alone.close())
  await provider.away()
  const answer = await ask('GET', '/v1/devices/nothing', `Bearer ${await provider.token()}`, alone)
  isProblem(t, answer, 'identity-provider-unavailable')
  t.equal(answer.headers['retry-after'], '2')
  isProblem(t, await ask('GET', '/v1/devices/nothing', `Bearer ${keys['operator']}`, alone), 'device-not-found')
  await provider.back()
})

await t.test('without an issuer no token is good', async t => {
  const plain = await startService({ ...SETTINGS, OIDC_ISSUER: '', OIDC_AUDIENCE: '' })
  t.teardown(() => plain.close())
  isProblem(t, await ask('GET', '/v1/devices/nothing', `Bearer ${await provider.token()}`, plain), 'unauthenticated', { reason: 'credential-unknown' })
})
