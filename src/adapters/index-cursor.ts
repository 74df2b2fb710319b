import { CvmError } from '../errors.ts'

/** An opaque cursor for a list by the index of unfinished rows: it tells its bearer nothing but a place in the list. */
export function cursorOf ({ claimExpiresAt, serialNumber }: Record<string, unknown>): string {
  return Buffer.from(JSON.stringify([claimExpiresAt, serialNumber])).toString('base64url')
}

/** The index key in a cursor, in a partition. Throws `CvmError('invalid-request')` where it was not made by {@link cursorOf}. */
export function keyIn (cursor: string, partition: string): Record<string, unknown> {
  try {
    const [claimExpiresAt, serialNumber, ...rest] = JSON.parse(Buffer.from(cursor, 'base64url').toString()) as unknown[]
    if (typeof claimExpiresAt === 'number' && typeof serialNumber === 'string' && rest.length === 0) {
      return { unfinished: partition, claimExpiresAt, serialNumber }
    }
  } catch {}
  throw new CvmError('invalid-request', { detail: 'the cursor is not of this list' })
}
