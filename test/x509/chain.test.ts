import t from 'tap'
import { CvmError } from '../../src/errors.ts'
import { checkAuthority, verifyChain, verifySelfSigned } from '../../src/x509/chain.ts'
import { CHAIN_REFUSALS, type ChainRefusal } from '../../src/x509/refusals.ts'
import { readCertificates, type Certificate } from '../../src/x509/strict-certificate.ts'
import { inTemporaryDir, openssl, opensslKey } from '../fixtures/openssl.ts'
import { CustomerCa } from '../local/ca-rig.ts'
import {
  CA, CLIENT_AUTH, DAY, NOW, SERVER_AUTH, authority, basicConstraints, certificatePem, commonName, extendedKeyUsage, extension, freshKey,
  keyUsage, type Authority, type CertificateParts, type Signer
} from './handmade-certificate.ts'
import { ECDSA_SHA256, RSA_SHA256, hex, name, spkiOf, tlv, utf8, CN } from './handmade.ts'

const deviceKey = freshKey()
const root = authority(commonName('Factory CA'))
const rsaCa = authority(commonName('RSA CA'), { key: await opensslKey('rsa') })
const below = (by: Signer, parts: CertificateParts & { key?: string } = {}, text = 'Line CA'): Authority => authority(commonName(text), { by, ...parts })
const leaf = (by: Signer, parts: CertificateParts = {}): string => certificatePem(deviceKey, by, parts)
const line = below(root)
const one = (pem: string): Certificate => readCertificates(pem)[0]!
const algorithm = (oid: string, ...parameters: Buffer[]): Buffer => tlv(0x30, tlv(0x06, hex(oid)), ...parameters)

/** `accepted`, or the reason; a message that is no advice, and any other error, is a fault. */
function verdict (work: () => unknown): string {
  try {
    work()
    return 'accepted'
  } catch (error) {
    if (!(error instanceof CvmError) || error.code !== 'certificate-not-trusted' || error.reason === undefined) throw error
    const { reason, message } = error
    if (!message.startsWith(CHAIN_REFUSALS[reason as ChainRefusal]) || message.length > 400 || !/^[ -~]+$/.test(message)) throw new Error(`no advice: ${message}`)
    return reason
  }
}

const verify = (certificate: string, anchor: Authority, intermediates: readonly Authority[] = [], now = NOW): string =>
  verdict(() => verifyChain(one(certificate), { anchor: one(anchor.pem), intermediates: intermediates.map(({ pem }) => one(pem)), now }))

/** A chain of as many CAs, from the one that signs devices up to the one below the root. */
function cascade (length: number, parts: CertificateParts = {}): Authority[] {
  const chain: Authority[] = []
  for (let at = 0; at < length; at++) chain.unshift(below(chain[0] ?? root, parts, `CA ${at}`))
  return chain
}

const namesake = authority(root.subject)
const expired = { notBefore: NOW - 2 * DAY, notAfter: NOW - DAY }
const future = { notBefore: NOW + 1000 }
const lineWith = (...extensions: Buffer[]): Authority => below(root, { extensions })
const under = (ca: Authority, ...more: Authority[]): string => verify(leaf(ca), root, [ca, ...more])
const anchoredAt = (parts: CertificateParts): string => {
  const ca = authority(commonName('Factory CA'), parts)
  return verify(leaf(ca), ca)
}
const CRITICAL = extension('2a0304', hex('0500'), true)
const NAME_CONSTRAINTS = extension('551d1e', hex('3000'))
const deep = cascade(5)

const CASES: Record<ChainRefusal, ReadonlyArray<readonly [what: string, found: string]>> = {
  'issuer-name-mismatch': [
    ['another name, the right key', verify(leaf({ key: root.key, subject: commonName('Other CA') }), root)],
    ['another case', verify(leaf({ key: root.key, subject: commonName('FACTORY CA') }), root)],
    ['the same text in another string type', verify(leaf({ key: root.key, subject: name([CN, tlv(0x13, Buffer.from('Factory CA'))]) }), root)],
    ['none of the intermediates', verify(leaf(below(root, {}, 'Other CA')), root, [line])],
    ['the anchor above the one that signed', verify(leaf(line), root)],
    ['self-signed: by another', verdict(() => verifySelfSigned(one(leaf(root)), { now: NOW }))]
  ],
  'signature-invalid': [
    ['a second CA with the same subject', verify(leaf(namesake), root)],
    ['the same, and its certificate is sent along', verify(leaf(namesake), root, [namesake])],
    ['an intermediate with the name of a true one', verify(leaf(below(namesake)), root, [line])],
    ['an intermediate that a namesake of the root signed', verify(leaf(line), root, [below(namesake, { key: line.key })])],
    ['changed after signing', verify(leaf(root, { digest: 'sha384' }), root)],
    ['an RSA algorithm by an EC key', verify(leaf(root, { algorithm: RSA_SHA256 }), root)],
    ['an ECDSA algorithm by an RSA key', verify(leaf(rsaCa, { algorithm: ECDSA_SHA256 }), rsaCa)],
    ['self-signed: by another key of the same name', verdict(() => verifySelfSigned(one(certificatePem(deviceKey, root, { subject: root.subject })), { now: NOW }))]
  ],
  'not-yet-valid': [['from the next second', verify(leaf(root, future), root)], ['self-signed', selfSigned(future)]],
  expired: [['until the second before', verify(leaf(root, { notAfter: NOW - 1000 }), root)], ['self-signed', selfSigned(expired)]],
  'leaf-is-a-ca': [
    ['basicConstraints', verify(leaf(root, { extensions: CA }), root)],
    ['keyCertSign without basicConstraints', verify(leaf(root, { extensions: [keyUsage(0, 5)] }), root)],
    ['the anchor itself', verify(root.pem, root)]
  ],
  'leaf-not-for-clients': [
    ['keyEncipherment alone', verify(leaf(root, { extensions: [keyUsage(2)] }), root)],
    ['serverAuth alone', verify(leaf(root, { extensions: [extendedKeyUsage(SERVER_AUTH)] }), root)],
    ['self-signed: serverAuth alone', selfSigned({ extensions: [extendedKeyUsage(SERVER_AUTH)] })]
  ],
  'issuer-not-yet-valid': [['the anchor', anchoredAt(future)], ['an intermediate', under(below(root, future))]],
  'issuer-expired': [
    ['the anchor', anchoredAt(expired)],
    ['an intermediate', under(below(root, expired))],
    ['an intermediate, beside a namesake that did not sign', under(below(root, expired), line)]
  ],
  'issuer-not-a-ca': [
    ['the anchor', anchoredAt({ extensions: [basicConstraints(false), keyUsage(5)] })],
    ['the anchor without extensions', anchoredAt({ extensions: [] })],
    ['the anchor of version 1', anchoredAt({ version: null, extensions: [] })],
    ['an intermediate', under(lineWith(basicConstraints(false), keyUsage(5)))],
    ['a device that signs another', (() => {
      const device = { key: deviceKey, subject: commonName('SN-0002'), pem: leaf(root, { subject: commonName('SN-0002') }) }
      return verify(certificatePem(freshKey(), device), root, [device])
    })()]
  ],
  'issuer-may-not-sign': [
    ['the anchor', anchoredAt({ extensions: [basicConstraints(true), keyUsage(0, 6)] })],
    ['an intermediate', under(lineWith(basicConstraints(true), keyUsage(6)))]
  ],
  'issuer-not-for-clients': [
    ['the anchor', anchoredAt({ extensions: [...CA, extendedKeyUsage(SERVER_AUTH)] })],
    ['an intermediate', under(lineWith(...CA, extendedKeyUsage(SERVER_AUTH)))]
  ],
  'path-too-long': [
    ['five intermediates', verify(leaf(deep[0]!), root, deep)],
    ['the anchor allows none', (() => {
      const anchor = authority(commonName('Root'), { extensions: [basicConstraints(true, 0), keyUsage(5)] })
      const ca = below(anchor)
      return verify(leaf(ca), anchor, [ca])
    })()],
    ['an intermediate allows none', (() => {
      const upper = below(root, { extensions: [basicConstraints(true, 0), keyUsage(5)] }, 'Upper CA')
      const lower = below(upper)
      return verify(leaf(lower), root, [lower, upper])
    })()]
  ],
  'signature-too-weak': [
    ['SHA-1 with RSA', verify(leaf(rsaCa, { algorithm: algorithm('2a864886f70d010105', tlv(0x05)), digest: 'sha1' }), rsaCa)],
    ['MD5 with RSA', verify(leaf(rsaCa, { algorithm: algorithm('2a864886f70d010104', tlv(0x05)), digest: 'md5' }), rsaCa)],
    ['SHA-224 with RSA', verify(leaf(rsaCa, { algorithm: algorithm('2a864886f70d01010e', tlv(0x05)), digest: 'sha224' }), rsaCa)],
    ['SHA-1 with ECDSA', verify(leaf(root, { algorithm: algorithm('2a8648ce3d0401'), digest: 'sha1' }), root)],
    ['SHA-224 with ECDSA', verify(leaf(root, { algorithm: algorithm('2a8648ce3d040301'), digest: 'sha224' }), root)],
    ['SHA-1 at an intermediate', under(below(root, { algorithm: algorithm('2a8648ce3d0401'), digest: 'sha1' }))],
    ['self-signed with SHA-1', selfSigned({ algorithm: algorithm('2a8648ce3d0401'), digest: 'sha1' })]
  ],
  'signature-algorithm-not-allowed': [
    ['RSA-PSS', verify(leaf(rsaCa, { algorithm: algorithm('2a864886f70d01010a', tlv(0x30)) }), rsaCa)],
    ['Ed25519', verify(leaf(root, { algorithm: algorithm('2b6570') }), root)],
    ['ECDSA with SHA3-256', verify(leaf(root, { algorithm: algorithm('60864801650304030a') }), root)]
  ],
  'algorithm-parameters-wrong': [
    ['a curve with ECDSA', verify(leaf(root, { algorithm: algorithm('2a8648ce3d040302', tlv(0x06, hex('2a8648ce3d030107'))) }), root)],
    ['a sequence with RSA', verify(leaf(rsaCa, { algorithm: algorithm('2a864886f70d01010b', tlv(0x30)) }), rsaCa)]
  ],
  'key-too-weak': [
    ['the device', verify(leaf(root, { spki: spkiOf(await opensslKey('rsa-1024')) }), root)],
    ['the anchor', anchoredAt({ spki: spkiOf(await opensslKey('rsa-1024')) })],
    ['an intermediate', under(below(root, { spki: spkiOf(await opensslKey('rsa-1024')) }))]
  ],
  'key-not-allowed': [
    ['the device: Ed25519', verify(leaf(root, { spki: spkiOf(await opensslKey('ed25519')) }), root)],
    ['the device: no point', verify(leaf(root, { spki: Buffer.concat([spkiOf(deviceKey).subarray(0, -64), Buffer.alloc(64, 1)]) }), root)],
    ['the anchor: secp256k1', anchoredAt({ spki: spkiOf(await opensslKey('ec-secp256k1')) })],
    ['an intermediate: exponent 3', under(below(root, { spki: spkiOf(await opensslKey('rsa-exponent-3')) }))]
  ],
  'unknown-critical-extension': [
    ['the device', verify(leaf(root, { extensions: [CRITICAL] }), root)],
    ['the device limits names, as only CAs may', verify(leaf(root, { extensions: [extension('551d1e', hex('3000'), true)] }), root)],
    ['the anchor', anchoredAt({ extensions: [...CA, CRITICAL] })],
    ['an intermediate that demands policies', under(lineWith(...CA, extension('551d24', hex('3003800100'), true)))],
    ['self-signed', selfSigned({ extensions: [CRITICAL] })]
  ],
  'name-constraints-not-supported': [
    ['the anchor', anchoredAt({ extensions: [...CA, NAME_CONSTRAINTS] })],
    ['an intermediate, critical', under(lineWith(...CA, extension('551d1e', hex('3000'), true)))]
  ],
  'too-many-intermediates': [['eleven', verify(leaf(root), root, Array.from({ length: 11 }, () => line))]],
  'no-path': [
    ['the upper one is missing', verify(leaf(deep[3]!), root, [deep[3]!])],
    ['intermediates that sign each other', (() => {
      const [a, b] = [freshKey(), freshKey()]
      const first = authority(commonName('A'), { key: a, by: { key: b, subject: commonName('B') } })
      const second = authority(commonName('B'), { key: b, by: first })
      return verify(leaf(first), root, [second, first])
    })()]
  ]
}

function selfSigned (parts: CertificateParts = {}): string {
  const subject = commonName('SN-0001')
  return verdict(() => verifySelfSigned(one(certificatePem(deviceKey, { key: deviceKey, subject }, { subject, ...parts })), { now: NOW }))
}

await t.test('each rule has cases in which it alone is broken', async t => {
  t.strictSame(Object.keys(CASES).sort(), Object.keys(CHAIN_REFUSALS).sort(), 'the list is closed')
  for (const [reason, cases] of Object.entries(CASES)) {
    for (const [what, found] of cases) t.equal(found, reason, `${reason}: ${what}`)
  }
})

await t.test('spoofed issuer: a second CA with the same subject is told from the registered one', async t => {
  const [registered, spoofed] = [new CustomerCa('/O=CA test signer'), new CustomerCa('/O=CA test signer')].map(ca => ({ ca, anchor: one(ca.cert) }))
  const [device, stranger] = [registered!, spoofed!].map(({ ca }) => one(ca.sign('/O=CA test').cert))
  const now = Date.now()
  t.ok(registered!.anchor.subjectDer.equals(spoofed!.anchor.subjectDer), 'both have the same name')
  t.equal(verifyChain(device!, { anchor: registered!.anchor, now }).length, 2)
  t.equal(verdict(() => verifyChain(device!, { anchor: spoofed!.anchor, now })), 'signature-invalid')
  t.equal(verdict(() => verifyChain(stranger!, { anchor: registered!.anchor, now })), 'signature-invalid')
})

await t.test('the parameters of signature algorithms may be absent or NULL, for both kinds of key', async t => {
  for (const [ca, oid] of [[root, '2a8648ce3d040302'], [rsaCa, '2a864886f70d01010b']] as const) {
    for (const parameters of [[], [tlv(0x05)]]) {
      t.equal(verify(leaf(ca, { algorithm: algorithm(oid, ...parameters) }), ca), 'accepted', `${oid}, ${parameters.length === 0 ? 'absent' : 'NULL'}`)
    }
  }
  t.equal(selfSigned({ algorithm: algorithm('2a8648ce3d040302', tlv(0x05)) }), 'accepted', 'self-signed')
})

await t.test('what may be: paths of any length allowed, in any order, with strangers among them', async t => {
  const chain = cascade(4)
  const strangers = [namesake, line, below(namesake, {}, 'CA 0'), authority(commonName('CA 3')), deep[0]!, below(root, future, 'CA 1')]
  const device = one(leaf(chain[0]!))
  const intermediates = [...strangers, ...chain].map(({ pem }) => one(pem))
  const anchor = one(root.pem)
  const subjects = ['CN=SN-0001', 'CN=CA 3', 'CN=CA 2', 'CN=CA 1', 'CN=CA 0', 'CN=Factory CA']
  for (const given of [intermediates, intermediates.toReversed()]) {
    t.strictSame(verifyChain(device, { anchor, intermediates: given, now: NOW }).map(({ subject }) => subject), subjects)
  }
  t.equal(verify(leaf(root), root), 'accepted')
  t.equal(verify(leaf(line), line), 'accepted', 'trust may begin at an intermediate')
  t.equal(verify(leaf(line), root, [line]), 'accepted')
  t.equal(verify(leaf(line, { subject: name() }), line), 'accepted', 'an empty subject')
  t.equal(verify(leaf(root, { subject: root.subject }), root), 'accepted', 'the same name as its issuer')
  t.equal(verify(leaf(root, { version: null }), root), 'accepted', 'version 1, as openssl makes it')
  t.equal(verify(leaf(rsaCa), rsaCa), 'accepted', 'an EC key signed with RSA')
  t.equal(verify(leaf(root, { notBefore: NOW, notAfter: NOW }), root), 'accepted', 'both ends of the validity are within it')
  t.equal(anchoredAt({ extensions: [basicConstraints(true)] }), 'accepted', 'no keyUsage')
  t.equal(anchoredAt({ algorithm: algorithm('2a8648ce3d0401'), digest: 'sha1' }), 'accepted', 'how the anchor was signed')
  t.equal(anchoredAt({ extensions: [...CA, extendedKeyUsage(SERVER_AUTH, CLIENT_AUTH), extension('551d20', hex('300630040602 2a03'), true)] }), 'accepted')
  for (const purposes of [[CLIENT_AUTH], ['551d2500'], [SERVER_AUTH, CLIENT_AUTH]]) {
    const extensions = [basicConstraints(false), keyUsage(0, 2), extendedKeyUsage(...purposes), extension('551d11', hex('3003820161'), true), extension('2a0304', hex('0500'))]
    t.equal(verify(leaf(root, { extensions }), root), 'accepted', `extendedKeyUsage ${purposes.join()}`)
  }
})

await t.test('path lengths count CAs, but not those that were issued to themselves', async t => {
  const limited = (pathLength: number) => ({ extensions: [basicConstraints(true, pathLength), keyUsage(5)] })
  const anchor = authority(commonName('Root'), limited(1))
  const ca = below(anchor, limited(0))
  const renewed = authority(ca.subject, { by: ca, ...limited(0) })
  t.equal(verify(leaf(ca), anchor, [ca]), 'accepted')
  t.equal(verify(leaf(renewed), anchor, [ca, renewed]), 'accepted', 'a new key of the same CA')
  const lower = below(ca, {}, 'Lower CA')
  t.equal(verify(leaf(lower), anchor, [lower, ca]), 'path-too-long')
  // Two ways to the same CA: the long one breaks the limit, and must not be the only one tried.
  const detour = below(ca, { key: lower.key }, 'Detour')
  const top = authority(commonName('Top'), { by: root, ...limited(1) })
  const long = authority(ca.subject, { by: { key: detour.key, subject: detour.subject }, key: ca.key })
  const direct = authority(ca.subject, { by: top, key: ca.key })
  const detoured = authority(detour.subject, { by: top, key: detour.key })
  for (const given of [[long, detoured, direct, top], [top, direct, detoured, long]]) t.equal(verify(leaf(ca), root, given), 'accepted')
})

await t.test('an authority is judged alone as it will be as an anchor', async t => {
  const judged = (parts: CertificateParts): string => verdict(() => checkAuthority(one(authority(root.subject, parts).pem), { now: NOW }))
  t.equal(judged({}), 'accepted')
  t.equal(verdict(() => checkAuthority(one(line.pem), { now: NOW })), 'accepted', 'an intermediate')
  t.equal(judged(expired), 'issuer-expired')
  t.equal(judged({ extensions: [] }), 'issuer-not-a-ca')
  t.equal(judged({ extensions: [basicConstraints(true), keyUsage(6)] }), 'issuer-may-not-sign')
  t.equal(judged({ spki: spkiOf(await opensslKey('rsa-1024')) }), 'key-too-weak')
})

await t.test('self-signed, as openssl makes it, and as the Terraform document does', async t => inTemporaryDir(async dir => {
  for (const extra of [[], ['-addext', 'basicConstraints=critical,CA:FALSE', '-addext', 'extendedKeyUsage=clientAuth']]) {
    const args = ['req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-keyout', `${dir}/key.pem`, '-subj', '/O=test', ...extra]
    const { stdout } = await openssl(args)
    t.equal(verdict(() => verifySelfSigned(one(stdout), { now: Date.now() })), 'accepted', extra.join(' '))
  }
}))

await t.test('ten intermediates of one name and key, that sign each other in every way, are soon done with', async t => {
  const key = await opensslKey('ec-p521')
  const subject = name([CN, utf8('Maze')])
  const serials = Array.from({ length: 10 }, (_, at) => tlv(0x02, Buffer.from([at + 1])))
  const maze = serials.map(serial => authority(subject, { key, by: { key, subject }, serial }))
  const outside = authority(subject)
  const device = one(leaf(maze[0]!))
  const intermediates = maze.map(({ pem }) => one(pem))
  // Walking every path would take 10! checks of a signature, which no test waits for.
  t.equal(verdict(() => verifyChain(device, { anchor: one(outside.pem), intermediates, now: NOW })), 'signature-invalid')
})
