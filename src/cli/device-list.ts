import { faulty, readRecords } from './record-file.ts'
import type { Listed } from './record-file.ts'

/** A device to register, as its file says; `line` counts from 1. */
export type ListedDevice = Listed<typeof NAMES[number]>

const NAMES = ['serialNumber', 'product', 'registrationToken', 'tokenExpiresAt'] as const

/** The devices of a CSV or NDJSON file, one at a time. Throws a `Failure` as `readRecords` does. */
export function readDevices (file: string): AsyncGenerator<ListedDevice> {
  return readRecords(file, NAMES)
}

/** Reads the whole list once, so that a fault in it is found before anything is sent; returns how many devices it has. */
export async function checkDevices (file: string): Promise<number> {
  const lines = new Map<string, number>()
  for await (const { line, serialNumber } of readDevices(file)) {
    const first = lines.get(serialNumber)
    if (first !== undefined) throw faulty(`${file} line ${line}`, `has the serial number of line ${first}`, NAMES)
    lines.set(serialNumber, line)
  }
  return lines.size
}
