import type { TypeBoxTypeProvider } from '@fastify/type-provider-typebox'
import type { FastifyInstance } from 'fastify'
import { type Static, Type } from 'typebox'
import { CvmError } from '../errors.ts'
import { EXAMPLE } from '../schemas/example.ts'
import { AWS_IOT_FAILURES, REGISTRY_FAILURES, itemFailure } from '../schemas/failures.ts'
import { NDJSON, certificateArn, certificateId, notAfter, serialNumber, thingName, time } from '../schemas/members.ts'
import { factsOf } from '../schemas/vended.ts'
import type { Adopted } from '../vending/adopt.ts'
import { FOREIGN_REFUSALS } from '../vending/foreign-certificate.ts'
import { CERTIFICATE_REFUSALS, CHAIN_REFUSALS } from '../x509/refusals.ts'

const certificatePem = Type.String({
  minLength: 1,
  maxLength: 65_536,
  description: 'The certificate of the device; after it, where there are any, the CA certificates between it and the authority.',
  examples: [EXAMPLE.foreignCertificatePem]
})

const Item = Type.Object({ serialNumber, certificatePem }, { additionalProperties: false })
const Items = Type.Array(Type.Unknown(), { minItems: 1, maxItems: 1000, description: 'Certificates as the one; each is judged by itself.' })
const EXAMPLE_ITEM: Static<typeof Item> = { serialNumber: EXAMPLE.serialNumber, certificatePem: EXAMPLE.foreignCertificatePem }

const ofAuthority = {
  caCertificateId: Type.Optional(Type.String({ description: 'The authority; absent for one that the device signed itself.', examples: [EXAMPLE.caCertificateId] })),
  certificateMode: Type.Optional(Type.Literal('SNI_ONLY', { description: 'The device must name the endpoint in its TLS handshake (SNI). Absent where it need not.' }))
}

const Answer = Type.Object({
  serialNumber,
  thingName,
  certificateId,
  certificateArn,
  certificatePem: Type.String({ description: 'The certificate, without what was sent along.', examples: [EXAMPLE.certificatePem] }),
  ...ofAuthority,
  rootCaPem: Type.String({ description: 'What the device is to trust in AWS IoT.', examples: [EXAMPLE.rootCaPem] }),
  endpoint: Type.String({ description: 'Where the device is to connect.', examples: [EXAMPLE.endpoint] }),
  notAfter,
  renewAfter: time('When the device is to renew its certificate.', '2027-11-20T08:00:00.000Z')
})

const Result = Type.Object({
  line: Type.Integer({ description: 'Which item it is about, from 1.' }),
  serialNumber: Type.Optional(serialNumber),
  status: Type.Enum(['registered', 'unchanged', 'refused', 'failed'], { description: '`failed`: send this item again.' }),
  certificateId: Type.Optional(certificateId),
  thingName: Type.Optional(thingName),
  ...itemFailure
})

const Results = Type.Object({
  results: Type.Array(Result, { description: 'In the order of the request.' }),
  registered: Type.Integer(),
  unchanged: Type.Integer({ description: 'Were the device\'s before.' }),
  refused: Type.Integer(),
  failed: Type.Integer()
}, { additionalProperties: false })

const EXAMPLE_RESULT: Static<typeof Result> = {
  line: 1, serialNumber: EXAMPLE.serialNumber, status: 'registered', certificateId: EXAMPLE.certificateId, thingName: EXAMPLE.serialNumber
}
const COUNTS = { registered: 1, unchanged: 0, refused: 0, failed: 0 }
const EXAMPLE_LINES = [EXAMPLE_RESULT, { summary: true, lines: 1, ...COUNTS }].map(line => `${JSON.stringify(line)}\n`).join('')
const PEM_CHAIN = 'application/pem-certificate-chain'
const reasons = (of: object) => Object.keys(of).map(reason => `\`${reason}\``).join(', ')

const REGISTER = {
  operationId: 'registerCertificate',
  tags: ['vending'],
  summary: 'Register a certificate that was made elsewhere',
  description: 'For a registered device that has or is being given none: verified by signatures up to a registered authority, or signed by its own key where the ' +
    'product allows that; then registered with AWS IoT, bound, and made the one that is ACTIVE. The same again changes nothing. One object; an array of 1 to ' +
    `1,000; a line each (\`${NDJSON}\`); or the PEM text itself (\`${PEM_CHAIN}\`), with \`serialNumber\` in the query.\n\n` +
    `Refused with \`certificate-rejected\` and one of these as \`reason\`: ${reasons(CERTIFICATE_REFUSALS)}; or with \`certificate-not-trusted\` and one of ` +
    `these: \`authority-unknown\`, ${reasons(CHAIN_REFUSALS)}. By the product, with either: ${reasons(FOREIGN_REFUSALS)}.`,
  querystring: Type.Object({ serialNumber: Type.Optional(serialNumber) }, { additionalProperties: false }),
  body: { content: { 'application/json': { schema: Type.Union([Item, Items], { examples: [EXAMPLE_ITEM] }) } } },
  response: {
    200: Type.Union([Answer, Results], { description: 'It was the device\'s before, or what became of each.', examples: [{ results: [EXAMPLE_RESULT], ...COUNTS }] }),
    201: Type.Object(Answer.properties, { description: 'It is the device\'s, ACTIVE, bound to thing and policy.' })
  }
}

/** Room for an array of the most items with a chain each. */
const BODY_LIMIT = 8_388_608

interface Registrar { requestId: string, actor: string, role: string, isOneOfMany: boolean }

interface RegisterCertificateRoutesOptions {
  registerCertificate: (request: Static<typeof Item> & Registrar) => Promise<Adopted>
  connection: () => Promise<{ endpoint: string, rootCaPem: string }>
  renewAfter: (adopted: Adopted) => number
}

/** Certificates that were made elsewhere: one, an array, lines, or a PEM text. */
export async function registerCertificateRoutes (base: FastifyInstance, options: RegisterCertificateRoutesOptions): Promise<void> {
  const app = base.withTypeProvider<TypeBoxTypeProvider>()
  app.addContentTypeParser(PEM_CHAIN, { parseAs: 'string' }, async (_request: unknown, body: string | Buffer) => String(body))

  app.post('/v1/certificates/register', {
    config: {
      access: ['operator', 'line'],
      lines: true,
      errors: [
        'certificate-rejected', 'certificate-not-trusted', 'certificate-revoked', 'certificate-in-use', 'key-in-use', 'key-compromised', 'authority-not-active', 'authority-not-for-product',
        'crl-unavailable', 'device-not-found', 'device-disabled', 'device-revoked', 'device-decommissioned', 'already-vended', 'vend-in-progress',
        'thing-name-too-long', 'product-not-configured', ...AWS_IOT_FAILURES, ...REGISTRY_FAILURES
      ],
      otherBodies: { [NDJSON]: `${JSON.stringify(EXAMPLE_ITEM)}\n`, [PEM_CHAIN]: EXAMPLE.foreignCertificatePem },
      otherAnswers: { [NDJSON]: EXAMPLE_LINES }
    },
    bodyLimit: BODY_LIMIT,
    schema: REGISTER
  }, async ({ id: requestId, body, query, caller }, reply) => {
    const registrar = { requestId, actor: caller?.name ?? '', role: caller?.role ?? '' }
    const one = oneOf(body, query.serialNumber)
    const work = (item: Static<typeof Item>) => registered(item, registrar)
    if (!one) return reply.answerItems(body, { schema: Item, statuses: ['registered', 'unchanged'], work }) as never
    const connection = await options.connection()
    const adopted = await options.registerCertificate({ ...one, ...registrar, isOneOfMany: false })
    reply.code(adopted.outcome === 'replayed' ? 200 : 201).header('cache-control', 'no-store')
    return { serialNumber: one.serialNumber, ...factsOf(adopted, options.renewAfter), ...aboutAuthority(adopted), ...connection }
  })

  async function registered (item: Static<typeof Item>, registrar: Omit<Registrar, 'isOneOfMany'>) {
    const { outcome, certificate } = await options.registerCertificate({ ...item, ...registrar, isOneOfMany: true })
    const { certificateId, thingName } = certificate
    return { status: outcome === 'replayed' ? 'unchanged' : 'registered', certificateId, thingName }
  }
}

/** The one that the request is about; undefined for many. */
function oneOf (body: unknown, serialNumber: string | undefined): Static<typeof Item> | undefined {
  if (typeof body === 'string') {
    if (serialNumber === undefined) throw new CvmError('invalid-request', { detail: 'serialNumber is missing in the query' })
    return { serialNumber, certificatePem: body }
  }
  if (serialNumber !== undefined) throw new CvmError('invalid-request', { detail: `serialNumber is for the query only beside a body of ${PEM_CHAIN}` })
  return typeof body === 'object' && body !== null && !Array.isArray(body) && !(Symbol.asyncIterator in body) ? body as Static<typeof Item> : undefined
}

function aboutAuthority ({ certificate: { caCertificateId, certificateMode } }: Adopted) {
  return { ...caCertificateId !== undefined && { caCertificateId }, ...certificateMode && { certificateMode } }
}
