import type { TypeBoxTypeProvider } from '@fastify/type-provider-typebox'
import type { FastifyInstance } from 'fastify'
import { type Static, Type } from 'typebox'
import { EXAMPLE } from '../schemas/example.ts'
import { REGISTRY_FAILURES, itemFailure } from '../schemas/failures.ts'
import { NDJSON, product, serialNumber, time } from '../schemas/members.ts'
import type { Registered, Registration } from '../vending/register.ts'

const Item = Type.Object({
  serialNumber,
  product: Type.Optional(Type.String({ minLength: 1, maxLength: 64, description: 'Its product; `default` where it is left out.' })),
  registrationToken: Type.Optional(Type.String({
    minLength: 1,
    maxLength: 256,
    description: 'Its one-time secret: 16 to 256 printable ASCII characters without spaces, at least 8 different ones; made with 256 random bits ' +
      'where it is left out.'
  })),
  tokenExpiresAt: Type.Optional(time('In the future; its token starts no vend from then on.', '2099-12-31T23:59:59.000Z'))
}, { additionalProperties: false })

/** Each item is checked by itself, so that one that is wrong does not keep the others from being registered. */
const Items = Type.Array(Type.Unknown(), { minItems: 1, maxItems: 1000, description: 'Devices as the one; each is judged by itself.' })

const EXAMPLE_ITEM: Static<typeof Item> = { serialNumber: EXAMPLE.serialNumber, product: EXAMPLE.product, tokenExpiresAt: '2099-12-31T23:59:59.000Z' }

const registrationToken = Type.Optional(Type.String({ description: 'Only where it was made here, and only in this answer.' }))

const Answer = Type.Object({
  serialNumber,
  product,
  state: Type.Literal('REGISTERED'),
  tokenExpiresAt: Type.Optional(time('When its token ends.')),
  registrationToken
}, { additionalProperties: false })

const Result = Type.Object({
  line: Type.Integer({ description: 'Which item it is about, from 1.' }),
  serialNumber: Type.Optional(serialNumber),
  status: Type.Enum(['registered', 'unchanged', 'refused', 'failed'], { description: '`failed`: send this item again.' }),
  product: Type.Optional(product),
  registrationToken,
  ...itemFailure
})

const Results = Type.Object({
  results: Type.Array(Result, { description: 'In the order of the request.' }),
  registered: Type.Integer(),
  unchanged: Type.Integer({ description: 'Were registered exactly so before.' }),
  refused: Type.Integer(),
  failed: Type.Integer()
}, { additionalProperties: false })

const { serialNumber: example, registrationToken: token } = EXAMPLE
const EXAMPLE_RESULT: Static<typeof Result> = { line: 1, serialNumber: example, status: 'registered', product: EXAMPLE.product, registrationToken: token }
const COUNTS = { registered: 1, unchanged: 0, refused: 0, failed: 0 }
const EXAMPLE_LINES = [EXAMPLE_RESULT, { summary: true, lines: 1, ...COUNTS }].map(line => `${JSON.stringify(line)}\n`).join('')

const REGISTER = {
  operationId: 'registerDevices',
  tags: ['devices'],
  summary: 'Register a device, or many',
  description: 'One object; an array of 1 to 1,000; or a line each (`application/x-ndjson`), answered with a line each as soon as it is done, in no ' +
    'certain order, and a line with `summary` last. An `error` line before it says what ended the answer early, and its `line` where to go on. ' +
    'The same again, with the token given, changes nothing.',
  body: { content: { 'application/json': { schema: Type.Union([Item, Items], { examples: [EXAMPLE_ITEM] }) } } },
  response: {
    200: Type.Union([Answer, Results], { description: 'The device stood there exactly so, or what became of each.', examples: [{ results: [EXAMPLE_RESULT], ...COUNTS }] }),
    201: Type.Object(Answer.properties, {
      description: 'The device.', examples: [{ ...EXAMPLE_ITEM, state: 'REGISTERED', registrationToken: token }]
    })
  }
}

/** Room for an array of the most items, as long as they can be. */
const BODY_LIMIT = 1_048_576

interface RegistrationRoutesOptions {
  register: (registration: Registration, registrar: { requestId: string, actor: string, role: string }) => Promise<Registered>
}

/** Registers devices: one, an array, or lines. */
export async function registrationRoutes (base: FastifyInstance, { register }: RegistrationRoutesOptions): Promise<void> {
  const app = base.withTypeProvider<TypeBoxTypeProvider>()

  app.post('/v1/devices', {
    config: {
      access: ['operator', 'line'],
      lines: true,
      errors: ['unknown-product', 'thing-name-too-long', 'weak-token', 'device-exists', ...REGISTRY_FAILURES],
      otherBodies: { [NDJSON]: `${JSON.stringify(EXAMPLE_ITEM)}\n` },
      otherAnswers: { [NDJSON]: EXAMPLE_LINES }
    },
    bodyLimit: BODY_LIMIT,
    schema: REGISTER
  }, async ({ id: requestId, body, caller }, reply) => {
    const registrar = { requestId, actor: caller?.name ?? '', role: caller?.role ?? '' }
    const work = async (item: Static<typeof Item>) => resultOf(await register(registrationOf(item), registrar))
    if (!isOne(body)) return reply.answerItems(body, { schema: Item, statuses: ['registered', 'unchanged'], work }) as never
    const registered = await register(registrationOf(body), registrar)
    reply.code(registered.outcome === 'registered' ? 201 : 200).header('cache-control', 'no-store')
    return answerOf(registered)
  })
}

/** Neither an array nor lines, which are no object that the schema has let through. */
function isOne (body: unknown): body is Static<typeof Item> {
  return typeof body === 'object' && body !== null && !Array.isArray(body) && !(Symbol.asyncIterator in body)
}

function registrationOf ({ tokenExpiresAt, ...item }: Static<typeof Item>): Registration {
  return { ...item, ...(tokenExpiresAt !== undefined && { tokenExpiresAt: Date.parse(tokenExpiresAt) }) }
}

function answerOf ({ device, registrationToken }: Registered): Static<typeof Answer> {
  const { serialNumber, product, tokenExpiresAt } = device
  return {
    serialNumber,
    product,
    state: 'REGISTERED',
    ...(tokenExpiresAt !== undefined && { tokenExpiresAt: new Date(tokenExpiresAt).toISOString() }),
    ...(registrationToken !== undefined && { registrationToken })
  }
}

function resultOf ({ outcome, device, registrationToken }: Registered) {
  return { status: outcome, product: device.product, ...(registrationToken !== undefined && { registrationToken }) }
}
