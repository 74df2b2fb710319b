import { createHash, timingSafeEqual } from 'node:crypto'
import type { TypeBoxTypeProvider } from '@fastify/type-provider-typebox'
import type { FastifyInstance, FastifyRequest } from 'fastify'
import { type Static, type TString, Type } from 'typebox'
import { CvmError } from '../errors.ts'
import { EXAMPLE } from '../schemas/example.ts'
import { AWS_IOT_FAILURES, REGISTRY_FAILURES } from '../schemas/failures.ts'
import { caCertificateId } from '../schemas/authority.ts'
import { certificateId } from '../schemas/members.ts'
import type { Activated } from '../vending/activated.ts'

const URL = '/v1/jitr/events'
const orNull = (schema: TString) => Type.Optional(Type.Union([schema, Type.Null()]))

/** What AWS IoT publishes; it was seen to send null in places, and may come to send more. */
const Event = Type.Object({
  certificateId: Type.String({ pattern: '^[0-9a-f]{64}$', description: 'The certificate that was registered.', examples: [EXAMPLE.certificateId] }),
  caCertificateId: orNull(caCertificateId),
  awsAccountId: orNull(Type.String({ description: 'The account; must be that of the service.', examples: ['123456789012'] }))
}, { description: 'A certificate that AWS IoT has registered at a connection. Other members are let be.' })

const Confirmation = Type.Object({
  messageType: Type.Literal('DestinationConfirmation'),
  arn: Type.String({ maxLength: 2_048, description: 'The destination; must be of the account and Region of the service.' }),
  confirmationToken: Type.String({ minLength: 1, maxLength: 2_048, pattern: '^[A-Za-z0-9_=+/.-]+$' })
}, { description: 'The challenge of a rule\'s HTTP destination.' })

const Answer = Type.Object({
  outcome: Type.Enum(['activated', 'refused', 'ignored', 'later', 'confirmed'], {
    description: '`refused`: it is INACTIVE or REVOKED now. `ignored`: somebody has judged it already. `later`: reconcile comes back to it.'
  }),
  certificateId: Type.Optional(certificateId),
  reason: Type.Optional(Type.String({ description: 'Why it was refused, ignored or put off.' }))
})

const EVENTS = {
  operationId: 'receiveJitrEvent',
  tags: ['jitr'],
  summary: 'Take an event of AWS IoT\'s just-in-time registration',
  description: 'For the HTTP action of an AWS IoT rule, with the header `X-Jitr-Secret`; and for the challenge of its destination, which comes without, and is ' +
    'answered with its token to AWS IoT alone. Answered within 2 s; the same event again does no harm.',
  body: Type.Union([Event, Confirmation], { examples: [{ certificateId: EXAMPLE.certificateId, caCertificateId: EXAMPLE.caCertificateId, awsAccountId: '123456789012' }] }),
  response: {
    200: Type.Object(Answer.properties, { description: 'What became of it.', examples: [{ outcome: 'activated', certificateId: EXAMPLE.certificateId }] }),
    202: Type.Object(Answer.properties, { description: 'It is written down, and waits.', examples: [{ outcome: 'later', certificateId: EXAMPLE.certificateId, reason: 'crl-unavailable' }] })
  }
}

interface JitrRoutesOptions {
  secret: string
  accountId: string
  region: string
  activate: (request: { certificateId: string, caCertificateId?: string, requestId: string }, address: string) => Promise<Activated>
  confirmDestination: (destination: { arn: string, confirmationToken: string }, requestId: string, address: string) => Promise<void>
  onRefused: (request: FastifyRequest, failure: CvmError) => void
}

/** Events of just-in-time registration, from a rule of the account. */
export async function jitrRoutes (base: FastifyInstance, options: JitrRoutesOptions): Promise<void> {
  const app = base.withTypeProvider<TypeBoxTypeProvider>()
  const { accountId, activate, confirmDestination } = options
  const isAuthentic = secretChecker(options.secret)
  const destination = new RegExp(`^arn:aws[a-z-]*:iot:${options.region}:${accountId}:ruledestination/http/[0-9a-f-]{36}$`)
  const refuse = (request: FastifyRequest, failure: CvmError): never => {
    options.onRefused(request, failure)
    throw failure
  }
  const config = {
    access: 'aws-iot' as const,
    errors: ['event-not-authentic', 'other-account', 'confirmation-rejected', ...AWS_IOT_FAILURES, ...REGISTRY_FAILURES] as const,
    // A whole fleet's events come from few addresses; only strangers are counted.
    rateLimit: { allowList: (request: FastifyRequest) => isAuthentic(request.headers['x-jitr-secret']) }
  }

  // AWS IoT appends a slash and its query to the address that it challenges.
  for (const url of [URL, `${URL}/`]) {
    app.post(url, { config, schema: { ...EVENTS, hide: url !== URL } as typeof EVENTS }, async (request, reply) => {
      const answer = 'messageType' in request.body ? await confirmed(request, request.body) : await received(request, request.body)
      reply.code(answer.outcome === 'later' ? 202 : 200)
      return answer
    })
  }

  type Challenge = Static<typeof Confirmation>

  async function confirmed (request: FastifyRequest, { arn, confirmationToken }: Challenge): Promise<Static<typeof Answer>> {
    if (!destination.test(arn)) return refuse(request, new CvmError('other-account'))
    await confirmDestination({ arn, confirmationToken }, request.id, request.ip)
    return { outcome: 'confirmed' }
  }

  async function received (request: FastifyRequest, event: Static<typeof Event>): Promise<Static<typeof Answer>> {
    if (!isAuthentic(request.headers['x-jitr-secret'])) return refuse(request, new CvmError('event-not-authentic'))
    if (event.awsAccountId && event.awsAccountId !== accountId) return refuse(request, new CvmError('other-account'))
    return answerOf(await activate({ ...eventOf(event), requestId: request.id }, request.ip))
  }
}

function eventOf ({ certificateId, caCertificateId }: Static<typeof Event>) {
  return { certificateId, ...caCertificateId && { caCertificateId } }
}

function answerOf (activated: Activated): Static<typeof Answer> {
  const { outcome, certificateId } = activated
  switch (activated.outcome) {
    case 'activated': return { outcome, certificateId }
    case 'ignored': return { outcome, certificateId, reason: activated.status }
    default: return { outcome, certificateId, reason: activated.reason ?? activated.code }
  }
}

/** Compares hashes, which have one length, in constant time. */
function secretChecker (secret: string): (given: string | string[] | undefined) => boolean {
  const hash = (text: string) => createHash('sha256').update(text).digest()
  const expected = hash(secret)
  return given => typeof given === 'string' && timingSafeEqual(hash(given), expected)
}
