// Whose an OIDC token is: every claim and key that may be wrong, keys that are rotated, a provider that is away, slow or wrong.
import { SignJWT, exportSPKI, UnsecuredJWT } from 'jose'
import t, { type Test } from 'tap'
import { AUDIENCE, DISCOVERY, KEYS, type IdentityProvider, signingKey, startIdentityProvider } from '../fixtures/identity-provider.ts'
import { gate } from '../fixtures/gate.ts'
import { type OidcOptions, oidcCallers } from '../../src/plugins/oidc.ts'

async function started (t: Test, changes: (provider: IdentityProvider) => Partial<OidcOptions> = () => ({})) {
  const provider = await startIdentityProvider()
  t.teardown(() => provider.close())
  const callerOf = oidcCallers({
    issuer: provider.issuer, audience: AUDIENCE, audienceClaim: 'aud', jwksUrl: '', algorithms: ['RS256', 'ES256'], roleClaim: 'roles', nameClaim: 'sub', ...changes(provider)
  })
  return { provider, callerOf }
}

const unauthenticated = (reason: string) => ({ code: 'unauthenticated', reason })
const UNAVAILABLE = { code: 'identity-provider-unavailable', retryAfterMs: 2_000 }

await t.test('a good token', async t => {
  const { provider, callerOf } = await started(t)
  t.strictSame(await callerOf(await provider.token()), { name: 'oidc:ada', roles: ['operator'] })
  t.strictSame(provider.asked, [DISCOVERY, KEYS])
  t.strictSame(await callerOf(await provider.token({ sub: 'arn:aws:sts::1:assumed-role/x/ada@example.com', aud: ['other', AUDIENCE] })),
    { name: 'oidc:arn:aws:sts::1:assumed-role/x/ada@example.com', roles: ['operator'] })
  t.equal(provider.asked.length, 2, 'the keys are kept')
  await provider.rotate(signingKey('RS256'))
})

await t.test('keys at an address that was given', async t => {
  const { provider, callerOf } = await started(t, ({ issuer }) => ({ jwksUrl: issuer + KEYS }))
  await provider.rotate(signingKey('RS256'))
  t.match(await callerOf(await provider.token()), { name: 'oidc:ada' })
  t.strictSame(provider.asked, [KEYS])
})

await t.test('what is wrong with a token', async t => {
  const { provider, callerOf } = await started(t)
  const now = Math.floor(Date.now() / 1000)
  const spki = new TextEncoder().encode(await exportSPKI(provider.key.publicKey as never))
  const good = { iss: provider.issuer, aud: AUDIENCE, sub: 'ada', roles: ['operator'], exp: now + 300 }
  const token = await provider.token()
  const [header, , signature] = token.split('.')
  const tokens: Record<string, [string, string]> = {
    'another audience': [await provider.token({ aud: 'other' }), 'token-aud'],
    'no audience': [await provider.token({ aud: undefined }), 'token-aud'],
    'another issuer': [await provider.token({ iss: 'https://evil.example' }), 'token-iss'],
    'no issuer': [await provider.token({ iss: undefined }), 'token-iss'],
    expired: [await provider.token({}, { expiresIn: -60 }), 'token-expired'],
    'without an end': [await provider.token({}, { expiresIn: undefined }), 'token-exp'],
    'with an end that is no number': [await provider.token({ exp: '9999999999' as never }, { expiresIn: undefined }), 'token-exp'],
    'of the future': [await provider.token({ nbf: now + 3_600 }), 'token-nbf'],
    'another key of another id': [await provider.token({}, { key: signingKey() }), 'credential-unknown'],
    'another key of the same id': [await provider.token({}, { key: { ...signingKey(), kid: provider.key.kid } }), 'credential-unknown'],
    'an algorithm that is not the key\'s': [await provider.token({}, { key: { ...signingKey('RS256'), kid: provider.key.kid } }), 'credential-unknown'],
    unsigned: [new UnsecuredJWT(good).encode(), 'credential-unknown'],
    'signed with the public key': [await new SignJWT(good).setProtectedHeader({ alg: 'HS256', kid: provider.key.kid }).sign(spki), 'credential-unknown'],
    'with other claims than were signed': [`${header}.${Buffer.from(JSON.stringify(good)).toString('base64url')}.${signature}`, 'credential-unknown'],
    'cut off': [token.slice(0, -4), 'credential-unknown'],
    'no token': ['cvm_nonsense', 'credential-unknown'],
    nothing: ['..', 'credential-unknown']
  }
  for (const [what, [wrong, reason]] of Object.entries(tokens)) await t.rejects(callerOf(wrong), unauthenticated(reason), what)
  t.match(await callerOf(await provider.token({ nbf: now + 5 }, { expiresIn: -5 })), { name: 'oidc:ada' }, 'clocks may differ a little')
  await t.rejects(callerOf(await provider.token({ exp: undefined, roles: [] }, { key: signingKey(), expiresIn: undefined })), unauthenticated('credential-unknown'),
    'claims are named only where the signature is good')
})

await t.test('algorithms are pinned', async t => {
  const { provider, callerOf } = await started(t, () => ({ algorithms: ['RS256'] }))
  await t.rejects(callerOf(await provider.token()), unauthenticated('credential-unknown'))
  t.strictSame(provider.asked, [], 'and no key is looked for')
})

await t.test('names', async t => {
  const { provider, callerOf } = await started(t, () => ({ nameClaim: 'email' }))
  t.match(await callerOf(await provider.token({ email: 'x'.repeat(128) })), { name: `oidc:${'x'.repeat(128)}` })
  for (const email of [undefined, '', 'x'.repeat(129), 'ada\nroot', 'ada "root"', 'ädä', 'a b', '\u001b[2J', 7, ['ada'], { ada: 1 }, null]) {
    await t.rejects(callerOf(await provider.token({ email })), unauthenticated('token-name'), JSON.stringify(email ?? String(email)).slice(0, 20))
  }
})

await t.test('roles', async t => {
  const { provider, callerOf } = await started(t, () => ({ roleClaim: 'realm_access.roles' }))
  const rolesOf = async (claims: object) => (await callerOf(await provider.token({ roles: undefined, ...claims }))).roles
  t.strictSame(await rolesOf({ realm_access: { roles: ['line', 'offline_access', 'auditor'] } }), ['line', 'auditor'])
  t.strictSame(await rolesOf({ realm_access: { roles: 'auditor' } }), ['auditor'])
  t.strictSame(await rolesOf({ 'realm_access.roles': ['line'] }), ['line'], 'a claim of that very name')
  for (const wrong of [undefined, {}, [], 'operator', null, { roles: 'operator line' }, { roles: ['Operator', 7, null, ['operator']] }, { roles: { operator: true } }]) {
    t.strictSame(await rolesOf({ realm_access: wrong }), [], JSON.stringify(wrong) ?? 'none')
  }
  const inherited = oidcCallers({ issuer: provider.issuer, audience: AUDIENCE, audienceClaim: 'aud', jwksUrl: '', algorithms: ['ES256'], roleClaim: 'constructor.name', nameClaim: 'sub' })
  t.strictSame((await inherited(await provider.token())).roles, [], 'own members only')
})

await t.test('rotation', async t => {
  const { provider, callerOf } = await started(t, () => ({ cooldownMs: 0 }))
  const old = await provider.token()
  t.match(await callerOf(old), { name: 'oidc:ada' })
  await provider.rotate()
  t.match(await callerOf(await provider.token()), { name: 'oidc:ada' }, 'a new key is looked up')
  await t.rejects(callerOf(old), unauthenticated('credential-unknown'), 'the old one is gone')
})

await t.test('unknown keys cannot make us ask without end', async t => {
  const { provider, callerOf } = await started(t)
  await callerOf(await provider.token())
  for (let i = 0; i < 5; i++) await t.rejects(callerOf(await provider.token({}, { key: signingKey() })), unauthenticated('credential-unknown'))
  t.equal(provider.asked.length, 2)
})

await t.test('a provider that is away', async t => {
  const { provider, callerOf } = await started(t, () => ({ pauseMs: 0, cooldownMs: 0 }))
  await provider.away()
  await t.rejects(callerOf(await provider.token()), UNAVAILABLE)
  await t.rejects(callerOf('nonsense'), unauthenticated('credential-unknown'), 'what is no token needs no keys')
  await provider.back()
  t.match(await callerOf(await provider.token()), { name: 'oidc:ada' }, 'and back')
  await provider.away()
  t.match(await callerOf(await provider.token()), { name: 'oidc:ada' }, 'keys that are known still do')
  await t.rejects(callerOf(await provider.token({}, { key: signingKey() })), UNAVAILABLE, 'one that is not may be new')
  await provider.back()
})

await t.test('through an outage of the provider its keys stay good, for a stated time', async t => {
  const { provider, callerOf } = await started(t, () => ({ pauseMs: 0, cooldownMs: 0, cacheMs: 0 }))
  await callerOf(await provider.token())
  await provider.away()
  for (let i = 0; i < 3; i++) t.match(await callerOf(await provider.token()), { name: 'oidc:ada' }, 'keys that are old, too')
  await t.rejects(callerOf(await provider.token({}, { key: signingKey() })), UNAVAILABLE, 'one that is not known may be new')
  await t.rejects(callerOf(await provider.token({ aud: 'other' })), unauthenticated('token-aud'))
  await provider.rotate()
  await provider.back()
  t.match(await callerOf(await provider.token()), { name: 'oidc:ada' }, 'and is looked up when the provider is back')
  await t.rejects(callerOf(await provider.token({}, { key: signingKey() })), unauthenticated('credential-unknown'))

  const short = await started(t, () => ({ pauseMs: 0, cooldownMs: 0, cacheMs: 0, outageMs: 0 }))
  await short.callerOf(await short.provider.token())
  await short.provider.away()
  await t.rejects(short.callerOf(await short.provider.token()), UNAVAILABLE, 'after that time they are not')
})

await t.test('the audience in another claim', async t => {
  const { provider, callerOf } = await started(t, () => ({ audienceClaim: 'client_id' }))
  t.match(await callerOf(await provider.token({ aud: undefined, client_id: AUDIENCE })), { name: 'oidc:ada' })
  for (const claims of [{ client_id: 'other' }, { client_id: undefined }, { client_id: null }, { client_id: { [AUDIENCE]: true } }]) {
    await t.rejects(callerOf(await provider.token(claims)), unauthenticated('token-aud'), JSON.stringify(claims))
  }
})

await t.test('a provider in trouble is left alone for a while', async t => {
  const { provider, callerOf } = await started(t, () => ({ pauseMs: 600_000 }))
  provider.answers = {}
  for (let i = 0; i < 5; i++) await t.rejects(callerOf(await provider.token()), UNAVAILABLE)
  t.strictSame(provider.asked, [DISCOVERY])
})

await t.test('a provider that is slow', async t => {
  const { provider, callerOf } = await started(t, () => ({ timeoutMs: 50 }))
  const { passed, open } = gate()
  provider.hold = passed
  await t.rejects(callerOf(await provider.token()), UNAVAILABLE)
  open()
})

await t.test('a provider that is wrong', async t => {
  const { provider, callerOf } = await started(t, () => ({ pauseMs: 0 }))
  const { [DISCOVERY]: discovery, [KEYS]: keys } = provider.answers as Record<string, { body: string }>
  const { issuer } = provider
  const wrong: Record<string, IdentityProvider['answers']> = {
    'another issuer': { [DISCOVERY]: { body: JSON.stringify({ issuer: `${issuer}/`, jwks_uri: issuer + KEYS }) } },
    'keys over http from elsewhere': { [DISCOVERY]: { body: JSON.stringify({ issuer, jwks_uri: `http://localhost:${new URL(issuer).port}${KEYS}` }) } },
    'no address of keys': { [DISCOVERY]: { body: JSON.stringify({ issuer }) } },
    'not JSON': { [DISCOVERY]: { body: '<html>' } },
    null: { [DISCOVERY]: { body: 'null' } },
    elsewhere: { [DISCOVERY]: { status: 302, body: '', headers: { location: issuer + KEYS } } },
    'failing keys': { [KEYS]: { status: 500, body: keys!.body } },
    'no key set': { [KEYS]: { body: '[]' } },
    'a key set without end': { [KEYS]: { body: JSON.stringify({ ...JSON.parse(keys!.body), padding: 'x'.repeat(300_000) }) } }
  }
  for (const [what, answers] of Object.entries(wrong)) {
    provider.answers = { [DISCOVERY]: discovery!, [KEYS]: keys!, ...answers }
    await t.rejects(callerOf(await provider.token()), UNAVAILABLE, what)
  }
  provider.answers = { [DISCOVERY]: discovery!, [KEYS]: keys! }
  t.match(await callerOf(await provider.token()), { name: 'oidc:ada' }, 'and right again')
})
