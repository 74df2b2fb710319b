// Certificates that AWS IoT registers at their device's first connection (JITR): judged, adopted or ended, once, whatever is cut off.
import t from 'tap'
import { CvmError } from '../../src/errors.ts'
import { AUTHORITY, CLAIM_LIFETIME_MS, type Rig, SERIAL, makeRig } from '../fixtures/vend-rig.ts'

const AFTER = CLAIM_LIFETIME_MS + 2_001
const statusOf = ({ controlPlane, foreign }: Rig, which: 0 | 1 = 0) => controlPlane.statuses.get(foreign[which].certificateId)
const refusing = (code: ConstructorParameters<typeof CvmError>[0], reason?: string) =>
  async () => { throw new CvmError(code, reason === undefined ? {} : { reason }) }

await t.test('the first connection\'s certificate becomes the device\'s; the same event again changes nothing', async t => {
  const rig = await makeRig()
  const { certificateId } = rig.foreign[0]
  t.same(await rig.activate(0), { certificateId, outcome: 'activated', serialNumber: SERIAL, product: 'default', caCertificateId: AUTHORITY.caCertificateId })
  t.same(rig.controlPlane.active(), [certificateId])
  t.ok(rig.controlPlane.bound.has(certificateId))
  t.match(await rig.registry.find(SERIAL), { state: 'ACTIVE', certificate: { certificateId, way: 'jitr' }, lastClaimExpiresAt: undefined })
  t.notOk(rig.controlPlane.calls.includes('registerCertificate'), 'AWS IoT has it already')

  t.same(await rig.activate(0), { certificateId, outcome: 'ignored', status: 'ACTIVE' })
  rig.clock.now += AFTER
  const report = await rig.reconcile()
  t.match(report, { actions: [], backlog: 0, drift: 0, pendingSince: [] })
})

await t.test('what somebody has judged stays so, whatever events say', async t => {
  for (const end of ['INACTIVE', 'REVOKED'] as const) {
    const rig = await makeRig()
    await rig.activate(0)
    rig.controlPlane.statuses.set(rig.foreign[0].certificateId, end)
    t.match(await rig.activate(0), { outcome: 'ignored', status: end })
    t.equal(statusOf(rig), end)
  }
  const early = await makeRig()
  early.controlPlane.connect(early.foreign[0].certificatePem)
  early.controlPlane.statuses.set(early.foreign[0].certificateId, 'INACTIVE')
  t.match(await early.activate(0), { outcome: 'ignored', status: 'INACTIVE' })
  t.match(await early.registry.find(SERIAL), { state: 'REGISTERED' })

  // An operator revokes while it is being activated.
  const rig = await makeRig()
  rig.controlPlane.before = operation => {
    if (operation === 'bind') rig.controlPlane.statuses.set(rig.foreign[0].certificateId, 'REVOKED')
  }
  t.match(await rig.activate(0), { outcome: 'later', code: 'vend-in-progress' })
  rig.controlPlane.before = () => {}
  rig.clock.now += AFTER
  await rig.reconcile()
  t.equal(statusOf(rig), 'REVOKED')
  t.match(await rig.registry.find(SERIAL), { state: 'REVOKED' })
})

await t.test('what is refused ends, with the reason in the device\'s history', async t => {
  const refused = async (rig: Rig, status: string, code: string, reason?: string, isTold = false) => {
    const activated = await rig.activate(0)
    t.match(activated, { outcome: 'refused', status, code, ...reason && { reason } }, `${code} ${reason}`)
    t.equal(statusOf(rig), status)
    t.same(rig.controlPlane.active(), [])
    const device = await rig.registry.find(SERIAL)
    const told = { event: 'refused', certificateId: rig.foreign[0].certificateId, reason: reason ?? code }
    if (isTold) t.match(device?.history.at(-1), told)
    t.match(await rig.reconcile(), { pendingSince: [] })
    t.match(await rig.activate(0), { outcome: 'ignored', status }, 'and stays so')
  }
  for (const [status, code, reason] of [
    ['INACTIVE', 'certificate-not-trusted', 'signature-invalid'], ['INACTIVE', 'authority-not-active', undefined],
    ['REVOKED', 'certificate-revoked', 'key-compromise'], ['INACTIVE', 'certificate-revoked', 'certificate-hold']
  ] as const) {
    const rig = await makeRig()
    rig.vouch.trust = refusing(code, reason)
    await refused(rig, status, code, reason)
  }
  const vended = await makeRig()
  const { certificate } = await vended.vend()
  t.match(await vended.activate(0), { outcome: 'refused', status: 'INACTIVE', code: 'already-vended' })
  t.same(vended.controlPlane.active(), [certificate.certificateId], 'one that is ACTIVE is not displaced')

  const disabled = await makeRig()
  await disabled.operate('disable')
  await refused(disabled, 'INACTIVE', 'device-disabled', undefined, true)
  const decommissioned = await makeRig()
  await decommissioned.operate('decommission')
  await refused(decommissioned, 'INACTIVE', 'device-decommissioned', undefined, true)
  const rsaOnly = await makeRig(undefined, { keyTypes: ['RSA'] })
  await refused(rsaOnly, 'INACTIVE', 'certificate-rejected', 'key-type-not-allowed-by-product', true)
  const elsewhere = await makeRig(undefined, { serialNumberFrom: 'OrganizationalUnit' })
  await refused(elsewhere, 'INACTIVE', 'certificate-rejected', 'serial-number-missing')
  const others = await makeRig()
  others.vouch.trust = async () => ({ authority: { ...AUTHORITY, products: ['toasters'] }, isDirect: true })
  await refused(others, 'INACTIVE', 'authority-not-for-product', undefined, true)
})

await t.test('the registry is the allow-list, unless a product enrols openly and the authority names it', async t => {
  const unregistered = async (changes: object, products: string[] | undefined) => {
    const rig = await makeRig(undefined, changes)
    const { find } = rig.registry
    const known = new Set<string>()
    const register = rig.registry.register
    // The device of the rig is one that nobody has registered, until somebody does.
    rig.registry.find = async serialNumber => known.has(serialNumber) ? find.call(rig.registry, serialNumber) : undefined
    rig.registry.register = async (device, ...rest) => {
      known.add(device.serialNumber)
      return register.call(rig.registry, device, ...rest)
    }
    rig.vouch.trust = async () => ({ authority: { ...AUTHORITY, products }, isDirect: true })
    return rig
  }
  for (const [open, products] of [[false, ['default']], [true, undefined], [true, ['other']]] as const) {
    const rig = await unregistered({ openEnrolment: open }, products && [...products])
    t.match(await rig.activate(0), { outcome: 'refused', status: 'INACTIVE', code: 'device-not-found' }, `${open} ${products}`)
  }
  const rig = await unregistered({ openEnrolment: true }, ['default'])
  t.match(await rig.activate(0), { outcome: 'activated', serialNumber: SERIAL, product: 'default' })
  const picky = await unregistered({ openEnrolment: true, keyTypes: ['RSA'] }, ['default'])
  t.match(await picky.activate(0), { outcome: 'refused', code: 'certificate-rejected', reason: 'key-type-not-allowed-by-product' })
  t.equal(await picky.registry.find(SERIAL), undefined, 'and nothing is enrolled')
  const two = await unregistered({ openEnrolment: true }, ['default', 'second'])
  const product = two.products.get('default')
  if (product) two.products.set('second', { ...product, name: 'second' })
  t.match(await two.activate(0), { outcome: 'refused', code: 'certificate-rejected', reason: 'product-ambiguous' })
})

await t.test('a device of another product is not to be had by what its product does not look at', async t => {
  const rig = await makeRig(undefined, { openEnrolment: true })
  const product = rig.products.get('default')
  if (!product) return t.fail('there is a default product')
  rig.products.set('open', { ...product, name: 'open' })
  rig.products.set('default', { ...product, openEnrolment: false, serialNumberFrom: 'SerialNumber' })
  rig.vouch.trust = async () => ({ authority: { ...AUTHORITY, products: ['open', 'default'] }, isDirect: true })
  t.match(await rig.activate(0), { outcome: 'refused', code: 'certificate-rejected', reason: 'device-of-other-product' })
  t.match(await rig.registry.find(SERIAL), { state: 'REGISTERED', certificate: undefined })
})

await t.test('what may pass is put off, counted, and taken up by reconcile', async t => {
  for (const code of ['crl-unavailable', 'aws-iot-throttled', 'registry-unavailable', 'aws-iot-refused'] as const) {
    const rig = await makeRig()
    const { trust } = rig.vouch
    rig.vouch.trust = refusing(code)
    t.match(await rig.activate(0), { outcome: 'later', code })
    t.equal(statusOf(rig), 'PENDING_ACTIVATION')
    const seenAt = rig.clock.now
    rig.clock.now += AFTER
    t.match(await rig.reconcile(), { actions: [{ step: 'activate-pending', outcome: 'later', detail: code }], pendingSince: [seenAt] })
    t.match(await rig.reconcile({ dryRun: true }), { actions: [], pendingSince: [seenAt] }, 'not before it is due')
    rig.vouch.trust = trust
    rig.clock.now += AFTER
    t.match((await rig.reconcile({ dryRun: true })).actions, [{ step: 'activate-pending', outcome: 'would' }])
    t.match(await rig.reconcile(), { actions: [{ step: 'activate-pending', outcome: 'done', serialNumber: SERIAL, detail: 'activated' }], pendingSince: [] })
    t.same(rig.controlPlane.active(), [rig.foreign[0].certificateId])
  }
})

await t.test('one of which no event was heard is found in AWS IoT', async t => {
  const rig = await makeRig()
  rig.controlPlane.connect(rig.foreign[0].certificatePem)
  t.same((await rig.reconcile()).actions, [], 'not while its event may be on its way')
  rig.clock.now += AFTER
  t.match((await rig.reconcile()).actions, [{ step: 'activate-pending', outcome: 'done', detail: 'activated' }])
  t.same(rig.controlPlane.active(), [rig.foreign[0].certificateId])
})

await t.test('whatever a crash cuts off is finished by the next event, or by reconcile', async t => {
  for (const operation of ['describe', 'bind', 'activate'] as const) {
    for (const moment of ['before', 'after'] as const) {
      for (const cure of ['event', 'reconcile'] as const) {
        const rig = await makeRig()
        const { registry: { release }, certificateHolds: { release: letGo } } = rig
        rig.controlPlane[moment] = current => { if (current === operation) throw new CvmError('aws-iot-unavailable') }
        rig.registry.release = rig.certificateHolds.release = async () => { throw new CvmError('registry-unavailable') }
        t.match(await rig.activate(0), { outcome: 'later' })
        rig.controlPlane[moment] = () => {}
        Object.assign(rig.registry, { release })
        Object.assign(rig.certificateHolds, { release: letGo })
        rig.clock.now += AFTER
        if (cure === 'event') await rig.activate(0)
        await rig.reconcile()
        rig.clock.now += AFTER
        await rig.reconcile()
        t.same(rig.controlPlane.active(), [rig.foreign[0].certificateId], `${moment} ${operation}, ${cure}`)
        t.match(await rig.registry.find(SERIAL), { state: 'ACTIVE', suspicion: undefined, lastClaimExpiresAt: undefined })
        t.match(await rig.reconcile(), { backlog: 0, drift: 0, pendingSince: [] })
      }
    }
  }
})

await t.test('of two at once one judges, and the other comes back later', async t => {
  const rig = await makeRig()
  const [one, other] = await Promise.all([rig.activate(0), rig.activate(0)])
  t.match([one, other].map(({ outcome }) => outcome).sort(), ['activated', 'later'])
  const [first, second] = await Promise.all([rig.activate(1), rig.activate(0)])
  t.match([first, second], [{ outcome: 'refused', code: 'already-vended' }, { outcome: 'ignored', status: 'ACTIVE' }])
})

await t.test('an event that names another authority than AWS IoT decides nothing', async t => {
  const rig = await makeRig()
  const { describe } = rig.controlPlane
  rig.controlPlane.describe = async (...args) => {
    const known = await describe.apply(rig.controlPlane, args)
    return known && { ...known, caCertificateId: 'b'.repeat(64) }
  }
  await t.rejects(rig.activate(0), { code: 'invalid-request' })
  t.equal(statusOf(rig), 'PENDING_ACTIVATION')
})
