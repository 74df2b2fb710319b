// In which order authorities are registered, changed and deleted, so that what is cut off anywhere is finished by the same again.
import t from 'tap'
import { CvmError } from '../../src/errors.ts'
import { DEFAULT_SETTINGS } from '../../src/vending/authority.ts'
import { changeAuthority, deleteAuthority } from '../../src/vending/change-authority.ts'
import { type NewAuthority, registerAuthority } from '../../src/vending/register-authority.ts'
import { readCertificates } from '../../src/x509/strict-certificate.ts'
import { ModelAuthorities, ModelAuthoritySettings } from '../fixtures/model-authorities.ts'
import { NOW, authority, commonName } from '../x509/handmade-certificate.ts'

const ca = authority(commonName('Factory CA'))
const ID = readCertificates(ca.pem)[0]?.certificateId ?? ''
const WISH: NewAuthority = { caCertificatePem: ca.pem, mode: 'SNI_ONLY', status: 'ACTIVE', autoRegistration: true, crls: ['http://pki.example/'], products: undefined }
const unavailable = { code: 'aws-iot-unavailable' }

await t.test('registering: the settings are there before AWS IoT knows the CA, and a repetition finishes what was cut off', async t => {
  for (const done of [false, true]) {
    const { authorities, settings, deps } = rig()
    authorities.failing = { call: 'register', done }
    await t.rejects(registerAuthority(WISH, deps), unavailable)
    t.match(await kept(settings), { crls: WISH.crls, revision: 1 })
    const again = await registerAuthority(WISH, deps)
    t.match(again, { outcome: done ? 'unchanged' : 'registered', authority: { status: 'ACTIVE', crls: WISH.crls, revision: 1 } })
  }
})

await t.test('registering: what an earlier CA of the same certificate left does not count', async t => {
  const { settings, deps } = rig()
  await settings.put(ID, { ...DEFAULT_SETTINGS, whenCrlUnavailable: 'accept' }, 0)
  t.match((await registerAuthority(WISH, deps)).authority, { whenCrlUnavailable: 'refuse', revision: 2 })
})

await t.test('registering twice at once: one of the two, and the other is told of the difference', async t => {
  const { deps } = rig()
  const wishes = [WISH, { ...WISH, crls: [] }, WISH]
  const [first, other, same] = await Promise.allSettled(wishes.map(wish => registerAuthority(wish, deps)))
  t.match([first, same].map(result => result?.status), ['fulfilled', 'fulfilled'])
  t.match(other, { status: 'rejected', reason: { code: /^(authority-exists|precondition-failed)$/ } })
})

await t.test('changing: settings before AWS IoT; a deactivation alone is done without the registry', async t => {
  const { authorities, settings, deps } = rig()
  authorities.add(ca.pem, 'INACTIVE')
  authorities.failing = { call: 'update', done: false }
  await t.rejects(changeAuthority(ID, { status: 'ACTIVE', crls: ['http://pki.example/'] }, deps), unavailable)
  t.match(await kept(settings), { crls: ['http://pki.example/'] })
  t.equal(authorities.cas.get(ID)?.status, 'INACTIVE')
  t.strictSame((await changeAuthority(ID, { status: 'ACTIVE', crls: ['http://pki.example/'] }, deps)).changed, ['status=ACTIVE'])

  settings.find = async () => { throw new CvmError('registry-unavailable') }
  await t.rejects(changeAuthority(ID, { status: 'INACTIVE' }, deps), { code: 'registry-unavailable' })
  t.equal(authorities.cas.get(ID)?.status, 'INACTIVE', 'it is done; only what to say of it is missing')
})

await t.test('changing: a write whose answer was lost is recognised', async t => {
  const { authorities, settings, deps } = rig()
  authorities.add(ca.pem)
  const put = settings.put.bind(settings)
  settings.put = async (...args) => ({ ...await put(...args), applied: false })
  const { authority, changed } = await changeAuthority(ID, { products: ['meter'] }, deps)
  t.match({ authority, changed }, { authority: { products: ['meter'], revision: 1 }, changed: ['products'] })
})

await t.test('what is given is judged, not what is kept: it may have been overtaken', async t => {
  const { authorities, settings, deps } = rig()
  authorities.add(ca.pem)
  await settings.put(ID, { ...DEFAULT_SETTINGS, products: ['gone'], crls: ['a.crl'] }, 0)
  t.match((await changeAuthority(ID, { whenCrlUnavailable: 'accept' }, deps)).authority, { products: ['gone'], crls: ['a.crl'], whenCrlUnavailable: 'accept' })
  await t.rejects(changeAuthority(ID, { products: ['gone'] }, deps), { code: 'unknown-product' })
  t.match((await changeAuthority(ID, { products: undefined }, deps)).authority, { products: undefined })
})

await t.test('deleting: what a crash left of its settings goes with the repetition', async t => {
  const { authorities, settings, deps } = rig()
  authorities.add(ca.pem, 'INACTIVE')
  await settings.put(ID, { ...DEFAULT_SETTINGS, whenCrlUnavailable: 'accept' }, 0)
  authorities.failing = { call: 'delete', done: true }
  await t.rejects(deleteAuthority(ID, { force: false }, deps), unavailable)
  await t.rejects(deleteAuthority(ID, { force: false }, deps), { code: 'authority-not-found' })
  t.match(await kept(settings), { whenCrlUnavailable: 'refuse' })
})

function rig () {
  const [authorities, settings] = [new ModelAuthorities(), new ModelAuthoritySettings()]
  const never = new AbortController().signal
  const deps = { authorities, settings, products: new Map([['meter', {} as never]]), hasCrlFolder: false, now: () => NOW, deadline: () => never, forget: () => {} }
  return { authorities, settings, deps }
}

async function kept (settings: ModelAuthoritySettings) {
  return (await settings.find([ID])).get(ID)
}
