import fc from 'fast-check'
import t from 'tap'
import { PemError, decodePem, encodePem } from '../../src/x509/pem.ts'

const rules = { labels: ['THING'], maxChars: 10_000 }

await t.test('what is written is read again', t => {
  fc.assert(fc.property(fc.uint8Array({ minLength: 1, maxLength: 500 }), bytes => {
    const pem = encodePem('THING', bytes)
    return decodePem(pem, rules).equals(bytes) && decodePem(pem.replaceAll('\n', '\r\n'), rules).equals(bytes)
  }))
  t.equal(encodePem('THING', Buffer.alloc(49)), `-----BEGIN THING-----\n${'A'.repeat(64)}\nAA==\n-----END THING-----\n`, 'lines of 64')
  t.equal(encodePem('THING', Buffer.alloc(48)), `-----BEGIN THING-----\n${'A'.repeat(64)}\n-----END THING-----\n`, 'no empty line')
  t.end()
})

await t.test('two texts of the same bytes differ only in line lengths, line ends and white space around', t => {
  const pem = encodePem('THING', Buffer.from('some bytes to write'))
  fc.assert(fc.property(fc.nat(pem.length - 1), fc.string({ unit: 'binary', minLength: 1, maxLength: 2 }), (at, patch) => {
    const changed = pem.slice(0, at) + patch + pem.slice(at)
    try {
      const bytes = decodePem(changed, rules)
      return encodePem('THING', bytes).replace(/\s/g, '') === changed.replace(/[ \t\r\n]/g, '')
    } catch (error) {
      return error instanceof PemError
    }
  }), { numRuns: 2000 })
  t.end()
})

await t.test('each fault has its name', t => {
  const faults: ReadonlyArray<readonly [string, PemError['fault']]> = [
    ['x'.repeat(10_001), 'too-long'],
    ['', 'not-one-block'],
    ['-----BEGIN THING-----', 'not-one-block'],
    [encodePem('THING', Buffer.alloc(9)).repeat(2), 'not-one-block'],
    [encodePem('OTHER', Buffer.alloc(9)), 'wrong-label'],
    [encodePem('THING', Buffer.alloc(0)), 'not-canonical'],
    ['-----BEGIN THING-----\n\n-----END THING-----', 'not-canonical'],
    ['-----BEGIN THING-----\nAAA\n-----END THING-----', 'not-canonical']
  ]
  for (const [text, fault] of faults) t.throws(() => decodePem(text, rules), { fault } as object as Error, fault)
  t.end()
})
