// The document keeps its word: it is valid, it names every route, its examples are accepted, its answers and errors are those that come.
import { createHash, randomBytes } from 'node:crypto'
import { mkdtempSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { UpdateCertificateCommand } from '@aws-sdk/client-iot'
import { Validator } from '@seriousme/openapi-schema-validator'
import type { LightMyRequestResponse as Answer } from 'fastify'
import t, { type Test } from 'tap'
import { Compile } from 'typebox/schema'
import { ERRORS, type ErrorCode } from '../../src/errors.ts'
import { ROLES } from '../../src/plugins/access.ts'
import { EXAMPLE } from '../../src/schemas/example.ts'
import { DEFAULT_PRODUCT } from '../../src/vending/device.ts'
import { proofSize, sliceOfToday } from '../fixtures/proof-size.ts'
import { type TestService, startService } from '../fixtures/service.ts'
import { until } from '../fixtures/until.ts'
import { vend } from '../fixtures/vending.ts'

const PEM = 'application/pem-certificate-chain'

/** The certificate of the examples is signed by its own key. */
const PRODUCTS_FILE = join(mkdtempSync(join(tmpdir(), 'products-')), 'products.json')
writeFileSync(PRODUCTS_FILE, '[{"name":"default","selfSigned":true}]')

interface Media { schema: object, example?: unknown, examples?: Record<string, { value: unknown }> }
interface Operation {
  operationId: string
  summary: string
  tags: string[]
  security: object[]
  requestBody?: { content: Record<string, Media> }
  responses: Record<string, { content: Record<string, Media> }>
}

const keys = Object.fromEntries(ROLES.map(role => [role, `cvm_${randomBytes(32).toString('base64url')}`]))
const API_KEYS = Object.entries(keys).map(([role, key]) => `${role}-1:${role}:${createHash('sha256').update(key).digest('hex')}`).join(',')
const service = await startService({ API_KEYS, JITR_SECRET: 'x'.repeat(32) })
t.teardown(() => service.close())

const document = (await service.app.service.inject('/openapi.json')).json()
const operations = Object.entries(document.paths as Record<string, Record<string, Operation>>)
  .flatMap(([path, methods]) => Object.entries(methods).map(([method, operation]) => ({ path, method: method.toUpperCase() as 'GET' | 'POST', ...operation })))
type Route = typeof operations[number]

/** What must be there before an example is sent, where it is not a device that has its certificate. */
type Before = 'nothing' | 'drifted' | 'registered' | 'shadow' | 'authority'
const BEFORE: Readonly<Record<string, Before>> = {
  registerDevices: 'nothing',
  registerCertificate: 'registered',
  vendCertificate: 'registered',
  vendKeysAndCertificate: 'registered',
  vendBatch: 'registered',
  getShadow: 'shadow',
  registerAuthority: 'nothing',
  acceptDrift: 'drifted',
  getAuthority: 'authority',
  changeAuthority: 'authority',
  listCertificatesOfAuthority: 'authority',
  deleteAuthority: 'authority'
}

/** Their proof is of the moment and of a key, or a header: no example can be accepted. `renew.test.ts` and `jitr.test.ts` ask them. */
const OF_THE_MOMENT = ['renewCertificate', 'confirmCertificate', 'receiveJitrEvent']

// Each example has a service of its own.
t.setTimeout(900_000)

await t.test('it is OpenAPI 3.1, and complete', async t => {
  t.match(await new Validator().validate(document), { valid: true })
  t.equal(document.openapi, '3.1.0')
  t.equal(new Set(operations.map(({ operationId }) => operationId)).size, operations.length, 'each operation has a name of its own')
  const tags = document.tags.map(({ name }: { name: string }) => name)
  for (const { operationId, summary, tags: [tag] } of operations) t.ok(summary && tags.includes(tag), `${operationId} has a summary and a tag of the list`)
})

await t.test('it names the routes that there are, and who may call them', async t => {
  const routes = service.app.service.routeAccess()
    .filter(({ access, methods, url }) => access !== 'anyone' && !methods.includes('HEAD') && !url.startsWith('/.well-known/est/') && !url.endsWith('/'))
  const inApp = routes.flatMap(({ methods, url, access }) => methods.map(method =>
    [`${method} ${url.replaceAll(/:(\w+)/g, '{$1}')}`, Array.isArray(access) ? 1 : 0]))
  t.strictSame(Object.fromEntries(operations.map(({ method, path, security }) => [`${method} ${path}`, security.length])), Object.fromEntries(inApp))
})

await t.test('every example fits its schema', async t => {
  for (const { operationId, requestBody, responses } of operations) {
    for (const [what, { content }] of [...requestBody ? [['request', requestBody] as const] : [], ...Object.entries(responses)]) {
      for (const [type, media] of Object.entries(content)) {
        const examples = examplesOf(media)
        t.ok(examples.length > 0, `${operationId}: ${what} in ${type} has an example`)
        for (const example of examples) fits(t, media, example, `${operationId}: ${what} in ${type}`)
      }
    }
  }
})

await t.test(`every example of a request is accepted, and answered as it says: ${proofSize}`, async t => {
  const exchanges = operations.filter(({ operationId }) => !OF_THE_MOMENT.includes(operationId)).flatMap(operation => {
    const successes = Object.entries(operation.responses).filter(([status]) => status.startsWith('2'))
    const accepts = new Set(successes.flatMap(([, { content }]) => Object.keys(content)))
    const bodies = Object.entries(operation.requestBody?.content ?? {})
      .flatMap(([type, media]) => examplesOf(media).map(example => [type, example] as const))
    // Where several media types are taken, each is answered in kind, but for a PEM text.
    return bodies.length > 1
      ? bodies.map(([type, body]) => ({ operation, accept: type === PEM ? 'application/json' : type, type, body }))
      : [...accepts].map(accept => ({ operation, accept, type: bodies[0]?.[0], body: bodies[0]?.[1] }))
  })
  for (const { operation, accept, type, body } of sliceOfToday(exchanges, 12)) {
    await t.test(`${operation.operationId}: ${type ?? 'no body'} to ${accept}`, async t => {
      const rig = await startService({ API_KEYS, PRODUCTS_FILE })
      t.teardown(() => rig.close())
      const certificateId = await prepare(rig, BEFORE[operation.operationId])
      const answer = await send(rig, operation, { type, body, accept, certificateId })
      t.ok(answer.statusCode < 300, `${answer.statusCode}`, { body: answer.body })
      isDocumented(t, operation, answer, accept)
    })
  }
})

// EST answers this in its own way; see the README.
const OF_EST: readonly string[] = ['product-mismatch', 'client-certificate-required']

await t.test('every code is documented', async t => {
  const documented = new Set(operations.flatMap(({ responses }) => Object.values(responses).flatMap(codesOf)))
  for (const code of Object.keys(ERRORS) as ErrorCode[]) {
    // No route answers these two, so they are told of the service as a whole.
    const nowhere = code === 'not-found' || code === 'method-not-allowed'
    if (nowhere) t.match(document.info.description, `\`${code}\``)
    else t.equal(documented.has(code), !OF_EST.includes(code), code)
  }
})

await t.test('what is refused is refused as documented', async t => {
  const rig = await startService({ API_KEYS, RATE_LIMIT_SERIAL_MAX: '8' })
  t.teardown(() => rig.close())
  const seen = new Set<string>()
  const provoke = async (operationId: string, code: ErrorCode, how: Parameters<typeof send>[2] = {}) => {
    const operation = operations.find(each => each.operationId === operationId) as Route
    const answer = await send(rig, operation, how)
    t.equal(answer.json().code, code, `${operationId}: ${code}`)
    isDocumented(t, operation, answer)
    seen.add(code)
  }
  const device = { serialNumber: EXAMPLE.serialNumber, registrationToken: EXAMPLE.registrationToken }
  const withCsr = { ...device, certificateSigningRequest: EXAMPLE.certificateSigningRequest }
  await provoke('vendCertificate', 'device-not-authorized', { body: withCsr })
  await prepare(rig, 'registered')
  await provoke('vendCertificate', 'malformed-json', { body: '{' })
  await provoke('vendCertificate', 'invalid-request', { body: { ...withCsr, more: 1 } })
  await provoke('vendCertificate', 'csr-rejected', { body: { ...withCsr, certificateSigningRequest: 'x' } })
  await provoke('vendCertificate', 'body-too-large', { body: { ...withCsr, certificateSigningRequest: 'x'.repeat(20_000) } })
  await provoke('vendCertificate', 'unsupported-media-type', { body: 'a', type: 'text/plain' })
  t.equal((await vend(rig, withCsr)).statusCode, 201)
  await provoke('vendKeysAndCertificate', 'already-vended', { body: device })
  await provoke('getDevice', 'unauthenticated', { key: '' })
  await provoke('getDevice', 'forbidden', { key: keys['line'] })
  await provoke('getDevice', 'device-not-found', { serialNumber: 'sn-unknown' })
  await provoke('resetDevice', 'device-not-found', { serialNumber: 'sn-unknown', body: { reason: 'test' } })
  await provoke('getAuthority', 'authority-not-found')
  await provoke('registerAuthority', 'authority-rejected', { body: { caCertificatePem: 'x' } })
  await provoke('getDevice', 'uri-too-long', { serialNumber: 'x'.repeat(200) })
  const operate = (operationId: string) => send(rig, operations.find(each => each.operationId === operationId) as Route, { body: { reason: 'test' } })
  await operate('disableDevice')
  await provoke('vendCertificate', 'device-disabled', { body: withCsr })
  await operate('revokeDevice')
  await provoke('vendCertificate', 'device-revoked', { body: withCsr })
  await provoke('enableDevice', 'state-conflict', { body: { reason: 'test' } })
  await operate('decommissionDevice')
  await provoke('vendCertificate', 'device-decommissioned', { body: withCsr })
  for (let i = 0; i < 8; i++) await vend(rig, withCsr)
  await provoke('vendCertificate', 'rate-limited', { body: withCsr })
  t.ok(seen.size > 10)
})

function examplesOf ({ example, examples }: Media): unknown[] {
  return [...example === undefined ? [] : [example], ...Object.values(examples ?? {}).map(({ value }) => value)]
}

/** Puts the device of the examples where a route can do something about it; gives the id of its certificate where it got one. */
async function prepare ({ app, iot }: TestService, state?: Before): Promise<string | undefined> {
  const { serialNumber, registrationToken, certificateSigningRequest } = EXAMPLE
  const authorization = `Bearer ${keys['operator']}`
  if (state === 'nothing') return undefined
  if (state === 'authority') {
    const payload = { caCertificatePem: EXAMPLE.caCertificatePem, mode: 'SNI_ONLY' }
    await app.service.inject({ method: 'POST', url: '/v1/authorities', headers: { authorization }, payload })
    return undefined
  }
  const tokenHash = app.hashToken(serialNumber, registrationToken)
  await app.registry.register({ serialNumber, product: DEFAULT_PRODUCT, tokenHash, tokenExpiresAt: undefined }, { now: Date.now(), requestId: 'test' })
  if (state === 'registered') return undefined
  const payload = { serialNumber, registrationToken, certificateSigningRequest }
  if (state === 'shadow') await app.service.inject({ method: 'PUT', url: `/v1/devices/${serialNumber}/shadow`, headers: { authorization }, payload: { desired: {} } })
  const { certificateId } = (await app.service.inject({ method: 'POST', url: '/v1/certificates', payload })).json()
  if (state === 'drifted') {
    await iot.send(new UpdateCertificateCommand({ certificateId, newStatus: 'INACTIVE' }))
    const sweep = () => app.service.inject({ method: 'POST', url: '/v1/reconcile', headers: { authorization }, payload: { sweep: true } })
    t.ok(await until(async () => (await sweep()).json().drift === 1))
  }
  return certificateId
}

interface How {
  type?: string | undefined
  body?: unknown
  accept?: string
  serialNumber?: string
  certificateId?: string | undefined
  key?: string | undefined
}

/** Calls a route as the document says, with the parts of the path filled in. */
function send ({ app }: TestService, { operationId, method, path, security }: Route, how: How): Promise<Answer> {
  const { type = 'application/json', body, accept, serialNumber = EXAMPLE.serialNumber, certificateId = '' } = how
  const url = path.replace('{serialNumber}', serialNumber).replace('{certificateId}', certificateId)
    .replace('{caCertificateId}', EXAMPLE.caCertificateId) + (type === PEM ? `?serialNumber=${serialNumber}` : '')
  const headers = {
    ...accept && { accept },
    ...body !== undefined && { 'content-type': type },
    ...security.length > 0 && { authorization: `Bearer ${how.key ?? keys[operationId === 'vendBatch' ? 'line' : 'operator']}` }
  }
  return app.service.inject({ method, url, headers, ...body !== undefined && { payload: typeof body === 'string' ? body : JSON.stringify(body) } })
}

function isDocumented (t: Test, { operationId, responses }: Route, answer: Answer, type = 'application/problem+json'): void {
  const media = responses[answer.statusCode]?.content[type]
  t.ok(media, `${operationId}: ${answer.statusCode} in ${type} is documented`)
  t.equal(String(answer.headers['content-type']).split(';')[0], type)
  if (media) fits(t, media, /[/+]json$/.test(type) ? answer.json() : answer.body, `${operationId}: the answer`)
}

function fits (t: Test, { schema }: Media, value: unknown, what: string): void {
  const [ok, errors] = Compile({ ...schema, components: document.components } as object).Errors(value)
  t.ok(ok, `${what} fits the schema`, { errors, value })
}

function codesOf ({ content }: Route['responses'][string]): string[] {
  const { schema } = content['application/problem+json'] ?? {}
  const { allOf = [] } = (schema ?? {}) as { allOf?: { properties?: { code: { enum: string[] } } }[] }
  return allOf.flatMap(({ properties }) => properties?.code.enum ?? [])
}
