import { CvmError } from '../errors.ts'
import type { Device } from './device.ts'
import type { DeviceRegistry } from './device-registry.ts'
import { type Products, productOf, thingOf } from './product.ts'
import type { Desired, ShadowDocument, ShadowId, Shadows } from './shadows.ts'

/** The most that AWS IoT keeps of a shadow, and the most levels that it has ever taken: what is beyond need not be sent there. */
const MAX_BYTES = 8 * 1024
const MAX_LEVELS = 8

export interface ShadowDeps {
  registry: Pick<DeviceRegistry, 'find'>
  shadows: Shadows
  products: Products
  /** A signal that aborts when a request has had its time. */
  deadline: () => AbortSignal
}

/** What is to become of a shadow; the classic one where it has no name. */
export interface ShadowChange {
  name?: string | undefined
  desired: Desired
  /** Only while the shadow is at this version. */
  version?: number | undefined
}

/** A device's shadow. Raises `CvmError`: `device-not-found`, `shadow-not-found`, or what the ports raise. */
export async function showShadow (serialNumber: string, name: string | undefined, deps: ShadowDeps): Promise<ShadowDocument> {
  const document = await shadowOf(await mustFind(serialNumber, deps), name, deps)
  if (!document) throw new CvmError('shadow-not-found')
  return document
}

/**
 * Sets what a device's shadow says of the state wanted. Raises `CvmError`: `device-not-found`, `state-conflict` for a device that is
 * decommissioned, `shadow-rejected`, `shadow-too-large`, `shadow-conflict`, or what the ports raise.
 */
export async function changeShadow (serialNumber: string, change: ShadowChange, deps: ShadowDeps): Promise<ShadowDocument> {
  const device = await mustFind(serialNumber, deps)
  if (device.state === 'DECOMMISSIONED') throw new CvmError('state-conflict', { detail: 'nothing can be wanted of a device that is DECOMMISSIONED' })
  return setDesired(device, change, deps)
}

/** The shadow of a device that is at hand; undefined where there is none. */
export function shadowOf (device: Device, name: string | undefined, deps: ShadowDeps): Promise<ShadowDocument | undefined> {
  return deps.shadows.find(idOf(device, name, deps), deps.deadline())
}

/** As {@link changeShadow}, for a device that is at hand. */
export async function setDesired (device: Device, { name, desired, version }: ShadowChange, deps: ShadowDeps): Promise<ShadowDocument> {
  // The levels first: what is nested by the thousand cannot be written as text.
  if (isDeeperThan(desired, MAX_LEVELS)) throw new CvmError('shadow-rejected', { detail: `it is nested more than ${MAX_LEVELS} levels deep` })
  if (Buffer.byteLength(JSON.stringify(desired)) > MAX_BYTES) throw new CvmError('shadow-too-large')
  return deps.shadows.setDesired(idOf(device, name, deps), { desired, ...(version !== undefined && { version }) }, deps.deadline())
}

async function mustFind (serialNumber: string, { registry }: ShadowDeps): Promise<Device> {
  const device = await registry.find(serialNumber)
  if (!device) throw new CvmError('device-not-found')
  return device
}

/** The old services called a thing by the serial number alone. */
function idOf (device: Device, name: string | undefined, { products }: ShadowDeps): ShadowId {
  const { certificate, isLegacy, state, serialNumber } = device
  const wasVendedThere = isLegacy && state === 'ACTIVE'
  const thingName = certificate?.thingName ?? (wasVendedThere ? serialNumber : thingOf(productOf(device, products), serialNumber).thingName)
  return { thingName, ...(name !== undefined && { name }) }
}

/** Whether more than `levels` objects or lists lie in each other. */
function isDeeperThan (value: unknown, levels: number): boolean {
  if (typeof value !== 'object' || value === null) return false
  return levels === 0 || Object.values(value).some(inner => isDeeperThan(inner, levels - 1))
}
