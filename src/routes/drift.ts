import type { TypeBoxTypeProvider } from '@fastify/type-provider-typebox'
import type { FastifyInstance } from 'fastify'
import { type Static, Type } from 'typebox'
import { EXAMPLE } from '../schemas/example.ts'
import { REGISTRY_FAILURES } from '../schemas/failures.ts'
import { Finding, findingOf } from '../schemas/finding.ts'
import { serialNumber } from '../schemas/members.ts'
import { type DriftFindings, FINDING_KINDS, type Finding as KeptFinding, type FindingKind } from '../vending/drift-findings.ts'

const DEFAULT_LIMIT = 100

const Page = Type.Object({
  devices: Type.Array(Finding, { description: 'A line for each finding, the oldest first.' }),
  nextCursor: Type.Optional(Type.String({ description: 'For the next page; absent on the last one.', examples: ['WzAsInNuLTAwMDEiXQ'] }))
}, { description: 'A page of differences between AWS IoT and the registry.' })

const LIST = {
  operationId: 'listDriftedDevices',
  tags: ['devices'],
  summary: 'List devices about which AWS IoT and the registry differ',
  description: 'Changes that were made past the service. A finding stays until it has ended, was repaired as its product says, or was accepted. ' +
    'May lag a moment behind a change.',
  querystring: Type.Object({
    accepted: Type.Optional(Type.Enum(['true', 'false'], { description: '`true`: those that were accepted, instead of the open ones.' })),
    limit: Type.Optional(Type.String({
      pattern: '^([1-9]\\d?|[1-4]\\d\\d|500)$', description: `Most findings in the page, 1 to 500; ${DEFAULT_LIMIT} where it is left out.`
    })),
    cursor: Type.Optional(Type.String({ pattern: '^[A-Za-z0-9_-]{1,1024}$', description: '`nextCursor` of the page before, with the same filters.' }))
  }, { additionalProperties: false }),
  response: { 200: Page }
}

const EXAMPLE_FINDING: Static<typeof Finding> = {
  serialNumber: EXAMPLE.serialNumber,
  kind: 'status-differs',
  product: EXAMPLE.product,
  certificateId: EXAMPLE.certificateId,
  registry: 'ACTIVE',
  awsIot: 'INACTIVE',
  foundAt: EXAMPLE.now,
  accepted: { at: EXAMPLE.now, actor: 'operator-1', reason: 'ticket 4711: paused by the customer' }
}

const Accepted = Type.Object({ serialNumber, drift: Type.Array(Finding) }, {
  description: 'What was accepted.', examples: [{ serialNumber: EXAMPLE.serialNumber, drift: [EXAMPLE_FINDING] }]
})

const ACCEPT = {
  operationId: 'acceptDrift',
  tags: ['devices'],
  summary: 'Accept how a device differs',
  description: 'The findings are open no more and are not repaired. One that changes is open again. The same again replaces the reason.',
  params: Type.Object({ serialNumber }),
  body: Type.Object({
    kind: Type.Optional(Type.Enum([...FINDING_KINDS], { description: 'Only the finding of this kind; all of the device\'s where it is left out.' })),
    reason: Type.String({
      minLength: 1, maxLength: 200, pattern: '^[^\\u0000-\\u001f\\u007f]*$', description: 'Why; kept with the finding.', examples: ['ticket 4711: paused by the customer']
    })
  }, { additionalProperties: false, examples: [{ kind: 'status-differs', reason: 'ticket 4711: paused by the customer' }] }),
  response: { 200: Accepted }
}

interface DriftRoutesOptions {
  findings: Pick<DriftFindings, 'list'>
  accept: (wish: {
    serialNumber: string, kind?: FindingKind, reason: string, actor: string, role: string, requestId: string
  }) => Promise<KeptFinding[]>
}

/** Differences between AWS IoT and the registry: which there are, and which are meant to be. */
export async function driftRoutes (base: FastifyInstance, { findings, accept }: DriftRoutesOptions): Promise<void> {
  const app = base.withTypeProvider<TypeBoxTypeProvider>()

  app.get('/v1/drifted-devices', {
    config: { access: ['operator', 'auditor'], errors: REGISTRY_FAILURES }, schema: LIST
  }, async ({ query }, reply): Promise<Static<typeof Page>> => {
    const { accepted, limit = String(DEFAULT_LIMIT), cursor } = query
    const { findings: found, ...next } = await findings.list(accepted === 'true', Number(limit), cursor)
    reply.header('cache-control', 'no-store')
    return { devices: found.map(findingOf), ...next }
  })

  app.post('/v1/devices/:serialNumber/accept-drift', {
    config: { access: ['operator'], errors: ['drift-not-found', 'state-conflict', ...REGISTRY_FAILURES] }, schema: ACCEPT
  }, async ({ params, body, caller, id: requestId }, reply) => {
    const accepted = await accept({ ...params, ...body, actor: caller?.name ?? '', role: caller?.role ?? '', requestId })
    reply.header('cache-control', 'no-store')
    return { ...params, drift: accepted.map(findingOf) }
  })
}
