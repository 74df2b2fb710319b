import { type DynamoDBDocumentClient, ScanCommand } from '@aws-sdk/lib-dynamodb'
import { CvmError } from '../errors.ts'
import type { OldDevices, OldRow, Takeover } from '../vending/old-devices.ts'
import { UnreadableDevice } from '../vending/unreadable-device.ts'
import { deviceOf } from './device-row.ts'
import { DeviceRows, type OnQuarantined, NO_WISH_IS_PENDING, all, unavailable } from './device-rows.ts'

/** What the old services wrote, and what operators may have put beside it. */
const MARKS = ['deviceToken', 'certinfo', 'applyState'] as const

/** In a table of theirs, other attributes may mean anything. */
const THEIRS = ['serialNumber', ...MARKS]
const OURS = [...THEIRS, 'tokenExpiresAt', 'product']

/** Rows of our table that are no devices begin with one of these. */
const NO_DEVICES = ['#lease/', '#certificate/', '#key/', 'authority#']

/** Rows that one scan looks at, and that one page does: the first bounds an answer, the second how long a page takes. */
const LOOKED_AT = 500
const SCANS = 10

/** Why a table cannot be read, by the name of DynamoDB's error. */
const FAULTS: Readonly<Record<string, string>> = {
  ResourceNotFoundException: 'there is no such table in this account and Region',
  AccessDeniedException: 'the service may not scan this table',
  ValidationException: 'the table has another key than serialNumber'
}

type Key = Record<string, unknown>

/** Rows of the old services in DynamoDB. The one place that scans. */
export class DynamoDbOldDevices implements OldDevices {
  readonly #rows: DeviceRows

  constructor (client: DynamoDBDocumentClient, tableName: string, onQuarantined?: OnQuarantined) {
    this.#rows = new DeviceRows(client, tableName, onQuarantined)
  }

  async page ({ table, cursor, limit }: { table?: string | undefined, cursor?: string | undefined, limit: number }) {
    const TableName = table ?? this.#rows.tableName
    const rows: OldRow[] = []
    let next = cursor === undefined ? undefined : keyIn(cursor, TableName)
    for (let scans = 0; scans < SCANS && rows.length < limit; scans++) {
      const page = await this.#scan(TableName, next)
      rows.push(...page.items.map(item => oldRowOf(item, TableName)))
      next = page.next
      if (!next) break
    }
    const [kept, last] = [rows.slice(0, limit), rows[limit - 1]]
    const nextCursor = rows.length > limit ? last?.cursor : next && cursorOf(next['serialNumber'], TableName)
    return { rows: kept, ...(nextCursor !== undefined && { nextCursor }) }
  }

  takeOver (row: OldRow, as: Takeover, { now, ...author }: { now: number, requestId: string, actor: string }, table?: string) {
    const { device: { serialNumber, product, tokenExpiresAt }, seen } = row
    const { certificate } = as
    const attributes = Object.entries({
      product,
      tokenHash: as.tokenHash,
      tokenExpiresAt,
      stateBefore: as.stateBefore,
      ...certificate,
      // Its token is spent, as that of a device that was vended here.
      ...(certificate && { committedAt: certificate.issuedAt, tokenSpentAt: certificate.issuedAt })
    }).filter(([, value]) => value !== undefined)
    const about = certificate && { certificateId: certificate.certificateId }
    return this.#rows.change({
      serialNumber,
      condition: isOther(table, this.#rows.tableName)
        ? 'attribute_not_exists(serialNumber)'
        : all('attribute_exists(serialNumber)', 'attribute_not_exists(#state)', NO_WISH_IS_PENDING, ...MARKS.map(mark => asSeen(mark, seen))),
      update: `SET #state = :state, ${attributes.map(([name]) => `${name} = :${name}`).join(', ')},` +
        ` #history = list_append(if_not_exists(#history, :none), :entry) REMOVE ${MARKS.join(', ')}`,
      values: {
        ...Object.fromEntries(attributes.map(([name, value]) => [`:${name}`, value])),
        ...(isOther(table, this.#rows.tableName) ? {} : Object.fromEntries(MARKS.filter(mark => mark in seen).map(mark => [`:seen_${mark}`, seen[mark]]))),
        ':state': as.state,
        ':none': [],
        ':entry': [{ at: now, event: 'migrated', ...author, ...about }]
      }
    })
  }

  async #scan (TableName: string, start: Key | undefined): Promise<{ items: Key[], next: Key | undefined }> {
    const isOurs = !isOther(TableName, this.#rows.tableName)
    const filter = all('attribute_not_exists(#state)', ...NO_DEVICES.map((_, n) => `NOT begins_with(serialNumber, :no${n})`))
    try {
      const { Items = [], LastEvaluatedKey } = await this.#rows.client.send(new ScanCommand({
        TableName,
        Limit: LOOKED_AT,
        ProjectionExpression: (isOurs ? OURS : THEIRS).join(', '),
        ...(isOurs && {
          FilterExpression: filter,
          ExpressionAttributeNames: { '#state': 'state' },
          ExpressionAttributeValues: Object.fromEntries(NO_DEVICES.map((prefix, n) => [`:no${n}`, prefix]))
        }),
        ...(start && { ExclusiveStartKey: start })
      }))
      return { items: Items, next: LastEvaluatedKey }
    } catch (cause) {
      const detail = FAULTS[(cause as Error).name]
      throw detail === undefined ? unavailable(cause) : new CvmError('invalid-request', { detail: `${TableName}: ${detail}`, cause })
    }
  }
}

function isOther (table: string | undefined, own: string): boolean {
  return table !== undefined && table !== own
}

function oldRowOf (item: Key, table: string): OldRow {
  const { serialNumber } = item
  if (typeof serialNumber !== 'string') throw new CvmError('invalid-request', { detail: `${table}: ${FAULTS['ValidationException']}` })
  const seen = Object.fromEntries(MARKS.filter(mark => mark in item).map(mark => [mark, item[mark]]))
  const row = { seen, cursor: cursorOf(serialNumber, table) }
  try {
    return { device: deviceOf(item), ...row }
  } catch (cause) {
    if (!(cause instanceof UnreadableDevice)) throw cause
    return { device: deviceOf({ serialNumber }), unreadable: cause, ...row }
  }
}

function asSeen (mark: string, seen: Readonly<Record<string, unknown>>): string {
  return mark in seen ? `${mark} = :seen_${mark}` : `attribute_not_exists(${mark})`
}

/** An opaque cursor: it tells its bearer nothing but a place in a table. */
function cursorOf (serialNumber: unknown, table: string): string {
  return Buffer.from(JSON.stringify([table, serialNumber])).toString('base64url')
}

function keyIn (cursor: string, table: string): Key {
  try {
    const [of, serialNumber, ...rest] = JSON.parse(Buffer.from(cursor, 'base64url').toString()) as unknown[]
    if (of === table && typeof serialNumber === 'string' && rest.length === 0 && cursorOf(serialNumber, table) === cursor) return { serialNumber }
  } catch {}
  throw new CvmError('invalid-request', { detail: 'the cursor is not of this table' })
}
