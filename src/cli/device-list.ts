import { createReadStream } from 'node:fs'
import { extname } from 'node:path'
import { CsvError, parse } from 'csv-parse'
import split2 from 'split2'
import { EXIT, Failure, messageOf } from './failure.ts'

/** A device to register, as its file says; `line` counts from 1. */
export interface ListedDevice {
  readonly line: number
  readonly serialNumber: string
  readonly product?: string
  readonly registrationToken?: string
  readonly tokenExpiresAt?: string
}

const NAMES = ['serialNumber', 'product', 'registrationToken', 'tokenExpiresAt'] as const

const MOST_CHARACTERS = 16_384

/**
 * The devices of a CSV file with a header, or of an NDJSON file (by its extension), one at a time however long the file is. Throws a
 * `Failure` that names the line and never quotes it, because it may hold a token.
 */
export async function * readDevices (file: string): AsyncGenerator<ListedDevice> {
  try {
    yield * extname(file).toLowerCase() === '.ndjson' ? readNdjson(file) : readCsv(file)
  } catch (error) {
    if (error instanceof Failure) throw error
    if (error instanceof CsvError) throw faulty(`${file}${typeof error['lines'] === 'number' ? ` line ${error['lines']}` : ''}`, inWords(error))
    throw new Failure(EXIT.failed, `cannot read ${file}`, { detail: messageOf(error) }, error)
  }
}

/** Reads the whole list once, so that a fault in it is found before anything is sent; returns how many devices it has. */
export async function checkDevices (file: string): Promise<number> {
  const lines = new Map<string, number>()
  for await (const { line, serialNumber } of readDevices(file)) {
    const first = lines.get(serialNumber)
    if (first !== undefined) throw faulty(`${file} line ${line}`, `has the serial number of line ${first}`)
    lines.set(serialNumber, line)
  }
  return lines.size
}

async function * readCsv (file: string): AsyncGenerator<ListedDevice> {
  const parser = parse({
    bom: true,
    columns: (header: string[]) => known(header, `the header of ${file}`),
    info: true,
    max_record_size: MOST_CHARACTERS,
    skip_empty_lines: true,
    skip_records_with_empty_values: true,
    trim: true
  })
  const source = createReadStream(file)
  source.on('error', error => parser.destroy(error))
  for await (const { record, info } of source.pipe(parser)) yield deviceOf(record, file, info.lines)
}

async function * readNdjson (file: string): AsyncGenerator<ListedDevice> {
  const lines = split2({ maxLength: MOST_CHARACTERS })
  const source = createReadStream(file)
  source.on('error', error => lines.destroy(error))
  let line = 0
  for await (const text of source.pipe(lines) as AsyncIterable<string>) {
    line++
    if (text.replace(/^\ufeff/, '').trim() === '') continue
    const value = valueOf(text.replace(/^\ufeff/, ''))
    if (typeof value !== 'object' || value === null || Array.isArray(value)) throw faulty(`${file} line ${line}`, 'is not a JSON object')
    known(Object.keys(value), `${file} line ${line}`)
    yield deviceOf({ ...value }, file, line)
  }
}

function known (names: string[], where: string): string[] {
  const foreign = names.filter(name => !(NAMES as readonly string[]).includes(name))
  if (foreign.length > 0) throw faulty(where, `has names that are not known: ${foreign.map(name => JSON.stringify(name)).join(', ')}`)
  if (!names.includes('serialNumber')) throw faulty(where, 'lacks serialNumber')
  if (new Set(names).size < names.length) throw faulty(where, 'has a name twice')
  return names
}

function deviceOf (record: Record<string, unknown>, file: string, line: number): ListedDevice {
  const wrong = Object.keys(record).filter(name => typeof record[name] !== 'string')
  if (wrong.length > 0) throw faulty(`${file} line ${line}`, `must have text in ${wrong.join(', ')}`)
  const { serialNumber, ...more } = record as Record<string, string>
  if (!serialNumber) throw faulty(`${file} line ${line}`, 'has no serial number')
  return { line, serialNumber, ...Object.fromEntries(Object.entries(more).filter(([, value]) => value !== '')) }
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

function faulty (where: string, what: string): Failure {
  const remedy = `Correct the file: CSV with a header of ${NAMES.join(',')} (all but the first may be left out), or .ndjson with the same names`
  return new Failure(EXIT.failed, `${where} ${what}`, { detail: 'Nothing of the file was sent by this run.', remedy })
}
