import type { TypeBoxTypeProvider } from '@fastify/type-provider-typebox'
import type { FastifyInstance } from 'fastify'
import { type Static, Type } from 'typebox'
import { EXAMPLE } from '../schemas/example.ts'
import { AWS_IOT_FAILURES, REGISTRY_FAILURES } from '../schemas/failures.ts'
import { certificateArn, certificateId, certificatePem, notAfter, serialNumber, thingName, time } from '../schemas/members.ts'
import { factsOf } from '../schemas/vended.ts'
import type { ConfirmRequest } from '../vending/confirm.ts'
import type { RenewRequest, Renewed } from '../vending/renew.ts'

const proof = Type.String({
  minLength: 1,
  maxLength: 4096,
  pattern: '^[A-Za-z0-9_-]+\\.[A-Za-z0-9_-]+\\.[A-Za-z0-9_-]+$',
  description: 'A compact JWS (RFC 7515) by the key of the certificate that its header `x5t#S256` names; section Renewal of the README.',
  examples: ['eyJhbGciOiJFUzI1NiJ9.eyJhdWQiOiJhMWIyIn0.MEUCIQ']
})

const certificateSigningRequest = Type.String({
  minLength: 1,
  maxLength: 8192,
  description: 'PKCS#10 in PEM for the new key, at most 4096 characters; its common name is the serial number or left out.',
  examples: [EXAMPLE.certificateSigningRequest]
})

const Answer = Type.Object({
  serialNumber,
  thingName,
  certificateId,
  certificateArn,
  certificatePem,
  rootCaPem: Type.String({ description: 'What the device is to trust in AWS IoT.', examples: [EXAMPLE.rootCaPem] }),
  endpoint: Type.String({ description: 'Where the device is to connect.', examples: [EXAMPLE.endpoint] }),
  notAfter,
  renewAfter: time('When the device is to renew its certificate.', '2027-11-20T08:00:00.000Z'),
  confirmBefore: Type.Optional(time('Until when the new certificate must be confirmed; not there once it is.', '2026-11-21T08:00:00.000Z'))
})

const FAILURES = [
  'device-not-authorized', 'proof-not-current', 'proof-rejected', 'device-disabled', 'device-revoked', 'device-decommissioned', 'vend-in-progress',
  'renewal-gone', 'product-not-configured', ...AWS_IOT_FAILURES, ...REGISTRY_FAILURES
] as const

const RENEW = {
  operationId: 'renewCertificate',
  tags: ['vending'],
  summary: 'Get the certificate that is to follow the present one',
  description: 'It stays INACTIVE, and the present one goes on working, until it is confirmed. The same key again gets the same certificate; another key replaces it.',
  body: Type.Object({ serialNumber, certificateSigningRequest, proof }, { additionalProperties: false }),
  response: {
    200: Type.Object(Answer.properties, { description: 'The certificate that an earlier request was given.' }),
    201: Type.Object(Answer.properties, { description: 'A new certificate, INACTIVE until it is confirmed.' })
  }
}

const CONFIRM = {
  operationId: 'confirmCertificate',
  tags: ['vending'],
  summary: 'Put the new certificate into force',
  description: 'Signed with the new key, which shows that the device has stored it. The certificate before is REVOKED, then the new one ACTIVE. The same again says the same.',
  body: Type.Object({ serialNumber, proof }, { additionalProperties: false }),
  response: { 200: Type.Object(Answer.properties, { description: 'The certificate, ACTIVE, bound to thing and policy.' }) }
}

interface Connection { endpoint: string, rootCaPem: string }

interface RenewRoutesOptions {
  renew: (request: RenewRequest & { address: string }) => Promise<Renewed>
  confirm: (request: ConfirmRequest & { address: string }) => Promise<Renewed>
  /** What devices are told to connect with; the same for all. */
  connection: () => Promise<Connection>
  /** When the certificate is to be renewed, in epoch milliseconds. */
  renewAfter: (renewed: Renewed) => number
}

/** Renewal in two steps, each authenticated by a key of the device. */
export async function renewRoutes (base: FastifyInstance, options: RenewRoutesOptions): Promise<void> {
  const app = base.withTypeProvider<TypeBoxTypeProvider>()
  const preHandler = app.limitSerial
  const access = 'device' as const

  app.post('/v1/certificates/renew', {
    config: { access, errors: [...FAILURES, 'csr-rejected', 'certificate-expired', 'key-in-use', 'key-compromised'] }, schema: RENEW, preHandler
  }, async ({ body: { proof: jws, ...wanted }, id: requestId, ip: address }, reply) => {
    const connection = await options.connection()
    const renewed = await options.renew({ ...wanted, proof: { kind: 'jws', jws }, swap: 'when-confirmed', requestId, address })
    reply.code(renewed.outcome === 'renewed' ? 201 : 200).header('cache-control', 'no-store')
    return answer(wanted.serialNumber, renewed, connection)
  })

  app.post('/v1/certificates/confirm', {
    config: { access, errors: FAILURES }, schema: CONFIRM, preHandler
  }, async ({ body: { serialNumber, proof: jws }, id: requestId, ip: address }, reply) => {
    const connection = await options.connection()
    const renewed = await options.confirm({ serialNumber, proof: { kind: 'jws', jws }, requestId, address })
    reply.header('cache-control', 'no-store')
    return answer(serialNumber, renewed, connection)
  })

  function answer (serialNumber: string, renewed: Renewed, connection: Connection): Static<typeof Answer> {
    const { confirmBefore } = renewed
    return {
      serialNumber,
      ...factsOf(renewed, options.renewAfter),
      ...connection,
      ...(confirmBefore && { confirmBefore: new Date(confirmBefore).toISOString() })
    }
  }
}
