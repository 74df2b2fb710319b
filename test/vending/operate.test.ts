// Operators' requests that overlap: an operator whose request was not answered sends it again.
import t from 'tap'
import { fulfilmentOf } from '../../src/vending/lifecycle.ts'
import { SERIAL, type Rig, makeRig } from '../fixtures/vend-rig.ts'

/** Another whole request between the look at the device and the write of the wish. */
function before (rig: Rig, work: () => Promise<unknown>): void {
  const { registry } = rig
  const intend = registry.intend.bind(registry)
  registry.intend = async (...args) => {
    registry.intend = intend
    await work()
    return await intend(...args)
  }
}

await t.test('a device that is disabled twice at once goes back to what it was', async t => {
  for (const state of ['ACTIVE', 'REGISTERED'] as const) {
    const rig = await makeRig()
    if (state === 'ACTIVE') await rig.vend()
    before(rig, async () => await rig.operate('disable'))
    t.match(await rig.operate('disable'), { state: 'DISABLED', stateBefore: state })
    t.match(await rig.operate('enable'), { state, stateBefore: undefined })
    const { certificate } = await rig.registry.find(SERIAL) ?? {}
    if (certificate) t.equal(rig.controlPlane.statuses.get(certificate.certificateId), 'ACTIVE')
  }
})

await t.test('a wish that a later state refuses leaves what a disabled device goes back to', async t => {
  const rig = await makeRig()
  await rig.vend()
  before(rig, async () => {
    await rig.operate('disable')
    await rig.operate('enable')
    await rig.operate('disable')
  })
  await rig.operate('disable')
  t.match(await rig.operate('enable'), { state: 'ACTIVE' })
})

await t.test('where a row does not say what a device was, its certificate does', async t => {
  const rig = await makeRig()
  await rig.vend()
  const disabled = { ...await rig.operate('disable'), stateBefore: undefined }
  t.match(fulfilmentOf(disabled, 'enable'), { to: 'ACTIVE' })
  t.match(fulfilmentOf({ ...disabled, committedAt: undefined }, 'enable'), { to: 'ISSUED' }, 'to be finished')
  t.match(fulfilmentOf({ ...disabled, certificate: undefined, committedAt: undefined }, 'enable'), { to: 'REGISTERED' })
})
