import fc from 'fast-check'
import t from 'tap'
import { PemError, decodePem, decodePems, encodePem } from '../../src/x509/pem.ts'

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

await t.test('two texts of the same bytes differ only in white space, and in the text around', t => {
  const pem = encodePem('THING', Buffer.from('some bytes to write'))
  fc.assert(fc.property(fc.nat(pem.length - 1), fc.string({ unit: 'binary', minLength: 1, maxLength: 2 }), (at, patch) => {
    const changed = pem.slice(0, at) + patch + pem.slice(at)
    try {
      const bytes = decodePem(changed, rules)
      return changed.replace(/[ \t\r\n]/g, '').includes(encodePem('THING', bytes).replace(/\s/g, ''))
    } catch (error) {
      return error instanceof PemError
    }
  }), { numRuns: 2000 })
  t.end()
})

await t.test('a block is found in whatever tools and editors leave around it and in it', t => {
  const bytes = Buffer.from('some bytes that are more than one line of base64 to write, as they fill two of them')
  const pem = encodePem('THING', bytes)
  const base64 = bytes.toString('base64')
  const forms = {
    'text before and after': `Bag Attributes\n    friendlyName: a-b\n${pem}\nend`,
    'text before on the same line': `csr=${pem}`,
    'a byte order mark': `\ufeff${pem}`,
    'NULs after it': `${pem}\0\0`,
    'old Mac line ends': pem.replaceAll('\n', '\r'),
    'two carriage returns': pem.replaceAll('\n', '\r\r\n'),
    'blanks at line ends': pem.replaceAll('\n', ' \t\n'),
    'indented lines': pem.replaceAll('\n', '\n  '),
    'empty lines': pem.replaceAll('\n', '\n\n'),
    'base64 in one line': `-----BEGIN THING-----\n${base64}\n-----END THING-----\n`,
    'all in one line': `-----BEGIN THING----- ${base64} -----END THING-----`
  }
  for (const [form, text] of Object.entries(forms)) {
    t.strictSame(decodePem(text, rules), bytes, form)
    t.strictSame(decodePems(text + text, rules), [bytes, bytes], `${form}, twice`)
  }
  t.end()
})

await t.test('what is no PEM is named, and what to do about it', t => {
  const bytes = Buffer.from('3081c6aabbccddeeff00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff00112233', 'hex')
  const pem = encodePem('THING', bytes)
  const utf16 = Buffer.from(pem, 'utf16le')
  const kinds: Record<string, readonly string[]> = {
    'is empty': ['', ' \n', '\ufeff'],
    'is DER': [bytes.toString('latin1'), bytes.toString('utf8')],
    'is UTF-16': [utf16.toString('latin1'), utf16.toString('utf8'), `\ufffd\ufffd${utf16.toString('utf8')}`, `\u00ff\u00fe${utf16.toString('latin1')}`, utf16.swap16().toString('latin1')],
    'is the name of a file': ['file://device.csr', '/etc/device.csr', './csr', '../a/b', 'C:\\keys\\device.csr', 'device.csr', 'my device.pem', '@device.csr', 'https://example.com/device.csr', '~/x'],
    'is JSON': ['{"csr":1}', '[1]'],
    'is base64 without the BEGIN': [bytes.toString('base64').repeat(3), `${bytes.toString('base64')}\n${bytes.toString('base64')}\n`],
    'its BEGIN line is damaged': [pem.replaceAll('-----', '----'), pem.replaceAll('-----', '\u2014')],
    'there is no BEGIN line': ['hello', 'null', 'MIHJ'],
    'may be cut off': [pem.slice(0, -8), pem.replace(/-----END[^]*/, '')],
    'percent-encoded': [pem.replaceAll('\n', '%0A')],
    'never be sent': [encodePem('EC PRIVATE KEY', bytes) + pem, encodePem('PRIVATE KEY', bytes)]
  }
  for (const [kind, texts] of Object.entries(kinds)) {
    for (const text of texts) t.throws(() => decodePem(text, rules), { message: new RegExp(`^[ -~]*${kind}[ -~]*$`) } as object as Error, `${kind}: ${JSON.stringify(text.slice(0, 30))}`)
  }
  t.end()
})

await t.test('each fault has its name', t => {
  const faults: ReadonlyArray<readonly [string, PemError['fault']]> = [
    ['x'.repeat(10_001), 'too-long'],
    ['', 'not-one-block'],
    ['-----BEGIN THING-----', 'not-one-block'],
    [encodePem('THING', Buffer.alloc(9)).repeat(2), 'not-one-block'],
    ['-----END THING-----', 'not-one-block'],
    [`-----END THING-----\n${encodePem('THING', Buffer.alloc(9))}`, 'not-one-block'],
    [encodePem('THING', Buffer.alloc(9)).replace('\n', `\n${encodePem('THING', Buffer.alloc(9))}`), 'not-one-block'],
    [encodePem('OTHER', Buffer.alloc(9)), 'wrong-label'],
    [encodePem('THING', Buffer.alloc(9)) + encodePem('OTHER', Buffer.alloc(9)), 'wrong-label'],
    [encodePem('THING', Buffer.alloc(9)).replace('END THING', 'END OTHER'), 'wrong-label'],
    [encodePem('THING', Buffer.alloc(0)), 'not-canonical'],
    ['-----BEGIN THING-----\n\n-----END THING-----', 'not-canonical'],
    ['-----BEGIN THING-----\nAAA\n-----END THING-----', 'not-canonical'],
    ['-----BEGIN THING-----\nAA-AA\n-----END THING-----', 'not-canonical'],
    ['-----BEGIN THING-----\nProc-Type: 4,ENCRYPTED\n\nAAAA\n-----END THING-----', 'not-canonical'],
    ['-----BEGIN THING-----\nAAAA\\nAAAA\n-----END THING-----', 'not-canonical'],
    ['-----BEGIN THING-----\nAAAA\u00a0\n-----END THING-----', 'not-canonical']
  ]
  for (const [text, fault] of faults) {
    t.throws(() => decodePem(text, rules), { fault, message: /^[ -~]+$/ } as object as Error, fault)
    if (text !== encodePem('THING', Buffer.alloc(9)).repeat(2)) t.throws(() => decodePems(text, rules), { fault } as object as Error, fault)
  }
  for (const text of ['-----BEGIN '.repeat(900), `-----BEGIN ${'-'.repeat(9_000)}`, ' \r'.repeat(5_000)]) t.throws(() => decodePem(text, rules), PemError)
  t.end()
})
