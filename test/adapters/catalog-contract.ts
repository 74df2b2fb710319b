// The contract of the port `DeviceCatalog`: whose certificate it is, for every implementation; and lists, for those that list.
import { randomUUID } from 'node:crypto'
import type { Test } from 'tap'
import type { DeviceState } from '../../src/vending/device.ts'
import type { DeviceCatalog, DeviceQuery, ListedDevice } from '../../src/vending/device-catalog.ts'
import type { DeviceRegistry } from '../../src/vending/device-registry.ts'
import { LATER, NEW, NOW, certificate, claim, fence, must, registered, request } from './devices.ts'

/** The products that the catalog under test must know, in this order. */
export const PRODUCTS = ['default', 'sensor', 'empty', 'gateway']

export async function certificateContract (t: Test, registry: DeviceRegistry, catalog: Pick<DeviceCatalog, 'findByCertificate'>): Promise<void> {
  await t.test('a device is found by the certificate that it has', async t => {
    const certificateId = randomUUID()
    const { serialNumber } = await registered(registry)
    const claimed = must(await registry.claim(request(serialNumber)))
    t.equal(await catalog.findByCertificate(certificateId), undefined)
    const issued = must(await registry.record(fence(claimed), certificate(certificateId)))
    t.match(await catalog.findByCertificate(certificateId), { serialNumber, certificate: { certificateId } })
    const wish = { publicKeyFingerprint: 'other', way: 'csr' } as const
    must(await registry.supersede(issued, { ...claim('b', LATER), ...wish }))
    t.equal(await catalog.findByCertificate(certificateId), undefined, 'and not by one that it had')
  })
}

/** Needs a registry of its own: what is in it is what is listed. */
export async function listContract (t: Test, registry: DeviceRegistry, catalog: DeviceCatalog): Promise<void> {
  t.same(await catalog.list({ limit: 10 }), { devices: [] }, 'nothing yet')
  const expected: ListedDevice[] = []
  for (const [product, count] of [['default', 5], ['sensor', 3], ['gateway', 4]] as const) {
    for (let n = 0; n < count; n++) {
      const serialNumber = `${product}-${n}`
      await registry.register({ ...NEW, serialNumber, product }, { now: NOW, requestId: 'r' })
      // Every second one is vended.
      const certificateId = `certificate of ${serialNumber}`
      if (n % 2 === 0) {
        const issued = must(await registry.record(fence(must(await registry.claim(request(serialNumber)))), certificate(certificateId)))
        must(await registry.commit(fence(issued)))
      }
      expected.push(n % 2 === 0 ? { serialNumber, product, state: 'ACTIVE', certificateId, notAfter: LATER } : { serialNumber, product, state: 'REGISTERED' })
    }
  }
  expected.sort((a, b) => keyOf(a).localeCompare(keyOf(b)))

  await t.test('pages of every size hold each device once, in order, and the last one says so', async t => {
    for (const limit of [1, 2, 3, 5, 11, 12, 13, 100]) {
      const pages = await walk(catalog, { limit })
      t.same(pages.flat(), expected, `pages of ${limit}`)
      t.equal(pages.length, Math.ceil(expected.length / limit))
    }
  })

  await t.test('by product, by state, by both', async t => {
    const filters: Omit<DeviceQuery, 'limit'>[] = [
      { product: 'sensor' }, { state: 'ACTIVE' }, { state: 'REGISTERED' }, { product: 'gateway', state: 'ACTIVE' }, { product: 'empty' },
      { product: 'no product known' }, { state: 'REVOKED' }, { product: 'sensor', state: 'ISSUED' }
    ]
    for (const { product, state } of filters) {
      const filter = { ...(product && { product }), ...(state && { state }) }
      const wanted = expected.filter(device => [device.product, undefined].includes(product) && [device.state, undefined].includes(state))
      for (const limit of [1, 2, 100]) {
        t.same((await walk(catalog, { ...filter, limit })).flat(), wanted, JSON.stringify({ product, state, limit }))
      }
    }
  })

  await t.test('a cursor goes with its filters alone, and is checked', async t => {
    const { nextCursor = '' } = await catalog.list({ state: 'ACTIVE', limit: 1 })
    t.match(nextCursor, /^[\w-]+$/)
    const forged = (...parts: unknown[]) => Buffer.from(JSON.stringify(parts)).toString('base64url')
    const cursors = [
      nextCursor.slice(0, -1), `${nextCursor}A`, `${nextCursor}=`, '!', 'e30', forged(), forged('', 'ACTIVE', 'default', 'ACTIVE', 7),
      forged('', 'ACTIVE', 'default', 'ACTIVE', '#lease/reconcile'), forged('', 'ACTIVE', 'default', 'REGISTERED', 'sn-1'),
      forged('', 'ACTIVE', 'unknown', 'ACTIVE', 'sn-1'), forged('', 'ACTIVE', 'default', 'ACTIVE', 'sn-1', 'more'), forged('', 'ACTIVE', 'default', 'ACTIVE')
    ]
    for (const cursor of cursors) {
      await t.rejects(catalog.list({ state: 'ACTIVE', limit: 1, cursor }), { code: 'invalid-request' }, cursor)
    }
    const foreign: Partial<DeviceQuery>[] = [{}, { state: 'REGISTERED' }, { state: 'ACTIVE', product: 'default' }]
    for (const filter of foreign) {
      await t.rejects(catalog.list({ ...filter, limit: 1, cursor: nextCursor }), { code: 'invalid-request' }, JSON.stringify(filter))
    }
    await t.resolves(catalog.list({ state: 'ACTIVE', limit: 7, cursor: nextCursor }), 'another limit is fine')
  })
}

async function walk (catalog: DeviceCatalog, query: DeviceQuery): Promise<ListedDevice[][]> {
  const pages: ListedDevice[][] = []
  let cursor: string | undefined
  do {
    const page = await catalog.list({ ...query, ...(cursor && { cursor }) })
    pages.push(page.devices)
    cursor = page.nextCursor
  } while (cursor && pages.length < 100)
  return pages
}

function keyOf ({ product, state, serialNumber }: { product: string, state: DeviceState, serialNumber: string }): string {
  return `${PRODUCTS.indexOf(product)} ${state} ${serialNumber}`
}
