import type { TypeBoxTypeProvider } from '@fastify/type-provider-typebox'
import type { FastifyInstance } from 'fastify'
import { type Static, Type } from 'typebox'
import { CvmError } from '../errors.ts'
import { EXAMPLE } from '../schemas/example.ts'
import { REGISTRY_FAILURES } from '../schemas/failures.ts'
import { certificateArn, certificateId, certificatePem, notAfter, product, serialNumber, state, thingName, time } from '../schemas/members.ts'
import { DEVICE_STATES, type Device } from '../vending/device.ts'
import type { DeviceCatalog, ListedDevice } from '../vending/device-catalog.ts'
import type { UnfinishedDevices } from '../vending/unfinished-devices.ts'

const DEFAULT_LIMIT = 100

const Query = Type.Object({
  state: Type.Optional(Type.Enum([...DEVICE_STATES], { description: 'Only devices in this state.' })),
  product: Type.Optional(Type.String({ pattern: '^[A-Za-z0-9._-]{1,64}$', description: 'Only devices of this product.' })),
  limit: Type.Optional(Type.String({
    pattern: '^([1-9]\\d?|[1-4]\\d\\d|500)$', description: `Most devices in the page, 1 to 500; ${DEFAULT_LIMIT} where it is left out.`
  })),
  cursor: Type.Optional(Type.String({
    pattern: '^[A-Za-z0-9_-]{1,1024}$', description: '`nextCursor` of the page before, with the same filters.'
  }))
}, { additionalProperties: false })

const Page = Type.Object({
  devices: Type.Array(Type.Object({
    serialNumber,
    product,
    state,
    certificateId: Type.Optional(certificateId),
    notAfter: Type.Optional(notAfter)
  }), { description: 'By product, state and serial number.' }),
  nextCursor: Type.Optional(Type.String({ description: 'For the next page; absent on the last one.', examples: ['WyIiLCIiLCJkZWZhdWx0IiwiQUNUSVZFIiwic24tMDAwMSJd'] }))
}, { description: 'A page of devices.' })

const LIST = {
  operationId: 'listDevices',
  tags: ['devices'],
  summary: 'List devices',
  description: 'Without `product`: those of the products that are configured, in their order. May lag a moment behind a change. ' +
    'Devices that an earlier service registered are listed once they have been changed here.',
  querystring: Query,
  response: { 200: Page }
}

const Quarantined = Type.Object({
  devices: Type.Array(Type.Object({
    serialNumber: Type.String({ description: 'Names the device.', examples: [EXAMPLE.serialNumber] }),
    attribute: Type.String({ description: 'The attribute of its record that is wrong, or missing.', examples: ['retiring'] }),
    detail: Type.String({ description: 'What is wrong with it.', examples: ['`retiring` is a number where a string set belongs'] })
  })),
  nextCursor: Type.Optional(Type.String({ description: 'For the next page; absent on the last one.', examples: ['WzAsInNuLTAwMDEiXQ'] }))
}, { description: 'A page of devices whose records cannot be read.' })

const QUARANTINED = {
  operationId: 'listQuarantinedDevices',
  tags: ['devices'],
  summary: 'List devices whose records cannot be read',
  description: 'Records that somebody changed past the service, so that an attribute is missing or holds something else than it must. Nothing is ' +
    'done to such a device until the record is mended in the table; the next run of reconcile then takes it up again. May lag a moment behind a change.',
  querystring: Type.Pick(Query, ['limit', 'cursor']),
  response: { 200: Quarantined }
}

const CertificateAnswer = Type.Object({
  certificateId,
  certificateArn,
  certificatePem,
  serialNumber,
  product,
  thingName,
  state,
  issuedAt: time('When it was issued.'),
  notAfter
}, { description: 'The certificate and the device that has it.' })

const LOOK_UP = {
  operationId: 'getCertificate',
  tags: ['devices'],
  summary: 'Find the device that has a certificate',
  description: 'A certificate that was replaced is not found. May lag a moment behind a change.',
  params: Type.Object({
    certificateId: Type.String({ pattern: '^[0-9a-f]{64}$', description: 'As AWS IoT spells it.', examples: [EXAMPLE.certificateId] })
  }),
  response: { 200: CertificateAnswer }
}

interface CatalogRoutesOptions { catalog: DeviceCatalog, devices: Pick<UnfinishedDevices, 'quarantined'> }

/** Which devices there are, and whose certificate this is. */
export async function catalogRoutes (base: FastifyInstance, { catalog, devices }: CatalogRoutesOptions): Promise<void> {
  const app = base.withTypeProvider<TypeBoxTypeProvider>()
  const access = ['operator', 'auditor'] as const

  app.get('/v1/devices', { config: { access, errors: REGISTRY_FAILURES }, schema: LIST }, async ({ query }, reply) => {
    const { limit = String(DEFAULT_LIMIT), ...filters } = query
    const { devices, ...next } = await catalog.list({ ...filters, limit: Number(limit) })
    reply.header('cache-control', 'no-store')
    return { devices: devices.map(listed), ...next }
  })

  app.get('/v1/quarantined-devices', { config: { access, errors: REGISTRY_FAILURES }, schema: QUARANTINED }, async ({ query }, reply) => {
    const { limit = String(DEFAULT_LIMIT), cursor } = query
    const { faults, readable, ...next } = await devices.quarantined(Number(limit), cursor)
    reply.header('cache-control', 'no-store')
    return { devices: faults, ...next }
  })

  app.get('/v1/certificates/:certificateId', {
    config: { access, errors: ['certificate-not-found', ...REGISTRY_FAILURES] }, schema: LOOK_UP
  }, async ({ params }, reply) => {
    const device = await catalog.findByCertificate(params.certificateId)
    reply.header('cache-control', 'no-store')
    return certificateOf(device, params.certificateId)
  })
}

function listed ({ notAfter, ...device }: ListedDevice): Static<typeof Page>['devices'][number] {
  return { ...device, ...(notAfter !== undefined && { notAfter: new Date(notAfter).toISOString() }) }
}

/** The index may lag a moment behind the row: what the device does not have any more is not found. */
function certificateOf (device: Device | undefined, certificateId: string): Static<typeof CertificateAnswer> {
  const { certificate } = device ?? {}
  if (!device || certificate?.certificateId !== certificateId) throw new CvmError('certificate-not-found')
  const { thingName, certificateArn, certificatePem, issuedAt, notAfter } = certificate
  const { serialNumber, product, state } = device
  return {
    certificateId,
    certificateArn,
    certificatePem,
    serialNumber,
    product,
    thingName,
    state,
    issuedAt: new Date(issuedAt).toISOString(),
    notAfter: new Date(notAfter).toISOString()
  }
}
