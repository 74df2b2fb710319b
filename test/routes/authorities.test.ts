// The CAs whose certificates are taken: registered, looked at, changed and deleted, by whom, and what is refused with which reason.
import { X509Certificate } from 'node:crypto'
import { RegisterCACertificateCommand, RegisterCertificateCommand, UpdateCertificateCommand } from '@aws-sdk/client-iot'
import t from 'tap'
import { readCertificates } from '../../src/x509/strict-certificate.ts'
import { API_KEYS, ask } from '../fixtures/api-keys.ts'
import { isProblem } from '../fixtures/problems.ts'
import { total } from '../fixtures/scrape.ts'
import { auditedBy, startService } from '../fixtures/service.ts'
import { CustomerCa } from '../local/ca-rig.ts'
import { CA, authority, basicConstraints, certificatePem, commonName, freshKey, keyUsage } from '../x509/handmade-certificate.ts'
import { CN, name, utf8 } from '../x509/handmade.ts'

const service = await startService({ API_KEYS, RATE_LIMIT_ADDRESS_MAX: '100000', MAX_EVENT_LOOP_DELAY_MS: '600000' })
t.teardown(() => service.close())

const URL = '/v1/authorities'
const NOWHERE = '0'.repeat(64)
const post = (body: object, more = {}) => ask(service, 'POST', URL, body, more)
const patch = (id: string, body: object, more = {}) => ask(service, 'PATCH', `${URL}/${id}`, body, more)
const code = await ask(service, 'GET', `${URL}/registration-code`).then(answer => answer.json().registrationCode as string)

function idOf (pem: string): string {
  return new X509Certificate(pem).fingerprint256.replaceAll(':', '').toLowerCase()
}

function bodyOf (ca: CustomerCa, more: object = {}) {
  return { caCertificatePem: ca.cert, verificationCertificatePem: ca.sign(`/CN=${code}`).cert, ...more }
}

async function registered (more: object = {}, ca = new CustomerCa()) {
  const answer = await post({ caCertificatePem: ca.cert, mode: 'SNI_ONLY', ...more })
  t.equal(answer.statusCode, 201, answer.body)
  return { ca, id: answer.json().caCertificateId as string, answer }
}

const audited = (requestId: string) => auditedBy(service, requestId)

await t.test('a CA is registered once its key was shown, and the same again changes nothing', async t => {
  const ca = new CustomerCa('/O=Factory/CN=Own CA')
  const wish = bodyOf(ca, { crls: ['http://pki.example/a.crl'], products: ['default'], autoRegistration: true })
  const answer = await post(wish, { 'x-request-id': 'register-1' })
  t.equal(answer.statusCode, 201)
  t.match(answer.headers, { etag: '"1"', 'cache-control': 'no-store' })
  const id = idOf(ca.cert)
  const expected = {
    caCertificateId: id,
    caCertificateArn: new RegExp(`:cacert/${id}$`),
    caCertificatePem: ca.cert,
    subject: 'O=Factory, CN=Own CA',
    mode: 'DEFAULT',
    status: 'INACTIVE',
    autoRegistration: true,
    crls: ['http://pki.example/a.crl'],
    whenCrlUnavailable: 'refuse',
    products: ['default'],
    notAfter: new Date(new X509Certificate(ca.cert).validTo).toISOString()
  }
  t.match(answer.json(), expected)
  t.strictSame(audited('register-1').map(({ requestId, ...record }) => record), [{
    event: 'authority-registered', outcome: 'done', actor: 'operator-1', role: 'operator', caCertificateId: id, changed: 'status=INACTIVE, autoRegistration=true'
  }])
  const again = await post(bodyOf(ca, { crls: ['http://pki.example/a.crl'], products: ['default'], autoRegistration: true }), { 'x-request-id': 'register-2' })
  t.equal(again.statusCode, 200)
  t.same(again.json(), answer.json())
  t.match(audited('register-2'), [{ event: 'authority-registered', outcome: 'unchanged' }])
  const other = await post({ ...wish, status: 'ACTIVE', crls: [] }, { 'x-request-id': 'register-3' })
  isProblem(t, other, 'authority-exists', { detail: /^It differs in status, crls\.$/ })
  t.match(audited('register-3'), [{ event: 'authority-registered', outcome: 'refused', code: 'authority-exists' }])
  t.match((await ask(service, 'GET', `${URL}/${id}`, undefined, { as: 'auditor' })).json(), expected)
})

await t.test('what openssl prints before a certificate does not matter, and is not sent on', async t => {
  const ca = new CustomerCa()
  const { id } = await registered({ caCertificatePem: `subject=CN = Factory CA\nissuer=CN = Factory CA\n${ca.cert.replaceAll('\n', '\r\n')}` }, ca)
  t.equal((await ask(service, 'GET', `${URL}/${id}`)).json().caCertificatePem, ca.cert)
})

await t.test('one that was deleted may be registered again', async t => {
  const ca = new CustomerCa()
  const { id } = await registered({ status: 'ACTIVE', whenCrlUnavailable: 'accept' }, ca)
  await patch(id, { status: 'INACTIVE' })
  await ask(service, 'DELETE', `${URL}/${id}`)
  t.match((await registered({ whenCrlUnavailable: 'accept' }, ca)).answer.json(), { status: 'INACTIVE', whenCrlUnavailable: 'accept' })
})

await t.test('each broken rule has its reason, and nothing is done', async t => {
  const [ca, namesake] = [new CustomerCa(), new CustomerCa()]
  const now = Date.now()
  const dated = { notBefore: now - 1000_000, notAfter: now + 1000_000 }
  const handmade = (parts: object) => authority(commonName('CA'), { ...dated, ...parts }).pem
  const own = authority(commonName('CA'), dated)
  const stranger = authority(commonName('Other'), dated)
  const sni = (caCertificatePem: string, more: object = {}) => ({ caCertificatePem, mode: 'SNI_ONLY', ...more })
  const verifiedBy = (verificationCertificatePem: string) => ({ caCertificatePem: ca.cert, verificationCertificatePem })
  const verification = (subject: string, more: object = {}) => {
    const verificationCertificatePem = certificatePem(freshKey(), own, { ...dated, subject: commonName(subject), ...more })
    return { caCertificatePem: own.pem, verificationCertificatePem }
  }
  const cases: [string, object, string][] = [
    ['no PEM', sni('x'), 'pem-not-one-block'],
    ['two certificates', sni(ca.cert + namesake.cert), 'not-one-certificate'],
    ['no CA', sni(ca.sign('/CN=sn-1').cert), 'issuer-not-a-ca'],
    ['a CA that may not sign certificates', sni(handmade({ extensions: [basicConstraints(true), keyUsage(6)] })), 'issuer-may-not-sign'],
    ['one that has expired', sni(handmade({ notAfter: now - 1000 })), 'issuer-expired'],
    ['one that is not valid yet', sni(handmade({ notBefore: now + 100_000 })), 'issuer-not-yet-valid'],
    ['one whose signature is not its own', sni(certificatePem(freshKey(), { ...own }, { ...dated, subject: own.subject, extensions: CA })), 'signature-invalid'],
    ['no proof of the key', { caCertificatePem: ca.cert }, 'verification-missing'],
    ['a proof where AWS IoT takes none', { ...bodyOf(ca), mode: 'SNI_ONLY' }, 'verification-not-taken'],
    ['a proof of another code', verifiedBy(ca.sign(`/CN=${NOWHERE}`).cert), 'verification-other-code'],
    ['a proof that has expired', verification(code, { notAfter: now - 1000 }), 'expired'],
    ['a proof that is not valid yet', verification(code, { notBefore: now + 100_000 }), 'not-yet-valid'],
    ['a proof with two names', verification(code, { subject: name([CN, utf8(code)], [CN, utf8('more')]) }), 'verification-other-code'],
    ['a proof by a namesake', verifiedBy(namesake.sign(`/CN=${code}`).cert), 'signature-invalid'],
    ['a proof by somebody else', verifiedBy(certificatePem(freshKey(), stranger, { ...dated, subject: commonName(code) })), 'verification-other-issuer'],
    ['an intermediate of somebody else', sni(ca.cert, { intermediatesPem: stranger.pem }), 'intermediate-unconnected'],
    ['an intermediate that is no CA', sni(ca.cert, { intermediatesPem: ca.sign('/CN=sn-1').cert }), 'issuer-not-a-ca'],
    ['the CA as its own intermediate', sni(ca.cert, { intermediatesPem: ca.cert }), 'intermediate-is-the-authority'],
    ...['ftp://pki.example/a.crl', 'http://user:pass@pki.example/', 'http://pki.example/#a', 'http://', '../a.crl', '/etc/passwd', '.hidden', 'a/b.crl', 'file:///a']
      .map((crl): [string, object, string] => [crl, sni(ca.cert, { crls: [crl] }), 'crl-not-an-address']),
    ['a file without a folder', sni(ca.cert, { crls: ['a.crl'] }), 'crl-folder-not-set']
  ]
  for (const [what, body, reason] of cases) isProblem(t, await post(body), 'authority-rejected', { reason }, what)
  isProblem(t, await post(sni(ca.cert, { products: ['unknown'] })), 'unknown-product')
  for (const [what, body] of Object.entries({
    'another member': { more: 1 },
    'a mode of its own': { mode: 'sni-only' },
    'no list': { crls: 'a.crl' },
    'too many': { crls: Array.from({ length: 9 }, (_, n) => `${n}`) },
    'another status': { status: 'REVOKED' },
    'a string': { autoRegistration: 'true' }
  })) isProblem(t, await post({ caCertificatePem: ca.cert, ...body }), 'invalid-request', {}, what)
  t.equal((await ask(service, 'GET', `${URL}/${idOf(ca.cert)}`)).statusCode, 404, 'it is not registered')
})

await t.test('of one subject ten', async t => {
  const answers = []
  for (let n = 0; n < 11; n++) answers.push(await post({ caCertificatePem: new CustomerCa('/CN=Ten').cert, mode: 'SNI_ONLY' }))
  t.strictSame(answers.map(({ statusCode }) => statusCode), [...Array.from({ length: 10 }, () => 201), 409])
  isProblem(t, answers.at(-1)!, 'authority-limit-exceeded')
})

await t.test('changes what is given, and nothing else', async t => {
  const { id, ca } = await registered()
  t.match((await patch(id, { status: 'ACTIVE', autoRegistration: true }, { 'x-request-id': 'change-1' })).json(), { status: 'ACTIVE', autoRegistration: true, crls: [] })
  t.match(audited('change-1'), [{ event: 'authority-changed', outcome: 'done', actor: 'operator-1', caCertificateId: id, changed: 'status=ACTIVE, autoRegistration=true' }])
  const set = { crls: ['https://pki.example/a.crl'], whenCrlUnavailable: 'accept', products: ['default'], intermediatesPem: intermediateOf(ca) }
  const changed = await patch(id, set, { 'x-request-id': 'change-2' })
  t.match(changed.json(), { ...set, status: 'ACTIVE' })
  t.equal(changed.headers['etag'], '"1"')
  t.match(audited('change-2'), [{ changed: 'intermediatesPem, crls, whenCrlUnavailable, products' }])
  t.match(await patch(id, set, { 'x-request-id': 'change-3' }), { statusCode: 200, headers: { etag: '"1"' } })
  t.match(audited('change-3'), [{ outcome: 'unchanged', changed: undefined }])
  const back = (await patch(id, { intermediatesPem: null, products: null, crls: [] })).json()
  t.match(back, { crls: [], whenCrlUnavailable: 'accept', products: undefined, intermediatesPem: undefined })
  t.match((await patch(id, { status: 'INACTIVE' })).json(), { status: 'INACTIVE', autoRegistration: true })
  isProblem(t, await patch(id, {}), 'invalid-request')
  isProblem(t, await patch(id, { mode: 'DEFAULT' }), 'invalid-request', { pointer: '/mode' })
  isProblem(t, await patch(id, { crls: ['..'] }, { 'x-request-id': 'change-4' }), 'authority-rejected', { reason: 'crl-not-an-address' })
  t.match(audited('change-4'), [{ event: 'authority-changed', outcome: 'refused', code: 'authority-rejected', reason: 'crl-not-an-address', caCertificateId: id }])
  isProblem(t, await patch(NOWHERE, { status: 'ACTIVE' }), 'authority-not-found')
})

await t.test('If-Match: only while the settings are as they were seen', async t => {
  const { id } = await registered()
  t.equal((await patch(id, { status: 'ACTIVE' }, { 'if-match': '"0"' })).headers['etag'], '"1"', 'each such change is a new revision')
  isProblem(t, await patch(id, { status: 'INACTIVE' }, { 'if-match': '"0"' }), 'precondition-failed')
  t.equal((await ask(service, 'GET', `${URL}/${id}`)).json().status, 'ACTIVE')
  const answers = await Promise.all(['a', 'b', 'c', 'd'].map(name => patch(id, { crls: [`http://${name}.example/`] }, { 'if-match': '"1"' })))
  t.strictSame(answers.map(({ statusCode }) => statusCode).sort(), [200, 412, 412, 412])
  const merged = await Promise.all([patch(id, { whenCrlUnavailable: 'accept' }), patch(id, { products: ['default'] })])
  t.strictSame(merged.map(({ statusCode }) => statusCode), [200, 200], 'without it, changes of different settings come together')
  t.match((await ask(service, 'GET', `${URL}/${id}`)).json(), { whenCrlUnavailable: 'accept', products: ['default'] })
})

await t.test('a CA that was registered past us is an authority too, and fails closed', async t => {
  const ca = new CustomerCa()
  await service.iot.send(new RegisterCACertificateCommand({ caCertificate: ca.cert, certificateMode: 'SNI_ONLY', setAsActive: true }))
  const answer = await ask(service, 'GET', `${URL}/${idOf(ca.cert)}`)
  t.match(answer.json(), { status: 'ACTIVE', mode: 'SNI_ONLY', crls: [], whenCrlUnavailable: 'refuse', products: undefined })
  t.equal(answer.headers['etag'], '"0"')
  const listed = (await ask(service, 'GET', URL)).json().authorities[0]
  t.match(listed, { caCertificateId: idOf(ca.cert), subject: 'CN=Factory CA', caCertificatePem: undefined }, 'the newest is first')
})

await t.test('lists page by page', async t => {
  const all: string[] = []
  for (let cursor = ''; ;) {
    const { authorities, nextCursor } = (await ask(service, 'GET', `${URL}?limit=7${cursor}`, undefined, { as: 'auditor' })).json()
    all.push(...authorities.map(({ caCertificateId }: { caCertificateId: string }) => caCertificateId))
    if (!nextCursor) break
    cursor = `&cursor=${nextCursor}`
  }
  t.ok(all.length > 14)
  t.equal(new Set(all).size, all.length)
  isProblem(t, await ask(service, 'GET', `${URL}?cursor=eA`), 'invalid-request', { detail: /cursor/ })
  for (const query of ['limit=0', 'limit=51', 'cursor=!', 'more=1']) isProblem(t, await ask(service, 'GET', `${URL}?${query}`), 'invalid-request', {}, query)
})

await t.test('its certificates, the last one first; deleted when none of them needs it', async t => {
  const { id, ca } = await registered({ status: 'ACTIVE' })
  const url = `${URL}/${id}`
  t.same((await ask(service, 'GET', `${url}/certificates`)).json(), { certificates: [] })
  const [one, two] = [ca.sign('/CN=one'), ca.sign('/CN=two')]
  for (const { cert } of [one, two]) await service.iot.send(new RegisterCertificateCommand({ certificatePem: cert, caCertificatePem: ca.cert, status: 'ACTIVE' }))
  const page = (await ask(service, 'GET', `${url}/certificates?limit=1`, undefined, { as: 'auditor' })).json()
  t.match(page, { certificates: [{ certificateId: two.id, certificateArn: new RegExp(two.id), status: 'ACTIVE', registeredAt: /Z$/ }] })
  const rest = (await ask(service, 'GET', `${url}/certificates?limit=1&cursor=${page.nextCursor}`)).json()
  t.match(rest, { certificates: [{ certificateId: one.id }], nextCursor: undefined })
  isProblem(t, await ask(service, 'GET', `${URL}/${NOWHERE}/certificates`), 'authority-not-found')

  isProblem(t, await ask(service, 'DELETE', url), 'authority-active')
  await patch(id, { status: 'INACTIVE' })
  isProblem(t, await ask(service, 'DELETE', url, undefined, { 'x-request-id': 'delete-1' }), 'authority-in-use')
  t.match(audited('delete-1'), [{ event: 'authority-deleted', outcome: 'refused', code: 'authority-in-use', caCertificateId: id }])
  for (const { id: certificateId } of [one, two]) await service.iot.send(new UpdateCertificateCommand({ certificateId, newStatus: 'REVOKED' }))
  t.same((await ask(service, 'DELETE', url, undefined, { 'x-request-id': 'delete-2' })).json(), { caCertificateId: id })
  t.match(audited('delete-2'), [{ event: 'authority-deleted', outcome: 'done', actor: 'operator-1', caCertificateId: id }])
  for (const method of ['GET', 'DELETE'] as const) isProblem(t, await ask(service, method, url), 'authority-not-found')
})

await t.test('forced, also while certificates need it; and its settings do not come back', async t => {
  const ca = new CustomerCa()
  const { id } = await registered({ status: 'ACTIVE', whenCrlUnavailable: 'accept' }, ca)
  await service.iot.send(new RegisterCertificateCommand({ certificatePem: ca.sign('/CN=one').cert, caCertificatePem: ca.cert, status: 'ACTIVE' }))
  const forced = () => ask(service, 'DELETE', `${URL}/${id}?force=true`)
  isProblem(t, await forced(), 'authority-active')
  await patch(id, { status: 'INACTIVE' })
  t.equal((await forced()).statusCode, 200)
  t.match((await registered({}, ca)).answer.json(), { whenCrlUnavailable: 'refuse' })
})

await t.test('who may what', async t => {
  const { id } = await registered()
  for (const as of ['auditor', 'line'] as const) {
    isProblem(t, await post({ caCertificatePem: 'x' }, { as }), 'forbidden')
    isProblem(t, await patch(id, { status: 'ACTIVE' }, { as }), 'forbidden')
    isProblem(t, await ask(service, 'DELETE', `${URL}/${id}`, undefined, { as }), 'forbidden')
    isProblem(t, await ask(service, 'GET', `${URL}/registration-code`, undefined, { as }), 'forbidden')
  }
  for (const path of ['', `/${id}`, `/${id}/certificates`]) {
    t.equal((await ask(service, 'GET', URL + path, undefined, { as: 'auditor' })).statusCode, 200)
    isProblem(t, await ask(service, 'GET', URL + path, undefined, { as: 'line' }), 'forbidden')
  }
})

await t.test('the metrics of CRLs are there from the start', async t => {
  for (const [name, labels] of [['cvm_crl_fetches_total', { result: 'fetched' }], ['cvm_crl_unavailable_total', { then: 'refuse' }]] as const) {
    t.equal(await total(service, name, labels), 0, name)
  }
})

/** A CA below the CA. */
function intermediateOf (ca: CustomerCa): string {
  const [{ subjectDer: subject } = t.fail('there is a certificate') as never] = readCertificates(ca.cert)
  const now = Date.now()
  const dates = { notBefore: now - 1000_000, notAfter: now + 1000_000 }
  return certificatePem(freshKey(), { key: ca.key, subject }, { ...dates, subject: commonName('Line CA'), extensions: CA })
}
