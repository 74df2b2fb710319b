import type { TypeBoxTypeProvider } from '@fastify/type-provider-typebox'
import type { FastifyInstance } from 'fastify'
import { Type } from 'typebox'
import type { ReconcileReport } from '../vending/reconcile-run.ts'

const Report = Type.Object({
  actions: Type.Array(Type.Object({
    step: Type.String(),
    outcome: Type.Enum(['done', 'later', 'failed', 'would']),
    serialNumber: Type.Optional(Type.String()),
    certificateId: Type.Optional(Type.String()),
    detail: Type.Optional(Type.String())
  })),
  backlog: Type.Integer({ description: 'unfinished devices left, up to one batch' }),
  drift: Type.Integer({ description: 'recent certificates whose state in AWS IoT and in the registry differ' }),
  complete: Type.Boolean({ description: 'false when the bound on pages ended the look at recent certificates' })
})

interface ReconcileRoutesOptions {
  reconcile: (request: { requestId: string, dryRun: boolean, caller: { name: string, role: string } | null }) => Promise<ReconcileReport>
}

/** Reconcile on demand; what the replicas do by themselves every interval. */
export async function reconcileRoutes (base: FastifyInstance, { reconcile }: ReconcileRoutesOptions): Promise<void> {
  const app = base.withTypeProvider<TypeBoxTypeProvider>()

  app.post('/v1/reconcile', {
    config: { access: ['operator'] },
    schema: { body: Type.Object({ dryRun: Type.Optional(Type.Boolean()) }, { additionalProperties: false }), response: { 200: Report } }
  }, ({ id: requestId, body, caller }) => reconcile({ requestId, dryRun: body.dryRun ?? false, caller }))
}
