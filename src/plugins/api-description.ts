import type { SwaggerTransform, SwaggerTransformObject } from '@fastify/swagger'
import { ERRORS, type ErrorCode } from '../errors.ts'
import { type Schema, exampleOf } from './schema-example.ts'

declare module 'fastify' {
  interface FastifyContextConfig {
    /** The failures of this route, beside those that any one may have; for the description alone. */
    errors?: readonly ErrorCode[]
    /** What the route takes or answers in other media types than JSON: an example of each; for the description alone. */
    otherBodies?: Readonly<Record<string, unknown>>
    otherAnswers?: Readonly<Record<string, unknown>>
  }
}

const CREDENTIAL = 'credential'

/** What is said of the API as a whole. */
export const API = {
  openapi: '3.1.0',
  info: {
    title: 'Certificate Vending Machine',
    version: '',
    description: 'Gives every device its AWS IoT certificate: exactly once, one active, whatever crashes, repeats or races.\n\n' +
      'Unknown members and wrong types are refused, nothing is coerced. Every error is `application/problem+json` (RFC 9457) with a stable `code` ' +
      'for programs and a `remedy` for people. What says `Retry-After` may be sent again as it was. Errors have the headers `x-request-id` and ' +
      '`x-ratelimit-…` as well. Addresses that are not here are answered 404 `not-found`, other methods 405 `method-not-allowed`.\n\n' +
      'This document: [/openapi.json](/openapi.json).',
    license: { name: 'Apache-2.0', identifier: 'Apache-2.0' }
  },
  tags: [
    { name: 'vending', description: 'For devices: their proof is the registration token in the body.' },
    { name: 'jitr', description: 'For AWS IoT: just-in-time registration.' },
    { name: 'devices', description: 'For operators, lines and auditors: the registry of devices.' },
    { name: 'authorities', description: 'For operators and auditors: the CAs whose certificates are taken.' },
    { name: 'reconcile', description: 'For operators: finish and compare.' }
  ],
  components: {
    securitySchemes: {
      [CREDENTIAL]: {
        type: 'http' as const,
        scheme: 'bearer',
        description: 'An API key (`cvm_…`), or an access token of the identity provider where there is one (OIDC); with a role that the route allows.'
      }
    }
  }
}

/** Every error answer, under the name by which each route refers to it. */
export const problemSchema = {
  $id: 'Problem',
  title: 'Problem',
  description: 'An error (RFC 9457). `code`, `reason` and `errors[].pointer` are for programs, the rest for people.',
  type: 'object',
  required: ['type', 'title', 'status', 'detail', 'code', 'remedy'],
  properties: {
    type: { type: 'string', description: '`urn:cvm:problem:` and the code.' },
    title: { type: 'string', description: 'What the code means.' },
    status: { type: 'integer' },
    detail: { type: 'string', description: 'What exactly was wrong.' },
    code: { type: 'string', enum: Object.keys(ERRORS), description: 'The stable name of the failure.' },
    reason: { type: 'string', description: 'The stable name of the rule that was broken, where a code has several.' },
    remedy: { type: 'string', description: 'What to do about it.' },
    requestId: { type: 'string', description: 'As in `x-request-id`.' },
    errors: {
      type: 'array',
      description: 'Each fault of the request.',
      items: {
        type: 'object',
        required: ['pointer', 'detail'],
        properties: { pointer: { type: 'string', description: 'JSON pointer (RFC 6901) to the member.' }, detail: { type: 'string' } }
      }
    }
  }
}

const ANY: readonly ErrorCode[] = [
  'invalid-request', 'request-timeout', 'uri-too-long', 'expectation-failed', 'rate-limited', 'headers-too-large', 'internal-error', 'overloaded', 'deadline-exceeded'
]
const WITH_BODY: readonly ErrorCode[] = ['malformed-json', 'body-too-large', 'unsupported-media-type']
const FOR_PEOPLE: readonly ErrorCode[] = ['unauthenticated', 'forbidden', 'identity-provider-unavailable']

/**
 * Completes what a route says of itself with examples, other media types, who may call it, and its error answers. The last are not in the
 * route's own schema, because Fastify would serialise by it and drop members.
 */
export const describeRoute: SwaggerTransform = ({ schema: said, url, route }) => {
  const schema = (said ?? {}) as Schema
  if (schema['hide']) return { schema: said, url }
  const { access, errors = [], otherBodies, otherAnswers, lines } = route.config ?? {}
  const roles = Array.isArray(access) ? access as string[] : []
  const body = bodyOf(schema)
  const codes = [...ANY, ...body ? WITH_BODY : [], ...roles.length > 0 ? FOR_PEOPLE : [], ...errors]
  const answers = Object.entries((schema['response'] ?? {}) as Record<string, Schema>)
  const described = {
    ...schema,
    description: [schema['description'], roles.length > 0 && `For the ${roles.length > 1 ? 'roles' : 'role'} ${roles.join(', ')}.`].filter(Boolean).join('\n\n'),
    security: roles.length > 0 ? [{ [CREDENTIAL]: [] }] : [],
    ...body && { body: { content: inSchemas(contentOf(body, otherBodies)) } },
    response: {
      ...Object.fromEntries(answers.map(([status, answer]) => [status, { description: answer['description'], content: contentOf(answer, lines && status !== '200' ? {} : otherAnswers) }])),
      ...problemsOf(codes)
    }
  }
  return { schema: described, url }
}

/** The JSON body, also where Fastify is told to check no other media type by it. */
function bodyOf ({ body }: Schema): Schema | undefined {
  const { content } = (body ?? {}) as { content?: Record<string, { schema: Schema }> }
  return content?.['application/json']?.schema ?? body as Schema | undefined
}

interface Media { schema: Schema, example: unknown }

function contentOf (schema: Schema, others: Readonly<Record<string, unknown>> = {}): Record<string, Media> {
  const { description, examples, ...json } = schema
  return {
    'application/json': { schema: json, example: exampleOf(schema) },
    ...Object.fromEntries(Object.entries(others).map(([type, example]) => [type, { schema: { type: 'string' }, example }]))
  }
}

/** For request bodies the plugin looks for examples in their schemas, and puts them where OpenAPI has them. */
function inSchemas (content: Record<string, Media>): Schema {
  const types = Object.entries(content).map(([type, { schema, example }]) => [type, { schema: { ...schema, examples: [example] } }])
  return Object.fromEntries(types)
}

/** The error answers of a route by status, each with the codes that it may have there. */
function problemsOf (codes: readonly ErrorCode[]): Schema {
  const statuses = [...new Set(codes.map(code => ERRORS[code].status))].sort()
  return Object.fromEntries(statuses.map(status => {
    const here = codes.filter(code => ERRORS[code].status === status)
    const description = here.map(code => `- \`${code}\`: ${ERRORS[code].title}. ${ERRORS[code].remedy}`).join('\n')
    const schema = { allOf: [{ $ref: 'Problem#' }, { type: 'object', properties: { status: { const: status }, code: { enum: here } } }] }
    const examples = Object.fromEntries(here.map(code => [code, { summary: ERRORS[code].title, value: problemExample(code) }]))
    return [status, { description, content: { 'application/problem+json': { schema, examples } } }]
  }))
}

function problemExample (code: ErrorCode): Schema {
  const { status, title, remedy } = ERRORS[code]
  return { type: `urn:cvm:problem:${code}`, title, status, detail: title, code, remedy, requestId: '0b9f8f4e-6f3b-4f0e-9a55-2f8f4f1f9c11' }
}

/** The part of the finished document that is looked at here. */
interface ApiDocument {
  paths: Record<string, Record<string, { responses: Record<string, { headers?: Schema }> }>>
  components: { headers?: Schema }
}

const integer = (description: string) => ({ description, schema: { type: 'integer' } })
const text = (description: string) => ({ description, schema: { type: 'string' } })

const HEADERS = {
  'x-request-id': text('Names the request in our logs and in the device\'s history: yours, where you send one of 8 to 64 letters, digits, `.`, `_`, `:`, `-`.'),
  'x-ratelimit-limit': integer('Requests that your address may make in a window.'),
  'x-ratelimit-remaining': integer('Requests left in this window.'),
  'x-ratelimit-reset': integer('Seconds until the next window.'),
  'retry-after': integer('Seconds after which to try again.'),
  'www-authenticate': text('How to authenticate.')
}

/** The headers of answers, by reference. Those of errors only where they are special, because people read this too. */
export const completeAnswers: SwaggerTransformObject = given => {
  const document = (given as unknown as { openapiObject: ApiDocument }).openapiObject
  document.components.headers = HEADERS
  for (const operation of Object.values(document.paths).flatMap(path => Object.values(path))) {
    for (const [status, response] of Object.entries(operation.responses)) {
      const names = Object.keys(HEADERS).filter(name => isSent(name, Number(status)))
      response.headers = { ...response.headers, ...Object.fromEntries(names.map(name => [name, { $ref: `#/components/headers/${name}` }])) }
    }
  }
  return document as ReturnType<SwaggerTransformObject>
}

function isSent (header: string, status: number): boolean {
  if (header === 'retry-after') return [409, 429, 503].includes(status)
  if (header === 'www-authenticate') return status === 401
  return status < 300
}
