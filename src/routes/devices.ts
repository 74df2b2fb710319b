import type { TypeBoxTypeProvider } from '@fastify/type-provider-typebox'
import type { FastifyInstance } from 'fastify'
import { type Static, Type } from 'typebox'
import { CvmError } from '../errors.ts'
import { EXAMPLE } from '../schemas/example.ts'
import { AWS_IOT_FAILURES, REGISTRY_FAILURES } from '../schemas/failures.ts'
import { Finding, findingOf } from '../schemas/finding.ts'
import { certificateArn, certificateId, notAfter, product, serialNumber, thingName, time } from '../schemas/members.ts'
import type { Certificate, Device } from '../vending/device.ts'
import type { DriftFindings } from '../vending/drift-findings.ts'
import type { DeviceRegistry } from '../vending/device-registry.ts'
import type { Operated, Wish } from '../vending/operate.ts'

const DeviceAnswer = Type.Object({
  serialNumber,
  thingName: Type.Optional(thingName),
  product,
  state: Type.String(),
  certificateId: Type.Optional(certificateId),
  certificateArn: Type.Optional(certificateArn),
  notAfter: Type.Optional(notAfter),
  way: Type.Optional(Type.Enum(['csr', 'keys', 'registered', 'jitr'], {
    description: 'How the device came to it: its CSR, a key pair of AWS IoT\'s, brought by somebody, or seen at its first connection.', examples: ['csr']
  })),
  caCertificateId: Type.Optional(Type.String({ description: 'The authority that signed it, where that is one of the customer\'s.', examples: [EXAMPLE.caCertificateId] })),
  tokenExpiresAt: Type.Optional(time('When the registration token ends.')),
  claimExpiresAt: Type.Optional(time('Until when a request in progress holds the device.')),
  drift: Type.Optional(Type.Array(Finding, { description: 'How AWS IoT and the registry differ about it; absent where they do not, as far as is known.' })),
  retiring: Type.Array(Type.String(), { description: 'Certificates that were replaced and are being ended.' }),
  history: Type.Array(Type.Object({
    at: time('When.'),
    event: Type.String(),
    requestId: Type.String({ description: 'The request that did it.' }),
    certificateId: Type.Optional(certificateId),
    actor: Type.Optional(Type.String({ description: 'Who asked for it.' })),
    reason: Type.Optional(Type.String({ description: 'Why, in their words.' }))
  }), { description: 'What happened to the device, the oldest first; the last 50.' })
})

const EXAMPLE_DEVICE: Static<typeof DeviceAnswer> = {
  serialNumber: EXAMPLE.serialNumber,
  thingName: EXAMPLE.serialNumber,
  product: EXAMPLE.product,
  state: 'ACTIVE',
  certificateId: EXAMPLE.certificateId,
  certificateArn: EXAMPLE.certificateArn,
  notAfter: EXAMPLE.notAfter,
  way: 'csr',
  retiring: [],
  history: [
    { at: '2026-11-19T16:20:00.000Z', event: 'registered', requestId: 'line-7:000123' },
    { at: EXAMPLE.now, event: 'activated', requestId: EXAMPLE.requestId, certificateId: EXAMPLE.certificateId }
  ]
}

const Params = Type.Object({ serialNumber })

const Reason = Type.Object({
  reason: Type.String({
    minLength: 1, maxLength: 200, pattern: '^[^\\u0000-\\u001f\\u007f]*$', description: 'Why; kept in the history.', examples: ['ticket 4711: returned from the field']
  })
}, { additionalProperties: false })

const Revocation = Type.Object({
  ...Reason.properties,
  keyCompromised: Type.Optional(Type.Boolean({
    description: 'The device\'s key is known to others: no device gets a certificate for it again.', examples: [false]
  }))
}, { additionalProperties: false })

const Condition = Type.Object({
  'if-match': Type.Optional(Type.String({
    pattern: '^(\\*|"(0|[1-9]\\d{0,14})")$',
    description: 'The `ETag` of the device as it was seen: refused with `precondition-failed` when the device has changed since. `*` stands for any.',
    examples: ['*']
  }))
})

const OPERATION_FAILURES = ['device-not-found', 'state-conflict', 'vend-in-progress', 'precondition-failed', ...REGISTRY_FAILURES] as const

const SHOW = {
  operationId: 'getDevice',
  tags: ['devices'],
  summary: 'Show a device with its history',
  params: Params,
  response: { 200: Type.Object(DeviceAnswer.properties, { description: 'The device.', examples: [EXAMPLE_DEVICE] }) }
}

const AGAIN = 'The same again changes nothing. AWS IoT is changed before the registry; what a crash cuts off is finished by reconcile.'

const OPERATIONS = {
  reset: ['Let a device be vended anew', 'REGISTERED', 'Revokes its certificate and gives it a new registration token, which is in this answer only. The same again gives another token.'],
  revoke: ['Revoke a device\'s certificate', 'REVOKED', `For good: only a reset brings the device back. With \`keyCompromised\` its key is blocked for ever, also of a device that is REVOKED already. ${AGAIN}`],
  disable: ['Disable a device', 'DISABLED', `A pause: its certificate is INACTIVE and nothing is vended until it is enabled. ${AGAIN}`],
  enable: ['Enable a disabled device', 'ACTIVE', `It goes back to what it was before. ${AGAIN}`],
  decommission: ['Decommission a device', 'DECOMMISSIONED', `For ever: its certificate is revoked and nothing is vended again. ${AGAIN}`]
} as const

type Operation = keyof typeof OPERATIONS

function operationSchema (operation: Operation) {
  const [summary, state, description] = OPERATIONS[operation]
  const { thingName, certificateId, certificateArn, notAfter, ...rest } = EXAMPLE_DEVICE
  const example = {
    ...operation === 'reset' ? { ...rest, retiring: [EXAMPLE.certificateId], registrationToken: EXAMPLE.registrationToken } : EXAMPLE_DEVICE, state
  }
  // The token is there for `reset` alone, and nowhere else again.
  const properties = { ...DeviceAnswer.properties, registrationToken: Type.Optional(Type.String({ description: 'The new one, for `reset` alone.' })) }
  const answer = Type.Object(properties, { description: 'The device as it is now.', examples: [example] })
  return { operationId: `${operation}Device`, tags: ['devices'], summary, description, params: Params, headers: Condition, body: operation === 'revoke' ? Revocation : Reason, response: { 200: answer } }
}

interface DeviceRoutesOptions {
  registry: DeviceRegistry
  findings: Pick<DriftFindings, 'of'>
  operate: (wish: Wish) => Promise<Operated>
}

/** What is known of devices, and what operators do to them. */
export async function deviceRoutes (base: FastifyInstance, { registry, findings, operate }: DeviceRoutesOptions): Promise<void> {
  const app = base.withTypeProvider<TypeBoxTypeProvider>()

  app.get('/v1/devices/:serialNumber', {
    config: { access: ['operator', 'auditor'], errors: ['device-not-found', ...REGISTRY_FAILURES] },
    schema: SHOW
  }, async (request, reply) => {
    const { serialNumber } = request.params
    const [device, drift] = await Promise.all([registry.find(serialNumber), findings.of(serialNumber)])
    if (!device) throw new CvmError('device-not-found')
    reply.headers({ 'cache-control': 'no-store', etag: `"${device.revision}"` })
    return { ...answerOf(device), ...(drift.length > 0 && { drift: drift.map(findingOf) }) }
  })

  for (const operation of Object.keys(OPERATIONS) as Operation[]) {
    app.post(`/v1/devices/:serialNumber/${operation}`, {
      config: { access: ['operator'], errors: [...OPERATION_FAILURES, ...AWS_IOT_FAILURES] },
      schema: operationSchema(operation)
    }, async ({ params, headers, body, caller, id: requestId }, reply) => {
      const by = { actor: caller?.name ?? '', role: caller?.role ?? '', requestId }
      const { device, ...token } = await operate({ ...params, ...body, ...conditionOf(headers), ...by, operation })
      reply.header('cache-control', 'no-store')
      return { ...answerOf(device), ...token }
    })
  }
}

/** A device for people; built from an allow-list, so that no token or hash slips in. */
function answerOf (device: Device): Static<typeof DeviceAnswer> {
  const { serialNumber, product, state, certificate, tokenExpiresAt, claim, retiring, history } = device
  return {
    serialNumber,
    ...(certificate && { thingName: certificate.thingName }),
    product,
    state,
    ...(certificate && factsOf(certificate)),
    ...(tokenExpiresAt !== undefined && { tokenExpiresAt: iso(tokenExpiresAt) }),
    ...(claim && { claimExpiresAt: iso(claim.claimExpiresAt) }),
    retiring: [...retiring],
    history: history.map(({ at, ...entry }) => ({ at: iso(at), ...entry }))
  }
}

function factsOf ({ certificateId, certificateArn, notAfter, way, caCertificateId }: Certificate) {
  return { certificateId, certificateArn, notAfter: iso(notAfter), way, ...(caCertificateId !== undefined && { caCertificateId }) }
}

/** The revision to insist on; `*` stands for any. */
function conditionOf ({ 'if-match': tag = '*' }: Static<typeof Condition>): { revision?: number } {
  return tag === '*' ? {} : { revision: Number(tag.slice(1, -1)) }
}

function iso (at: number): string {
  return new Date(at).toISOString()
}
