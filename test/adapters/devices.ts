// Devices at each stage of a vend, for the contract tests of the registry's ports.
import { randomUUID } from 'node:crypto'
import type { Certificate, Device } from '../../src/vending/device.ts'
import type { ClaimRequest, DeviceRegistry, WriteResult } from '../../src/vending/device-registry.ts'

export const NOW = 1_700_000_000_000
export const LATER = NOW + 60_000

/** What a device is registered with, but for its serial number. */
export const NEW = { product: 'default', tokenHash: 'hash', tokenExpiresAt: undefined }

export async function registered (registry: DeviceRegistry, tokenExpiresAt?: number): Promise<Device> {
  return must(await registry.register({ ...NEW, serialNumber: randomUUID(), tokenExpiresAt }, { now: NOW, requestId: 'r' }))
}

export async function issuedDevice (registry: DeviceRegistry): Promise<Device> {
  const { serialNumber } = await registered(registry)
  const claimed = must(await registry.claim(request(serialNumber)))
  return must(await registry.record(fence(claimed), certificate('c1')))
}

export function request (serialNumber: string, changes: Partial<ClaimRequest> = {}): ClaimRequest {
  const { now = NOW } = changes
  const common = { registrationToken: 'token', tokenHash: 'hash', refusingProducts: [], way: 'csr', publicKeyFingerprint: 'key', ...claim('a', now) } as const
  return { serialNumber, ...common, ...changes }
}

export function claim (claimId: string, now: number) {
  return { claimId, claimExpiresAt: now + 30_000, now, requestId: 'r' }
}

export function fence (device: Device, claimId = 'a') {
  return { device, claimId, now: NOW, requestId: 'r' }
}

export function certificate (certificateId: string): Certificate {
  return { certificateId, certificateArn: `arn/${certificateId}`, certificatePem: 'pem', publicKeyFingerprint: 'key', way: 'csr', thingName: `thing-${certificateId}`, issuedAt: NOW, notAfter: LATER }
}

export function must (result: WriteResult): Device {
  if (!result.applied) throw new Error(`the write did not apply: ${JSON.stringify(result.device)}`)
  return result.device
}
