import type { ControlPlane, DescribedCertificate, ListedCertificate } from './control-plane.ts'
import type { Device } from './device.ts'
import type { DriftFindings, Finding, SeenDifference } from './drift-findings.ts'
import { type Products, thingOf } from './product.ts'
import { CLOCK_SKEW_MS } from './reconcile-run.ts'
import type { UnfinishedDevices } from './unfinished-devices.ts'
import { ignoreUnreadable } from './unreadable-device.ts'

/** The state of a certificate in AWS IoT that goes with a device's state; other states go with any. */
export const CERTIFICATE_STATUS: Readonly<Partial<Record<Device['state'], string>>> = { ACTIVE: 'ACTIVE', REVOKED: 'REVOKED', DISABLED: 'INACTIVE' }

/** Most certificates of one thing that are looked at besides the device's own. */
const MOST_OTHERS = 10

/** What a look needs. */
export interface DriftDeps {
  devices: Pick<UnfinishedDevices, 'find'>
  controlPlane: Pick<ControlPlane, 'describe' | 'certificatesOf' | 'policiesOf'>
  findings: Pick<DriftFindings, 'report' | 'end' | 'of'>
  products: Products
  now: () => number
  deadline: () => AbortSignal
}

/** A device at rest and how AWS IoT differs about it. */
export interface Inspected { device: Device, differences: SeenDifference[] }

/** What AWS IoT says of a device. */
interface Seen {
  certificate: DescribedCertificate | undefined
  /** Absent where the product is not configured any more, and so no name of a thing is known. */
  bound?: { thingName: string, certificateIds: string[], policies: string[], activeOthers: string[] }
}

/**
 * Looks at a device in AWS IoT: its certificate, its thing and what else that has, its policies. Undefined where nothing can be said: there
 * is no such device, its row cannot be read, or something is being done to it. The service writes down what it does to a certificate
 * before it does it, so that a row that is at rest before the look and unchanged after it shows a true difference. Throws what the ports
 * throw.
 */
export async function inspect (serialNumber: string, deps: DriftDeps): Promise<Inspected | undefined> {
  const find = () => deps.devices.find(serialNumber).catch(ignoreUnreadable)
  const device = await find()
  if (!device || !isAtRest(device, deps.now())) return undefined
  const seen = await look(device, deps)
  if ((await find())?.revision !== device.revision) return undefined
  return { device, differences: differencesOf(device, seen, deps.products) }
}

/** The differences that are new or have changed, and all those that no operator has accepted. */
export interface Kept { fresh: SeenDifference[], open: SeenDifference[] }

/** Keeps what an inspection found and, where the device `hasFindings`, ends what was not found any more. Throws what the port throws. */
export async function keep ({ device, differences }: Inspected, hasFindings: boolean, { findings, now }: DriftDeps): Promise<Kept> {
  const fresh: SeenDifference[] = []
  for (const difference of differences) {
    if (await findings.report(difference, now()) !== 'known') fresh.push(difference)
  }
  // Most devices have none: five reads for each would cost more than all else.
  const known = hasFindings || differences.length > 0 ? await findings.of(device.serialNumber) : []
  const isOver = ({ kind }: Finding) => !differences.some(difference => difference.kind === kind)
  for (const { kind } of known.filter(isOver)) await findings.end(device.serialNumber, kind, now())
  const accepted = known.filter(finding => finding.accepted).map(({ kind }) => kind)
  return { fresh, open: differences.filter(({ kind }) => !accepted.includes(kind)) }
}

/** Whether the registry and AWS IoT agree about a listed certificate, as far as a first look can tell. */
export function agrees (device: Device, { certificateId, status }: Pick<ListedCertificate, 'certificateId' | 'status'>): boolean {
  const expected = CERTIFICATE_STATUS[device.state]
  // In the middle of a swap AWS IoT may say anything of the two.
  return !expected || device.renewal?.phase === 'swapping' || device.certificate?.certificateId !== certificateId || expected === status
}

/** Nothing is under way, and what was last done has had time to show in AWS IoT. */
function isAtRest (device: Device, now: number): boolean {
  const { state, claim, pending, renewal, history } = device
  const isUnderWay = ['ISSUING', 'ISSUED'].includes(state) || pending !== undefined || renewal?.phase === 'swapping' ||
    (claim?.claimExpiresAt ?? 0) + CLOCK_SKEW_MS > now
  return !isUnderWay && (history.at(-1)?.at ?? 0) + CLOCK_SKEW_MS <= now
}

async function look (device: Device, { controlPlane, products, deadline }: DriftDeps): Promise<Seen> {
  const { certificate: own } = device
  const certificate = own && await controlPlane.describe(own.certificateId, deadline())
  const product = products.get(device.product)
  const thingName = own?.thingName ?? (product && thingOf(product, device.serialNumber).thingName)
  if (thingName === undefined) return { certificate }
  const certificateIds = await controlPlane.certificatesOf(thingName, deadline())
  // What is being ended is reconcile's.
  const known = [own?.certificateId, device.legacyCertificateId, ...device.retiring]
  const activeOthers: string[] = []
  for (const other of certificateIds.filter(id => !known.includes(id)).sort().slice(0, MOST_OTHERS)) {
    if ((await controlPlane.describe(other, deadline()))?.status === 'ACTIVE') activeOthers.push(other)
  }
  const policies = certificate ? await controlPlane.policiesOf(certificate.certificateArn, deadline()) : []
  return { certificate, bound: { thingName, certificateIds, policies, activeOthers } }
}

function differencesOf (device: Device, { certificate: known, bound }: Seen, products: Products): SeenDifference[] {
  const { serialNumber, product, state, certificate } = device
  const { certificateId } = certificate ?? {}
  const about = { serialNumber, product, ...(certificateId && { certificateId }) }
  const expected = CERTIFICATE_STATUS[state]
  const found: SeenDifference[] = []
  if (certificate && expected) {
    // What was REVOKED may have been deleted.
    if (!known && state !== 'REVOKED') found.push({ ...about, kind: 'certificate-missing', registry: state, aws: 'that there is no such certificate' })
    if (known && known.status !== expected) found.push({ ...about, kind: 'status-differs', registry: state, aws: known.status })
  }
  if (!bound) return found
  const { activeOthers: [first], activeOthers } = bound
  if (first !== undefined) {
    found.push({
      ...about, kind: 'other-certificate-active', certificateId: first, others: activeOthers, registry: state, aws: `that ${bound.thingName} also has ${activeOthers.join(', ')}, ACTIVE`
    })
  }
  if (!certificateId || !known || !['ACTIVE', 'DISABLED'].includes(state)) return found
  if (!bound.certificateIds.includes(certificateId)) {
    found.push({ ...about, kind: 'thing-detached', registry: `thing ${bound.thingName}`, aws: 'that the thing is gone or has not the certificate' })
  }
  const policyName = products.get(product)?.policyName
  if (policyName !== undefined && !bound.policies.includes(policyName)) {
    found.push({ ...about, kind: 'policy-detached', registry: `policy ${policyName}`, aws: 'that the certificate has not the policy' })
  }
  return found
}
