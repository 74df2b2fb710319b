import { stripVTControlCharacters, styleText } from 'node:util'
import Table from 'cli-table3'
import { printable } from './failure.ts'

/** Where a table is going to be read. */
export interface Screen { readonly isTTY?: boolean, readonly columns?: number }

type Cell = unknown

// cli-table3 takes minutes for the rows of a whole fleet.
const MOST_BOXED = 1000

/**
 * Rows under a head. A terminal that is wide enough gets a box, a narrower one a paragraph for each row, anything else (and a very long
 * table) aligned columns: the same content in all of them, made safe with `printable`; an absent value is empty. Bold is for terminals
 * without NO_COLOR only.
 */
export function table (head: readonly string[], rows: ReadonlyArray<readonly Cell[]>, screen: Screen = process.stdout): string {
  const cells = rows.map(row => row.map(shown))
  if (screen.isTTY !== true || rows.length > MOST_BOXED) return columns([head, ...cells])
  const box = new Table({ head: head.map(name => emphasis(name, screen)), style: { head: [], border: [], compact: true } })
  box.push(...cells.map(row => [...row]))
  const text = `${box.toString()}\n`
  return lengthOf(text.slice(0, text.indexOf('\n'))) <= (screen.columns || 80) ? text : paragraphs(head, cells, screen)
}

/** Names and values, one under the other; what is absent or empty is left out. */
export function facts (pairs: ReadonlyArray<readonly [string, Cell]>, screen: Screen = process.stdout): string {
  const rows = pairs.map(([name, value]) => [name, shown(value)] as const).filter(([, value]) => value !== '')
  return columns(rows.map(([name, value]) => [emphasis(name, screen), value]))
}

function columns (rows: ReadonlyArray<readonly string[]>): string {
  const widths: number[] = []
  for (const row of rows) row.forEach((cell, index) => { widths[index] = Math.max(widths[index] ?? 0, lengthOf(cell)) })
  const padded = (cell: string, index: number) => cell + ' '.repeat((widths[index] ?? 0) - lengthOf(cell))
  return rows.map(row => `${row.map(padded).join('  ').trimEnd()}\n`).join('')
}

function lengthOf (text: string): number {
  return stripVTControlCharacters(text).length
}

function paragraphs (head: readonly string[], rows: ReadonlyArray<readonly string[]>, screen: Screen): string {
  return rows.map(row => facts(head.map((name, index) => [name, row[index]]), screen)).join('\n')
}

function shown (value: Cell): string {
  return value === undefined || value === null ? '' : printable(Array.isArray(value) ? value.join(' ') : String(value))
}

function emphasis (text: string, screen: Screen): string {
  return screen.isTTY === true && !process.env['NO_COLOR'] ? styleText('bold', text, { validateStream: false }) : text
}
