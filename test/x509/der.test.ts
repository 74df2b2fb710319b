import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import fc from 'fast-check'
import t from 'tap'
import { DerError, oidOf, readDer, type DerValue } from '../../src/x509/der.ts'
import { inTemporaryDir, openssl } from '../fixtures/openssl.ts'
import { bytesOf, hex, tlv, type Tree } from './handmade.ts'

const leaf = fc.record({
  tag: fc.constantFrom(0x04, 0x0c, 0x13, 0x80, 0x81),
  content: fc.uint8Array({ maxLength: 200 }).map(bytes => Buffer.from(bytes))
})
const { tree } = fc.letrec<{ tree: Tree }>(tie => ({
  tree: fc.oneof({ maxDepth: 5 }, leaf, fc.record({ tag: fc.constantFrom(0x30, 0xa0), content: fc.array(tie('tree'), { maxLength: 4 }) }))
}))

await t.test('any tree is read as it was written, from views of the same memory', t => {
  fc.assert(fc.property(tree, tree => {
    const der = bytesOf(tree)
    const same = (value: DerValue, { tag, content }: Tree): boolean => value.tag === tag && value.bytes.buffer === der.buffer && (
      Array.isArray(content)
        ? value.children.length === content.length && content.every((child, i) => same(value.children[i]!, child))
        : value.content.equals(content))
    return same(readDer(der), tree)
  }))
  t.end()
})

await t.test('any bytes are one value in its only form, or a DerError', t => {
  const again = ({ tag, content, children }: DerValue): Buffer => tlv(tag, ...(tag & 0x20 ? children.map(again) : [content]))
  const damaged = fc.tuple(tree, fc.nat(), fc.nat(255)).map(([tree, at, octet]) => {
    const der = bytesOf(tree)
    der[at % der.length] = octet
    return der
  })
  fc.assert(fc.property(fc.oneof(fc.uint8Array({ maxLength: 40 }), damaged), bytes => {
    try {
      return again(readDer(Buffer.from(bytes))).equals(bytes)
    } catch (error) {
      return error instanceof DerError
    }
  }), { numRuns: 5000 })
  t.end()
})

await t.test('lengths at their edges', t => {
  for (const size of [0, 1, 127, 128, 255, 256, 65_535, 65_536]) t.equal(readDer(tlv(0x04, Buffer.alloc(size))).content.length, size)
  for (const ber of ['048100', '04817f' + '00'.repeat(127), '04820080' + '00'.repeat(128), '3080 0000', '04ff', '0484ffffffff', '04850000000001aa', '04', '']) {
    t.throws(() => readDer(hex(ber)), DerError, ber.slice(0, 20))
  }
  t.end()
})

await t.test('primitives have one form', t => {
  const good = ['0603818001', '010100', '0101ff', '020100', '02020080', '0201ff', '0202ff7f', '030100', '03020780', '0500', '060100', '06022a03', '0a0101']
  const bad = ['0100', '010101', '02020000', '0202007f', '0202ffff', '0200', '0300', '030101', '03020701', '03020800', '050100', '0600', '060180', '06028001', '07020000', '9f0201aa', '1f0201aa']
  for (const value of good) t.ok(readDer(hex(value)), value)
  for (const value of bad) t.throws(() => readDer(hex(value)), DerError, value)
  t.end()
})

await t.test('object identifiers read as openssl wrote them', t => inTemporaryDir(async dir => {
  const rest = fc.array(fc.nat(), { maxLength: 6 })
  const oids = fc.tuple(fc.constantFrom(0, 1, 2), fc.nat(39), rest).map(([root, second, rest]) => [root, second, ...rest].join('.'))
  const file = join(dir, 'oid.der')
  for (const oid of [...fc.sample(oids, 30), '2.999.3', '2.5.4.3', '1.3.6.1.4.1.2147483647']) {
    await openssl(['asn1parse', '-genstr', `OID:${oid}`, '-noout', '-out', file])
    t.equal(oidOf(readDer(await readFile(file))), oid)
  }
}))
