// Replicas whose clocks are wrong by five minutes, one behind and one ahead: what holds whatever the clocks say, and what goes by them.
import { existsSync, readdirSync } from 'node:fs'
import t from 'tap'
import { isWhole, proofSize } from '../fixtures/proof-size.ts'
import { CURED_WITHIN_MS, startFleet } from './fleet.ts'
import { keyAndRequest } from './key-and-request.ts'
import { Observer, watchedBy } from './observer.ts'
import { persist } from './persistent-client.ts'
import { RenewingDevice } from './renewing-device.ts'

t.setTimeout(900_000)

const DEVICES = isWhole ? 150 : 8
const RENEWALS = isWhole ? 30 : 3
const OFF_MS = 300_000
/** More than a second beyond the window, so that the tenths of a second of a proof do not matter. */
const WINDOW_MS = OFF_MS - 2_000

// libfaketime of Debian; `MT` is for programs with threads.
const library = (existsSync('/usr/lib') ? readdirSync('/usr/lib') : []).map(name => `/usr/lib/${name}/faketime/libfaketimeMT.so.1`).find(file => existsSync(file))
const clockOff = (ms: number) => ({ LD_PRELOAD: library ?? '', FAKETIME: `${ms < 0 ? '' : '+'}${ms / 1000}s`, FAKETIME_DONT_FAKE_MONOTONIC: '1' })
const missing = library === undefined ? 'no libfaketime here: apt-get install faketime' : false

await t.test(`${DEVICES} devices, ${RENEWALS} renewals, replicas at -5, 0 and +5 minutes (${proofSize})`, { skip: missing }, async t => {
  const observer = new Observer()
  const clocks = [clockOff(-OFF_MS), {}, clockOff(OFF_MS)]
  const fleet = await startFleet(t, clocks.length, watchedBy(observer), { RENEWAL_PROOF_WINDOW_MS: String(WINDOW_MS) }, {}, clocks)
  const [behind, right, ahead] = fleet.replicas.map(({ url }) => url) as [() => string, () => string, () => string]

  const offsets = await Promise.all([behind, right, ahead].map(async url => {
    const { headers } = await fetch(`${url()}/nothing`)
    return Math.round((Date.parse(headers.get('date') ?? '') - Date.now()) / 60_000)
  }))
  t.strictSame(offsets, [-5, 0, 5], 'the clocks are off')

  const wanted = new Set<string>()
  await t.test('a device that asks all three at once gets one certificate, and the same from each of them later', async t => {
    const wrong: string[] = []
    await Promise.all(Array.from({ length: DEVICES }, async () => {
      const device = await fleet.aws.register()
      const { body, csr } = await keyAndRequest(device)
      observer.expect(device.serialNumber, csr)
      // A claim of the replica ahead holds up the others for longer: they ask to come again, and the client does.
      const answers = await Promise.all([behind, right, ahead].map(url => persist(url, 'csr', body, CURED_WITHIN_MS)))
      const given = new Set(answers.map(attempts => attempts.at(-1)?.vended?.certificateId ?? `none: ${attempts.at(-1)?.status} ${attempts.at(-1)?.code}`))
      const [certificateId = ''] = given
      if (given.size !== 1 || observer.activeOf(device.serialNumber).join() !== certificateId) {
        wrong.push(`${device.serialNumber}: was given ${[...given].join(' and ')}, ACTIVE are ${observer.activeOf(device.serialNumber).join(' and ')}`)
      }
      wanted.add(certificateId)
    }))
    t.strictSame(wrong, [])
    t.equal(wanted.size, DEVICES)
  })

  await t.test('a proof is judged by the clock of the replica that is asked; its Date tells the device, and the renewal goes on anywhere', async t => {
    for (let n = 0; n < RENEWALS; n++) {
      const device = await RenewingDevice.vended(t, fleet, observer, right)
      for (const [url, aheadMs] of [[behind, -OFF_MS], [ahead, OFF_MS]] as const) {
        device.use(url)
        t.match(await device.persist('renew'), { status: 401, body: { code: 'proof-not-current' } }, 'by the device\'s clock, which is right')
        const { status, body } = await device.persist('renew', aheadMs)
        t.ok(status < 300, `by the replica's clock: ${status} ${body.code}`)
      }
      device.use(right)
      t.equal((await device.persist('confirm')).status, 200, 'begun where the clock is ahead, confirmed where it is right')
      t.strictSame(observer.activeOf(device.serialNumber), [device.next.certificateId])
      wanted.add(device.next.certificateId ?? '')
      device.use(behind)
      t.equal((await device.persist('confirm', -OFF_MS)).status, 200, 'and again where it is behind')
    }
  })

  // What a worker lost that was overtaken stays INACTIVE: the README says that orphans are not found by clocks that are wrong.
  const active = (await fleet.aws.certificates()).flatMap(({ certificateId, status }) => status === 'ACTIVE' ? certificateId : [])
  t.strictSame(active.sort(), [...wanted].sort(), 'what each device was given is ACTIVE, and nothing else')
  t.strictSame(observer.violations, [], 'no device ever had two ACTIVE certificates (G1)')
})
