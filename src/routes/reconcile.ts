import type { TypeBoxTypeProvider } from '@fastify/type-provider-typebox'
import type { FastifyInstance } from 'fastify'
import { Type } from 'typebox'
import { CvmError } from '../errors.ts'
import { EXAMPLE } from '../schemas/example.ts'
import { AWS_IOT_FAILURES, REGISTRY_FAILURES } from '../schemas/failures.ts'
import type { SweepPosition } from '../vending/drift-findings.ts'
import type { ReconcileReport } from '../vending/reconcile-run.ts'

const Report = Type.Object({
  actions: Type.Array(Type.Object({
    step: Type.String(),
    outcome: Type.Enum(['done', 'later', 'failed', 'would'], { description: '`later`: something was in the way; `would`: a dry run.' }),
    serialNumber: Type.Optional(Type.String()),
    certificateId: Type.Optional(Type.String()),
    detail: Type.Optional(Type.String())
  })),
  backlog: Type.Integer({ description: 'Unfinished devices left, up to one batch.' }),
  drift: Type.Integer({ description: 'Differences between AWS IoT and the registry that are neither repaired nor accepted.' }),
  quarantined: Type.Integer({ description: 'Devices whose records cannot be read.' }),
  pendingActivation: Type.Integer({ description: 'Certificates that wait for their activation (JITR), up to one batch.' }),
  sweep: Type.Optional(Type.Object({
    looked: Type.Integer({ description: 'Certificates of the account that this pass has looked at so far.' }),
    complete: Type.Boolean({ description: 'False where the replicas go on with the pass.' })
  }, { description: 'The pass over the whole fleet, where one was asked for.' })),
  complete: Type.Boolean({ description: 'False when the bound on pages ended the look at recent certificates.' })
}, {
  description: 'What was done, or would be.',
  examples: [{
    actions: [{ step: 'finish-issued', outcome: 'would', serialNumber: EXAMPLE.serialNumber, certificateId: EXAMPLE.certificateId }],
    backlog: 0,
    drift: 0,
    quarantined: 0,
    pendingActivation: 0,
    complete: true
  }]
})

const RECONCILE = {
  operationId: 'reconcile',
  tags: ['reconcile'],
  summary: 'Reconcile now',
  description: 'Finishes or undoes what crashes left, and compares recent certificates with AWS IoT: what the replicas do by themselves at every interval.',
  body: Type.Object({
    dryRun: Type.Optional(Type.Boolean({ description: 'Only say what would be done.', examples: [true] })),
    sweep: Type.Optional(Type.Boolean({
      description: 'Also compare the whole fleet with AWS IoT now, where that is not under way. Not with `dryRun`.', examples: [false]
    }))
  }, { additionalProperties: false }),
  response: { 200: Report }
}

interface ReconcileRoutesOptions {
  sweepNow: (requestId: string) => Promise<SweepPosition>
  reconcile: (request: { requestId: string, dryRun: boolean, caller: { name: string, role: string } | null }) => Promise<ReconcileReport>
}

/** Reconcile on demand; what the replicas do by themselves every interval. */
export async function reconcileRoutes (base: FastifyInstance, { reconcile, sweepNow }: ReconcileRoutesOptions): Promise<void> {
  const app = base.withTypeProvider<TypeBoxTypeProvider>()

  app.post('/v1/reconcile', {
    config: { access: ['operator'], errors: [...REGISTRY_FAILURES, ...AWS_IOT_FAILURES] },
    schema: RECONCILE
  }, async ({ id: requestId, body, caller }) => {
    if (body.sweep && body.dryRun) throw new CvmError('invalid-request', { detail: 'sweep goes without dryRun: it keeps what it finds' })
    const swept = body.sweep ? await sweepNow(requestId) : undefined
    const { pendingSince, findings, ...report } = await reconcile({ requestId, dryRun: body.dryRun ?? false, caller })
    return { ...report, pendingActivation: pendingSince.length, ...(swept && { sweep: { looked: swept.looked, complete: swept.phase === 'rest' } }) }
  })
}
