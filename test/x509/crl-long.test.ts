// Long revocation lists: read in slices, so that the event loop goes on meanwhile, whatever the speed of the machine.
import { createHook } from 'node:async_hooks'
import { setImmediate as nextTurn } from 'node:timers/promises'
import t from 'tap'
import { crlDerOf, readCrl, type Crl, type CrlReading } from '../../src/x509/crl.ts'
import { TURN_ENTRIES } from '../../src/x509/crl-entries.ts'
import { readCertificates } from '../../src/x509/strict-certificate.ts'
import { DAY, NOW, authority, commonName } from './handmade-certificate.ts'
import { crlDer, entry, reason } from './handmade-crl.ts'

const ca = authority(commonName('Factory CA'))
const NOT_PEM = { name: 'CrlError', reason: 'crl-not-pem' }
const der = crlDer(ca, { entries: [entry('4711')] })
const read = async (input: Buffer | string, reading: CrlReading = {}): Promise<Crl> =>
  readCrl(await crlDerOf(Buffer.from(input), reading.endTurn), readCertificates(ca.pem)[0]!, reading)

await t.test('a list of 320,000 entries is read in slices and never holds the event loop', async t => {
  const count = 320_000
  const serial = (at: number): string => `40${at.toString(16).padStart(8, '0')}${'ab'.repeat(11)}`
  // Two entries made once and copied; each copy gets its number.
  const [plain, withReason] = [entry(serial(0)), entry(serial(0), [reason(1)])]
  const list = Buffer.concat(Array.from({ length: count }, (_, at) => at % 2 ? withReason : plain))
  for (let at = 0, place = 5; at < count; place += (at++ % 2 ? withReason : plain).length) list.writeUInt32BE(at, place)
  const input = crlDer(ca, { entries: [list] })
  // Both tell the truth together: the slices that the reader reports, and the turns that the event loop really took meanwhile.
  const slices: number[] = []
  let turns = 0
  let ticking = setImmediate(function tick () { turns++; ticking = setImmediate(tick) })
  const crl = await read(input, { endTurn: async read => { slices.push(read); await nextTurn() } })
  clearImmediate(ticking)
  t.equal(slices.reduce((sum, each) => sum + each), count, 'each entry is read once')
  t.ok(Math.max(...slices) <= TURN_ENTRIES, `${Math.max(...slices)} entries in one turn at most`)
  t.ok(turns >= count / TURN_ENTRIES, `${turns} turns of the event loop`)
  t.equal(crl.size, count)
  t.equal(crl.isRevoked(serial(1))?.reason, 'keyCompromise')
  t.equal(crl.isRevoked(serial(count - 1))?.revokedAt, NOW - DAY)
  t.equal(crl.isRevoked(serial(count)), undefined)
})

await t.test('the signature is verified on a thread of the pool', async t => {
  const [jobs, ended] = [new Set<number>(), new Set<number>()]
  const hook = createHook({
    init (id, type) { if (type === 'SIGNREQUEST') jobs.add(id) },
    before (id) { if (jobs.has(id)) ended.add(id) }
  }).enable()
  await read(der)
  hook.disable()
  t.strictSame([jobs.size, ended.size], [1, 1], 'one job, which came back to the event loop')
})

await t.test('PEM in slices: whatever its lines, with text around it, and no more than one', async t => {
  const input = crlDer(ca, { entries: Array.from({ length: 14_000 }, (_, at) => entry(`40${at.toString(16).padStart(6, '0')}${'ab'.repeat(8)}`)) })
  const base64 = input.toString('base64')
  t.ok(base64.length > 2 * 262_144, 'longer than two slices')
  for (const body of [base64, base64.replace(/.{1,61}/g, '$&\n'), base64.replace(/.{1,76}/g, '$&\r\n')]) {
    t.equal((await read(`Certificate Revocation List (CRL):\n-----BEGIN X509 CRL-----\n${body}\n-----END X509 CRL-----\n`)).size, 14_000)
  }
  const at = 262_144
  for (const body of [`${base64.slice(0, at)}====${base64.slice(at)}`, `${base64.slice(0, at)}-${base64.slice(at)}`, base64.slice(0, -1)]) {
    await t.rejects(read(`-----BEGIN X509 CRL-----\n${body}\n-----END X509 CRL-----\n`), NOT_PEM)
  }
})
