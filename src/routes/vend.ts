import type { FastifyInstance, FastifyReply } from 'fastify'
import type { TypeBoxTypeProvider } from '@fastify/type-provider-typebox'
import { type Static, Type } from 'typebox'
import { SERIAL_NUMBER, thingNameOf } from '../vending/names.ts'
import type { VendRequest, Vended } from '../vending/vend-steps.ts'

const serialNumber = Type.String({ pattern: SERIAL_NUMBER, description: 'becomes the thing name and the MQTT client id' })
const registrationToken = Type.String({ minLength: 1, maxLength: 256, description: 'the one-time secret of the device' })

const CsrRequest = Type.Object({
  serialNumber,
  registrationToken,
  certificateSigningRequest: Type.String({ minLength: 1, maxLength: 8192, description: 'PKCS#10 in PEM, at most 4096 characters' })
}, { additionalProperties: false })

const KeysRequest = Type.Object({ serialNumber, registrationToken }, { additionalProperties: false })

const Answer = Type.Object({
  serialNumber: Type.String(),
  thingName: Type.String(),
  certificateId: Type.String(),
  certificateArn: Type.String(),
  certificatePem: Type.String(),
  rootCaPem: Type.String(),
  endpoint: Type.String(),
  notAfter: Type.String({ format: 'date-time' }),
  renewAfter: Type.String({ format: 'date-time' })
})

const KeysAnswer = Type.Object({
  ...Answer.properties,
  keyPair: Type.Object({ publicKey: Type.String(), privateKey: Type.String() })
})

const PEM_CHAIN = 'application/pem-certificate-chain'

interface Connection { endpoint: string, rootCaPem: string }

export interface VendRoutesOptions {
  vend: (request: VendRequest & { address: string }) => Promise<Vended>
  /** What devices are told to connect with; the same for all. */
  connection: () => Promise<Connection>
  /** When a certificate is to be renewed, in epoch milliseconds. */
  renewAfter: (certificate: Vended['certificate']) => number
}

/** The two ways of vending: with the device's own key, and with a key pair made for it. */
export async function vendRoutes (base: FastifyInstance, options: VendRoutesOptions): Promise<void> {
  const app = base.withTypeProvider<TypeBoxTypeProvider>()
  const preHandler = app.limitSerial
  const config = { access: 'device' } as const

  app.post('/v1/certificates', { config, schema: { body: CsrRequest, response: { '2xx': Answer } }, preHandler }, async (request, reply) => {
    const connection = await options.connection()
    const vended = await options.vend({ ...request.body, requestId: request.id, address: request.ip })
    secret(reply.code(statusOf(vended)))
    if (!wantsPem(request.headers.accept)) return answer(request.body.serialNumber, vended, connection)
    return reply.type(PEM_CHAIN).serializer((pem: unknown) => String(pem)).send(vended.certificate.certificatePem as never)
  })

  app.post('/v1/keys-and-certificates', { config, schema: { body: KeysRequest, response: { '2xx': KeysAnswer } }, preHandler }, async (request, reply) => {
    const connection = await options.connection()
    const vended = await options.vend({ ...request.body, requestId: request.id, address: request.ip, callerGone: callerGone(reply) })
    secret(reply.code(statusOf(vended)))
    const { keyPair } = vended
    if (!keyPair) throw new Error('a key-generating vend ended without a key pair')
    return { ...answer(request.body.serialNumber, vended, connection), keyPair }
  })

  function answer (serialNumber: string, { certificate }: Vended, connection: Connection): Static<typeof Answer> {
    const { certificateId, certificateArn, certificatePem, notAfter } = certificate
    return {
      serialNumber,
      thingName: thingNameOf(serialNumber),
      certificateId,
      certificateArn,
      certificatePem,
      ...connection,
      notAfter: new Date(notAfter).toISOString(),
      renewAfter: new Date(options.renewAfter(certificate)).toISOString()
    }
  }
}

/**
 * Aborted when the connection ends before the answer is out. Not `request.signal`: on a real socket that one is aborted once the body
 * has been read.
 */
function callerGone ({ raw }: FastifyReply): AbortSignal {
  const gone = new AbortController()
  raw.once('close', () => { if (!raw.writableFinished) gone.abort() })
  return gone.signal
}

/** The first answer is 201; what was there already is 200. */
function statusOf ({ outcome }: Vended): 200 | 201 {
  return outcome === 'replayed' ? 200 : 201
}

function secret (reply: FastifyReply): void {
  reply.header('cache-control', 'no-store')
}

function wantsPem (accept = ''): boolean {
  return accept.split(',').some(range => range.split(';')[0]?.trim().toLowerCase() === PEM_CHAIN)
}
