import { once } from 'node:events'
import t from 'tap'
import Reporter from './reporter.mjs'

/** What the reporter makes of this TAP, and the exit code that it asks for. */
async function report (tap: string): Promise<{ lines: string[], exitCode: number }> {
  const before = process.exitCode
  process.exitCode = 0
  const reporter = new Reporter()
  let text = ''
  reporter.on('data', (chunk: Buffer) => { text += String(chunk) })
  reporter.end(tap)
  await once(reporter, 'end')
  const exitCode = Number(process.exitCode)
  process.exitCode = before
  return { lines: text.trimEnd().split('\n'), exitCode }
}

const PASSES = '# Subtest: passes.test.ts\n    # Subtest: inside\n        ok 1 - a\n        ok 2 - b\n        1..2\n    ok 1 - inside\n    1..1\nok 1 - passes.test.ts # time=1500ms\n'
const FAILS = '# Subtest: fails.test.ts\n    ok 1 - a\n    not ok 2 - numbers\n      ---\n      diff: "-1 +2"\n      ...\n    1..2\nnot ok 2 - fails.test.ts # time=10ms\n'
const SKIPS = '# Subtest: skips.test.ts\n    ok 1 - on Docker # SKIP there is no engine\n    1..1\nok 3 - skips.test.ts\n'

await t.test('counts assertions, and prints each file with its time', async t => {
  const { lines, exitCode } = await report(`TAP version 14\n${PASSES}1..1\n`)
  t.strictSame(lines, ['ok passes.test.ts 2 in 1.5 s', '2 passed, 0 failed'])
  t.equal(exitCode, 0)
})

await t.test('prints what failed with its diagnostics, and exits with 1', async t => {
  const { lines, exitCode } = await report(`TAP version 14\n${PASSES}${FAILS}1..2\n`)
  t.strictSame(lines.slice(1), ['NOT OK fails.test.ts 1 in 0.0 s', '  not ok fails.test.ts > numbers', '    diff: -1 +2', '3 passed, 1 failed'])
  t.equal(exitCode, 1)
})

await t.test('lists what was left out and why at the end, which fails nothing', async t => {
  const { lines, exitCode } = await report(`TAP version 14\n${PASSES}${SKIPS.replace('ok 3', 'ok 2')}ok 3 - whole.test.ts # SKIP whole run only\n1..3\n`)
  t.strictSame(lines.slice(3), ['', 'left out:', '  skips.test.ts > on Docker (there is no engine)', '  whole.test.ts (whole run only)', '', '2 passed, 0 failed'])
  t.equal(exitCode, 0)
})

await t.test('fails a file that makes no assertion and gives no reason', async t => {
  const { lines, exitCode } = await report(`TAP version 14\n${PASSES}ok 2 - silent.test.ts # SKIP no tests found\n1..2\n`)
  t.strictSame(lines.slice(1), ['NOT OK silent.test.ts 0 in 0.0 s', '  it made no assertion', '2 passed, 1 failed'])
  t.equal(exitCode, 1)
})

await t.test('fails a file that ends badly after each of its assertions passed', async t => {
  const { lines, exitCode } = await report(`TAP version 14\n${PASSES.replace('ok 1 - passes', 'not ok 1 - passes')}  ---\n  exitCode: 3\n  ...\n1..1\n`)
  t.strictSame(lines, ['NOT OK passes.test.ts 2 in 1.5 s', '  not ok passes.test.ts', '    exitCode: 3', '2 passed, 1 failed'])
  t.equal(exitCode, 1)
})

await t.test('fails a run that tests nothing', async t => {
  const { lines, exitCode } = await report(`TAP version 14\n${SKIPS.replace('ok 3', 'ok 1')}1..1\n`)
  t.equal(lines.at(-1), '0 passed, 0 failed')
  t.equal(exitCode, 1)
})

await t.test('fails a run whose plan was not kept', async t => {
  const { exitCode } = await report(`TAP version 14\n${PASSES}1..2\n`)
  t.equal(exitCode, 1)
})
