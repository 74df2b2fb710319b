import { randomBytes } from 'node:crypto'
import type { TypeBoxTypeProvider } from '@fastify/type-provider-typebox'
import type { FastifyInstance } from 'fastify'
import { type Static, Type } from 'typebox'
import { CvmError } from '../errors.ts'
import type { Device } from '../vending/device.ts'
import type { DeviceRegistry } from '../vending/device-registry.ts'
import { SERIAL_NUMBER, thingNameOf } from '../vending/names.ts'

const time = Type.String({ format: 'date-time' })

const DeviceAnswer = Type.Object({
  serialNumber: Type.String(),
  thingName: Type.String(),
  state: Type.String(),
  certificateId: Type.Optional(Type.String()),
  certificateArn: Type.Optional(Type.String()),
  notAfter: Type.Optional(time),
  tokenExpiresAt: Type.Optional(time),
  claimExpiresAt: Type.Optional(time),
  retiring: Type.Array(Type.String(), { description: 'certificates that were replaced and are being ended' }),
  history: Type.Array(Type.Object({
    at: time,
    event: Type.String(),
    requestId: Type.String(),
    certificateId: Type.Optional(Type.String()),
    actor: Type.Optional(Type.String()),
    reason: Type.Optional(Type.String())
  }))
})

/** `registrationToken` is there for `reset` alone, and nowhere else again. */
const OperationAnswer = Type.Object({ ...DeviceAnswer.properties, registrationToken: Type.Optional(Type.String()) })

const Params = Type.Object({ serialNumber: Type.String({ pattern: SERIAL_NUMBER }) })

const Reason = Type.Object({
  reason: Type.String({ minLength: 1, maxLength: 200, pattern: '^[^\\u0000-\\u001f\\u007f]*$', description: 'why; kept in the history' })
}, { additionalProperties: false })

const OPERATIONS = ['reset', 'revoke', 'disable', 'enable', 'decommission'] as const

interface DeviceRoutesOptions {
  registry: DeviceRegistry
  /** Carries out an operator's wish; for `reset` with the new token. */
  operate: (wish: Wish) => Promise<Device>
}

interface Wish {
  serialNumber: string
  operation: typeof OPERATIONS[number]
  actor: string
  role: string
  reason: string
  requestId: string
  registrationToken?: string
}

/** What is known of devices, and what operators do to them. */
export async function deviceRoutes (base: FastifyInstance, { registry, operate }: DeviceRoutesOptions): Promise<void> {
  const app = base.withTypeProvider<TypeBoxTypeProvider>()

  app.get('/v1/devices/:serialNumber', {
    config: { access: ['operator', 'auditor'] },
    schema: { params: Params, response: { 200: DeviceAnswer } }
  }, async (request, reply) => {
    const device = await registry.find(request.params.serialNumber)
    if (!device) throw new CvmError('device-not-found')
    reply.header('cache-control', 'no-store')
    return answerOf(device)
  })

  for (const operation of OPERATIONS) {
    app.post(`/v1/devices/:serialNumber/${operation}`, {
      config: { access: ['operator'] },
      schema: { params: Params, body: Reason, response: { 200: OperationAnswer } }
    }, async ({ params, body, caller, id: requestId }, reply) => {
      const token = operation === 'reset' ? { registrationToken: randomBytes(32).toString('base64url') } : {}
      const device = await operate({ ...params, ...body, ...token, operation, actor: caller?.name ?? '', role: caller?.role ?? '', requestId })
      reply.header('cache-control', 'no-store')
      return { ...answerOf(device), ...token }
    })
  }
}

/** A device for people; built from an allow-list, so that no token or hash slips in. */
function answerOf (device: Device): Static<typeof DeviceAnswer> {
  const { serialNumber, state, certificate, tokenExpiresAt, claim, retiring, history } = device
  return {
    serialNumber,
    thingName: thingNameOf(serialNumber),
    state,
    ...(certificate && {
      certificateId: certificate.certificateId, certificateArn: certificate.certificateArn, notAfter: iso(certificate.notAfter)
    }),
    ...(tokenExpiresAt !== undefined && { tokenExpiresAt: iso(tokenExpiresAt) }),
    ...(claim && { claimExpiresAt: iso(claim.claimExpiresAt) }),
    retiring: [...retiring],
    history: history.map(({ at, ...entry }) => ({ at: iso(at), ...entry }))
  }
}

function iso (at: number): string {
  return new Date(at).toISOString()
}
