import { createReadStream } from 'node:fs'
import { extname } from 'node:path'
import { CsvError, parse } from 'csv-parse'
import split2 from 'split2'
import { EXIT, Failure, unreadable } from './failure.ts'

/** A device of a list: `serialNumber` and as wanted the other members, all of them text and none empty; `line` counts from 1. */
export type Listed<Name extends string> = Readonly<{ line: number, serialNumber: string } & Partial<Record<Name, string>>>

const MOST_CHARACTERS = 16_384

/**
 * The devices of a CSV file with a header, or of an NDJSON file (by its extension), one at a time however long the file is. `names` are
 * the members that may be there, `serialNumber` the first. Throws a `Failure` that names the line and never quotes it, because it may
 * hold a token.
 */
export async function * readRecords<Name extends string> (file: string, names: readonly Name[]): AsyncGenerator<Listed<Name>> {
  try {
    yield * extname(file).toLowerCase() === '.ndjson' ? readNdjson(file, names) : readCsv(file, names)
  } catch (error) {
    if (error instanceof Failure) throw error
    if (!(error instanceof CsvError)) throw unreadable(file, error)
    throw faulty(`${file}${typeof error['lines'] === 'number' ? ` line ${error['lines']}` : ''}`, inWords(error), names)
  }
}

/** What is wrong with a list; `names` are what its header may hold. */
export function faulty (where: string, what: string, names: readonly string[]): Failure {
  const remedy = `Correct the file: CSV with a header of ${names.join(',')} (all but the first may be left out), or .ndjson with the same names`
  return new Failure(EXIT.failed, `${where} ${what}`, { detail: 'Nothing of the file was sent by this run.', remedy })
}

async function * readCsv<Name extends string> (file: string, names: readonly Name[]): AsyncGenerator<Listed<Name>> {
  const parser = parse({
    bom: true,
    columns: (header: string[]) => known(header, `the header of ${file}`, names),
    info: true,
    max_record_size: MOST_CHARACTERS,
    skip_empty_lines: true,
    skip_records_with_empty_values: true,
    trim: true
  })
  const source = createReadStream(file)
  source.on('error', error => parser.destroy(error))
  for await (const { record, info } of source.pipe(parser)) yield deviceOf(record, file, info.lines, names)
}

async function * readNdjson<Name extends string> (file: string, names: readonly Name[]): AsyncGenerator<Listed<Name>> {
  const lines = split2({ maxLength: MOST_CHARACTERS })
  const source = createReadStream(file)
  source.on('error', error => lines.destroy(error))
  let line = 0
  for await (const text of source.pipe(lines) as AsyncIterable<string>) {
    line++
    if (text.replace(/^\ufeff/, '').trim() === '') continue
    const value = valueOf(text.replace(/^\ufeff/, ''))
    if (typeof value !== 'object' || value === null || Array.isArray(value)) throw faulty(`${file} line ${line}`, 'is not a JSON object', names)
    known(Object.keys(value), `${file} line ${line}`, names)
    yield deviceOf({ ...value }, file, line, names)
  }
}

function known (given: string[], where: string, names: readonly string[]): string[] {
  const foreign = given.filter(name => !names.includes(name))
  if (foreign.length > 0) throw faulty(where, `has names that are not known: ${foreign.map(name => JSON.stringify(name)).join(', ')}`, names)
  if (!given.includes('serialNumber')) throw faulty(where, 'lacks serialNumber', names)
  if (new Set(given).size < given.length) throw faulty(where, 'has a name twice', names)
  return given
}

function deviceOf<Name extends string> (record: Record<string, unknown>, file: string, line: number, names: readonly Name[]): Listed<Name> {
  const wrong = Object.keys(record).filter(name => typeof record[name] !== 'string')
  if (wrong.length > 0) throw faulty(`${file} line ${line}`, `must have text in ${wrong.join(', ')}`, names)
  const { serialNumber, ...more } = record as Record<string, string>
  if (!serialNumber) throw faulty(`${file} line ${line}`, 'has no serial number', names)
  return { line, serialNumber, ...Object.fromEntries(Object.entries(more).filter(([, value]) => value !== '')) } as Listed<Name>
}

function valueOf (text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

function inWords ({ code }: CsvError): string {
  if (code.startsWith('CSV_RECORD_INCONSISTENT')) return 'has another number of fields than the header'
  if (code === 'CSV_MAX_RECORD_SIZE') return `is longer than ${MOST_CHARACTERS} characters`
  if (code === 'CSV_QUOTE_NOT_CLOSED') return 'opens a quote that is never closed'
  return code.includes('QUOTE') ? 'has a quote in the wrong place' : `is not valid CSV (${code})`
}
