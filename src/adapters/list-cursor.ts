import { CvmError } from '../errors.ts'
import type { DeviceQuery } from '../vending/device-catalog.ts'
import { SERIAL_NUMBER } from '../vending/names.ts'

/** Where a page ended: the last device in it. */
export interface Position { product: string, state: string, serialNumber: string }

/** Makes an opaque cursor of a position; it goes with these filters only. */
export function cursorOf ({ product, state, serialNumber }: Position, query: DeviceQuery): string {
  return Buffer.from(JSON.stringify([query.product ?? '', query.state ?? '', product, state, serialNumber])).toString('base64url')
}

/**
 * The position in a cursor. It tells its bearer nothing but a place in a list, so that it is checked rather than signed.
 * Raises `CvmError('invalid-request')` where it was not made by {@link cursorOf} for these filters and products.
 */
export function positionOf (query: DeviceQuery & { cursor: string }, products: readonly string[], states: readonly string[]): Position {
  const [forProduct, forState, product = '', state = '', serialNumber = ''] = partsOf(query.cursor)
  const position = { product, state, serialNumber }
  const isOfThisList = forProduct === (query.product ?? '') && forState === (query.state ?? '') && products.includes(product) &&
    states.includes(state) && [state, undefined].includes(query.state) && new RegExp(SERIAL_NUMBER).test(serialNumber)
  if (!isOfThisList || cursorOf(position, query) !== query.cursor) throw new CvmError('invalid-request', { detail: 'the cursor is not of this list' })
  return position
}

function partsOf (cursor: string): string[] {
  try {
    const parts: unknown = JSON.parse(Buffer.from(cursor, 'base64url').toString())
    return Array.isArray(parts) && parts.every(part => typeof part === 'string') ? parts : []
  } catch {
    return []
  }
}
