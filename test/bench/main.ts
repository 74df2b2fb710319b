// Every figure of the service's speed, each beside a peer or a limit, in one run.
// npm run bench                       all of it, twenty to thirty minutes on a quiet machine; prints the table
// npm run bench -- --write            the same, and keeps it in test/bench/results.json, from which the README's table is made
// npm run bench -- --smoke            a minute: whether it still runs; its figures mean nothing
// npm run bench -- --only csr,sdk     some of it; with --write, the others keep what they had
// Each measurement is kept as soon as it is done.
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { parseArgs } from 'node:util'
import { csrChecks } from './csr.ts'
import { type Result, type Size, machine } from './harness.ts'
import { latencies } from './latency.ts'
import { overload } from './overload.ts'
import { issueRate, memory, startUp } from './process.ts'
import { floods, refusals } from './refusals.ts'
import { rowOf } from './rows.ts'
import { sdkCalls } from './sdk.ts'
import { sizes } from './size.ts'
import { allocations, vends } from './vend.ts'

const MEASUREMENTS: Readonly<Record<string, (size: Size) => Promise<Result[]>>> = {
  csr: csrChecks,
  vend: vends,
  sdk: sdkCalls,
  latency: latencies,
  sizes,
  refusals,
  floods,
  overload,
  start: startUp,
  memory,
  allocations,
  issue: issueRate
}
const RESULTS = new URL('results.json', import.meta.url)

const { values } = parseArgs({
  options: {
    smoke: { type: 'boolean', default: false },
    write: { type: 'boolean', default: false },
    only: { type: 'string' },
    rounds: { type: 'string', default: '9' }
  }
})
if (values.smoke && values.write) throw new Error('--smoke measures nothing that could be kept: leave out --write')
const size = values.smoke ? { rounds: 1, scale: 0.02 } : { rounds: Number(values.rounds), scale: 1 }

const names = values.only?.split(',') ?? Object.keys(MEASUREMENTS)
const kept = values.write && existsSync(RESULTS) ? JSON.parse(readFileSync(RESULTS, 'utf8')) as { results: Record<string, Result[]> } : { results: {} }
const { load: loadBefore, ...where } = machine()
const run = () => ({ ...where, loadBefore, loadAfter: machine().load })
for (const name of names) {
  const measure = MEASUREMENTS[name]
  if (!measure) throw new Error(`--only knows ${Object.keys(MEASUREMENTS).join(', ')}, not ${name}`)
  const results = await measure(size)
  for (const result of results) console.log(rowOf(result).join(' | '))
  kept.results = { ...kept.results, [name]: results }
  if (values.write) writeFileSync(RESULTS, `${JSON.stringify({ machine: run(), results: inOrder(kept.results) }, null, 2)}\n`)
}
console.log(JSON.stringify(run()))
process.exit()

function inOrder (results: Record<string, Result[]>): Record<string, Result[]> {
  return Object.fromEntries(Object.keys(MEASUREMENTS).flatMap(name => results[name] ? [[name, results[name]]] : []))
}
