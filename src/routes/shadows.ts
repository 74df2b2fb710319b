import type { TypeBoxTypeProvider } from '@fastify/type-provider-typebox'
import type { FastifyInstance } from 'fastify'
import { Type } from 'typebox'
import { AWS_IOT_FAILURES, REGISTRY_FAILURES } from '../schemas/failures.ts'
import { serialNumber } from '../schemas/members.ts'
import type { ShadowChange } from '../vending/shadow-access.ts'
import type { ShadowDocument } from '../vending/shadows.ts'

const Params = Type.Object({ serialNumber })

const Query = Type.Object({
  name: Type.Optional(Type.String({ pattern: '^[$a-zA-Z0-9:_-]{1,64}$', description: 'A named shadow; the classic one where it is left out.' }))
}, { additionalProperties: false })

const STATE = { desired: { interval: 60 }, reported: { interval: 30 }, delta: { interval: 60 } }
const METADATA = { desired: { interval: { timestamp: 1_795_161_600 } }, reported: { interval: { timestamp: 1_795_161_000 } } }

const Document = {
  state: Type.Unknown({ description: '`desired`, `reported`, and what differs as `delta`.', examples: [STATE] }),
  metadata: Type.Unknown({ description: 'When each value was set, in epoch seconds.', examples: [METADATA] }),
  version: Type.Integer({ description: 'Grows with every change.', examples: [8] }),
  timestamp: Type.Integer({ description: 'Epoch seconds.', examples: [1_795_161_600] })
}

const Change = Type.Object({
  desired: Type.Union([Type.Record(Type.String(), Type.Unknown()), Type.Null()], {
    description: 'Merged into what is wanted already, at most 8 KB; members that are null go, and `null` takes all of it away.', examples: [{ interval: 60 }]
  }),
  version: Type.Optional(Type.Integer({ minimum: 0, description: 'Only while the shadow is at this version, 0 where there is none yet; else `shadow-conflict`.', examples: [0] }))
}, { additionalProperties: false })

const SHOW = {
  operationId: 'getShadow',
  tags: ['devices'],
  summary: 'Show a device\'s shadow',
  description: 'As AWS IoT tells it.',
  params: Params,
  querystring: Query,
  response: { 200: Type.Object(Document, { description: 'The shadow.' }) }
}

const CHANGE = {
  operationId: 'changeShadow',
  tags: ['devices'],
  summary: 'Set what is wanted of a device in its shadow',
  description: 'The device hears of what differs from what it reports, also when it connects later.',
  params: Params,
  querystring: Query,
  body: Change,
  response: {
    200: Type.Object(Document, {
      description: 'What was asked for, and the new version.',
      examples: [{ state: { desired: STATE.desired }, metadata: { desired: METADATA.desired }, version: 1, timestamp: 1_795_161_600 }]
    })
  }
}

const FAILURES = ['device-not-found', 'product-not-configured', ...AWS_IOT_FAILURES, ...REGISTRY_FAILURES] as const

interface ShadowRoutesOptions {
  show: (serialNumber: string, name: string | undefined) => Promise<ShadowDocument>
  change: (serialNumber: string, change: ShadowChange, by: { requestId: string, actor: string, role: string }) => Promise<ShadowDocument>
}

/** The shadows of devices, for people. */
export async function shadowRoutes (base: FastifyInstance, { show, change }: ShadowRoutesOptions): Promise<void> {
  const app = base.withTypeProvider<TypeBoxTypeProvider>()
  const url = '/v1/devices/:serialNumber/shadow'

  app.get(url, {
    config: { access: ['operator', 'auditor'], errors: ['shadow-not-found', ...FAILURES] }, schema: SHOW
  }, async ({ params, query }, reply) => {
    reply.header('cache-control', 'no-store')
    return await show(params.serialNumber, query.name)
  })

  app.put(url, {
    config: { access: ['operator'], errors: ['shadow-rejected', 'shadow-conflict', 'shadow-too-large', 'state-conflict', ...FAILURES] }, schema: CHANGE
  }, async ({ params, query, body, caller, id: requestId }, reply) => {
    reply.header('cache-control', 'no-store')
    return await change(params.serialNumber, { ...body, ...query }, { requestId, actor: caller?.name ?? '', role: caller?.role ?? '' })
  })
}
