import { spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { lines, paceOf } from '../../src/cli/progress.ts'
import { scriptedService } from './scripted-service.ts'
import { onTerminal } from './command.ts'

t.setTimeout(900_000)

await t.test('plain: a line for each tenth, however large the steps', t => {
  const told: string[] = []
  const { advance, say, stop } = lines('importing', 40, line => told.push(line))
  for (const count of [1, 2, 1, 20, 15]) advance(count)
  say('waiting')
  advance(1)
  stop('done')
  t.strictSame(told, ['importing: 40 devices', '4 of 40 done (10 %)', '24 of 40 done (60 %)', '39 of 40 done (97 %)', 'waiting',
    '40 of 40 done (100 %)', 'done'])
  t.end()
})

await t.test('rate, what went wrong, and the time that is left', t => {
  t.equal(paceOf(10, 100, 2, 1000), '10.0/s, 2 not vended, 9 s left')
  t.equal(paceOf(100, 10_000, 0, 10_000), '10.0/s, 0 not vended, 17 min left')
  t.equal(paceOf(100, 100_000, 0, 10_000), '10.0/s, 0 not vended, 2.8 h left')
  t.equal(paceOf(0, 5, 0, 0), '0.0/s, 0 not vended, 0 s left')
  t.end()
})

const hasScript = spawnSync('script', ['--version']).status === 0
const skip = hasScript ? false : 'script(1), which makes a terminal, is not there'

await t.test('on a terminal with NO_COLOR: lines', { skip }, async t => {
  const service = await scriptedService(t, [{ status: 200, body: { results: [{ line: 1, status: 'registered' }] } }])
  const file = join(t.testdir({ 'devices.csv': 'serialNumber\nsn-1\n' }), 'devices.csv')
  const shown = await onTerminal(['devices', 'import', file], { CVM_API_KEY: 'k', CVM_URL: service.url.href, NO_COLOR: '1' })
  t.match(shown, '1 of 1 done (100 %)\r\n')
  t.match(shown, 'registered   1\r\n')
  t.notMatch(shown, '\u001b')
})

await t.test('on a terminal: a bar; Ctrl-C: exit code 130, the terminal as before', { skip }, async t => {
  const service = await scriptedService(t, ['silence'])
  const file = join(t.testdir({ 'devices.csv': 'serialNumber\nsn-1\n' }), 'devices.csv')
  const env = { CVM_API_KEY: 'k', CVM_URL: service.url.href, NO_COLOR: '' }
  const shown = await onTerminal(['devices', 'import', file], env, shown => shown.includes('importing') ? '\u0003' : undefined)
  t.match(shown, '━━━━━')
  t.match(shown, 'interrupted: the same command goes on from here')
  t.match(shown, 'exit 130')
  t.ok(shown.lastIndexOf('\u001b[?25h') > shown.lastIndexOf('\u001b[?25l'), 'the cursor is there again')
  t.match(readFileSync(file.replace('.csv', '.results.csv'), 'utf8'), 'sn-1,pending,')
})
