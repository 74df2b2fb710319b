// The search for certificates that an attempt left behind: its end, its marks, and searches that one run cannot finish.
import t from 'tap'
import { CvmError } from '../../src/errors.ts'
import { tokenHasher } from '../../src/vending/registration-token.ts'
import type { Operation } from '../fixtures/model-control-plane.ts'
import { dieAt, steps } from '../fixtures/dying-worker.ts'
import { CLAIM_LIFETIME_MS, LAST_LOOK_MS, SERIAL, makeRig } from '../fixtures/vend-rig.ts'

const AFTER = CLAIM_LIFETIME_MS + 2_001

await t.test('an attempt that begins while reconcile looks is not cleared with the one before', async t => {
  for (const ends of [false, true]) {
    const rig = await makeRig()
    await rig.vend()
    const lose = async (csr: string) => {
      rig.controlPlane.after = operation => { if (operation === 'createCertificateFromCsr') throw new CvmError('aws-iot-unavailable') }
      const { release } = rig.registry.renewals
      if (!ends) rig.registry.renewals.release = async () => { throw new CvmError('registry-unavailable') }
      await t.rejects(rig.renew({ certificateSigningRequest: csr }))
      rig.registry.renewals.release = release
    }
    await lose(rig.csrs[2])
    rig.clock.now += AFTER
    rig.controlPlane.after = () => {}
    await rig.reconcile()
    rig.clock.now += AFTER
    let isFirst = true
    rig.controlPlane.after = async operation => {
      if (operation !== 'listRecent' || !isFirst) return
      isFirst = false
      await lose(rig.csrs[3])
      rig.controlPlane.after = () => {}
    }
    await rig.reconcile()
    t.equal(rig.controlPlane.statuses.size, 2, 'the second attempt left one behind')
    for (let run = 0; run < 3; run++) {
      rig.clock.now += LAST_LOOK_MS
      await rig.reconcile()
    }
    t.same([...rig.controlPlane.statuses.values()], ['ACTIVE'], `it is found (${ends ? 'the attempt had ended' : 'its process died'})`)
    t.match(await rig.registry.find(SERIAL), { suspicion: undefined })
  }
})

await t.test('key pairs that several devices lost are all found, in any order of suspicion', async t => {
  const rig = await makeRig()
  const serialNumber = 'sn-2'
  const device = { serialNumber, product: 'default', tokenHash: tokenHasher(Buffer.alloc(32, 1))(serialNumber, 'token'), tokenExpiresAt: undefined }
  await rig.registry.register(device, { now: rig.clock.now, requestId: 'r' })
  const lost: Operation = 'createKeysAndCertificate'
  rig.controlPlane.after = operation => { if (operation === lost) throw new CvmError('aws-iot-unavailable') }
  await t.rejects(rig.vendKeys())
  rig.clock.now += 9_000
  await t.rejects(rig.vendKeys({ serialNumber }))
  rig.controlPlane.after = () => {}
  t.equal(rig.controlPlane.statuses.size, 2)
  for (let run = 0; run < 4; run++) {
    rig.clock.now += AFTER
    await rig.reconcile()
  }
  t.equal(rig.controlPlane.statuses.size, 0)
})

await t.test('a search that one run cannot finish goes on in the next, in any replica, and clears only those that it was for', async t => {
  const rig = await makeRig()
  await dieAt(rig, 'vend', 'after', 'createCertificateFromCsr')
  const [orphan = ''] = rig.controlPlane.statuses.keys()
  for (let n = 0; n < 7; n++) {
    rig.clock.now++
    await rig.controlPlane.createCertificateFromCsr(rig.csrs[3])
  }
  rig.clock.now += LAST_LOOK_MS
  rig.controlPlane.pageSize = 1
  rig.limits.maxPages = 3
  t.match(await rig.reconcile(), { complete: false, actions: [{ step: 'free-expired-claim' }, { step: 'search-orphans', outcome: 'later' }] })
  // Another device is suspected since, of whose certificate the search has passed the place by; and newer certificates come first.
  await rig.register('sn-2')
  rig.controlPlane.after = operation => { if (operation === 'createKeysAndCertificate') throw new CvmError('aws-iot-unavailable') }
  await t.rejects(rig.vendKeys({ serialNumber: 'sn-2' }), { code: 'aws-iot-unavailable' })
  rig.controlPlane.after = () => {}
  rig.clock.now += 1
  // Of one that began it, nothing is known: each rig's reconcile is a replica, and a process that starts knows the table alone.
  const others = rig.through(port => port)
  t.same(steps(await others.reconcile()), ['search-orphans later'])
  t.ok(rig.controlPlane.statuses.has(orphan))
  t.same(steps(await rig.reconcile()), ['delete-orphan done', 'search-orphans done'])
  t.notOk(rig.controlPlane.statuses.has(orphan))
  t.match(await rig.registry.find(SERIAL), { suspicion: undefined })
  t.equal(await rig.registry.orphanSearch(), undefined)
  t.match(await rig.registry.find('sn-2'), { suspicion: { keys: ['generated'] } }, 'the next search is for this one')
  rig.clock.now += LAST_LOOK_MS
  let runs = 0
  while ((await rig.registry.find('sn-2'))?.suspicion && runs++ < 9) await rig.reconcile()
  t.equal(runs, 1, 'which goes back no further than its own attempt')
  t.equal(rig.controlPlane.statuses.size, 7)
})

await t.test('a search whose marker AWS IoT does not take any more begins anew', async t => {
  const rig = await makeRig()
  await dieAt(rig, 'vend', 'after', 'createCertificateFromCsr')
  for (let n = 0; n < 3; n++) {
    rig.clock.now++
    await rig.controlPlane.createCertificateFromCsr(rig.csrs[3])
  }
  rig.clock.now += LAST_LOOK_MS
  rig.controlPlane.pageSize = 1
  rig.limits.maxPages = 2
  t.match(await rig.reconcile(), { complete: false })
  const { listRecent } = rig.controlPlane
  rig.controlPlane.listRecent = async (since, pages, signal, marker) => {
    if (marker !== undefined) throw new CvmError('aws-iot-refused')
    return listRecent.call(rig.controlPlane, since, pages, signal)
  }
  t.same(steps(await rig.reconcile()), ['search-orphans later'])
  t.equal(await rig.registry.orphanSearch(), undefined)
  t.match(await rig.reconcile(), { complete: false })
  rig.controlPlane.listRecent = listRecent
  t.ok(steps(await rig.reconcile()).includes('search-orphans done'))
  t.match(await rig.registry.find(SERIAL), { suspicion: undefined })
})
