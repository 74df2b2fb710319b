// Security events: one closed list, one structured line each, never a secret, and the same story in the device's history.
import { createHash, randomBytes } from 'node:crypto'
import { Writable } from 'node:stream'
import { pino } from 'pino'
import t from 'tap'
import { AUDIENCE, startIdentityProvider } from '../fixtures/identity-provider.ts'
import { ModelAuthorities, ModelAuthoritySettings } from '../fixtures/model-authorities.ts'
import { type TestService, startService } from '../fixtures/service.ts'
import { csrFor, newDevice, vend, vendKeys } from '../fixtures/vending.ts'
import { SERIAL, makeRig } from '../fixtures/vend-rig.ts'
import { readConfig } from '../../src/config.ts'
import { CvmError } from '../../src/errors.ts'
import { auditLog } from '../../src/observed/audit-log.ts'
import { observedUseCases } from '../../src/observed/use-cases.ts'
import { createMetrics } from '../../src/plugins/metrics.ts'
import { AUDIT_EVENTS, type AuditRecord, auditLine } from '../../src/vending/audit.ts'
import { tokenHasher } from '../../src/vending/registration-token.ts'

interface Line { level: number, msg: string, requestId?: string, audit?: AuditRecord }

const WARN = 40
const provider = await startIdentityProvider()
t.teardown(() => provider.close())
const keys = { operator: key(), auditor: key() }
const API_KEYS = Object.entries(keys).map(([role, secret]) => `${role}-1:${role}:${createHash('sha256').update(secret).digest('hex')}`).join(',')
const service = await startService({ API_KEYS, OIDC_ISSUER: provider.issuer, OIDC_AUDIENCE: AUDIENCE, MAX_EVENT_LOOP_DELAY_MS: '600000' })
t.teardown(() => service.close())

function linesOf ({ logs }: TestService): Line[] {
  return logs().split('\n').filter(Boolean).map(line => JSON.parse(line) as Line)
}

/** What was audited while something was done. */
async function auditedDuring (work: () => Promise<unknown>): Promise<AuditRecord[]> {
  const before = linesOf(service).length
  await work()
  const lines = linesOf(service).slice(before)
  for (const { msg, audit } of lines) t.equal(msg === 'audit', audit !== undefined)
  const audited = lines.flatMap(({ audit }) => audit ?? [])
  for (const { event, requestId } of audited) {
    t.ok(event in AUDIT_EVENTS, event)
    t.notOk(lines.some(line => line.requestId === requestId && line.msg === 'refused'), `${event} is told once`)
  }
  return audited
}

function ask (url: string, { as = keys.operator, ...body }: { as?: string, reason?: string, dryRun?: boolean } = {}, requestId = 'the-request') {
  return service.app.service.inject({ method: 'POST', url, headers: { authorization: `Bearer ${as}`, 'x-request-id': requestId }, payload: body })
}

const HASH = tokenHasher(Buffer.alloc(32, 1))

await t.test('vending', async t => {
  const device = await newDevice(service)
  const { serialNumber, registrationToken } = device
  const address = '127.0.0.1'
  const first = await auditedDuring(() => vend(service, device, { 'x-request-id': 'first-request' }))
  t.match(first, [{ event: 'certificate-vended', outcome: 'done', requestId: 'first-request', serialNumber, certificateId: /^[0-9a-f]{64}$/, way: 'csr', address }])
  t.match(await auditedDuring(() => vend(service, device)), [{ event: 'certificate-replayed', outcome: 'unchanged', certificateId: first[0]!.certificateId! }])
  t.match(await auditedDuring(() => vend(service, { ...device, certificateSigningRequest: csrFor(serialNumber) })),
    [{ event: 'vend-refused', outcome: 'refused', serialNumber, way: 'csr', code: 'already-vended', address }])
  t.match(await auditedDuring(() => vendKeys(service, { ...device, registrationToken: 'wrong' })),
    [{ event: 'vend-refused', serialNumber, way: 'keys', code: 'device-not-authorized' }])
  t.match(await auditedDuring(() => vend(service, { ...device, certificateSigningRequest: 'x' })), [{ event: 'vend-refused', code: 'csr-rejected', reason: 'pem-not-one-block' }])

  const mixedUp = { serialNumber: registrationToken, registrationToken: serialNumber }
  const [refused, ...more] = await auditedDuring(() => vendKeys(service, mixedUp))
  t.match(refused, { event: 'vend-refused', code: 'device-not-authorized', serialNumber: undefined }, 'no device, no serial number: it may be a token')
  t.strictSame(more, [])
  t.notMatch(service.logs(), registrationToken)
})

await t.test('what operators do', async t => {
  const device = await newDevice(service)
  const { serialNumber } = device
  const { certificateId } = (await vend(service, device)).json()
  const by = { actor: 'operator-1', role: 'operator' }
  const operations = [['disable', 'device-disabled'], ['enable', 'device-enabled'], ['revoke', 'device-revoked'], ['reset', 'device-reset'], ['decommission', 'device-decommissioned']] as const
  for (const [operation, event] of operations) {
    const [record, ...more] = await auditedDuring(() => ask(`/v1/devices/${serialNumber}/${operation}`, { reason: `to ${operation}` }, `${operation}-request`))
    // The reset before it has taken the certificate away.
    const about = operation === 'decommission' ? { serialNumber } : { serialNumber, certificateId }
    t.strictSame(record, { event, outcome: 'done', requestId: `${operation}-request`, reason: `to ${operation}`, ...by, ...about }, operation)
    t.strictSame(more, [])
  }
  t.match(await auditedDuring(() => ask(`/v1/devices/${serialNumber}/decommission`, { reason: 'again' }, 'another-request')), [{ outcome: 'unchanged' }])
  t.match(await auditedDuring(() => ask(`/v1/devices/${serialNumber}/reset`, { reason: 'again' })),
    [{ event: 'device-reset', outcome: 'refused', code: 'state-conflict', serialNumber, actor: 'operator-1' }])
  t.match(await auditedDuring(() => ask('/v1/devices/nobody/revoke', { reason: 'x' })),
    [{ event: 'device-revoked', outcome: 'refused', code: 'device-not-found', serialNumber: undefined }])

  const history = (await service.app.registry.find(serialNumber))?.history ?? []
  for (const [operation] of operations) t.ok(history.some(entry => entry.requestId === `${operation}-request` && entry.actor === 'operator-1'), `${operation} in the history`)
})

await t.test('a caller of the identity provider, by the same name in log and history', async t => {
  const { serialNumber } = await newDevice(service)
  const as = await provider.token({ sub: 'ada@example.com', roles: ['auditor', 'operator'] })
  t.match(await auditedDuring(() => ask(`/v1/devices/${serialNumber}/disable`, { as, reason: 'test' })), [{ actor: 'oidc:ada@example.com', role: 'operator' }])
  t.match((await service.app.registry.find(serialNumber))?.history.at(-1), { event: 'disabled', actor: 'oidc:ada@example.com' })
  t.notMatch(service.logs(), as)
  t.notMatch(service.logs(), as.split('.')[2]!)
})

await t.test('access that is refused', async t => {
  const refusal = { event: 'access-refused', outcome: 'refused', requestId: 'the-request', method: 'POST', route: '/v1/reconcile', address: '127.0.0.1' }
  const wrong = key()
  t.strictSame(await auditedDuring(() => ask('/v1/reconcile', { as: wrong })), [auditLine({ ...refusal, code: 'unauthenticated', reason: 'credential-unknown' } as AuditRecord).audit])
  t.match(await auditedDuring(() => ask('/v1/reconcile', { as: '' })), [{ ...refusal, reason: 'credential-malformed' }])
  t.match(await auditedDuring(async () => ask('/v1/reconcile', { as: await provider.token({}, { expiresIn: -60 }) })), [{ ...refusal, reason: 'token-expired', actor: undefined }])
  t.match(await auditedDuring(() => ask('/v1/reconcile', { as: keys.auditor })), [{ ...refusal, code: 'forbidden', actor: 'auditor-1', role: 'auditor' }])
  const as = await provider.token({ roles: ['line', 'auditor'] })
  t.match(await auditedDuring(() => ask('/v1/reconcile', { as })), [{ ...refusal, code: 'forbidden', actor: 'oidc:ada', role: 'line auditor' }])
  for (const secret of [wrong, keys.auditor, keys.operator, as]) t.notMatch(service.logs(), secret)
})

await t.test('reconcile on demand', async t => {
  t.match(await auditedDuring(() => ask('/v1/reconcile', { dryRun: true })),
    [{ event: 'reconcile-requested', outcome: 'done', reason: 'dry-run', actor: 'operator-1', role: 'operator', requestId: 'the-request' }])
  const [requested] = await auditedDuring(() => ask('/v1/reconcile'))
  t.match(requested, { event: 'reconcile-requested', outcome: 'done', actor: 'operator-1', reason: undefined })
})

await t.test('what reconcile does, with nobody asking', async t => {
  const { rig, lines, useCases } = await observed()
  rig.controlPlane.before = operation => { if (operation === 'bind') throw new CvmError('aws-iot-unavailable') }
  await rig.vend().catch(() => {})
  rig.controlPlane.before = () => {}
  await useCases.reconcile({ requestId: 'dry', dryRun: true })
  t.strictSame(lines(), [], 'what would be done is no event')
  await useCases.reconcile({ requestId: 'run-1', dryRun: false })
  const facts = { requestId: 'run-1', serialNumber: SERIAL, certificateId: rig.controlPlane.active()[0] }
  t.match(lines(), [{ audit: { event: 'device-reconciled', outcome: 'done', step: 'finish-issued', ...facts } }])

  rig.controlPlane.before = () => { throw new CvmError('aws-iot-unavailable') }
  await rig.operate('reset').catch(() => {})
  rig.controlPlane.before = () => {}
  await useCases.reconcile({ requestId: 'run-2', dryRun: false })
  t.match(lines().slice(1), [
    { audit: { event: 'device-reconciled', outcome: 'done', step: 'finish-operation', reason: 'reset', serialNumber: SERIAL } },
    { audit: { event: 'certificate-disposed', outcome: 'done', step: 'dispose-retired', ...facts, requestId: 'run-2' } }
  ])

  const { certificate: { certificateId } } = await rig.vend()
  rig.controlPlane.statuses.set(certificateId, 'INACTIVE')
  rig.controlPlane.listRecent = async () => ({ certificates: [{ certificateId, status: 'INACTIVE', createdAt: 0 }], complete: true })
  await useCases.reconcile({ requestId: 'run-3', dryRun: false })
  t.match(lines().slice(3), [{ level: WARN, audit: { event: 'drift-found', outcome: 'later', reason: /AWS IoT says INACTIVE/, certificateId, serialNumber: SERIAL } }])
})

await t.test('a request that another had begun, and one that the service fails', async t => {
  const { rig, lines, useCases } = await observed()
  const request = { serialNumber: SERIAL, registrationToken: 'token', certificateSigningRequest: rig.csrs[0], address: '::1' }
  rig.controlPlane.before = operation => { if (operation === 'bind') throw new CvmError('aws-iot-unavailable') }
  await t.rejects(useCases.vend({ ...request, requestId: 'vend-1' }), { code: 'aws-iot-unavailable' })
  const wish = { serialNumber: SERIAL, operation: 'revoke', actor: 'ada', role: 'operator', reason: 'test', requestId: 'revoke-1' } as const
  t.strictSame(lines(), [], 'a vend that failed is no security event')
  rig.controlPlane.before = () => {}
  await useCases.vend({ ...request, requestId: 'vend-2' })
  t.match(lines(), [{ audit: { event: 'certificate-vended', outcome: 'resumed', requestId: 'vend-2', address: '::1' } }])
  rig.controlPlane.before = () => { throw new CvmError('aws-iot-unavailable') }
  await t.rejects(useCases.operate(wish), { code: 'aws-iot-unavailable' })
  t.match(lines().slice(1), [{ level: WARN, audit: { event: 'device-revoked', outcome: 'failed', code: 'aws-iot-unavailable', actor: 'ada', serialNumber: SERIAL } }])
})

await t.test('of two resets at once, only who got the token that holds is told one', async t => {
  const { rig, lines, useCases } = await observed()
  const wish = { serialNumber: SERIAL, operation: 'reset', actor: 'ada', role: 'operator', reason: 'twice' } as const
  const results = await Promise.allSettled(['request-1', 'request-2'].map(requestId => useCases.operate({ ...wish, requestId })))
  const [given, ...more] = results.flatMap(result => result.status === 'fulfilled' ? [result.value.registrationToken ?? ''] : [])
  t.strictSame(more, [])
  t.match(results.find(({ status }) => status === 'rejected'), { reason: { code: 'state-conflict' } })
  t.equal((await rig.registry.find(SERIAL))?.tokenHash, HASH(SERIAL, given ?? ''))
  t.match(lines().map(({ audit }) => audit?.outcome).sort(), ['done', 'refused'])
})

await t.test('at any level but silent, and nothing beside the allow-list', t => {
  for (const [level, count] of [['trace', 1], ['info', 1], ['fatal', 1], ['silent', 0]] as const) {
    const { log, lines } = capture(level)
    auditLog(log).audit({ event: 'device-registered', outcome: 'done', requestId: 'request', ...{ registrationToken: 'secret' } })
    t.equal(lines().length, count, level)
    t.notMatch(JSON.stringify(lines()), 'secret')
  }
  t.end()
})

function capture (level: string) {
  const chunks: string[] = []
  const log = pino({ level }, new Writable({ write (chunk, _encoding, done) { chunks.push(String(chunk)); done() } }))
  return { log, lines: () => chunks.map(chunk => JSON.parse(chunk) as Line).filter(({ msg }) => msg === 'audit') }
}

/** The use cases as the app has them, over models whose clock stands years ago: every claim of theirs has expired. */
async function observed () {
  const rig = await makeRig()
  const { log, lines } = capture('error')
  const { registry, adoptions, certificateHolds, keyOwners, findings, controlPlane, products } = rig
  const planes = { forDevices: controlPlane, forBulk: controlPlane, forSweep: controlPlane, admitLine: async () => () => {} }
  const metrics = createMetrics({ version: 'test', node: 'test' })
  const hashToken = HASH
  const { audit } = auditLog(log)
  const catalog = { findByCertificate: (id: string) => registry.findByCertificate(id), list: async () => ({ devices: [] }) }
  const ports = { registry, renewals: registry.renewals, devices: registry, catalog, adoptions, certificateHolds, keyOwners, findings }
  const shadows = { find: async () => undefined, setDesired: async () => { throw new CvmError('aws-iot-unavailable') } }
  const nobody = {
    authorities: new ModelAuthorities(),
    authoritySettings: new ModelAuthoritySettings(),
    crlSource: { fetch: async () => undefined },
    destinations: { confirm: async () => { throw new CvmError('aws-iot-unavailable') } }
  }
  const oldDevices = { page: async () => ({ rows: [] }), takeOver: async () => { throw new CvmError('registry-unavailable') } }
  const parts = { config: readConfig({}), log, audit, metrics, ...ports, ...planes, ...nobody, oldDevices, shadows, hashToken, products }
  const useCases = observedUseCases(parts)
  return { rig, lines, useCases }
}

function key (): string {
  return `cvm_${randomBytes(32).toString('base64url')}`
}
