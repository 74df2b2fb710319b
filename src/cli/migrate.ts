import { postUntilAnswered } from './back-off.ts'
import { EXIT, Failure, printable } from './failure.ts'
import { connect } from './settings.ts'
import type { ConnectionOptions } from './settings.ts'
import { facts } from './table.ts'

interface MigrateOptions extends ConnectionOptions { dryRun?: boolean, table?: string, cursor?: string, json?: boolean }

interface Result { serialNumber: string, outcome: string, state?: string, otherCertificates?: string[], notes: string[], code?: string }

const PATIENCE = { timeoutMs: 300_000, attemptMs: 60_000 }

/** What has to be looked at, or asked for again. */
const UNDONE = ['changed', 'left', 'failed']

/**
 * Has the service take over an old service's devices, page after page; prints those that somebody should look at, and how many there are of
 * which kind. Throws a `Failure`, after saying how to go on.
 */
export async function migrate (options: MigrateOptions): Promise<void> {
  const service = await connect(options)
  const counts = new Map<string, number>()
  const count = (name: string) => counts.set(name, (counts.get(name) ?? 0) + 1)
  let { cursor } = options
  try {
    do {
      const { dryRun = false, table } = options
      const wish = { dryRun, ...table !== undefined && { table }, ...cursor !== undefined && { cursor } }
      const { body } = await postUntilAnswered(service, 'v1/migration', wish, PATIENCE)
      for (const result of resultsOf(body.results)) {
        for (const name of ['rows', result.outcome, ...result.notes]) count(name)
        tell(result, options.json === true)
      }
      cursor = typeof body.nextCursor === 'string' ? body.nextCursor : undefined
    } while (cursor !== undefined)
  } catch (error) {
    if (cursor !== undefined) process.stderr.write(`stopped; to go on from here: --cursor ${printable(cursor)}\n`)
    throw error
  } finally {
    const { rows = 0, ...rest } = Object.fromEntries(counts)
    if (options.json !== true) process.stdout.write(facts([['rows', rows], ...Object.entries(rest)]))
  }
  const undone = UNDONE.reduce((sum, outcome) => sum + (counts.get(outcome) ?? 0), 0)
  if (undone > 0) throw new Failure(EXIT.failed, `${undone} rows were not taken over`, { remedy: 'See above what is in their way, then run the same command again: it takes up what is left' })
}

/** A line for whoever has something to it; all of them as JSON. */
function tell (result: Result, isJson: boolean): void {
  const { serialNumber, outcome, state = '', otherCertificates = [], notes, code = '' } = result
  if (isJson) process.stdout.write(`${JSON.stringify(result)}\n`)
  else if (notes.length > 0 || UNDONE.includes(outcome)) {
    process.stdout.write(`${printable([serialNumber, outcome, state, ...notes, code, ...otherCertificates].filter(Boolean).join('  '))}\n`)
  }
}

function resultsOf (value: unknown): Result[] {
  if (Array.isArray(value)) return value as Result[]
  throw new Failure(EXIT.failed, 'the answer of the service holds no results', { remedy: 'Check --url' })
}
