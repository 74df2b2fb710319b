// Untidy requests, whole and damaged, judged by checkCsr and by openssl: whatever is taken verifies with openssl as it is sent on, and only
// the writing of its signature may differ from what came. FUZZ_RUNS (20000 for a long run) and FUZZ_SEED repeat or deepen a run.
import { createHash, createPublicKey, sign } from 'node:crypto'
import fc from 'fast-check'
import t from 'tap'
import { CvmError } from '../../src/errors.ts'
import { checkCsr, type Csr } from '../../src/x509/csr.ts'
import { rawSignature, readEcdsaSignature } from '../../src/x509/ecdsa-signature.ts'
import { CSR_REFUSALS } from '../../src/x509/refusals.ts'
import { opensslKey, opensslVerdict } from '../fixtures/openssl.ts'
import { CN, bytesOf, derOf, hex, name, pemOf, spkiOf, tlv, treeOf, utf8, type Tree } from './handmade.ts'

const serialNumber = 'SN-0001'
const SUBJECT = name([CN, utf8(serialNumber)])
const seed = Number(process.env['FUZZ_SEED'] ?? Date.now() % 0x7fffffff)
const runs = Number(process.env['FUZZ_RUNS'] ?? 300)
t.setTimeout(60_000 + runs * 300)

interface Kind { readonly key: string, readonly size: number, readonly digest: string, readonly oid: string }

const KINDS: readonly Kind[] = [
  { key: await opensslKey('ec'), size: 32, digest: 'sha256', oid: '2a8648ce3d040302' },
  { key: await opensslKey('ec-p384'), size: 48, digest: 'sha384', oid: '2a8648ce3d040303' },
  { key: await opensslKey('ec-p521'), size: 66, digest: 'sha512', oid: '2a8648ce3d040304' },
  { key: await opensslKey('rsa'), size: 0, digest: 'sha256', oid: '2a864886f70d01010b' }
]

/** How r and s may be written, each by its bytes at full length. */
const WRITINGS: Readonly<Record<string, (r: Buffer, s: Buffer) => Buffer>> = {
  der: (r, s) => tlv(0x30, tlv(0x02, positive(r)), tlv(0x02, positive(s))),
  raw: (r, s) => Buffer.concat([r, s]),
  'full length': (r, s) => tlv(0x30, tlv(0x02, r), tlv(0x02, s)),
  'sign octets': (r, s) => tlv(0x30, tlv(0x02, hex('00'), r), tlv(0x02, hex('00'), s)),
  'no sign octets': (r, s) => tlv(0x30, tlv(0x02, shortest(r)), tlv(0x02, shortest(s))),
  'long length': (r, s) => {
    const content = Buffer.concat([tlv(0x02, positive(r)), tlv(0x02, positive(s))])
    return Buffer.concat([hex('3081'), Buffer.from([content.length]), content])
  }
}

const WRAPPINGS: ReadonlyArray<(pem: string) => string> = [
  pem => pem,
  pem => pem.replaceAll('\n', '\r\n'),
  pem => pem.replaceAll('\n', ' \t\n'),
  pem => `\ufeff${pem}\0`,
  pem => `Certificate Request:\n    Data:\n${pem}trailer\n`,
  pem => pem.replaceAll('CERTIFICATE REQUEST', 'NEW CERTIFICATE REQUEST'),
  pem => pem.replace(/(?<=-\n)[^-]+(?=\n-)/, body => body.replaceAll('\n', ''))
]

const untidy = fc.record({
  kind: fc.constantFrom(...KINDS),
  version: fc.constantFrom(0, 1, 2),
  attributes: fc.constantFrom([], [tlv(0xa0)], [tlv(0xa0, tlv(0x30, tlv(0x06, hex('2a864886f70d010907')), tlv(0x31)))]),
  parameters: fc.constantFrom([], [tlv(0x05)]),
  writing: fc.constantFrom(...Object.keys(WRITINGS)),
  wrap: fc.constantFrom(...WRAPPINGS)
})
const edit = fc.record({ at: fc.nat(), cut: fc.nat({ max: 3 }), bytes: fc.uint8Array({ maxLength: 3 }) })
const damage = fc.array(edit, { minLength: 1, maxLength: 3 })

type Untidy = typeof untidy extends fc.Arbitrary<infer T> ? T : never

function derOfUntidy ({ kind: { key, size, digest, oid }, version, attributes, parameters, writing }: Untidy): Buffer {
  const info = tlv(0x30, tlv(0x02, Buffer.from([version])), SUBJECT, spkiOf(key), ...attributes)
  const raw = sign(digest, info, { key, dsaEncoding: 'ieee-p1363' })
  const signature = size === 0 ? raw : WRITINGS[writing]!(raw.subarray(0, size), raw.subarray(size))
  return tlv(0x30, info, tlv(0x30, tlv(0x06, hex(oid)), ...parameters), tlv(0x03, hex('00'), signature))
}

function damaged (original: Buffer, edits: ReadonlyArray<{ at: number, cut: number, bytes: Uint8Array }>): Buffer {
  return edits.reduce((bytes: Buffer, { at: anywhere, cut, bytes: fresh }) => {
    const at = anywhere % (bytes.length + 1)
    return Buffer.concat([bytes.subarray(0, at), fresh, bytes.subarray(at + cut)])
  }, original)
}

/** Undefined for a refusal of the list; anything else that is thrown is a fault. */
function judge (text: string): Csr | undefined {
  try {
    return checkCsr(text, { serialNumber })
  } catch (error) {
    if (!(error instanceof CvmError) || error.code !== 'csr-rejected' || !((error.reason ?? '') in CSR_REFUSALS)) throw error
    if (error.message.length > 400 || !/^[ -~]+$/.test(error.message)) throw new Error(`no text for people: ${error.message}`)
    return undefined
  }
}

/** What was taken is what came, but for the writing of the signature, and openssl verifies it. */
async function confirm ({ pem, der, publicKeyFingerprint, repair }: Csr, came: Buffer): Promise<void> {
  if (!der.equals(came)) throw new Error('it is not what came')
  if (repair === undefined && !derOf(pem).equals(came)) throw new Error('it was changed without a repair')
  const [before, after] = [came, derOf(pem)].map(bytes => treeOf(bytes).content as Tree[]) as [Tree[], Tree[]]
  for (const at of [0, 1]) if (JSON.stringify(before[at]) !== JSON.stringify(after[at])) throw new Error('a repair changed more than the signature')
  const { verified, publicKeyPem } = await opensslVerdict(pem)
  if (!verified) throw new Error('openssl does not verify what is sent on')
  const spki = createPublicKey(publicKeyPem).export({ type: 'spki', format: 'der' })
  if (createHash('sha256').update(spki).digest('hex') !== publicKeyFingerprint) throw new Error('openssl reads another public key')
}

await t.test('untidy requests are taken, and openssl verifies what is sent on', async t => {
  const repairs = new Set<string | undefined>()
  await fc.assert(fc.asyncProperty(untidy, async request => {
    const der = derOfUntidy(request)
    const csr = judge(request.wrap(pemOf(der)))
    if (!csr) throw new Error('refused')
    repairs.add(csr.repair)
    await confirm(csr, der)
  }), { seed, numRuns: Math.max(100, Math.ceil(runs / 5)) })
  t.strictSame([...repairs].map(String).sort(), ['integers', 'raw', 'undefined'], `seed ${seed}: every repair was made`)
})

await t.test('damaged anywhere, they are refused, or openssl verifies what is sent on', async t => {
  let taken = 0
  await fc.assert(fc.asyncProperty(untidy, damage, async (request, edits) => {
    const der = damaged(derOfUntidy(request), edits)
    const csr = judge(request.wrap(pemOf(der)))
    if (!csr) return
    taken++
    await confirm(csr, der)
  }), { seed, numRuns: runs })
  t.pass(`${runs} runs, seed ${seed}: ${taken} were still whole`)
})

await t.test('damaged in the signature alone, they are refused, or openssl verifies what is sent on', async t => {
  let taken = 0
  await fc.assert(fc.asyncProperty(untidy, damage, async (request, edits) => {
    const [info, algorithm, bits] = treeOf(derOfUntidy(request)).content as Tree[]
    const signature = damaged((bits!.content as Buffer).subarray(1), edits)
    const der = tlv(0x30, bytesOf(info!), bytesOf(algorithm!), tlv(0x03, hex('00'), signature))
    const csr = judge(pemOf(der))
    if (!csr) return
    taken++
    await confirm(csr, der)
  }), { seed, numRuns: runs })
  t.pass(`${runs} runs, seed ${seed}: ${taken} were still whole`)
})

await t.test('damaged in the text, they are refused, or taken for the same request', async t => {
  await fc.assert(fc.asyncProperty(untidy, damage, async (request, edits) => {
    const der = derOfUntidy(request)
    const csr = judge(damaged(Buffer.from(request.wrap(pemOf(der))), edits).toString('utf8'))
    if (csr && !csr.der.equals(der)) await confirm(csr, csr.der)
  }), { seed, numRuns: runs })
  t.pass(`${runs} runs, seed ${seed}`)
})

await t.test('every writing of two numbers is read as these, and any bytes are a signature or none', async t => {
  const sizes = { 'EC-P256': 32, 'EC-P384': 48, 'EC-P521': 66 }
  const numbers = fc.constantFrom(...Object.entries(sizes)).chain(([keyType, size]) => {
    const number = fc.integer({ min: 1, max: size }).chain(length => fc.uint8Array({ minLength: length, maxLength: length }))
      .filter(bytes => bytes.some(octet => octet !== 0)).map(bytes => Buffer.concat([Buffer.alloc(size - bytes.length), bytes]))
    return fc.tuple(fc.constant(keyType), fc.constant(size), number, number)
  })
  fc.assert(fc.property(numbers, fc.constantFrom(...Object.keys(WRITINGS)), ([keyType, size, r, s], writing) => {
    const written = WRITINGS[writing]!(r, s)
    const found = readEcdsaSignature(written, keyType)
    const isRaw = written.length === 2 * size
    if (!isRaw && !rawSignature(written, size)?.equals(Buffer.concat([r, s]))) return false
    // A short DER value may have the length of r and s; it is then taken for them, and does not verify.
    return (isRaw && writing !== 'raw') || found?.inDer.equals(WRITINGS['der']!(r, s)) === true
  }), { seed, numRuns: 1000 })
  fc.assert(fc.property(fc.uint8Array({ maxLength: 160 }), fc.constantFrom(...Object.keys(sizes), 'RSA-2048'), (bytes, keyType) => {
    const found = readEcdsaSignature(Buffer.from(bytes), keyType)
    return found === undefined || (keyType !== 'RSA-2048' && found.inDer[0] === 0x30)
  }), { seed, numRuns: 1000 })
  t.pass(`seed ${seed}`)
})

function shortest (number: Buffer): Buffer {
  return number.subarray(number.findIndex(octet => octet !== 0))
}

function positive (number: Buffer): Buffer {
  const magnitude = shortest(number)
  return magnitude[0]! < 0x80 ? magnitude : Buffer.concat([hex('00'), magnitude])
}
