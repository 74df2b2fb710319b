import type { TypeBoxTypeProvider } from '@fastify/type-provider-typebox'
import type { FastifyInstance } from 'fastify'
import { Type } from 'typebox'
import { EXAMPLE } from '../schemas/example.ts'
import { REGISTRY_FAILURES } from '../schemas/failures.ts'
import { certificateId, state } from '../schemas/members.ts'
import { MIGRATION_NOTES, type MigrationPage, type MigrationWish } from '../vending/migrate.ts'

const DEFAULT_LIMIT = 50

const NOTES = Object.entries(MIGRATION_NOTES).map(([note, meaning]) => `\`${note}\`: ${meaning}`).join('; ')

const Page = Type.Object({
  results: Type.Array(Type.Object({
    serialNumber: Type.String({ description: 'As the old row has it.' }),
    outcome: Type.Enum(['migrated', 'would-migrate', 'exists', 'changed', 'left', 'failed'], {
      description: '`exists`: of a copy, the device is here already; `changed`: somebody came between, so ask again; `failed`: AWS could not be asked, so ask again.'
    }),
    state: Type.Optional(state),
    certificateId: Type.Optional(certificateId),
    otherCertificates: Type.Optional(Type.Array(Type.String(), { description: 'Other certificates that its thing has.' })),
    notes: Type.Array(Type.String(), { description: NOTES }),
    code: Type.Optional(Type.String({ description: 'Of a failure.' }))
  })),
  nextCursor: Type.Optional(Type.String({ description: 'For the next page; absent on the last one.' }))
}, {
  description: 'What became of these rows, or would.',
  examples: [{
    results: [{ serialNumber: EXAMPLE.serialNumber, outcome: 'migrated', state: 'ACTIVE', certificateId: EXAMPLE.certificateId, notes: ['weak-token'] }]
  }]
})

const MIGRATE = {
  operationId: 'migrate',
  tags: ['devices'],
  summary: 'Take over devices of an earlier service, a page at a time',
  description: 'Scans the table for rows that an earlier service was the last to change, and makes each a device of this one: its plain token becomes a keyed hash, ' +
    'its certificate is looked up in AWS IoT, where nothing is changed. Rows that a device uses meanwhile are left to it. Send the next request with ' +
    '`nextCursor`; the same again, or all from the start, finds what is left. Tokens are never told.',
  body: Type.Object({
    dryRun: Type.Optional(Type.Boolean({ description: 'Only say what would be done.', examples: [true] })),
    table: Type.Optional(Type.String({
      pattern: '^[A-Za-z0-9_.-]{3,255}$', description: 'Another table, whose rows are copied; it is only read.', examples: ['iot-cvm-device-info']
    })),
    cursor: Type.Optional(Type.String({ pattern: '^[A-Za-z0-9_-]{1,2048}$', description: '`nextCursor` of the page before, of the same table.' })),
    limit: Type.Optional(Type.Integer({ minimum: 1, maximum: 200, description: `Most rows to look into; ${DEFAULT_LIMIT} where it is left out.`, examples: [50] }))
  }, { additionalProperties: false, examples: [{ dryRun: true }] }),
  response: { 200: Page }
}

interface MigrationRoutesOptions {
  migrate: (wish: MigrationWish, by: { requestId: string, actor: string, role: string }) => Promise<MigrationPage>
}

/** Taking over devices of the old services, for operators. */
export async function migrationRoutes (base: FastifyInstance, { migrate }: MigrationRoutesOptions): Promise<void> {
  const app = base.withTypeProvider<TypeBoxTypeProvider>()

  app.post('/v1/migration', {
    config: { access: ['operator'], errors: REGISTRY_FAILURES }, schema: MIGRATE
  }, async ({ id: requestId, body, caller }) => {
    const { limit = DEFAULT_LIMIT, dryRun = false, ...rest } = body
    return await migrate({ ...rest, limit, dryRun }, { requestId, actor: caller?.name ?? '', role: caller?.role ?? '' })
  })
}
