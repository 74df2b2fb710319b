// The kinds of paths that x509-limbo collects, made here: each fault alone at each place of a path of four certificates, then several
// at once. What is taken is taken by openssl, too.
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import fc from 'fast-check'
import t from 'tap'
import { CvmError } from '../../src/errors.ts'
import { verifyChain } from '../../src/x509/chain.ts'
import { readCertificates } from '../../src/x509/strict-certificate.ts'
import { inTemporaryDir, openssl, opensslKey } from '../fixtures/openssl.ts'
import {
  CA, CLIENT_AUTH, DAY, NOW, SERVER_AUTH, basicConstraints, certificatePem, commonName, extendedKeyUsage, extension,
  freshKey, keyUsage, type CertificateParts
} from './handmade-certificate.ts'
import { RSA_SHA256, hex, name, pemOf, spkiOf, tlv } from './handmade.ts'

const PLACES = ['root', 'upper', 'lower', 'leaf'] as const
type Place = typeof PLACES[number]

interface Wish extends CertificateParts {
  /** Signs in place of the key of the one above, under its name. */
  signedBy?: string
  pem?: (pem: string) => string
}

interface Fault {
  readonly what: string
  /** Where it must not be; elsewhere it is taken, or the fault is not tried there. */
  readonly refusedAt: readonly Place[]
  readonly takenAt?: readonly Place[]
  readonly wish: Wish
  /** openssl refuses what RFC 5280 allows. */
  readonly isBeyondOpenssl?: boolean
}

const [CAS, BELOW, ALL] = [PLACES.slice(0, 3), PLACES.slice(1), PLACES]
const [NONE, ROOT, LEAF]: Place[][] = [[], ['root'], ['leaf']]
const keys = Object.fromEntries(PLACES.map(place => [place, freshKey()])) as Record<Place, string>
const stranger = freshKey()
const ecdsa = (oid: string): Buffer => tlv(0x30, tlv(0x06, hex(oid)))
const dns = (tag: number, text: string): Buffer => tlv(tag, tlv(0x30, tlv(0x82, Buffer.from(text))))
const constraints = (...trees: Buffer[]): Buffer => tlv(0x30, ...trees)
const UNKNOWN = extension('2a0304', hex('0500'), true)

const fault = (what: string, wish: Wish, refusedAt: readonly Place[], takenAt: readonly Place[] = NONE!): Fault =>
  ({ what, wish, refusedAt, takenAt })
const onCa = (what: string, ...extensions: Buffer[]): Fault => fault(what, { extensions }, CAS)
const onLeaf = (what: string, ...extensions: Buffer[]): Fault => fault(what, { extensions }, LEAF!)
const limited = (length: number, refusedAt: readonly Place[]): Fault =>
  fault(`path length ${length}`, { extensions: [basicConstraints(true, length), keyUsage(5)] }, refusedAt, CAS.filter(place => !refusedAt.includes(place)))
const nameConstraint = (what: string, value: Buffer): Fault[] => [true, false].map(isCritical =>
  onCa(`name constraint: ${what}${isCritical ? ', critical' : ''}`, ...CA, extension('551d1e', value, isCritical)))

const FAULTS: readonly Fault[] = [
  fault('another key of the same name', { spki: spkiOf(stranger) }, CAS, LEAF),
  fault('signed with another key of the same name', { signedBy: stranger }, BELOW, ROOT),
  fault('signed over another digest', { digest: 'sha384' }, BELOW, ROOT),
  fault('another issuer', { issuer: commonName('Other') }, BELOW, ROOT),
  fault('issuer in another case', { issuer: commonName('CA UPPER') }, BELOW),
  fault('no issuer', { issuer: name() }, ALL),
  fault('another subject', { subject: commonName('Other') }, CAS, LEAF),
  fault('no subject', { subject: name() }, CAS, LEAF),
  fault('expired a second ago', { notAfter: NOW - 1000 }, ALL),
  fault('expired long ago', { notBefore: NOW - 3 * DAY, notAfter: NOW - 2 * DAY }, ALL),
  fault('valid in a second', { notBefore: NOW + 1000 }, ALL),
  fault('an end before its start', { notBefore: NOW + DAY, notAfter: NOW - DAY }, ALL),
  { ...fault('ends now', { notBefore: NOW, notAfter: NOW }, NONE!, ALL), isBeyondOpenssl: true },
  fault('a date of fractions', { notBefore: tlv(0x18, Buffer.from('20260101000000.5Z')) }, ALL),
  fault('a date with an offset', { notBefore: tlv(0x17, Buffer.from('260101000000+0100')) }, ALL),
  fault('a date without seconds', { notBefore: tlv(0x17, Buffer.from('2601010000Z')) }, ALL),
  fault('a date that is none', { notAfter: tlv(0x17, Buffer.from('261301000000Z')) }, ALL),
  fault('SHA-1', { algorithm: ecdsa('2a8648ce3d0401'), digest: 'sha1' }, BELOW, ROOT),
  fault('SHA-224', { algorithm: ecdsa('2a8648ce3d040301'), digest: 'sha224' }, BELOW),
  fault('two algorithms', { innerAlgorithm: RSA_SHA256 }, ALL),
  fault('an algorithm of another key', { algorithm: RSA_SHA256 }, BELOW),
  fault('RSA-1024', { spki: spkiOf(await opensslKey('rsa-1024')) }, ALL),
  fault('P-224', { spki: spkiOf(await opensslKey('ec-p224')) }, ALL),
  fault('a key off its curve', { spki: Buffer.concat([spkiOf(stranger).subarray(0, -64), Buffer.alloc(64, 1)]) }, ALL),
  fault('version 1 with extensions', { version: null, extensions: CA }, ALL),
  fault('version 2 with extensions', { version: tlv(0xa0, tlv(0x02, hex('01'))), extensions: CA }, ALL),
  fault('version 4', { version: tlv(0xa0, tlv(0x02, hex('03'))) }, ALL),
  fault('no extensions', { extensions: [] }, CAS, LEAF),
  fault('a negative serial number', { serial: tlv(0x02, hex('80')) }, NONE!, ALL),
  fault('a serial number with a needless zero', { serial: tlv(0x02, hex('0001')) }, ALL),
  fault('an extension twice', { extensions: [keyUsage(0, 5), keyUsage(0, 5)] }, ALL),
  fault('an unknown critical extension', { extensions: [...CA, UNKNOWN] }, CAS),
  fault('an unknown critical extension at the device', { extensions: [UNKNOWN] }, LEAF!),
  fault('an unknown extension', { extensions: [...CA, extension('2a0304', hex('0500'))] }, LEAF!, CAS),
  fault('a needless FALSE of critical', { extensions: [...CA, tlv(0x30, tlv(0x06, hex('2a0304')), tlv(0x01, hex('00')), tlv(0x04, hex('0500')))] }, LEAF!, CAS),
  fault('critical policy constraints', { extensions: [...CA, extension('551d24', hex('3003800100'), true)] }, ALL),
  fault('critical inhibitAnyPolicy', { extensions: [...CA, extension('551d36', hex('020100'), true)] }, ALL),
  fault('for servers alone', { extensions: [...CA, extendedKeyUsage(SERVER_AUTH)] }, ALL),
  fault('for signing code alone', { extensions: [...CA, extendedKeyUsage('2b06010505070303')] }, ALL),
  fault('for no purpose', { extensions: [...CA, extension('551d25', hex('3000'))] }, ALL),
  fault('for servers and clients', { extensions: [...CA, extendedKeyUsage(SERVER_AUTH, CLIENT_AUTH)] }, LEAF!, CAS),
  onCa('CA: FALSE', basicConstraints(false), keyUsage(5, 6)),
  onCa('CA: FALSE and a path length', extension('551d13', hex('3003020101'), true), keyUsage(5, 6)),
  onCa('a negative path length', extension('551d13', hex('30060101ff0201ff'), true), keyUsage(5)),
  onCa('basicConstraints left out', keyUsage(5, 6)),
  onCa('TRUE that is not DER', extension('551d13', hex('3003010101'), true), keyUsage(5)),
  fault('basicConstraints not critical', { extensions: [extension('551d13', hex('30030101ff')), keyUsage(5)] }, LEAF!, CAS),
  onCa('keyUsage without keyCertSign', basicConstraints(true), keyUsage(0, 6)),
  onCa('keyUsage of no bits', basicConstraints(true), extension('551d0f', hex('030100'), true)),
  onCa('keyCertSign alone, no basicConstraints', keyUsage(5)),
  limited(0, ['root', 'upper']), limited(1, ROOT!), limited(2, NONE!),
  onLeaf('a CA\'s', ...CA), onLeaf('a CA\'s by basicConstraints', basicConstraints(true), keyUsage(0)), onLeaf('a CA\'s by keyUsage', basicConstraints(false), keyUsage(0, 5)),
  onLeaf('keyUsage without digitalSignature', keyUsage(2, 3)), onLeaf('keyUsage of no bits', extension('551d0f', hex('030100'), true)),
  onLeaf('names constrained, critical', extension('551d1e', constraints(dns(0xa0, 'a.example')), true)),
  fault('what devices have', { extensions: [basicConstraints(false), keyUsage(0), extendedKeyUsage(CLIENT_AUTH), extension('551d11', hex('3003820161'))] }, NONE!, LEAF),
  ...nameConstraint('a permitted DNS name', constraints(dns(0xa0, 'a.example'))),
  ...nameConstraint('an excluded DNS name', constraints(dns(0xa1, 'a.example'))),
  ...nameConstraint('both', constraints(dns(0xa0, 'a.example'), dns(0xa1, 'b.a.example'))),
  ...nameConstraint('a directory name', constraints(tlv(0xa0, tlv(0x30, tlv(0xa4, commonName('SN-0001')))))),
  ...nameConstraint('an address', constraints(tlv(0xa1, tlv(0x30, tlv(0x87, hex('0a000000ff000000')))))),
  ...nameConstraint('nothing', constraints()),
  { ...fault('for any purpose', { extensions: [...CA, extendedKeyUsage('551d2500')] }, LEAF!, CAS), isBeyondOpenssl: true },
  { ...fault('a serial number of 0', { serial: tlv(0x02, hex('00')) }, NONE!, ALL) },
  { ...fault('a serial number of 30 octets', { serial: tlv(0x02, Buffer.alloc(30, 0x11)) }, NONE!, ALL) },
  fault('a byte behind the certificate', { pem: pem => withDer(pem, der => Buffer.concat([der, hex('00')])) }, ALL),
  fault('a length that is not the shortest', { pem: pem => withDer(pem, der => Buffer.concat([hex('308300'), der.subarray(2)])) }, ALL),
  fault('cut off', { pem: pem => withDer(pem, der => der.subarray(0, -1)) }, ALL)
]

const subjectOf = (place: Place): Buffer => commonName(place === 'leaf' ? 'SN-0001' : `CA ${place}`)

/** The four certificates, with these wishes at their places. */
function pathWith (wishes: Partial<Record<Place, Wish>>): Record<Place, string> {
  return Object.fromEntries(PLACES.map((place, at) => {
    const { signedBy, pem = (pem: string) => pem, ...parts } = wishes[place] ?? {}
    const above = PLACES[at - 1] ?? 'root'
    const signer = { key: signedBy ?? keys[above], subject: subjectOf(above) }
    return [place, pem(certificatePem(keys[place], signer, { subject: subjectOf(place), ...place !== 'leaf' && { extensions: CA }, ...parts }))]
  })) as Record<Place, string>
}

/** Whether the path is taken; anything but a refusal is a fault. */
function isTaken ({ root, upper, lower, leaf }: Record<Place, string>): boolean {
  try {
    const [anchor, device, ...intermediates] = [root, leaf, upper, lower].map(pem => readCertificates(pem)[0]!)
    return verifyChain(device!, { anchor: anchor!, intermediates, now: NOW }).length === 4
  } catch (error) {
    if (!(error instanceof CvmError) || error.reason === undefined) throw error
    return false
  }
}

function opensslTakes ({ root, upper, lower, leaf }: Record<Place, string>): Promise<{ ok: boolean, stderr: string }> {
  return inTemporaryDir(async dir => {
    const [anchor, between, device] = ['root.pem', 'between.pem', 'leaf.pem'].map(file => join(dir, file)) as [string, string, string]
    writeFileSync(anchor, root)
    writeFileSync(between, upper + lower)
    writeFileSync(device, leaf)
    const purpose = ['-purpose', 'sslclient', '-partial_chain', '-attime', String(NOW / 1000)]
    return await openssl(['verify', ...purpose, '-no-CApath', '-no-CAstore', '-CAfile', anchor, '-untrusted', between, device])
  })
}

await t.test('each fault alone, at each place where it is one', async t => {
  t.ok(isTaken(pathWith({})), 'the path without faults')
  for (const { what, wish, refusedAt, takenAt = [], isBeyondOpenssl } of FAULTS) {
    for (const place of refusedAt) t.notOk(isTaken(pathWith({ [place]: wish })), `${what} at ${place}`)
    for (const place of takenAt) {
      const path = pathWith({ [place]: wish })
      t.ok(isTaken(path), `${what} at ${place} is none`)
      if (isBeyondOpenssl) continue
      const { ok, stderr } = await opensslTakes(path)
      t.ok(ok, `openssl takes ${what} at ${place}, too ${stderr}`)
    }
  }
})

await t.test('several at once: refused where one of them is, and what is taken openssl takes', async t => {
  const seed = Number(process.env['FUZZ_SEED'] ?? Date.now() % 0x7fffffff)
  const runs = Number(process.env['FUZZ_RUNS'] ?? 300)
  const usable = FAULTS.filter(({ isBeyondOpenssl }) => !isBeyondOpenssl)
  let taken = 0
  const anywhere = fc.record(Object.fromEntries(PLACES.map(place => {
    const there = usable.filter(({ refusedAt, takenAt = [] }) => takenAt.includes(place) || refusedAt.includes(place))
    const harmless = there.filter(({ takenAt = [] }) => takenAt.includes(place))
    const one = fc.oneof({ weight: 5, arbitrary: fc.constantFrom(...harmless) }, { weight: 1, arbitrary: fc.constantFrom(...there) })
    return [place, fc.option(one, { nil: undefined })]
  })) as Record<Place, fc.Arbitrary<Fault | undefined>>)
  await fc.assert(fc.asyncProperty(anywhere, async faults => {
    const path = pathWith(Object.fromEntries(PLACES.flatMap(place => faults[place] ? [[place, faults[place].wish]] : [])))
    const isRefused = PLACES.some(place => faults[place]?.refusedAt.includes(place))
    if (isTaken(path) === isRefused) throw new Error(isRefused ? 'it was taken' : 'it was refused')
    if (isRefused) return
    // Each takes a process.
    if (taken++ % 5 > 0) return
    const { ok, stderr } = await opensslTakes(path)
    if (!ok) throw new Error(`openssl refuses it: ${stderr}`)
  }), { seed, numRuns: runs })
  t.ok(taken > 0, `seed ${seed}: ${taken} of ${runs} were taken`)
})

await t.test('a subject that stands in two certificates of two keys is followed to the one that signed', t => {
  const path = pathWith({})
  const namesakes = [stranger, freshKey()].map(key => certificatePem(key, { key: keys.upper, subject: subjectOf('upper') }, { subject: subjectOf('lower'), extensions: CA }))
  const [anchor, device, ...between] = [path.root, path.leaf, ...namesakes, path.lower, path.upper].map(pem => readCertificates(pem)[0]!)
  t.equal(verifyChain(device!, { anchor: anchor!, intermediates: between, now: NOW }).length, 4)
  t.throws(() => verifyChain(device!, { anchor: anchor!, intermediates: between.filter((_, at) => at !== 2), now: NOW }), { code: 'certificate-not-trusted', reason: 'signature-invalid' })
  t.end()
})

function withDer (pem: string, change: (der: Buffer) => Buffer): string {
  return pemOf(change(Buffer.from(pem.replace(/-----[^-]*-----/g, ''), 'base64')), 'CERTIFICATE')
}
