// Random requests, judged three times: by checkCsr, by @peculiar/x509 and by openssl. FUZZ_RUNS and FUZZ_SEED repeat or deepen a run.
import 'reflect-metadata'
import { createHash, createPublicKey } from 'node:crypto'
import { Pkcs10CertificateRequest } from '@peculiar/x509'
import fc from 'fast-check'
import t, { type Test } from 'tap'
import { CvmError } from '../../src/errors.ts'
import { checkCsr, type Csr } from '../../src/x509/csr.ts'
import { CSR_REFUSALS, type CsrRefusal } from '../../src/x509/refusals.ts'
import { opensslCsr, opensslKey, opensslVerdict } from '../fixtures/openssl.ts'
import { isWhole } from '../fixtures/proof-size.ts'
import { ECDSA_SHA256, RSA_SHA256, bytesOf, derOf, handmadeCsr, hex, name, pemOf, requestInfo, sealed, tlv, treeOf, type Tree } from './handmade.ts'

const serialNumber = 'SN-0001'
const seed = Number(process.env['FUZZ_SEED'] ?? Date.now() % 0x7fffffff)
const runs = Number(process.env['FUZZ_RUNS'] ?? (isWhole ? 1_000 : 100))
/** Of CPU, which no other load of the machine adds to. */
const SLOW_MS = 250
const ECDSA = hex('2a8648ce3d0403')
t.setTimeout(300_000 + runs * 1_000)

/**
 * Why the others may accept what we refuse. A refusal that is not here must be theirs too.
 * - form: openssl takes the first block of several and does not test the padding; @peculiar/x509 decodes any base64.
 * - ber: both read BER, and neither looks at what follows the value.
 * - shape: openssl knows no version; @peculiar/x509 does not look at attributes.
 * - policy: both know more keys, curves, exponents, points, algorithms and parameters than AWS IoT is known to take.
 * - text: both show bytes that are no text of their type as if they were; only openssl refuses bad UTF-8.
 * - signature: @peculiar/x509 reads the two numbers of an ECDSA signature from damaged DER, too. It alone: openssl must refuse.
 * - subject: neither knows which device asks.
 */
const MAY_BE_OURS_ALONE: Readonly<Partial<Record<CsrRefusal, string>>> = {
  'csr-too-long': 'form',
  'pem-not-one-block': 'form',
  'pem-wrong-label': 'form',
  'pem-not-canonical': 'form',
  'csr-not-der': 'ber',
  'csr-not-pkcs10': 'shape',
  'key-type-not-allowed': 'policy',
  'rsa-key-too-small': 'policy',
  'rsa-key-too-large': 'policy',
  'rsa-exponent-not-allowed': 'policy',
  'curve-not-allowed': 'policy',
  'curve-parameters-explicit': 'policy',
  'ec-point-not-uncompressed': 'policy',
  'algorithm-parameters-wrong': 'policy',
  'signature-algorithm-not-allowed': 'policy',
  'signature-algorithm-mismatch': 'policy',
  'subject-not-readable': 'text',
  'subject-other-device': 'subject'
}

interface Verdict { readonly csr?: Csr, readonly reason?: CsrRefusal }
const counts = new Map<string, number>()
let slowest = 0

/** Our own verdict; anything but a fact or a refusal from the list, and anything slow, is a fault. */
function judge (pem: string): Verdict {
  const started = process.cpuUsage()
  const verdict = verdictOn(pem)
  const { user, system } = process.cpuUsage(started)
  const took = (user + system) / 1_000
  slowest = Math.max(slowest, took)
  if (took > SLOW_MS) throw new Error(`took ${took} ms`)
  count(verdict.reason ?? 'accepted')
  return verdict
}

function verdictOn (pem: string): Verdict {
  try {
    return { csr: checkCsr(pem, { serialNumber }) }
  } catch (error) {
    if (!(error instanceof CvmError) || error.code !== 'csr-rejected') throw error
    if (error.reason === undefined || !(error.reason in CSR_REFUSALS)) throw new Error(`unknown reason ${error.reason}`)
    return { reason: error.reason as CsrRefusal }
  }
}

interface Opinion { readonly verified: boolean, readonly fingerprint: string, readonly commonNames: readonly string[] }

async function peculiar (der: Buffer): Promise<Opinion> {
  try {
    const request = new Pkcs10CertificateRequest(der)
    const fingerprint = createHash('sha256').update(Buffer.from(request.publicKey.rawData)).digest('hex')
    return { verified: await request.verify(), fingerprint, commonNames: request.subjectName.getField('CN').map(readable) }
  } catch {
    return { verified: false, fingerprint: '', commonNames: [] }
  }
}

// It knows the five types of a DirectoryString and IA5String, and shows a NumericString as hex of the whole value.
function readable (name: string): string {
  return /^12([0-9a-f]{2})+$/.test(name) ? hex(name).subarray(2).toString('latin1') : name
}

async function openssl (pem: string): Promise<Opinion> {
  const { verified, publicKeyPem, commonNames } = await opensslVerdict(pem)
  if (!verified) return { verified, fingerprint: '', commonNames }
  const spki = createPublicKey(publicKeyPem).export({ type: 'spki', format: 'der' })
  return { verified, fingerprint: createHash('sha256').update(spki).digest('hex'), commonNames }
}

/** The three verdicts side by side. openssl is a process each time, so it is asked only where its answer can contradict us. */
async function compare (pem: string): Promise<void> {
  const { csr, reason } = judge(pem)
  const second = await peculiar(derOf(csr?.pem ?? pem))
  if (reason !== undefined) {
    const third = second.verified || MAY_BE_OURS_ALONE[reason] === undefined ? await openssl(pem) : undefined
    for (const [who, opinion] of [['@peculiar/x509', second], ['openssl', third]] as const) {
      if (opinion?.verified !== true) continue
      const damagedEcdsa = reason === 'signature-invalid' && who === '@peculiar/x509' && derOf(pem).includes(ECDSA)
      const why = MAY_BE_OURS_ALONE[reason] ?? (damagedEcdsa ? 'signature' : undefined)
      if (why === undefined) throw new Error(`${who} accepts what we refuse as ${reason}`)
      const names = opinion.commonNames
      if (why === 'subject' && names.every(name => name === serialNumber)) throw new Error(`${who} reads the right name: ${names.join()}`)
      count(`refused, though ${who} accepts: ${why}`)
    }
    return
  }
  for (const [who, opinion] of [['@peculiar/x509', second], ['openssl', await openssl(csr!.pem)]] as const) {
    if (!opinion.verified) throw new Error(`${who} refuses what we accept`)
    if (opinion.fingerprint !== csr!.publicKeyFingerprint) throw new Error(`${who} reads another public key`)
    const names = [...new Set(opinion.commonNames)]
    if (names.join('\n') !== (csr!.commonName ?? '')) throw new Error(`${who} reads other names: ${names.join()}`)
  }
  count('all three accept and agree')
}

/** As `compare`, of a text that must be taken for the one of `pem`. */
async function compareTo (pem: string, text: string): Promise<void> {
  const { csr, reason } = judge(text)
  if (csr?.pem !== pem) throw new Error(`taken for another request, or refused as ${reason}`)
  await compare(text)
}

const edit = fc.record({ kind: fc.constantFrom('flip', 'set', 'delete', 'insert', 'cut', 'copy'), at: fc.nat(), size: fc.integer({ min: 1, max: 8 }), bytes: fc.uint8Array({ minLength: 1, maxLength: 8 }) })
type Arbitrated<A> = A extends fc.Arbitrary<infer E> ? E : never

function edited (original: Buffer, edits: ReadonlyArray<Arbitrated<typeof edit>>): Buffer {
  return edits.reduce((bytes: Buffer, { kind, at: anywhere, size, bytes: fresh }) => {
    const at = anywhere % (bytes.length + 1)
    const [before, after] = [bytes.subarray(0, at), bytes.subarray(at)]
    switch (kind) {
      case 'flip': return Buffer.concat([before, Buffer.from([(after[0] ?? 0) ^ (1 << (size - 1))]), after.subarray(1)])
      case 'set': return Buffer.concat([before, fresh, after.subarray(fresh.length)])
      case 'delete': return Buffer.concat([before, after.subarray(size)])
      case 'insert': return Buffer.concat([before, fresh, after])
      case 'cut': return before
      default: return Buffer.concat([before, after.subarray(0, size), after])
    }
  }, original)
}

const treeEdit = fc.record({ kind: fc.constantFrom('tag', 'bytes', 'flip', 'delete', 'copy', 'swap', 'graft'), at: fc.nat(), from: fc.nat(), tag: fc.constantFrom(1, 2, 3, 4, 5, 6, 0x0c, 0x13, 0x17, 0x30, 0x31, 0xa0, 0xa1, 0x80), bytes: fc.uint8Array({ maxLength: 6 }) })

const treeEdits = fc.array(treeEdit, { minLength: 1, maxLength: 2 })

/** Changes values and their order but leaves all lengths right, so that more than the first check is reached. */
function grown (original: Buffer, edits: ReadonlyArray<Arbitrated<typeof treeEdit>>): Buffer {
  const root = treeOf(original)
  for (const { kind, at, from, tag, bytes } of edits) {
    const all = [root]
    for (const { content } of all) if (Array.isArray(content)) all.push(...content)
    const parents = all.filter(({ content }) => Array.isArray(content) && content.length > 0)
    const siblings = parents[at % (parents.length || 1)]?.content as Tree[] | undefined
    const [victim, donor] = [all[at % all.length]!, all[from % all.length]!]
    const place = from % (siblings?.length || 1)
    switch (kind) {
      case 'tag': victim.tag = tag; break
      case 'bytes': victim.content = Buffer.from(bytes); break
      case 'flip':
        if (Buffer.isBuffer(victim.content)) victim.content = edited(victim.content, [{ kind, at: from, size: 1 + from % 8, bytes }])
        break
      case 'delete': siblings?.splice(place, 1); break
      case 'copy': siblings?.splice(place, 0, siblings[place]!); break
      case 'swap': siblings?.reverse(); break
      // A copy, because a value inside itself would never end.
      default: siblings?.splice(place, 1, copyOf(donor))
    }
  }
  return bytesOf(root)
}

function copyOf ({ tag, content }: Tree): Tree {
  return { tag, content: Array.isArray(content) ? content.map(copyOf) : content }
}

const [ec, rsa] = [await opensslKey('ec'), await opensslKey('rsa')]
const extensions = ['-addext', 'subjectAltName=DNS:a.example']
const originals = await Promise.all([
  opensslCsr({ serialNumber }), opensslCsr({ serialNumber, key: 'rsa', args: extensions }), opensslCsr({ serialNumber, subject: '/O=Acme/OU=Pumps' }),
  opensslCsr({ serialNumber, key: 'ec-p384' }), opensslCsr({ serialNumber, key: 'ec-p521', subject: `/C=DE+CN=${serialNumber}/O=Acme` })
])
const original = fc.constantFrom(...originals)
const edits = fc.array(edit, { minLength: 1, maxLength: 3 })

// Lengths as DER and BER write them, in subjects of any types and texts, so that whole names vary and still parse.
const length = (size: number, spare: number): Buffer => spare === 0 ? tlv(0, Buffer.alloc(size)).subarray(1, -size || undefined) : hex(`8${spare}${size.toString(16).padStart(spare * 2, '0')}`)
const text = fc.oneof(fc.constantFrom(serialNumber, `${serialNumber}\0`, 'SN-0002', ''), fc.string({ unit: 'binary', maxLength: 12 }))
const encoding = fc.constantFrom<BufferEncoding>('utf8', 'utf8', 'latin1', 'utf16le')
const stringTag = fc.constantFrom(0x0c, 0x0c, 0x13, 0x14, 0x16, 0x1a, 0x1c, 0x1e, 0x12, 0x02, 0x30)
const spareLength = fc.constantFrom(0, 0, 0, 0, 0, 0, 0, 1, 2)
const value = fc.tuple(stringTag, text, encoding, spareLength).map(([tag, string, encoding, spare]) => {
  const content = Buffer.from(string, encoding)
  const big = encoding === 'utf16le' ? content.swap16() : content
  return Buffer.concat([Buffer.from([tag]), length(big.length, spare), big])
})
const type = fc.constantFrom('550403', '550403', '55040a', '550405', '2a864886f70d010901')
const subject = fc.array(fc.tuple(type, value), { maxLength: 3 }).map(attributes => name(...attributes))

async function fuzz<T> (t: Test, arbitrary: fc.Arbitrary<T>, check: (input: T) => Promise<void> | void, numRuns = runs): Promise<void> {
  t.setTimeout(300_000 + runs * 1_000)
  counts.clear()
  slowest = 0
  await fc.assert(fc.asyncProperty(arbitrary, async input => check(input)), { seed, numRuns, endOnFailure: false })
  const found = [...counts].sort(([a], [b]) => a.localeCompare(b)).map(([what, times]) => `${what} ${times}`).join(', ')
  t.comment(`fuzz: ${numRuns} runs, seed ${seed}, slowest ${slowest.toFixed(1)} ms: ${found}`)
  t.pass(`${numRuns} runs`)
}

await t.test('any text is a refusal', t => fuzz(t, fc.string({ unit: 'binary', maxLength: 5000 }), text => { judge(text) }))

await t.test('edited PEM', t => fuzz(t, fc.tuple(original, edits), ([{ csrPem: pem }, edits]) => compare(edited(Buffer.from(pem), edits).toString('latin1'))))

await t.test('re-wrapped PEM', t => fuzz(t, fc.tuple(original, fc.integer({ min: 1, max: 90 }), fc.constantFrom('\n', '\r\n', '\r', '\n\n', ' \n'), fc.constantFrom('', ' ', '\n', 'x', '\ufeff', '\0', '-----\n')),
  ([{ csrPem: pem }, width, end, edge]) => {
    const lines = derOf(pem).toString('base64').match(new RegExp(`.{1,${width}}`, 'g'))!
    return compareTo(pem, [`${edge}-----BEGIN CERTIFICATE REQUEST-----`, ...lines, `-----END CERTIFICATE REQUEST-----${edge}`].join(end))
  }, Math.ceil(runs / 5)))

await t.test('edited DER', t => fuzz(t, fc.tuple(original, edits), ([{ csrPem: pem }, edits]) => compare(pemOf(edited(derOf(pem), edits)))))

await t.test('edited before signing, so that only form, key and subject can be wrong', t => fuzz(t, fc.tuple(edits, fc.boolean()), ([edits, isRsa]) => {
  const key = isRsa ? rsa : ec
  const info = edited(requestInfo(key, { subject: name(['550403', tlv(0x0c, Buffer.from(serialNumber))]) }), edits)
  return compare(pemOf(sealed(info, key, { algorithm: isRsa ? RSA_SHA256 : ECDSA_SHA256 })))
}))

await t.test('grown from a request, with the old signature', t => fuzz(t, fc.tuple(original, treeEdits), ([{ csrPem }, edits]) =>
  compare(pemOf(grown(derOf(csrPem), edits)))))

await t.test('grown from a request, signed again', t => fuzz(t, fc.tuple(original, treeEdits), ([{ csrPem, privateKeyPem }, edits]) => {
  const [info, algorithm] = (treeOf(derOf(csrPem)).content as Tree[]).map(bytesOf)
  return compare(pemOf(sealed(grown(info!, edits), privateKeyPem, { algorithm: algorithm! })))
}))

await t.test('any subject, signed', t => fuzz(t, subject, subject => compare(handmadeCsr(ec, { subject }))))

await t.test('nothing is slow: deep, broad and long values at the length limit', async t => {
  const deep = (tag: number): Buffer => Array.from({ length: 700 }).reduce((inner: Buffer) => tlv(tag, inner), Buffer.alloc(0))
  const rdns = tlv(0x30, ...Array.from({ length: 200 }, () => tlv(0x31, tlv(0x30, tlv(0x06, hex('55040a')), tlv(0x0c, hex('61'))))))
  const values = [deep(0x30), deep(0x31), deep(0xa0), Buffer.alloc(2900, hex('0500')), tlv(0x30, Buffer.alloc(2900, hex('0500'))), tlv(0x31, Buffer.alloc(2900, hex('3000'))),
    tlv(0x06, Buffer.alloc(2900, 0xff), hex('01')), tlv(0x02, Buffer.alloc(2900, 0x7f)), hex('3084ffffffff'), hex('30ff')]
  for (const der of values) t.ok(judge(pemOf(der)).reason)
  t.equal(judge(handmadeCsr(ec, { subject: rdns })).reason, undefined)
  for (const text of ['-----BEGIN '.repeat(370), '\r\n'.repeat(2048), ' '.repeat(4096), `-----BEGIN ${'A '.repeat(2000)}-----`]) t.ok(judge(text).reason)
  t.ok(slowest < SLOW_MS)
})

function count (what: string): void {
  counts.set(what, (counts.get(what) ?? 0) + 1)
}
