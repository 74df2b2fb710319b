import { type DynamoDBDocumentClient, QueryCommand } from '@aws-sdk/lib-dynamodb'
import { DEVICE_STATES, type Device } from '../vending/device.ts'
import type { DeviceCatalog, DevicePage, DeviceQuery, ListedDevice } from '../vending/device-catalog.ts'
import { type DeviceRow, listingOf } from './device-row.ts'
import { DeviceRows, type OnQuarantined, orUnavailable } from './device-rows.ts'
import { CERTIFICATE_INDEX, PRODUCT_INDEX } from './device-table.ts'
import { type Position, cursorOf, positionOf } from './list-cursor.ts'

interface Page { rows: DeviceRow[], next: Record<string, unknown> | undefined }

/** Devices by product, state and certificate, by the indexes of the registry's table. Never a scan. */
export class DynamoDbDeviceCatalog implements DeviceCatalog {
  readonly #rows: DeviceRows
  readonly #products: readonly string[]

  constructor (client: DynamoDBDocumentClient, tableName: string, products: readonly string[], onQuarantined?: OnQuarantined) {
    this.#rows = new DeviceRows(client, tableName, onQuarantined)
    this.#products = products
  }

  async list (query: DeviceQuery): Promise<DevicePage> {
    const { limit, cursor } = query
    const products = query.product === undefined ? this.#products : [query.product]
    const after = cursor === undefined ? undefined : positionOf({ ...query, cursor }, products, DEVICE_STATES)
    const found: ListedDevice[] = []
    // One more than asked for tells whether there is another page.
    for (const product of products.slice(after ? products.indexOf(after.product) : 0)) {
      let next = product === after?.product ? keyOf(after) : undefined
      do {
        const page = await this.#page({ ...query, product, limit: limit + 1 - found.length }, next)
        found.push(...page.rows.map(listedOf).filter(({ state }) => DEVICE_STATES.includes(state)))
        next = page.next
      } while (next && found.length <= limit)
      if (found.length > limit) break
    }
    const devices = found.slice(0, limit)
    const last = devices.at(-1)
    return { devices, ...(found.length > limit && last && { nextCursor: cursorOf(last, query) }) }
  }

  async findByCertificate (certificateId: string): Promise<Device | undefined> {
    const { Items = [] } = await orUnavailable(this.#rows.client.send(new QueryCommand({
      TableName: this.#rows.tableName,
      IndexName: CERTIFICATE_INDEX,
      KeyConditionExpression: 'certificateId = :certificateId',
      ExpressionAttributeValues: { ':certificateId': certificateId }
    })))
    const serialNumber = Items[0]?.['serialNumber'] as string | undefined
    return serialNumber === undefined ? undefined : await this.#rows.find(serialNumber)
  }

  async #page ({ product, state, limit }: DeviceQuery, start: Record<string, unknown> | undefined): Promise<Page> {
    const { Items = [], LastEvaluatedKey } = await orUnavailable(this.#rows.client.send(new QueryCommand({
      TableName: this.#rows.tableName,
      IndexName: PRODUCT_INDEX,
      KeyConditionExpression: `product = :product${state ? ' AND begins_with(listing, :state)' : ''}`,
      ExpressionAttributeValues: { ':product': product, ...(state && { ':state': `${state}#` }) },
      Limit: limit,
      ...(start && { ExclusiveStartKey: start })
    })))
    return { rows: Items as DeviceRow[], next: LastEvaluatedKey }
  }
}

function keyOf ({ product, state, serialNumber }: Position): Record<string, unknown> {
  return { product, listing: listingOf(state, serialNumber), serialNumber }
}

/** The index may hold a value that was written by hand: an end that is no time is left out. */
function listedOf ({ serialNumber, product = '', listing = '', certificateId, notAfter }: DeviceRow): ListedDevice {
  const state = listing.split('#', 1)[0] as ListedDevice['state']
  return { serialNumber, product, state, ...(certificateId && { certificateId }), ...(typeof notAfter === 'number' && Math.abs(notAfter) <= 8.64e15 && { notAfter }) }
}
