// The two routes of renewal on the production app, with the proofs a device makes, and those that nobody may make.
import { createHmac, createPrivateKey, createPublicKey, generateKeyPairSync, sign } from 'node:crypto'
import {
  CreatePolicyCommand, DeletePolicyCommand, DeleteThingCommand, DescribeCertificateCommand, DetachPolicyCommand,
  DetachThingPrincipalCommand, GetPolicyCommand, ListAttachedPoliciesCommand, ListTargetsForPolicyCommand, ListThingPrincipalsCommand
} from '@aws-sdk/client-iot'
import t from 'tap'
import { certificatesMadeDuring } from '../fixtures/account.ts'
import { isProblem } from '../fixtures/problems.ts'
import { type ProofChanges, proofBy } from '../fixtures/proofs.ts'
import { total } from '../fixtures/scrape.ts'
import { startService } from '../fixtures/service.ts'
import { makeCsr } from '../../src/x509/request.ts'
import { csrFor, newKey, vend } from '../fixtures/vending.ts'
import { CN, ECDSA_SHA256, handmadeCsr, hex, name, pemOf, requestInfo, tlv, utf8 } from '../x509/handmade.ts'

const service = await startService({ RATE_LIMIT_SERIAL_MAX: '1000', RATE_LIMIT_ADDRESS_MAX: '100000' })
t.teardown(service.close)

await t.test('renewed and confirmed: the new one works, and the one before is over', async t => {
  const device = await vended()
  const key = newKey()
  const csr = csrFor(device.serialNumber, key)
  const first = await renew(device, csr)
  t.equal(first.statusCode, 201)
  t.equal(first.headers['cache-control'], 'no-store')
  const { confirmBefore, ...renewed } = first.json()
  t.strictSame(Object.keys(renewed), Object.keys(device.answer), 'the members of a vend')
  t.match(renewed, { serialNumber: device.serialNumber, thingName: device.answer.thingName, endpoint: device.audience })
  t.ok(Date.parse(confirmBefore) > Date.now() + 23 * 3_600_000)
  t.ok(Date.parse(renewed.renewAfter) > Date.now())
  t.same([await statusOf(device.answer.certificateId), await statusOf(renewed.certificateId)], ['ACTIVE', 'INACTIVE'])
  const again = await renew(device, csr)
  t.equal(again.statusCode, 200)
  t.equal(again.body, first.body, 'the same again, byte for byte')

  for (const what of ['confirmed', 'confirmed again']) {
    const confirmed = await confirm({ ...device, key }, renewed.certificateId)
    t.equal(confirmed.statusCode, 200, what)
    t.same(confirmed.json(), renewed, 'with the same facts')
  }
  t.same([await statusOf(device.answer.certificateId), await statusOf(renewed.certificateId)], ['REVOKED', 'ACTIVE'])
  const { policies = [] } = await service.iot.send(new ListAttachedPoliciesCommand({ target: renewed.certificateArn }))
  t.same(policies.map(({ policyName }) => policyName), [service.config.IOT_POLICY_NAME])
  const { principals } = await service.iot.send(new ListThingPrincipalsCommand({ thingName: renewed.thingName }))
  t.ok(principals?.includes(renewed.certificateArn), 'bound to the thing')
  isProblem(t, await renew(device, csr), 'device-not-authorized', {}, 'the key before proves nothing any more')
  t.equal((await renew({ ...device, key, answer: renewed }, csrFor(device.serialNumber))).statusCode, 201, 'the new one does')
})

await t.test('a thing that was deleted by hand is made again, and the renewal confirmed', async t => {
  const device = await vended()
  const { thingName } = device.answer
  const { principals: [principal] = [] } = await service.iot.send(new ListThingPrincipalsCommand({ thingName }))
  const key = newKey()
  const renewed = (await renew(device, csrFor(device.serialNumber, key))).json()
  await service.iot.send(new DetachThingPrincipalCommand({ thingName, principal }))
  await service.iot.send(new DeleteThingCommand({ thingName }))
  t.equal((await confirm({ ...device, key }, renewed.certificateId)).statusCode, 200)
  const { principals } = await service.iot.send(new ListThingPrincipalsCommand({ thingName }))
  t.strictSame(principals, [renewed.certificateArn])
  t.same([await statusOf(device.answer.certificateId), await statusOf(renewed.certificateId)], ['REVOKED', 'ACTIVE'])
})

await t.test('a policy that was deleted by hand: 502, the log names it, and the same confirm succeeds once it is back', async t => {
  const policyName = service.config.IOT_POLICY_NAME
  const device = await vended()
  const key = newKey()
  const renewed = (await renew(device, csrFor(device.serialNumber, key))).json()
  const { policyDocument } = await service.iot.send(new GetPolicyCommand({ policyName }))
  const { targets = [] } = await service.iot.send(new ListTargetsForPolicyCommand({ policyName }))
  for (const target of targets) await service.iot.send(new DetachPolicyCommand({ policyName, target }))
  await service.iot.send(new DeletePolicyCommand({ policyName }))
  isProblem(t, await confirm({ ...device, key }, renewed.certificateId), 'aws-iot-refused')
  t.match(service.logs(), `does not have the policy ${policyName}`, 'the log names it')
  t.equal(await statusOf(device.answer.certificateId), 'ACTIVE', 'the one before goes on working')
  await service.iot.send(new CreatePolicyCommand({ policyName, policyDocument }))
  t.equal((await confirm({ ...device, key }, renewed.certificateId)).statusCode, 200)
})

await t.test('every kind of key that a device may have', async t => {
  const keys = {
    RS256: generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey,
    PS512: generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey,
    ES384: generateKeyPairSync('ec', { namedCurve: 'P-384' }).privateKey,
    ES512: generateKeyPairSync('ec', { namedCurve: 'P-521' }).privateKey
  }
  for (const [alg, privateKey] of Object.entries(keys)) {
    const device = await vended(privateKey.export({ type: 'pkcs8', format: 'pem' }) as string)
    t.equal((await renew(device, csrFor(device.serialNumber), { alg })).statusCode, 201, alg)
  }
})

await t.test('a signature in DER, as mbedTLS, wolfSSL, ATECC608 and openssl give it, is taken for r and s', async t => {
  for (const [namedCurve, digest] of [['P-256', 'sha256'], ['P-384', 'sha384'], ['P-521', 'sha512']] as const) {
    const key = generateKeyPairSync('ec', { namedCurve }).privateKey.export({ type: 'pkcs8', format: 'pem' }) as string
    const device = await vended(key)
    const next = newKey()
    const csr = csrFor(device.serialNumber, next)
    const before = await total(service, 'cvm_signatures_repaired_total', { what: 'proof', kind: 'der' })
    const renewed = await post('renew', { serialNumber: device.serialNumber, certificateSigningRequest: csr, proof: inDer(await proofOf(device, csr), key, digest) })
    t.equal(renewed.statusCode, 201, renewed.body)
    const proof = inDer(await proofBy(createPrivateKey(next), renewed.json().certificateId as string, device.audience, Date.now()), next, 'sha256')
    t.equal((await post('confirm', { serialNumber: device.serialNumber, proof })).statusCode, 200, `${namedCurve}, confirmed`)
    t.equal(await total(service, 'cvm_signatures_repaired_total', { what: 'proof', kind: 'der' }), before + 2, 'both are counted')
  }
})

await t.test('a signature in DER proves no more than r and s, and one in neither form is told what is wanted, whatever the device', async t => {
  const device = await vended()
  const csr = csrFor(device.serialNumber)
  const proof = await proofOf(device, csr)
  const send = (jws: string, serialNumber = device.serialNumber) =>
    post('renew', { serialNumber, certificateSigningRequest: csrFor(serialNumber), proof: jws })
  isProblem(t, await send(inDer(proof, newKey(), 'sha256')), 'device-not-authorized', { detail: /^The proof must be/ }, 'by another key')
  isProblem(t, await send(inDer(proof, device.key, 'sha384')), 'device-not-authorized', {}, 'by another digest')
  const [header, payload] = proof.split('.')
  for (const [octets, serialNumber] of [[63, device.serialNumber], [65, 'sn-unknown'], [1, 'sn-unknown']] as const) {
    const answer = await send(`${header}.${payload}.${Buffer.alloc(octets, 1).toString('base64url')}`, serialNumber)
    isProblem(t, answer, 'proof-rejected', { reason: 'signature-format', detail: new RegExp(`has ${octets} octets; ES256 wants 64: r and s of 32`) }, `${octets} octets`)
    t.notMatch(answer.body, /registration token/)
  }
})

await t.test('a CSR whose signature was repaired: the proof is over what the device wrote', async t => {
  const device = await vended()
  const key = newKey()
  const good = csrFor(device.serialNumber, key)
  const info = requestInfo(key, { subject: name([CN, utf8(device.serialNumber)]) })
  const raw = sign('sha256', info, { key, dsaEncoding: 'ieee-p1363' })
  const csr = pemOf(tlv(0x30, info, ECDSA_SHA256, tlv(0x03, hex('00'), raw)))
  isProblem(t, await post('renew', { serialNumber: device.serialNumber, certificateSigningRequest: csr, proof: await proofOf(device, good) }), 'proof-rejected', { reason: 'csr-digest' })
  const renewed = await renew(device, csr)
  t.equal(renewed.statusCode, 201, renewed.body)
  t.ok(await total(service, 'cvm_signatures_repaired_total', { what: 'csr', kind: 'raw' }) > 0)
})

await t.test('an untidy CSR renews: NULL parameters (mbedTLS 2.28.3), version 2 (wolfSSL), CRLF', async t => {
  const device = await vended()
  const subject = name([CN, utf8(device.serialNumber)])
  const algorithm = tlv(0x30, tlv(0x06, hex('2a8648ce3d040302')), tlv(0x05))
  const csr = handmadeCsr(newKey(), { version: tlv(0x02, hex('02')), subject, algorithm }).replaceAll('\n', '\r\n')
  const renewed = await renew(device, csr)
  t.equal(renewed.statusCode, 201, renewed.body)
})

/** The same proof, signed anew in DER. */
function inDer (jws: string, key: string, digest: string): string {
  const signed = jws.slice(0, jws.lastIndexOf('.'))
  return `${signed}.${sign(digest, Buffer.from(signed), key).toString('base64url')}`
}

await t.test('proofs that prove nothing are answered alike (G7)', async t => {
  const device = await vended()
  const other = await vended()
  const csr = csrFor(device.serialNumber)
  const proof = await proofOf(device, csr)
  const [header = '', payload = '', signature = ''] = proof.split('.')
  const part = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url')
  const x5t = { 'x5t#S256': Buffer.from(device.answer.certificateId, 'hex').toString('base64url') }
  const hmacHeader = part({ alg: 'HS256', ...x5t })
  const publicKey = createPublicKey(device.key).export({ type: 'spki', format: 'pem' })
  const proofs = {
    'another key': await proofOf({ ...device, key: newKey() }, csr),
    'another device\'s certificate': await proofOf({ ...device, answer: other.answer, key: other.key }, csr),
    'no algorithm': `${part({ alg: 'none', ...x5t })}.${payload}.AA`,
    'an HMAC with the public key': `${hmacHeader}.${payload}.${createHmac('sha256', publicKey).update(`${hmacHeader}.${payload}`).digest('base64url')}`,
    'another payload': `${header}.${part({ aud: device.audience })}.${signature}`,
    'no certificate named': await proofOf(device, csr, { header: { 'x5t#S256': undefined } }),
    'a header that must be understood': await proofOf(device, csr, { header: { crit: ['exp'], exp: 1 } }).catch(() => `${part({ alg: 'ES256', ...x5t, crit: ['x'] })}.${payload}.${signature}`),
    'no JSON': 'AA.AA.AA'
  }
  const made = await certificatesMadeDuring(service.iot, async () => {
    const bodies = new Set<string>()
    for (const [what, jws] of Object.entries(proofs)) {
      const answer = await post('renew', { serialNumber: device.serialNumber, certificateSigningRequest: csr, proof: jws })
      isProblem(t, answer, 'device-not-authorized', {}, what)
      const { requestId, ...rest } = answer.json()
      bodies.add(JSON.stringify(rest))
    }
    const unknown = csrFor('sn-unknown')
    const answer = await post('renew', { serialNumber: 'sn-unknown', certificateSigningRequest: unknown, proof: await proofOf(device, unknown) })
    const { requestId, ...rest } = answer.json()
    bodies.add(JSON.stringify(rest))
    t.equal(bodies.size, 1, 'also for a device that nobody knows')
  })
  t.same(made, [])
  t.notMatch(service.logs(), proof, 'no proof is logged')
})

await t.test('what is rightly signed and yet not for this', async t => {
  const device = await vended()
  const csr = csrFor(device.serialNumber)
  const now = Math.floor(Date.now() / 1000)
  const cases: [string, string, ProofChanges][] = [
    ['proof-rejected', 'audience', { claims: { aud: 'somebody else' } }],
    ['proof-rejected', 'nonce', { claims: { jti: undefined } }],
    ['proof-rejected', 'csr-digest', { claims: { csr: 'AAAA' } }],
    ['proof-not-current', '', { claims: { iat: now - 310 } }],
    ['proof-not-current', '', { claims: { iat: now + 330 } }],
    ['proof-not-current', '', { claims: { iat: undefined } }],
    ['proof-not-current', '', { claims: { exp: now - 1 } }]
  ]
  for (const [code, reason, changes] of cases) {
    const answer = await renew(device, csr, changes)
    isProblem(t, answer, code as 'proof-rejected', reason ? { reason } : {}, JSON.stringify(changes))
    t.ok(Math.abs(Date.parse(answer.headers.date as string) - Date.now()) < 60_000, 'with the time here')
  }
  const unsigned = csrFor(device.serialNumber)
  isProblem(t, await post('renew', { serialNumber: device.serialNumber, certificateSigningRequest: unsigned, proof: await proofOf(device, csr) }),
    'proof-rejected', { reason: 'csr-digest' }, 'a CSR put in the place of another')
})

await t.test('a proof is used once', async t => {
  const device = await vended()
  const [first, second] = [csrFor(device.serialNumber), csrFor(device.serialNumber)]
  const request = { serialNumber: device.serialNumber, certificateSigningRequest: first, proof: await proofOf(device, first) }
  t.equal((await post('renew', request)).statusCode, 201)
  t.equal((await post('renew', request)).statusCode, 200, 'the same request is the same request')
  t.equal((await renew(device, second)).statusCode, 201, 'another key replaces it')
  isProblem(t, await post('renew', request), 'proof-rejected', { reason: 'nonce-used' }, 'and it is not brought back by who listened')
})

await t.test('it is counted and audited', async t => {
  const device = await vended()
  const count = () => total(service, 'cvm_renewals_total', { step: 'renew', outcome: 'refused' })
  const before = await count()
  isProblem(t, await renew({ ...device, key: newKey() }, csrFor(device.serialNumber)), 'device-not-authorized')
  t.equal(await count(), before + 1)
  const { certificateId } = (await renew(device, csrFor(device.serialNumber))).json()
  const audits = service.logs().split('\n').filter(line => line.includes('"audit"')).map(line => JSON.parse(line).audit)
  t.match(audits.at(-1), { event: 'certificate-renewed', outcome: 'done', serialNumber: device.serialNumber, certificateId })
  t.match(audits.at(-2), { event: 'renewal-refused', outcome: 'refused', step: 'renew', code: 'device-not-authorized', serialNumber: undefined })
})

await t.test('operators go first', async t => {
  const device = await vended()
  const key = newKey()
  const { certificateId } = (await renew(device, csrFor(device.serialNumber, key))).json()
  const seen = await service.app.registry.find(device.serialNumber)
  if (!seen) throw new Error('no device')
  await service.app.registry.intend(seen, { operation: 'revoke', operationId: 'o', actor: 'ada', reason: 'r' }, { expiresAt: Date.now() })
  isProblem(t, await confirm({ ...device, key }, certificateId), 'vend-in-progress', {}, 'while a wish is pending')
  t.equal(await statusOf(device.answer.certificateId), 'ACTIVE')
})

interface Vended {
  serialNumber: string
  key: string
  audience: string
  answer: { certificateId: string, certificatePem: string, thingName: string, endpoint: string }
}

async function vended (key = newKey()): Promise<Vended> {
  const device = await service.register()
  const certificateSigningRequest = await makeCsr(createPrivateKey(key), device.serialNumber)
  const { statusCode, body } = await vend(service, { ...device, certificateSigningRequest })
  if (statusCode !== 201) throw new Error(`the vend was answered ${statusCode} ${body}`)
  const answer = JSON.parse(body)
  return { serialNumber: device.serialNumber, key, audience: answer.endpoint, answer }
}

function proofOf ({ key, answer, audience }: Vended, csr: string | undefined, changes?: ProofChanges): Promise<string> {
  return proofBy(createPrivateKey(key), answer.certificateId, audience, Date.now(), csr, changes)
}

async function renew (device: Vended, certificateSigningRequest: string, changes?: ProofChanges) {
  const { serialNumber } = device
  return post('renew', { serialNumber, certificateSigningRequest, proof: await proofOf(device, certificateSigningRequest, changes) })
}

async function confirm ({ serialNumber, key, audience }: Vended, certificateId: string) {
  return post('confirm', { serialNumber, proof: await proofBy(createPrivateKey(key), certificateId, audience, Date.now()) })
}

function post (step: 'renew' | 'confirm', payload: object) {
  return service.app.service.inject({ method: 'POST', url: `/v1/certificates/${step}`, payload })
}

async function statusOf (certificateId: string): Promise<string | undefined> {
  return (await service.iot.send(new DescribeCertificateCommand({ certificateId }))).certificateDescription?.status
}
