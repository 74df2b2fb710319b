import type { FastifyInstance, FastifyReply } from 'fastify'
import type { TypeBoxTypeProvider } from '@fastify/type-provider-typebox'
import { type Static, Type } from 'typebox'
import { EXAMPLE } from '../schemas/example.ts'
import { AWS_IOT_FAILURES, REGISTRY_FAILURES } from '../schemas/failures.ts'
import { certificateArn, certificateId, certificatePem, notAfter, registrationToken, serialNumber, thingName, time } from '../schemas/members.ts'
import { factsOf } from '../schemas/vended.ts'
import { PRODUCT_REASONS } from '../vending/product.ts'
import type { VendRequest, Vended } from '../vending/vend-steps.ts'
import { CSR_REFUSALS } from '../x509/refusals.ts'

const CsrRequest = Type.Object({
  serialNumber,
  registrationToken,
  certificateSigningRequest: Type.String({
    minLength: 1,
    maxLength: 8192,
    description: 'PKCS#10 in PEM, at most 4096 characters; its common name is the serial number or left out.',
    examples: [EXAMPLE.certificateSigningRequest]
  })
}, { additionalProperties: false })

const KeysRequest = Type.Object({ serialNumber, registrationToken }, { additionalProperties: false })

const Answer = Type.Object({
  serialNumber,
  thingName,
  certificateId,
  certificateArn,
  certificatePem,
  rootCaPem: Type.String({ description: 'What the device is to trust in AWS IoT.', examples: [EXAMPLE.rootCaPem] }),
  endpoint: Type.String({ description: 'Where the device is to connect: MQTT with mutual TLS on port 8883, unless a port is named.', examples: [EXAMPLE.endpoint] }),
  notAfter,
  renewAfter: time('When the device is to renew its certificate.', '2027-11-20T08:00:00.000Z')
})

const KeysAnswer = Type.Object({
  ...Answer.properties,
  keyPair: Type.Object({
    publicKey: Type.String({ examples: ['-----BEGIN PUBLIC KEY-----\nMIIB…\n-----END PUBLIC KEY-----\n'] }),
    privateKey: Type.String({ description: 'In this answer and nowhere else.', examples: ['-----BEGIN RSA PRIVATE KEY-----\nMIIE…\n-----END RSA PRIVATE KEY-----\n'] })
  })
})

const PEM_CHAIN = 'application/pem-certificate-chain'

/** What both ways of vending may refuse or fail with. */
const FAILURES = [
  'device-not-authorized', 'device-disabled', 'device-revoked', 'device-decommissioned', 'already-vended', 'vend-in-progress', 'thing-name-too-long',
  'product-not-configured', ...AWS_IOT_FAILURES, ...REGISTRY_FAILURES
] as const

const REASONS = [...new Set([...Object.keys(CSR_REFUSALS), ...PRODUCT_REASONS])]

const WITH_CSR = {
  operationId: 'vendCertificate',
  tags: ['vending'],
  summary: 'Get a certificate for the device\'s own key',
  description: 'The same request again is answered with the byte-identical certificate, also after a lost answer. ' +
    `With \`Accept: ${PEM_CHAIN}\` the answer is the certificate alone.\n\n` +
    `A CSR is refused with \`csr-rejected\` and one of these as \`reason\`: ${REASONS.map(reason => `\`${reason}\``).join(', ')}.`,
  body: CsrRequest,
  response: {
    200: Type.Object(Answer.properties, { description: 'The certificate that the device has already.' }),
    201: Type.Object(Answer.properties, { description: 'A new certificate, ACTIVE, bound to thing and policy.' })
  }
}

const WITH_KEYS = {
  operationId: 'vendKeysAndCertificate',
  tags: ['vending'],
  summary: 'Get a certificate with a key pair made by AWS IoT',
  description: 'For devices that cannot make a key. The private key is in the one answer: a second request is refused with `key-not-recoverable`.',
  body: KeysRequest,
  response: { 201: Type.Object(KeysAnswer.properties, { description: 'A new key pair and its certificate, ACTIVE, bound to thing and policy.' }) }
}

interface Connection { endpoint: string, rootCaPem: string }

export interface VendRoutesOptions {
  vend: (request: VendRequest & { address: string }) => Promise<Vended>
  /** What devices are told to connect with; the same for all. */
  connection: () => Promise<Connection>
  /** When the certificate is to be renewed, in epoch milliseconds. */
  renewAfter: (vended: Vended) => number
}

/** The two ways of vending: with the device's own key, and with a key pair made for it. */
export async function vendRoutes (base: FastifyInstance, options: VendRoutesOptions): Promise<void> {
  const app = base.withTypeProvider<TypeBoxTypeProvider>()
  const preHandler = app.limitSerial
  const access = 'device' as const

  app.post('/v1/certificates', {
    config: { access, errors: [...FAILURES, 'csr-rejected', 'key-in-use', 'key-compromised'], otherAnswers: { [PEM_CHAIN]: EXAMPLE.certificatePem } }, schema: WITH_CSR, preHandler
  }, async (request, reply) => {
    const connection = await options.connection()
    const vended = await options.vend({ ...request.body, requestId: request.id, address: request.ip })
    secret(reply.code(statusOf(vended)))
    if (!wantsPem(request.headers.accept)) return answer(request.body.serialNumber, vended, connection)
    return reply.type(PEM_CHAIN).serializer((pem: unknown) => String(pem)).send(vended.certificate.certificatePem as never)
  })

  app.post('/v1/keys-and-certificates', {
    config: { access, errors: [...FAILURES, 'key-not-recoverable', 'generated-keys-not-allowed'] }, schema: WITH_KEYS, preHandler
  }, async (request, reply) => {
    const connection = await options.connection()
    const vended = await options.vend({ ...request.body, requestId: request.id, address: request.ip, callerGone: reply.callerGone() })
    secret(reply.code(201))
    const { keyPair } = vended
    if (!keyPair) throw new Error('a key-generating vend ended without a key pair')
    return { ...answer(request.body.serialNumber, vended, connection), keyPair }
  })

  function answer (serialNumber: string, vended: Vended, connection: Connection): Static<typeof Answer> {
    return { serialNumber, ...factsOf(vended, options.renewAfter), ...connection }
  }
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
