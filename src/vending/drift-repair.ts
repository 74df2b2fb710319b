import { makeAwsAgree } from './agreement.ts'
import type { ControlPlane } from './control-plane.ts'
import type { Device } from './device.ts'
import type { Inspected } from './drift.ts'
import type { Difference, FindingKind, SeenDifference } from './drift-findings.ts'
import { type Product, thingOf } from './product.ts'
import type { ReconcileRun } from './reconcile-run.ts'

/** What is done about a difference, and what that is in words. The README's table is made of them. */
export const REMEDIES = {
  'disable-device': 'the device becomes DISABLED',
  'revoke-device': 'the device becomes REVOKED',
  'sync-certificate': 'the certificate gets the status that goes with the state of the device',
  'revoke-former': 'those that the device had before become REVOKED, the one of an unconfirmed renewal INACTIVE; all others stay',
  'bind-certificate': 'thing and policy are attached, the thing is made where it is gone'
} as const
export type Remedy = keyof typeof REMEDIES

interface Rule {
  kind: FindingKind
  /** The states of the device that the rule is for; any where it is absent. */
  states?: readonly Device['state'][]
  /** The certificate's statuses in AWS IoT that the rule is for; any where it is absent. */
  statuses?: readonly string[]
  registry: Remedy | undefined
  aws: Remedy | undefined
}

/**
 * What each mode of `repair` does, the first rule that fits; undefined: the finding waits for an operator. REVOKED and deleted are final
 * in AWS IoT, so that only the registry can follow. An operator's DISABLED and REVOKED are never taken back because of AWS IoT.
 */
export const REPAIRS: readonly Rule[] = [
  { kind: 'status-differs', states: ['ACTIVE', 'DISABLED'], statuses: ['REVOKED'], registry: 'revoke-device', aws: undefined },
  { kind: 'status-differs', states: ['ACTIVE'], statuses: ['INACTIVE'], registry: 'disable-device', aws: 'sync-certificate' },
  { kind: 'status-differs', states: ['DISABLED'], statuses: ['ACTIVE'], registry: undefined, aws: 'sync-certificate' },
  { kind: 'status-differs', states: ['REVOKED'], statuses: ['ACTIVE', 'INACTIVE'], registry: undefined, aws: 'sync-certificate' },
  { kind: 'certificate-missing', registry: 'revoke-device', aws: undefined },
  { kind: 'other-certificate-active', registry: undefined, aws: 'revoke-former' },
  { kind: 'thing-detached', registry: undefined, aws: 'bind-certificate' },
  { kind: 'policy-detached', registry: undefined, aws: 'bind-certificate' }
]

export interface RepairDeps {
  controlPlane: ControlPlane
  devices: Pick<ReconcileRun['devices'], 'find' | 'revoked'>
  /** Pauses a device that is still at the revision seen, as an operator does. */
  disable: (device: Device, requestId: string) => Promise<Device>
  now: () => number
  deadline: () => AbortSignal
}

/** The remedy of a difference of a device of the product, if its mode has one. */
export function remedyOf ({ kind, aws }: Difference, { state }: Device, { repair }: Pick<Product, 'repair'>): Remedy | undefined {
  if (repair === 'report') return undefined
  const rule = REPAIRS.find(({ kind: of, states, statuses }) =>
    of === kind && (states?.includes(state) ?? true) && (statuses?.includes(aws) ?? true))
  return rule?.[repair]
}

/**
 * Applies a remedy to a device as it was seen; false where it does not fit this device after all: then the finding waits for an operator.
 * Certificates that never were the device's are left alone, and nothing becomes ACTIVE beside another one that is (G1). Throws what the
 * ports throw, and `CvmError` as `operate`.
 */
export async function apply (
  remedy: Remedy, { device, differences }: Inspected, product: Product, requestId: string, deps: RepairDeps
): Promise<boolean> {
  const { certificate, serialNumber } = device
  switch (remedy) {
    case 'disable-device': return (await deps.disable(device, requestId)).state === 'DISABLED'
    case 'revoke-device': return (await deps.devices.revoked(device, { now: deps.now(), requestId })).applied
    case 'sync-certificate': {
      if (!certificate || differences.some(({ kind }) => kind === 'other-certificate-active')) return false
      const { certificateId } = certificate
      await sync(device, certificateId, deps, () => makeAwsAgree(certificateId, device, deps.controlPlane, deps.deadline()))
      return true
    }
    case 'revoke-former': return await revokeFormer(device, differences, deps)
    case 'bind-certificate': {
      if (!certificate) return false
      const { thingName, certificateArn } = certificate
      await deps.controlPlane.ensureThing({ ...thingOf(product, serialNumber), thingName }, deps.deadline())
      await deps.controlPlane.bind(certificateArn, { thingName, policyName: product.policyName }, deps.deadline())
      return true
    }
  }
}

/** Ends those that the device had before, and makes INACTIVE again the one that its renewal is to bring; all others stay. */
async function revokeFormer (device: Device, differences: readonly SeenDifference[], deps: RepairDeps): Promise<boolean> {
  const others = differences.find(({ kind }) => kind === 'other-certificate-active')?.others ?? []
  const next = device.renewal?.certificate?.certificateId
  const isFormer = (id: string) => device.history.some(({ certificateId }) => certificateId === id)
  for (const id of others) {
    if (id === next) await sync(device, id, deps, () => deps.controlPlane.deactivate(id, deps.deadline()))
    else if (isFormer(id)) await sync(device, id, deps, () => deps.controlPlane.revoke(id, deps.deadline()))
  }
  return others.every(id => id === next || isFormer(id))
}

/** Changes a certificate in AWS IoT. Where the device changed meanwhile, what was done here must not stand. */
async function sync (seen: Device, certificateId: string, deps: RepairDeps, change: () => Promise<void>): Promise<void> {
  await change()
  const device = await deps.devices.find(seen.serialNumber)
  if (device?.revision !== seen.revision) await makeAwsAgree(certificateId, device, deps.controlPlane, deps.deadline())
}
