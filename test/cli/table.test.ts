import t from 'tap'
import { facts, table } from '../../src/cli/table.ts'

const HEAD = ['SERIAL NUMBER', 'STATE', 'REASON']
const ROWS = [['sn-1', 'ACTIVE', undefined], ['sn-22', 'REVOKED', 'stolen\u001b[31m\nin \u202eParis']]
const words = (text: string) => text.replace(/\u001b\[\d+m|[^\w\s[-]/g, '').split(/\s+/).filter(Boolean).sort() // eslint-disable-line no-control-regex

// tap sets it for the tests it runs.
delete process.env['NO_COLOR']

await t.test('elsewhere than on a terminal: aligned columns without colours', t => {
  t.equal(table(HEAD, ROWS, {}), [
    'SERIAL NUMBER  STATE    REASON',
    'sn-1           ACTIVE',
    'sn-22          REVOKED  stolen [31m in  Paris', ''
  ].join('\n'))
  t.equal(table(HEAD, [], {}), 'SERIAL NUMBER  STATE  REASON\n')
  t.end()
})

await t.test('on a terminal: a box where it fits, else paragraphs; the same content, made safe', t => {
  const wide = table(HEAD, ROWS, { isTTY: true, columns: 80 })
  const narrow = table(HEAD, ROWS, { isTTY: true, columns: 30 })
  t.match(wide, '│ sn-22         │ REVOKED │ stolen [31m in  Paris │')
  t.match(narrow, /SERIAL NUMBER\u001b\[22m {2}sn-22\n.*STATE\u001b\[22m {10}REVOKED\n/) // eslint-disable-line no-control-regex
  t.strictSame([...new Set(words(narrow))], [...new Set(words(table(HEAD, ROWS, {})))])
  t.strictSame([...new Set(words(wide))], [...new Set(words(narrow))])
  t.notMatch(wide + narrow, '\u001b[31m')
  t.end()
})

await t.test('NO_COLOR: nothing bold', t => {
  process.env['NO_COLOR'] = '1'
  t.teardown(() => { delete process.env['NO_COLOR'] })
  for (const columns of [80, 30]) t.notMatch(table(HEAD, ROWS, { isTTY: true, columns }), '\u001b')
  t.end()
})

await t.test('facts: what is absent is left out', t => {
  t.equal(facts([['state', 'ACTIVE'], ['certificate', undefined], ['being ended', ['a', 'b']], ['none', []]], {}), 'state        ACTIVE\nbeing ended  a b\n')
  t.end()
})

await t.test('a whole fleet is one table', t => {
  const fleet = Array.from({ length: 20_000 }, (_, index) => [`sn-${index}`, 'ACTIVE', ''])
  for (const screen of [{}, { isTTY: true, columns: 80 }]) t.equal(table(HEAD, fleet, screen).split('\n').length, 20_002)
  t.end()
})
