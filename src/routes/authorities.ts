import type { TypeBoxTypeProvider } from '@fastify/type-provider-typebox'
import type { FastifyInstance } from 'fastify'
import { type Static, Type } from 'typebox'
import { CvmError } from '../errors.ts'
import { AuthorityAnswer, CertificateOfAuthority, ChangeBody, ListedAuthority, NewAuthorityBody, caCertificateId } from '../schemas/authority.ts'
import { AWS_IOT_FAILURES, REGISTRY_FAILURES } from '../schemas/failures.ts'
import type { Authority } from '../vending/authority.ts'
import type { AwsPage, CertificateOfAuthority as OfAuthority, PageRequest } from '../vending/authority-registry.ts'
import type { AuthorityChange } from '../vending/change-authority.ts'
import type { NewAuthority } from '../vending/register-authority.ts'
import { readCertificates } from '../x509/strict-certificate.ts'

const Params = Type.Object({ caCertificateId })

const DEFAULT_LIMIT = 25

const cursor = Type.Optional(Type.String({ pattern: '^[A-Za-z0-9_-]{1,1400}$', description: '`nextCursor` of the page before.' }))
const nextCursor = Type.Optional(Type.String({ description: 'For the next page; absent on the last one.', examples: ['MDAwMDAwMDAwMDAx'] }))
const limitOf = (pattern: string, most: number) => Type.Optional(Type.String({ pattern, description: `Most in the page, 1 to ${most}; ${DEFAULT_LIMIT} where it is left out.` }))

const CODE = {
  operationId: 'getRegistrationCode',
  tags: ['authorities'],
  summary: 'Get the registration code of the account',
  description: 'What the common name of a verification certificate must be. Made at the first call, then the same in this account and Region.',
  response: { 200: Type.Object({ registrationCode: Type.String({ examples: ['0'.repeat(64)] }) }, { description: 'The code.' }) }
}

const REGISTER = {
  operationId: 'registerAuthority',
  tags: ['authorities'],
  summary: 'Register a CA',
  description: 'Who may do this decides whose certificates the account trusts. The same again changes nothing.',
  body: NewAuthorityBody,
  response: {
    200: Type.Object(AuthorityAnswer.properties, { description: 'It was registered exactly so before.' }),
    201: Type.Object(AuthorityAnswer.properties, { description: 'The authority.' })
  }
}

const LIST = {
  operationId: 'listAuthorities',
  tags: ['authorities'],
  summary: 'List authorities',
  querystring: Type.Object({ limit: limitOf('^([1-9]|[1-4]\\d|50)$', 50), cursor }, { additionalProperties: false }),
  response: { 200: Type.Object({ authorities: Type.Array(ListedAuthority, { description: 'Newest first.' }), nextCursor }, { description: 'A page of authorities.' }) }
}

const SHOW = {
  operationId: 'getAuthority',
  tags: ['authorities'],
  summary: 'Show an authority',
  params: Params,
  response: { 200: Type.Object(AuthorityAnswer.properties, { description: 'The authority.' }) }
}

const CHANGE = {
  operationId: 'changeAuthority',
  tags: ['authorities'],
  summary: 'Change an authority',
  description: 'Activate or deactivate it, turn its auto-registration on or off, change its settings. Settings are written before AWS IoT is changed. ' +
    'Other replicas notice within 5 s.',
  params: Params,
  headers: Type.Object({
    'if-match': Type.Optional(Type.String({
      pattern: '^(\\*|"(0|[1-9]\\d{0,14})")$',
      description: 'The `ETag` of the authority as it was seen: refused with `precondition-failed` when its settings have changed since. `*` stands for any.',
      examples: ['*']
    }))
  }),
  body: ChangeBody,
  response: { 200: Type.Object(AuthorityAnswer.properties, { description: 'The authority as it is now.' }) }
}

const CERTIFICATES = {
  operationId: 'listCertificatesOfAuthority',
  tags: ['authorities'],
  summary: 'List the certificates of an authority',
  description: 'Those that AWS IoT registered as its own; not those below an intermediate, which AWS IoT keeps without a CA.',
  params: Params,
  querystring: Type.Object({ limit: limitOf('^([1-9]\\d?|1\\d\\d|2[0-4]\\d|250)$', 250), cursor }, { additionalProperties: false }),
  response: { 200: Type.Object({ certificates: Type.Array(CertificateOfAuthority, { description: 'The last that was registered first.' }), nextCursor }, { description: 'A page of certificates.' }) }
}

const DELETE = {
  operationId: 'deleteAuthority',
  tags: ['authorities'],
  summary: 'Delete an authority',
  description: 'An INACTIVE one that has only certificates that are REVOKED, or none. Its settings go with it.',
  params: Params,
  querystring: Type.Object({
    force: Type.Optional(Type.Enum(['true', 'false'], { description: 'Also one that has other certificates: they go on working, and nobody can list them by it any more.' }))
  }, { additionalProperties: false }),
  response: { 200: Type.Object({ caCertificateId }, { description: 'It is deleted.' }) }
}

/** Room for three PEM texts, as long as they can be. */
const BODY_LIMIT = 262_144

interface Author { requestId: string, actor: string, role: string }

interface AuthorityRoutesOptions {
  registrationCode: () => Promise<string>
  list: (page: PageRequest) => Promise<AwsPage<Authority>>
  show: (caCertificateId: string) => Promise<Authority>
  certificatesOf: (caCertificateId: string, page: PageRequest) => Promise<AwsPage<OfAuthority>>
  register: (wish: NewAuthority, by: Author) => Promise<{ outcome: 'registered' | 'unchanged', authority: Authority }>
  change: (caCertificateId: string, change: AuthorityChange, by: Author, revision?: number) => Promise<Authority>
  remove: (caCertificateId: string, force: boolean, by: Author) => Promise<void>
}

/** The CAs whose certificates are taken. */
export async function authorityRoutes (base: FastifyInstance, authorities: AuthorityRoutesOptions): Promise<void> {
  const app = base.withTypeProvider<TypeBoxTypeProvider>()
  const [url, one] = ['/v1/authorities', '/v1/authorities/:caCertificateId']
  const toLook = ['operator', 'auditor'] as const
  const failures = [...AWS_IOT_FAILURES, ...REGISTRY_FAILURES]
  app.addHook('onSend', async (_request, reply) => { reply.header('cache-control', 'no-store') })

  app.get('/v1/authorities/registration-code', { config: { access: ['operator'], errors: AWS_IOT_FAILURES }, schema: CODE },
    async () => ({ registrationCode: await authorities.registrationCode() }))

  app.post(url, {
    config: { access: ['operator'], errors: ['authority-rejected', 'unknown-product', 'authority-exists', 'authority-limit-exceeded', 'precondition-failed', ...failures] },
    bodyLimit: BODY_LIMIT,
    schema: REGISTER
  }, async ({ body, caller, id }, reply) => {
    const { mode = 'DEFAULT', status = 'INACTIVE', autoRegistration = false } = body
    const { outcome, authority } = await authorities.register({ ...body, mode, status, autoRegistration }, by(caller, id))
    reply.code(outcome === 'registered' ? 201 : 200).header('etag', `"${authority.revision}"`)
    return answerOf(authority)
  })

  app.get(url, { config: { access: toLook, errors: failures }, schema: LIST }, async ({ query }) => {
    const { items, ...next } = await authorities.list(pageOf(query))
    return { authorities: items.map(listedOf), ...next }
  })

  app.get(one, { config: { access: toLook, errors: ['authority-not-found', ...failures] }, schema: SHOW }, async ({ params }, reply) => {
    const authority = await authorities.show(params.caCertificateId)
    reply.header('etag', `"${authority.revision}"`)
    return answerOf(authority)
  })

  app.patch(one, {
    config: { access: ['operator'], errors: ['authority-not-found', 'authority-rejected', 'unknown-product', 'precondition-failed', ...failures] },
    bodyLimit: BODY_LIMIT,
    schema: CHANGE
  }, async ({ params, headers: { 'if-match': tag = '*' }, body, caller, id }, reply) => {
    const revision = tag === '*' ? undefined : Number(tag.slice(1, -1))
    const authority = await authorities.change(params.caCertificateId, changeOf(body), by(caller, id), revision)
    reply.header('etag', `"${authority.revision}"`)
    return answerOf(authority)
  })

  app.get(`${one}/certificates`, {
    config: { access: toLook, errors: ['authority-not-found', ...AWS_IOT_FAILURES] }, schema: CERTIFICATES
  }, async ({ params, query }) => {
    const { items, ...next } = await authorities.certificatesOf(params.caCertificateId, pageOf(query))
    return { certificates: items.map(({ createdAt, ...certificate }) => ({ ...certificate, registeredAt: iso(createdAt) })), ...next }
  })

  app.delete(one, {
    config: { access: ['operator'], errors: ['authority-not-found', 'authority-active', 'authority-in-use', ...failures] }, schema: DELETE
  }, async ({ params, query, caller, id }) => {
    await authorities.remove(params.caCertificateId, query.force === 'true', by(caller, id))
    return params
  })
}

function by (caller: { name: string, role: string } | null, requestId: string): Author {
  return { requestId, actor: caller?.name ?? '', role: caller?.role ?? '' }
}

function pageOf ({ limit = String(DEFAULT_LIMIT), cursor }: { limit?: string, cursor?: string }): PageRequest {
  return { limit: Number(limit), ...cursor !== undefined && { cursor } }
}

/** Null is for what can be absent; within, that is undefined. */
function changeOf (body: Static<typeof ChangeBody>): AuthorityChange {
  return Object.fromEntries(Object.entries(body).map(([name, value]) => [name, value ?? undefined]))
}

function answerOf (authority: Authority): Static<typeof AuthorityAnswer> {
  const { caCertificatePem, intermediatesPem } = authority
  return { ...listedOf(authority), caCertificatePem, ...intermediatesPem !== undefined && { intermediatesPem } }
}

function listedOf (authority: Authority): Static<typeof ListedAuthority> {
  const { caCertificateId, caCertificateArn, mode, status, autoRegistration, createdAt, notBefore, notAfter } = authority
  const { crls, whenCrlUnavailable, products } = authority
  const subject = subjectOf(authority)
  return {
    caCertificateId,
    caCertificateArn,
    ...subject !== undefined && { subject },
    mode,
    status,
    autoRegistration,
    createdAt: iso(createdAt),
    notBefore: iso(notBefore),
    notAfter: iso(notAfter),
    crls: [...crls],
    whenCrlUnavailable,
    ...products && { products: [...products] }
  }
}

function subjectOf ({ caCertificatePem }: Authority): string | undefined {
  try {
    return readCertificates(caCertificatePem)[0]?.subject
  } catch (cause) {
    if (cause instanceof CvmError) return undefined
    throw cause
  }
}

function iso (at: number): string {
  return new Date(at).toISOString()
}
