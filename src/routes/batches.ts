import type { TypeBoxTypeProvider } from '@fastify/type-provider-typebox'
import type { FastifyInstance } from 'fastify'
import { type Static, Type } from 'typebox'
import { EXAMPLE } from '../schemas/example.ts'
import { AWS_IOT_FAILURES, itemFailure } from '../schemas/failures.ts'
import { NDJSON, certificateArn, certificateId, certificatePem, notAfter, registrationToken, serialNumber, thingName, time } from '../schemas/members.ts'
import { factsOf } from '../schemas/vended.ts'
import type { Batch } from '../vending/vend-batch.ts'
import type { Vended } from '../vending/vend-steps.ts'

const Line = Type.Object({
  serialNumber,
  registrationToken,
  certificateSigningRequest: Type.Optional(Type.String({
    minLength: 1, maxLength: 8192, description: 'PKCS#10 in PEM, as for one device; AWS IoT makes the key pair where it is left out.'
  })),
  product: Type.Optional(Type.String({
    minLength: 1, maxLength: 64, description: 'Registers the device with its token where it is unknown and the product has `lineRegistration`.'
  }))
}, { additionalProperties: false })

const { serialNumber: serial, registrationToken: token, certificateSigningRequest } = EXAMPLE
const EXAMPLE_LINE: Static<typeof Line> = { serialNumber: serial, registrationToken: token, certificateSigningRequest }

/** Each line is checked by itself, so that one that is wrong does not keep the others from being vended. */
const Lines = Type.Array(Type.Unknown(), { minItems: 1, maxItems: 1000, description: 'A line each; each is judged by itself.', examples: [[EXAMPLE_LINE]] })

const Result = Type.Object({
  line: Type.Integer({ description: 'Which line it is about, from 1.' }),
  serialNumber: Type.Optional(serialNumber),
  status: Type.Enum(['vended', 'replayed', 'would-vend', 'would-replay', 'refused', 'failed'], { description: '`failed`: send this line again.' }),
  thingName: Type.Optional(thingName),
  certificateId: Type.Optional(certificateId),
  certificateArn: Type.Optional(certificateArn),
  certificatePem: Type.Optional(certificatePem),
  notAfter: Type.Optional(notAfter),
  renewAfter: Type.Optional(time('When the device is to renew its certificate.', '2027-11-20T08:00:00.000Z')),
  keyPair: Type.Optional(Type.Object({ publicKey: Type.String(), privateKey: Type.String({ description: 'In this answer and nowhere else.' }) })),
  ...itemFailure
})

const count = Type.Optional(Type.Integer())

const Results = Type.Object({
  results: Type.Array(Result, { description: 'In the order of the request.' }),
  vended: count,
  replayed: count,
  'would-vend': count,
  'would-replay': count,
  refused: Type.Integer(),
  failed: Type.Integer(),
  rootCaPem: Type.Optional(Type.String({ description: 'What the devices are to trust in AWS IoT.' })),
  endpoint: Type.Optional(Type.String({ description: 'Where the devices are to connect.' }))
}, { additionalProperties: false })

const EXAMPLE_RESULT: Static<typeof Result> = {
  line: 1,
  serialNumber: serial,
  status: 'vended',
  thingName: serial,
  certificateId: EXAMPLE.certificateId,
  certificateArn: EXAMPLE.certificateArn,
  certificatePem: EXAMPLE.certificatePem,
  notAfter: EXAMPLE.notAfter,
  renewAfter: '2027-11-20T08:00:00.000Z'
}
const SUM = { vended: 1, replayed: 0, refused: 0, failed: 0, rootCaPem: EXAMPLE.rootCaPem, endpoint: EXAMPLE.endpoint }
const EXAMPLE_LINES = [EXAMPLE_RESULT, { summary: true, lines: 1, ...SUM }].map(line => `${JSON.stringify(line)}\n`).join('')

const VEND_BATCH = {
  operationId: 'vendBatch',
  tags: ['vending'],
  summary: 'Get the certificates of many devices',
  description: 'Lines (`application/x-ndjson`), answered with a line each as soon as it is done, in no certain order, and a line with `summary` last; ' +
    'or an array of 1 to 1,000, of which what is not begun within 20 seconds has `failed`. An `error` line before the summary says what ended the ' +
    'answer early, and its `line` where to go on. The same again is free: what was vended is replayed.',
  querystring: Type.Object({
    dryRun: Type.Optional(Type.Enum(['true', 'false'], { description: '`true`: says of each line what would become of it, and writes nothing.' }))
  }, { additionalProperties: false }),
  body: { content: { 'application/json': { schema: Lines } } },
  response: {
    200: Type.Object(Results.properties, { description: 'What became of each line.', examples: [{ results: [EXAMPLE_RESULT], ...SUM }], additionalProperties: false })
  }
}

/** Room for an array of the most lines, with large CSRs. */
const BODY_LIMIT = 4_194_304

interface BatchRoutesOptions {
  open: (author: { requestId: string, actor: string, role: string, address: string }) => Batch
  connection: () => Promise<{ endpoint: string, rootCaPem: string }>
  renewAfter: (vended: Vended) => number
  /** Most lines of one batch that are worked on at once. */
  atOnce: number
  /** Told what became of each line that was not a dry run's. */
  onLine: (status: string) => void
}

/** Vends for a manufacturing line: many devices in one request. */
export async function batchRoutes (base: FastifyInstance, options: BatchRoutesOptions): Promise<void> {
  const { open, connection, renewAfter, atOnce, onLine } = options
  const app = base.withTypeProvider<TypeBoxTypeProvider>()

  app.post('/v1/batches', {
    config: {
      access: ['line'],
      lines: true,
      errors: ['duplicate-in-batch', ...AWS_IOT_FAILURES],
      otherBodies: { [NDJSON]: `${JSON.stringify(EXAMPLE_LINE)}\n` },
      otherAnswers: { [NDJSON]: EXAMPLE_LINES }
    },
    bodyLimit: BODY_LIMIT,
    schema: VEND_BATCH
  }, async ({ id: requestId, ip: address, body, caller, query: { dryRun } }, reply) => {
    const batch = open({ requestId, address, actor: caller?.name ?? '', role: caller?.role ?? '' })
    if (dryRun === 'true') {
      return reply.answerItems(body, {
        schema: Line, atOnce, statuses: ['would-vend', 'would-replay'], work: async (line, place) => ({ status: `would-${await batch.foresee(line, place)}` })
      }) as never
    }
    const more = await connection()
    const work = async (line: Static<typeof Line>, place: Parameters<Batch['vend']>[1]) => resultOf(await batch.vend(line, place))
    return reply.answerItems(body, { schema: Line, atOnce, statuses: ['vended', 'replayed'], work, more, onResult: onLine }) as never
  })

  function resultOf (vended: Vended) {
    const { outcome, keyPair } = vended
    return { status: outcome === 'replayed' ? 'replayed' : 'vended', ...factsOf(vended, renewAfter), ...(keyPair && { keyPair }) }
  }
}
