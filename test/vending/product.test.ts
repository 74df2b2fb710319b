// What a device's product decides: who is refused before anything is written, names, times, and vending anew within the grace.
import t, { type Test } from 'tap'
import { CvmError } from '../../src/errors.ts'
import { type Product, refusalsOf, thingOf } from '../../src/vending/product.ts'
import { type Csr, checkCsr } from '../../src/x509/csr.ts'
import { opensslCsr } from '../fixtures/openssl.ts'
import { CLAIM_LIFETIME_MS, type Rig, SERIAL, makeRig } from '../fixtures/vend-rig.ts'

const GRACE_MS = 600_000
const code = (name: string, more: object = {}) => ({ name: 'CvmError', code: name, ...more })
const standard = (await makeRig()).products.get('default') as Product

/** A rig whose registry and AWS IoT tell whether anything was written or called since. */
async function rigOf (changes: Partial<Product>) {
  const rig = await makeRig(undefined, changes)
  const before = (await rig.registry.find(SERIAL))?.revision
  const untouched = async (t: Test, what: string) => {
    t.equal((await rig.registry.find(SERIAL))?.revision, before, `${what}: nothing was written`)
    t.same(rig.controlPlane.calls, [], `${what}: AWS IoT was not called`)
  }
  return { rig, untouched }
}

function change (rig: Rig, name: string, changes: Partial<Product> = {}): void {
  rig.products.set(name, { ...standard, ...changes, name })
}

await t.test('which CSRs and wishes a product refuses', async t => {
  const csr = async (options: object) => checkCsr((await opensslCsr({ serialNumber: SERIAL, ...options })).csrPem, { serialNumber: SERIAL, commonName: 'any' })
  const verdict = (changes: Partial<Product>, request: Csr | undefined, serialNumber = SERIAL) => {
    const { code, reason } = refusalsOf(new Map([['p', { ...standard, ...changes, name: 'p' }]]), { serialNumber }, request).get('p') ?? {}
    return reason ?? code
  }
  const [p256, p384, rsa, rsa3072, unnamed] =
    await Promise.all([{}, { key: 'ec-p384' }, { key: 'rsa' }, { key: 'rsa-3072' }, { subject: '/O=Acme' }].map(csr)) as Csr[]
  for (const any of [p256, p384, rsa, rsa3072, unnamed, undefined]) t.equal(verdict({}, any), undefined, 'today\'s rules by default')

  const type = 'key-type-not-allowed-by-product'
  t.same([p256, p384, rsa].map(csr => verdict({ keyTypes: ['EC-P384'] }, csr)), [type, undefined, type])
  t.same([p256, rsa, rsa3072].map(csr => verdict({ keyTypes: ['RSA'], minRsaBits: 3072 }, csr)), [type, type, undefined])
  t.same([p256, rsa].map(csr => verdict({ minRsaBits: 3072 }, csr)), [undefined, type], 'the least size is for RSA alone')
  t.same([p256, unnamed].map(csr => verdict({ subject: 'serial-number' }, csr)), [undefined, 'common-name-required-by-product'])
  t.same([p256, undefined].map(csr => verdict({ generatedKeys: false }, csr)), [undefined, 'generated-keys-not-allowed'])

  const subjects = ['/', `/CN=${SERIAL}`, '/CN=other', `/serialNumber=${SERIAL}`, '/serialNumber=victim', `/CN=${SERIAL}/serialNumber=victim`,
    `/CN=other/serialNumber=${SERIAL}`, `/serialNumber=${SERIAL}/serialNumber=victim`]
  const named = await Promise.all(subjects.map(subject => csr({ subject })))
  const other = 'subject-other-device'
  const letters: Record<string, string | undefined> = { o: other, c: 'common-name-required-by-product', s: 'serial-number-required-by-product' }
  const bySerialNumber = { serialNumberFrom: 'SerialNumber' } as const
  // A letter a subject, in their order; a dot where it is taken.
  for (const [what, changes, verdicts] of [
    ['by default', {}, '..o...o.'],
    ['the common name must be there', { subject: 'serial-number' }, 'c.occ.oc'],
    ['any common name', { subject: 'any' }, '........'],
    ['the serial number attribute', bySerialNumber, '..o.oooo'],
    ['it must be there', { ...bySerialNumber, subject: 'serial-number' }, 'sso.oooo'],
    ['it is judged beside any common name', { ...bySerialNumber, subject: 'any' }, '....oo.o']
  ] as const) {
    t.same(named.map(csr => verdict(changes, csr)), [...verdicts].map(letter => letters[letter]), what)
  }
  const attributes = { Country: 'C=xx', StateName: 'ST=x', Organization: 'O=x', OrganizationalUnit: 'OU=x', DistinguishedNameQualifier: 'dnQualifier=x' } as const
  for (const [serialNumberFrom, subject] of Object.entries(attributes) as [Product['serialNumberFrom'], string][]) {
    t.equal(verdict({ serialNumberFrom }, await csr({ subject: `/${subject}` })), other, `every policy variable: ${serialNumberFrom}`)
  }

  // eslint-disable-next-line no-template-curly-in-string -- written so in the file
  const template = { thingNameTemplate: 'a-${serialNumber}-b' }
  t.equal(thingOf({ ...standard, ...template }, SERIAL).thingName, `a-${SERIAL}-b`)
  t.same([124, 125].map(length => verdict(template, undefined, 'x'.repeat(length))), [undefined, 'thing-name-too-long'])
  const { message } = refusalsOf(new Map([['p', { ...standard, keyTypes: ['EC-P384', 'RSA'] }]]), { serialNumber: SERIAL }, p256).get('default') as Error
  t.equal(message, 'The product of the device takes keys of EC-P384, RSA of at least 2048 bits, not EC-P256.')
})

await t.test('a request that the device\'s product refuses writes nothing, also where other products would take it', async t => {
  for (const others of [[], ['sensor']]) {
    const { rig, untouched } = await rigOf({ keyTypes: ['RSA'], generatedKeys: false })
    for (const name of others) change(rig, name)
    const what = others.length > 0 ? 'beside another product' : 'the only product'
    await t.rejects(rig.vend(), code('csr-rejected', { reason: 'key-type-not-allowed-by-product' }), what)
    await t.rejects(rig.vendKeys(), code('generated-keys-not-allowed'), what)
    await t.rejects(rig.vend({ registrationToken: 'wrong' }), code('device-not-authorized'), 'only told to who holds the token')
    await t.rejects(rig.vendKeys({ serialNumber: 'unknown' }), code('device-not-authorized'))
    await untouched(t, what)
  }
  const { rig } = await rigOf({})
  change(rig, 'sensor', { keyTypes: ['RSA'] })
  t.equal((await rig.vend()).outcome, 'vended', 'what other products refuse does not matter')
})

await t.test('rules that were made since: what was vended is replayed, what was recorded is finished, nothing new is issued', async t => {
  for (const others of [[], ['sensor']]) {
    const rig = await makeRig()
    for (const name of others) change(rig, name)
    const { certificate } = await rig.vend()
    change(rig, 'default', { keyTypes: ['RSA'] })
    t.match(await rig.vend(), { outcome: 'replayed', certificate })
  }
  const issued = await cutShort('bind')
  change(issued, 'default', { keyTypes: ['RSA'] })
  await t.rejects(issued.vend({ certificateSigningRequest: issued.csrs[1] }), code('csr-rejected'), 'another key does not supersede it')
  t.equal((await issued.vend()).outcome, 'resumed')

  const issuing = await cutShort('createCertificateFromCsr')
  change(issuing, 'default', { keyTypes: ['RSA'] })
  await t.rejects(issuing.vend(), code('csr-rejected'))
})

await t.test('a product that is not in the file any more', async t => {
  const notConfigured = code('product-not-configured', { retryAfterMs: 60_000 })
  const rig = await makeRig()
  rig.products.delete('default')
  change(rig, 'sensor')
  await t.rejects(rig.vend(), notConfigured)
  await t.rejects(rig.vend({ registrationToken: 'wrong' }), code('device-not-authorized'))
  t.match(await rig.registry.find(SERIAL), { state: 'ISSUING', suspicion: undefined }, 'released, with nothing done')
  t.same(rig.controlPlane.calls, [])
  rig.clock.now += 1
  change(rig, 'default')
  t.equal((await rig.vend()).outcome, 'vended', 'once it is there again')

  const issued = await cutShort('bind')
  issued.products.clear()
  change(issued, 'sensor')
  const { length } = issued.controlPlane.calls
  await t.rejects(issued.vend(), notConfigured)
  issued.clock.now += CLAIM_LIFETIME_MS + 2_001
  const { actions } = await issued.reconcile()
  t.match(actions, [{ step: 'finish-issued', outcome: 'failed', detail: 'product-not-configured' }], 'reconcile says so and goes on')
  t.notOk(issued.controlPlane.calls.slice(length).some(call => ['bind', 'activate'].includes(call)))
  change(issued, 'default')
  // A device that failed waits for its next turn.
  issued.clock.now += 30_000
  await issued.reconcile()
  t.match(await issued.registry.find(SERIAL), { state: 'ACTIVE' })
})

await t.test('the replay window is the product\'s', async t => {
  const rig = await makeRig(undefined, { replayWindowMs: 1_000 })
  await rig.vend()
  rig.clock.now += 1_000
  t.equal((await rig.vend()).outcome, 'replayed')
  rig.clock.now += 1
  await t.rejects(rig.vend(), code('already-vended'))
})

await t.test('the thing\'s name is the one that was recorded', async t => {
  // eslint-disable-next-line no-template-curly-in-string -- written so in the file
  const rig = await makeRig(undefined, { thingNameTemplate: 'old-${serialNumber}' })
  const { certificate } = await rig.vend()
  t.equal(certificate.thingName, `old-${SERIAL}`)
  change(rig, 'default')
  t.equal((await rig.vend()).certificate.thingName, `old-${SERIAL}`)
})

await t.test('within the grace another key is vended anew, and the old certificate is REVOKED first', async t => {
  const rig = await makeRig(undefined, { reVendGraceMs: GRACE_MS })
  const first = await rig.vend()
  t.equal((await rig.vend()).outcome, 'replayed', 'the same key gets the same')
  await t.rejects(rig.vend({ certificateSigningRequest: rig.csrs[1], registrationToken: 'wrong' }), code('device-not-authorized'))
  rig.controlPlane.before = operation => {
    if (operation !== 'activate') return
    t.equal(rig.controlPlane.statuses.get(first.certificate.certificateId), 'REVOKED')
  }
  const second = await rig.vend({ certificateSigningRequest: rig.csrs[1] })
  t.equal(second.outcome, 'vended')
  t.same(rig.controlPlane.active(), [second.certificate.certificateId])
  const third = await rig.vendKeys()
  const fourth = await rig.vendKeys()
  t.ok(fourth.keyPair, 'also with a key to be made, again and again')
  t.not(third.certificate.certificateId, fourth.certificate.certificateId)
  t.same(rig.controlPlane.active(), [fourth.certificate.certificateId])
  rig.clock.now += CLAIM_LIFETIME_MS + 2_001
  await rig.reconcile()
  t.same([...rig.controlPlane.statuses.keys()], [fourth.certificate.certificateId], 'and what was replaced is ended')
  rig.clock.now += GRACE_MS
  await t.rejects(rig.vend(), code('already-vended'), 'the grace is over')
  t.match((await rig.registry.find(SERIAL))?.history.filter(({ event }) => event === 'revended').map(({ certificateId }) => certificateId),
    [first, second, third].map(({ certificate }) => certificate.certificateId))
})

await t.test('no grace: by default, for what the product refuses, for a revoked device, for an expired token', async t => {
  const wish = async (rig: Rig) => rig.vend({ certificateSigningRequest: rig.csrs[1] })
  const usual = await makeRig()
  await usual.vend()
  await t.rejects(wish(usual), code('already-vended'))
  usual.clock.now -= 5
  await t.rejects(wish(usual), code('already-vended'), 'also by a clock that is behind the one of who was served')

  const strict = await makeRig(undefined, { reVendGraceMs: GRACE_MS, generatedKeys: false })
  await strict.vend()
  await t.rejects(strict.vendKeys(), code('generated-keys-not-allowed'))

  const revoked = await makeRig(undefined, { reVendGraceMs: GRACE_MS })
  await revoked.vend()
  await revoked.operate('revoke')
  await t.rejects(wish(revoked), code('device-revoked'))

  const expired = await makeRig(undefined, { reVendGraceMs: GRACE_MS })
  // The model hands out its own row.
  Object.assign(await expired.registry.find(SERIAL) as object, { tokenExpiresAt: expired.clock.now + 10 })
  await expired.vend()
  expired.clock.now += 10
  t.equal((await expired.vend()).outcome, 'replayed')
  await t.rejects(wish(expired), code('already-vended'))
})

await t.test('an operator who revokes in the middle of vending anew ends the old certificate too, before they are answered', async t => {
  for (const operation of ['revoke', 'disable', 'reset', 'decommission'] as const) {
    const rig = await makeRig(undefined, { reVendGraceMs: GRACE_MS })
    const { certificate } = await rig.vend()
    rig.controlPlane.before = name => { if (name === 'createCertificateFromCsr') throw new CvmError('aws-iot-unavailable') }
    await t.rejects(rig.vend({ certificateSigningRequest: rig.csrs[1] }), code('aws-iot-unavailable'))
    t.same(rig.controlPlane.active(), [certificate.certificateId], 'the old one works until there is a new one')
    await rig.operate(operation)
    t.same(rig.controlPlane.active(), [], operation)
  }
})

/** A rig whose vend was cut short before this call, and whose claim was given back. */
async function cutShort (operation: 'bind' | 'createCertificateFromCsr'): Promise<Rig> {
  const rig = await makeRig()
  rig.controlPlane.before = name => { if (name === operation) throw new CvmError('aws-iot-unavailable') }
  await rig.vend().catch(() => {})
  rig.controlPlane.before = () => {}
  rig.clock.now += 1
  return rig
}
