// 07: one key, two devices; then a key that is compromised. Over HTTP with the production app, in each way of getting a certificate.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { API_KEYS, ask } from '../fixtures/api-keys.ts'
import { isProblem } from '../fixtures/problems.ts'
import { awsCallsDuring, total } from '../fixtures/scrape.ts'
import { auditedBy, startService } from '../fixtures/service.ts'
import { newKey, vend } from '../fixtures/vending.ts'
import { certificatePem } from '../x509/handmade-certificate.ts'
import { handmadeCsr, name } from '../x509/handmade.ts'

const folder = mkdtempSync(join(tmpdir(), 'cvm-keys-'))
t.teardown(() => rmSync(folder, { recursive: true, force: true }))
const file = join(folder, 'products.json')
writeFileSync(file, JSON.stringify([{ name: 'default', selfSigned: true }, { name: 'shared', keyReuse: 'warn' }]))
const service = await startService({ API_KEYS, PRODUCTS_FILE: file, RATE_LIMIT_ADDRESS_MAX: '100000' })
t.teardown(() => service.close())

const csrOf = (key: string): string => handmadeCsr(key, { subject: name() })

/** What each way of asking answers, as its failure's code; undefined for a certificate. */
const WAYS = {
  async vend (device, key) {
    return (await vend(service, { ...device, certificateSigningRequest: csrOf(key) })).json().code
  },
  async batch (device, key) {
    const { results: [result] } = (await ask(service, 'POST', '/v1/batches', [{ ...device, certificateSigningRequest: csrOf(key) }], { as: 'line' })).json()
    return result.code
  },
  async 'dry run of a batch' (device, key) {
    const { results: [result] } = (await ask(service, 'POST', '/v1/batches?dryRun=true', [{ ...device, certificateSigningRequest: csrOf(key) }], { as: 'line' })).json()
    return result.code
  },
  async est ({ serialNumber, registrationToken }, key) {
    const authorization = `Basic ${Buffer.from(`${serialNumber}:${registrationToken}`).toString('base64')}`
    const headers = { authorization, 'content-type': 'application/pkcs10' }
    const answer = await service.app.service.inject({ method: 'POST', url: '/.well-known/est/simpleenroll', payload: csrOf(key), headers })
    return answer.statusCode === 200 ? undefined : /\((\S+)\)\n$/.exec(answer.body)?.[1]
  },
  async register ({ serialNumber }, key) {
    const dates = { notBefore: Date.now() - 60_000, notAfter: Date.now() + 86_400_000, subject: name(), issuer: name() }
    const subject = { ...dates, subject: named(serialNumber), issuer: named(serialNumber) }
    const own = certificatePem(key, { key, subject: named(serialNumber) }, subject)
    return (await ask(service, 'POST', '/v1/certificates/register', { serialNumber, certificatePem: own })).json().code
  }
} satisfies Record<string, (device: { serialNumber: string, registrationToken: string }, key: string) => Promise<string | undefined>>

await t.test('another device\'s key is refused with its own code, whichever way', async t => {
  const key = newKey()
  const first = await service.register()
  const vended = await awsCallsDuring(service, async () => t.equal(await WAYS.vend(first, key), undefined))
  t.equal(vended['UpdateItem ok'], 4, 'one write more than the three to the device\'s row')
  t.notOk('GetItem ok' in vended)
  for (const [way, work] of Object.entries(WAYS)) {
    const device = await service.register()
    const calls = await awsCallsDuring(service, async () => t.equal(await work(device, key), 'key-in-use', way))
    t.notOk(Object.keys(calls).some(call => /Certificate|Thing|Polic/.test(call)), `${way}: AWS IoT is asked for nothing`)
    if (way === 'dry run of a batch') t.notOk(Object.keys(calls).some(call => call.startsWith('UpdateItem')), 'a dry run writes nothing')
    t.equal(await WAYS.vend(device, newKey()), undefined, `${way}: and another key is taken`)
  }
  t.equal(await WAYS.vend(first, key), undefined, 'the first device is served as before')
  t.ok(await total(service, 'cvm_key_reuse_total', { code: 'key-in-use', then: 'refuse' }) >= 4)
})

await t.test('a product that warns takes it, with an audit event and the metric', async t => {
  const key = newKey()
  const [first, second] = [await service.register(), await service.register({ product: 'shared' })]
  await WAYS.vend(first, key)
  const answer = await vend(service, { ...second, certificateSigningRequest: csrOf(key) }, { 'x-request-id': 'shared-key-1' })
  t.equal(answer.statusCode, 201)
  t.match(auditedBy(service, 'shared-key-1'), [
    { event: 'key-reused', outcome: 'done', serialNumber: second.serialNumber, product: 'shared', keyOwner: first.serialNumber, code: 'key-in-use' },
    { event: 'certificate-vended' }
  ])
  t.equal(await total(service, 'cvm_key_reuse_total', { then: 'warn' }), 1)
})

await t.test('a compromised key is refused for good', async t => {
  const key = newKey()
  const device = await service.register()
  const url = `/v1/devices/${device.serialNumber}`
  const blocking = { reason: 'key leaked', keyCompromised: true }
  isProblem(t, await ask(service, 'POST', `${url}/revoke`, blocking), 'state-conflict', {}, 'it has no key yet')
  for (const operation of ['reset', 'disable', 'decommission']) isProblem(t, await ask(service, 'POST', `${url}/${operation}`, blocking), 'invalid-request')
  t.equal(await WAYS.vend(device, key), undefined)
  const revoked = await ask(service, 'POST', `${url}/revoke`, blocking, { 'x-request-id': 'leaked-key-1' })
  t.match(revoked.json(), { state: 'REVOKED' })
  t.match(auditedBy(service, 'leaked-key-1'), [
    { event: 'device-revoked', outcome: 'done' }, { event: 'key-compromised', serialNumber: device.serialNumber, reason: 'key leaked', actor: 'operator-1' }
  ])
  const { registrationToken } = (await ask(service, 'POST', `${url}/reset`, { reason: 'new board' })).json()
  t.equal(await WAYS.vend({ ...device, registrationToken }, key), 'key-compromised', 'after a reset')
  for (const [way, work] of Object.entries(WAYS)) t.equal(await work(await service.register({ product: way === 'vend' ? 'shared' : 'default' }), key), 'key-compromised', way)
  t.equal(await WAYS.vend({ ...device, registrationToken }, newKey()), undefined, 'a new key')
  await tellsNoSecret(t)
})

async function tellsNoSecret (t: Test): Promise<void> {
  t.notMatch(service.logs(), /PRIVATE KEY/)
}

function named (serialNumber: string): Buffer {
  return name(['550403', Buffer.concat([Buffer.from([0x0c, serialNumber.length]), Buffer.from(serialNumber)])])
}
