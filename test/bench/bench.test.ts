// That the bench still runs, each measurement of it; its figures are none of a test's.
import t from 'tap'
import { run } from '../acceptance/processes.ts'

t.setTimeout(600_000)

const BENCH = 'test/bench/main.ts'

if (!(process.features as { typescript?: unknown }).typescript) {
  const reason = 'not tested, because this Node does not read TypeScript by itself: the bench'
  console.error(reason)
  t.pass(reason, { skip: reason })
} else {
  await t.test('a smoke run goes through every measurement, or says what it leaves out', async t => {
    const { exit, output } = await run(t, [BENCH, '--smoke'])
    t.equal(exit, 0, output)
    const rows = output.split('\n').filter(line => line.split(' | ').length === 7)
    const leftOut = output.split('\n').filter(line => line.startsWith('left out, because'))
    t.ok(rows.length >= 10, `${rows.length} rows`)
    for (const line of leftOut) t.comment(line)
    const isThere = (beginning: string) => rows.some(line => line.startsWith(beginning))
    for (const beginning of ['CSR checks', 'CPU of a call', 'p50 that', 'CPU of a wrong token', 'p99 of good', 'goodput', 'start-up', 'resident', 'allocated']) {
      t.ok(isThere(beginning), beginning)
    }
  })

  await t.test('it keeps no figures that mean nothing, and knows no other measurements', async t => {
    for (const [args, message] of [[['--smoke', '--write'], /--smoke measures nothing/], [['--only', 'luck'], /--only knows csr/]] as const) {
      const { exit, output } = await run(t, [BENCH, ...args])
      t.equal(exit, 1)
      t.match(output, message)
    }
  })
}
