// That the bench still runs, each measurement of it; its figures are none of a test's.
import t from 'tap'
import { run } from '../acceptance/processes.ts'
import { proofSize, sliceOfToday } from '../fixtures/proof-size.ts'

t.setTimeout(600_000)

const BENCH = 'test/bench/main.ts'
/** Measurements of a sample. */
const SAMPLE = 2
const LEFT_OUT = 'left out, because'

/** Every measurement, and how a row of it begins. */
const ROWS: Readonly<Record<string, string>> = {
  csr: 'CSR checks',
  vend: 'CPU of a vend',
  sdk: 'CPU of a call',
  latency: 'p50 that',
  sizes: 'time of a vend',
  refusals: 'CPU of a wrong token',
  floods: 'p99 of good',
  overload: 'goodput',
  start: 'start-up',
  memory: 'resident',
  allocations: 'allocated',
  issue: 'the local AWS IoT Core'
}

if (!(process.features as { typescript?: unknown }).typescript) {
  const reason = 'not tested, because this Node does not read TypeScript by itself: the bench'
  console.error(reason)
  t.pass(reason, { skip: reason })
} else {
  const names = Object.keys(ROWS)
  const chosen = sliceOfToday(names, SAMPLE)
  await t.test(`a smoke run goes through ${chosen.join(', ')}, or says what it leaves out (${proofSize})`, async t => {
    const { exit, output } = await run(t, [BENCH, '--smoke', '--only', chosen.join(',')])
    t.equal(exit, 0, output)
    const lines = output.split('\n')
    for (const line of lines.filter(line => line.startsWith(LEFT_OUT))) t.comment(line)
    for (const [name, beginning] of Object.entries(ROWS).filter(([name]) => chosen.includes(name))) {
      const isRow = (line: string) => line.startsWith(beginning) && line.split(' | ').length === 7
      const isLeftOut = (line: string) => line.startsWith(LEFT_OUT) && line.endsWith(`: ${beginning}`)
      t.ok(lines.some(line => isRow(line) || isLeftOut(line)), `${name}: ${beginning}`)
    }
  })

  await t.test('it keeps no figures that mean nothing, and knows no other measurements', async t => {
    for (const [args, message] of [[['--smoke', '--write'], /--smoke measures nothing/], [['--only', 'luck'], `--only knows ${names.join(', ')}, not luck`]] as const) {
      const { exit, output } = await run(t, [BENCH, ...args])
      t.equal(exit, 1)
      t.match(output, message)
    }
  })
}
