// Renewal over models: what a device gets, what it may do next, and what becomes of what it leaves.
import t, { type Test } from 'tap'
import type { CvmError } from '../../src/errors.ts'
import type { Operation } from '../../src/vending/device.ts'
import type { Renewed } from '../../src/vending/renew.ts'
import { gate } from '../fixtures/gate.ts'
import { opensslCsr } from '../fixtures/openssl.ts'
import { CLAIM_LIFETIME_MS, CONFIRM_WITHIN_MS, REPLAY_WINDOW_MS, type Rig, SERIAL, makeRig } from '../fixtures/vend-rig.ts'

const BEYOND = CLAIM_LIFETIME_MS + 5_000

await t.test('a renewal is INACTIVE until it is confirmed, and then the one before is over', async t => {
  const { rig, old } = await vended()
  const renewed = await rig.renew()
  t.match(renewed, { outcome: 'renewed', confirmBefore: rig.clock.now + CONFIRM_WITHIN_MS })
  const { certificateId } = renewed.certificate
  t.same(statuses(rig), { [old]: 'ACTIVE', [certificateId]: 'INACTIVE' })
  t.same(await rig.renew(), { ...renewed, outcome: 'replayed' }, 'the same again')
  t.match(await rig.confirm(), { outcome: 'renewed', certificate: { certificateId } })
  t.same(statuses(rig), { [old]: 'REVOKED', [certificateId]: 'ACTIVE' })
  t.match(await rig.registry.find(SERIAL), { state: 'ACTIVE', certificate: { certificateId }, renewal: undefined, retiring: [old], renewedFrom: old })
  await rest(t, rig)
  t.same(statuses(rig), { [certificateId]: 'ACTIVE' }, 'reconcile deletes the one before')
  t.match((await rig.registry.find(SERIAL))?.history.map(({ event }) => event), ['registered', 'claimed', 'issued', 'activated', 'renewal-issued', 'renewal-confirmed', 'renewed', 'disposed'])
})

await t.test('another key replaces a renewal that was not confirmed', async t => {
  const { rig, old } = await vended()
  const first = await rig.renew()
  const second = await rig.renew({ certificateSigningRequest: rig.csrs[3] })
  t.not(second.certificate.certificateId, first.certificate.certificateId)
  t.match((await rig.registry.find(SERIAL))?.retiring, [first.certificate.certificateId])
  await rest(t, rig)
  t.same(statuses(rig), { [old]: 'ACTIVE', [second.certificate.certificateId]: 'INACTIVE' })
})

await t.test('one that is not confirmed in time is given up, and the working one works (G5)', async t => {
  const { rig, old } = await vended()
  await rig.renew()
  t.match(await rig.reconcile(), { actions: [], backlog: 0 }, 'waiting for its device is no work for reconcile')
  rig.clock.now += CONFIRM_WITHIN_MS
  await t.rejects(rig.confirm(), { code: 'renewal-gone' })
  await rest(t, rig)
  t.same(statuses(rig), { [old]: 'ACTIVE' })
  t.match((await rig.registry.find(SERIAL))?.history.at(-2), { event: 'renewal-abandoned' })
  t.match(await rig.renew(), { outcome: 'renewed' })
})

await t.test('at once: swapped in one request, and the key before gets the same answer for a time', async t => {
  const { rig, old } = await vended()
  const renewed = await rig.renew({ swap: 'at-once' })
  const { certificateId } = renewed.certificate
  t.same(statuses(rig), { [old]: 'REVOKED', [certificateId]: 'ACTIVE' })
  t.notOk('confirmBefore' in renewed)
  const again = { swap: 'at-once', proof: { kind: 'tls', certificateId: old } } as const
  t.match(await rig.renew(again), { outcome: 'replayed', certificate: { certificateId } })
  await t.rejects(rig.renew({ ...again, certificateSigningRequest: rig.csrs[3] }), { code: 'device-not-authorized' }, 'but no other')
  rig.clock.now += REPLAY_WINDOW_MS
  await t.rejects(rig.renew(again), { code: 'device-not-authorized' }, 'and not for ever')
})

await t.test('what AWS IoT refuses or does not answer leaves the working certificate working (G5)', async t => {
  for (const operation of ['createCertificateFromCsr', 'describe', 'bind'] as const) {
    const { rig, old } = await vended()
    const confirmed = async () => { await rig.renew(); await rig.confirm() }
    rig.controlPlane.before = called => { if (called === operation) throw Object.assign(new Error(operation), { code: 'aws-iot-unavailable' }) }
    await t.rejects(confirmed(), { message: operation })
    t.equal(rig.controlPlane.statuses.get(old), 'ACTIVE', operation)
    rig.controlPlane.before = () => {}
    rig.clock.now += BEYOND
    await confirmed()
    await rest(t, rig)
    t.equal(rig.controlPlane.active().length, 1)
  }
})

await t.test('after the intent it is finished, by the device or by reconcile', async t => {
  for (const operation of ['revoke', 'activate'] as const) {
    for (const finisher of ['confirm', 'reconcile'] as const) {
      const { rig } = await vended()
      const { certificate: { certificateId } } = await rig.renew()
      rig.controlPlane.before = called => { if (called === operation) throw Object.assign(new Error(operation), { code: 'aws-iot-unavailable' }) }
      await t.rejects(rig.confirm(), { message: operation })
      rig.controlPlane.before = () => {}
      await t.rejects(rig.renew({ certificateSigningRequest: rig.csrs[3] }), { code: 'vend-in-progress' }, 'and nothing comes between')
      rig.clock.now += BEYOND
      await rig[finisher]()
      t.equal(rig.controlPlane.statuses.get(certificateId), 'ACTIVE', `${operation}, ${finisher}`)
      await rest(t, rig)
      t.same(statuses(rig), { [certificateId]: 'ACTIVE' })
    }
  }
})

await t.test('a new certificate that is gone from AWS IoT costs the device nothing', async t => {
  const { rig, old } = await vended()
  const { certificate } = await rig.renew()
  rig.controlPlane.statuses.delete(certificate.certificateId)
  await t.rejects(rig.confirm(), { code: 'renewal-gone', message: /AWS IoT does not have the new certificate/ })
  t.same(statuses(rig), { [old]: 'ACTIVE' })
})

await t.test('a confirm that another one overtakes answers what the other did, wherever it waits (G5)', async t => {
  for (const operation of ['describe', 'bind', 'revoke', 'activate'] as const) {
    for (const moment of ['before', 'after'] as const) {
      const { rig } = await vended()
      const { certificate: { certificateId } } = await rig.renew()
      const [resumes, waits] = [gate(), gate()]
      rig.controlPlane[moment] = async called => {
        if (called !== operation) return
        rig.controlPlane[moment] = () => {}
        waits.open()
        await resumes.passed
      }
      const slow = rig.confirm()
      await waits.passed
      t.match(await rig.confirm(), { certificate: { certificateId } })
      resumes.open()
      t.match(await slow, { certificate: { certificateId } }, `${moment} ${operation}`)
      await rest(t, rig)
      t.same(statuses(rig), { [certificateId]: 'ACTIVE' })
    }
  }
})

await t.test('a confirm that comes too late gives the renewal up before it says so, and never one that is being promoted', async t => {
  const { rig, old } = await vended()
  await rig.renew()
  const [resumes, waits] = [gate(), gate()]
  rig.controlPlane.after = async called => {
    if (called !== 'bind') return
    waits.open()
    await resumes.passed
  }
  const slow = rig.confirm()
  await waits.passed
  rig.clock.now += CONFIRM_WITHIN_MS
  await t.rejects(rig.confirm(), { code: 'renewal-gone' })
  resumes.open()
  await t.rejects(slow, { code: 'vend-in-progress' }, 'the earlier one cannot promote it any more')
  await rest(t, rig)
  t.same(statuses(rig), { [old]: 'ACTIVE' })

  const other = await vended()
  const renewed = await other.rig.renew()
  await cutOff(t, other.rig)
  other.rig.clock.now += CONFIRM_WITHIN_MS
  t.match(await other.rig.confirm(), { certificate: renewed.certificate }, 'one whose promotion has begun is finished')
})

await t.test('a new certificate that was activated past the service is promoted when it is confirmed, and ended when it is given up', async t => {
  const { rig } = await vended()
  const { certificate: { certificateId } } = await rig.renew()
  rig.controlPlane.statuses.set(certificateId, 'ACTIVE')
  t.match(await rig.confirm(), { outcome: 'renewed', certificate: { certificateId } })
  await rest(t, rig)
  t.same(statuses(rig), { [certificateId]: 'ACTIVE' })

  const late = await vended()
  const given = await late.rig.renew()
  late.rig.clock.now += CONFIRM_WITHIN_MS
  await t.rejects(late.rig.confirm(), { code: 'renewal-gone' })
  late.rig.controlPlane.statuses.set(given.certificate.certificateId, 'ACTIVE')
  late.rig.clock.now += BEYOND
  await late.rig.reconcile()
  t.same(statuses(late.rig), { [late.old]: 'ACTIVE' }, 'the next run of reconcile ends it')
})

await t.test('what operators wish goes before a renewal, wherever that is', async t => {
  const expected: Record<Exclude<Operation, 'enable'>, { code: string, left: string | undefined }> = {
    disable: { code: 'device-disabled', left: 'INACTIVE' },
    revoke: { code: 'device-revoked', left: 'REVOKED' },
    reset: { code: 'device-not-authorized', left: undefined },
    decommission: { code: 'device-not-authorized', left: undefined }
  }
  for (const [operation, { code, left }] of Object.entries(expected)) {
    for (const phase of ['issued', 'swapping'] as const) {
      const { rig, old } = await vended()
      const renewed = await rig.renew()
      if (phase === 'swapping') await cutOff(t, rig)
      await rig.operate(operation as Operation)
      const now = await rig.registry.find(SERIAL)
      t.equal(now?.renewal, undefined)
      t.same(rig.controlPlane.active(), [], `${operation}, ${phase}`)
      await t.rejects(rig.renew({ proof: { kind: 'tls', certificateId: now?.certificate?.certificateId ?? old } }), { code })
      await rest(t, rig)
      const kept = phase === 'issued' ? old : renewed.certificate.certificateId
      t.same(statuses(rig), left ? { [kept]: left } : {}, `${operation}, ${phase}, at rest`)
    }
  }
})

await t.test('enabled again after a swap that was cut off, the device goes on with the new one', async t => {
  const { rig } = await vended()
  const { certificate: { certificateId } } = await rig.renew()
  await cutOff(t, rig)
  await rig.operate('disable')
  await rig.operate('enable')
  await rest(t, rig)
  t.same(statuses(rig), { [certificateId]: 'ACTIVE' })
})

await t.test('certificates that have ended are renewed where the product says so', async t => {
  for (const [renewExpiredForMs, isRenewed] of [[0, false], [1_000_000, true]] as const) {
    const { rig } = await vended({ renewExpiredForMs })
    const { notAfter = 0 } = (await rig.registry.find(SERIAL))?.certificate ?? {}
    rig.clock.now = notAfter - 1
    await t.resolves(rig.renew())
    rig.clock.now = notAfter + 999_999
    const renewal = rig.renew({ certificateSigningRequest: rig.csrs[3] })
    await (isRenewed ? t.resolves(renewal) : t.rejects(renewal, { code: 'certificate-expired' }))
    rig.clock.now = notAfter + 1_000_000
    await t.rejects(rig.renew({ certificateSigningRequest: rig.csrs[isRenewed ? 2 : 3] }), { code: 'certificate-expired' })
  }
})

await t.test('a product\'s key rules are for new keys too', async t => {
  const { rig } = await vended()
  const [[name, product] = []] = rig.products
  if (name && product) rig.products.set(name, { ...product, keyTypes: ['RSA'] })
  await t.rejects(rig.renew(), { code: 'csr-rejected', reason: 'key-type-not-allowed-by-product' })
  if (name && product) rig.products.set(name, { ...product, serialNumberFrom: 'SerialNumber' })
  const { csrPem } = await opensslCsr({ serialNumber: SERIAL, subject: '/serialNumber=victim' })
  await t.rejects(rig.renew({ certificateSigningRequest: csrPem }), { code: 'csr-rejected', reason: 'subject-other-device' })
})

await t.test('who has not the device\'s certificate learns nothing (G7)', async t => {
  const { rig } = await vended()
  const wrong = { proof: { kind: 'tls', certificateId: 'f'.repeat(64) } } as const
  const refusals = await Promise.all([rig.renew(wrong), rig.renew({ ...wrong, serialNumber: 'sn-2', certificateSigningRequest: rig.csrs[2] })].map(asRefusal))
  t.match(refusals, [{ code: 'device-not-authorized' }, { code: 'csr-rejected' }], 'the CSR names its device before anybody is asked for')
})

async function vended (changes = {}) {
  const rig = await makeRig(undefined, changes)
  const { certificate: { certificateId: old } } = await rig.vend()
  return { rig, old }
}

/** A confirmation whose process dies between the one and the other. */
async function cutOff (t: Test, rig: Rig): Promise<void> {
  rig.controlPlane.before = called => { if (called === 'activate') throw new Error('cut off') }
  await t.rejects(rig.confirm(), { message: 'cut off' })
  rig.controlPlane.before = () => {}
}

async function rest (t: Test, rig: Rig): Promise<void> {
  for (let run = 0; run < 4; run++) {
    rig.clock.now += BEYOND
    await rig.reconcile()
  }
  t.match(await rig.reconcile(), { backlog: 0, drift: 0 })
}

function statuses ({ controlPlane }: Rig): object {
  return Object.fromEntries(controlPlane.statuses)
}

async function asRefusal (work: Promise<Renewed>): Promise<CvmError | Renewed> {
  return work.catch((cause: unknown) => cause as CvmError)
}
