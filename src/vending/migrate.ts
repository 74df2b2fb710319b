import { CvmError } from '../errors.ts'
import { type CertificateFacts, readCertificate } from '../x509/certificate.ts'
import type { ControlPlane } from './control-plane.ts'
import type { Certificate, Device, DeviceState } from './device.ts'
import type { DeviceRegistry } from './device-registry.ts'
import { SERIAL_NUMBER } from './names.ts'
import type { OldDevices, OldRow, Takeover } from './old-devices.ts'
import type { Products } from './product.ts'
import { type TokenHasher, isWeak } from './registration-token.ts'

/** What is to be known of a device that was taken over, or why it was left. The README's table is made of it. */
export const MIGRATION_NOTES = {
  'no-token': 'it has no token, or none that is text; a reset gives it one',
  'weak-token': 'its token could be guessed; a reset gives it a new one',
  'certificate-inactive': 'AWS IoT has its certificate as INACTIVE, so it is `DISABLED`: enable it, or leave it so',
  'certificate-revoked': 'AWS IoT has its certificate as REVOKED, and so is the device, until a reset',
  'certificate-gone': 'AWS IoT has no certificate of it any more, so it is `REVOKED`: an old token alone opens nothing that was closed; until a reset',
  'certificate-of-its-thing': 'its row names no certificate; the only one that its thing has was taken for it',
  'not-on-its-thing': 'its certificate is not attached to the thing of its name',
  'other-certificates': 'its thing has other certificates too (`otherCertificates`): end them in AWS IoT if they are nobody\'s',
  'serial-number-not-usable': 'left: AWS IoT takes no thing of this name',
  'unknown-product': 'left: its `product` is not configured',
  'certificate-ambiguous': 'left: its row names no certificate, and its thing has several; put the ARN of the right one into `certinfo`',
  'certificate-not-usable': 'left: its certificate is neither ACTIVE, INACTIVE nor REVOKED, or cannot be read'
} as const

type MigrationNote = keyof typeof MIGRATION_NOTES

/**
 * What was done with a row: `exists` where a copy found the device there already, `changed` where a request of the device or somebody else
 * came between, `left` where it cannot be taken over, `failed` where AWS could not be asked.
 */
interface Migrated {
  serialNumber: string
  outcome: 'migrated' | 'would-migrate' | 'exists' | 'changed' | 'left' | 'failed'
  state?: DeviceState
  certificateId?: string
  otherCertificates?: string[]
  notes: MigrationNote[]
  /** Of a failure. */
  code?: string
}

/** A page of results; there is more while there is a cursor. */
export interface MigrationPage { results: Migrated[], nextCursor?: string }

export interface MigrationWish {
  /** Another table, whose rows are copied. */
  table?: string | undefined
  cursor?: string | undefined
  /** Most rows to look into. */
  limit: number
  dryRun: boolean
}

export interface MigrateDeps {
  oldDevices: OldDevices
  registry: Pick<DeviceRegistry, 'find'>
  controlPlane: Pick<ControlPlane, 'describe' | 'certificatesOf'>
  hashToken: TokenHasher
  products: Products
  now: () => number
  deadline: () => AbortSignal
}

/** Few enough at once to leave the table and AWS IoT to the vends; a page begins nothing after this time. */
const AT_ONCE = 8
const PAGE_MS = 8_000

/**
 * Takes over a page of the old services' devices. AWS IoT is only asked, and nothing in it changes; every row is written by itself, or not
 * at all. The same again finds what is left. Raises `CvmError` where the page cannot be read.
 */
export async function migrate (
  wish: MigrationWish, author: { requestId: string, actor: string }, deps: MigrateDeps
): Promise<MigrationPage> {
  const { rows, ...next } = await deps.oldDevices.page(wish)
  const until = deps.now() + PAGE_MS
  const results: Migrated[] = []
  while (results.length < rows.length) {
    if (deps.now() >= until) return { results, nextCursor: rows[results.length - 1]?.cursor ?? '' }
    const some = rows.slice(results.length, results.length + AT_ONCE)
    results.push(...await Promise.all(some.map(row => migrateOne(row, wish, author, deps))))
  }
  return { results, ...next }
}

async function migrateOne (
  row: OldRow, wish: MigrationWish, author: { requestId: string, actor: string }, deps: MigrateDeps
): Promise<Migrated> {
  const { serialNumber } = row.device
  try {
    if (row.unreadable) throw row.unreadable
    const { takeover, ...told } = await judge(row.device, deps)
    if (!takeover) return { serialNumber, outcome: 'left', ...told }
    const { state, certificate } = takeover
    const facts = { serialNumber, state, ...(certificate && { certificateId: certificate.certificateId }), ...told }
    if (wish.dryRun) return { ...facts, outcome: wish.table !== undefined && await deps.registry.find(serialNumber) ? 'exists' : 'would-migrate' }
    const { applied, device } = await deps.oldDevices.takeOver(row, takeover, { ...author, now: deps.now() }, wish.table)
    // A write that is repeated because its answer was lost finds what it wrote.
    const isDone = applied || device?.history.some(({ event, requestId }) => event === 'migrated' && requestId === author.requestId)
    if (isDone) return { ...facts, outcome: 'migrated' }
    return { serialNumber, outcome: wish.table === undefined ? 'changed' : 'exists', notes: [], ...(device && { state: device.state }) }
  } catch (cause) {
    if (!(cause instanceof CvmError)) throw cause
    return { serialNumber, outcome: 'failed', notes: [], code: cause.code }
  }
}

interface Judgement { takeover?: Takeover, notes: MigrationNote[], otherCertificates?: string[] }

/** What the device is to be here. */
async function judge (device: Device, deps: MigrateDeps): Promise<Judgement> {
  const { serialNumber, legacyToken } = device
  if (!new RegExp(SERIAL_NUMBER).test(serialNumber)) return { notes: ['serial-number-not-usable'] }
  if (!deps.products.has(device.product)) return { notes: ['unknown-product'] }
  const tokenHash = legacyToken ? deps.hashToken(serialNumber, legacyToken) : undefined
  const notes: MigrationNote[] = legacyToken ? isWeak(legacyToken) ? ['weak-token'] : [] : ['no-token']
  if (device.state === 'REGISTERED') return { takeover: { state: 'REGISTERED', tokenHash, certificate: undefined }, notes }
  const { state, stateBefore, certificate, notes: more, otherCertificates } = await judgeVended(device, deps)
  const told = { notes: [...notes, ...more], ...(otherCertificates && otherCertificates.length > 0 && { otherCertificates }) }
  return state ? { takeover: { state, ...(stateBefore && { stateBefore }), tokenHash, certificate }, ...told } : told
}

interface Verdict extends Omit<Judgement, 'takeover'> { state?: DeviceState, stateBefore?: DeviceState, certificate?: Certificate }

/** AWS IoT is the truth about a certificate. The old services called a thing by the serial number alone. */
async function judgeVended (device: Device, { controlPlane, deadline }: MigrateDeps): Promise<Verdict> {
  const { serialNumber, legacyCertificateId: named } = device
  const ofThing = await controlPlane.certificatesOf(serialNumber, deadline())
  if (named === undefined && ofThing.length > 1) return { notes: ['certificate-ambiguous'], otherCertificates: ofThing }
  const certificateId = named ?? ofThing[0]
  const otherCertificates = ofThing.filter(id => id !== certificateId)
  const notes: MigrationNote[] = [
    ...named === undefined && certificateId !== undefined ? ['certificate-of-its-thing' as const] : [],
    ...otherCertificates.length > 0 ? ['other-certificates' as const] : []
  ]
  const known = certificateId === undefined ? undefined : await controlPlane.describe(certificateId, deadline())
  if (!known || certificateId === undefined) return { state: 'REVOKED', notes: ['certificate-gone', ...notes], otherCertificates }
  const facts = factsOf(known.certificatePem)
  const outcome = OUTCOMES[known.status]
  if (!facts || !outcome) return { notes: ['certificate-not-usable', ...notes], otherCertificates }
  const certificate: Certificate = {
    certificateId,
    certificateArn: known.certificateArn,
    certificatePem: known.certificatePem,
    publicKeyFingerprint: facts.publicKeyFingerprint,
    // One of a CA of the customer's was made elsewhere, and must not be deleted when it ends.
    ...known.caCertificateId === undefined ? { way: 'keys' } : { way: 'registered', caCertificateId: known.caCertificateId },
    thingName: serialNumber,
    issuedAt: facts.notBefore,
    notAfter: facts.notAfter
  }
  const { note, ...becomes } = outcome
  const detached = ofThing.includes(certificateId) ? [] : ['not-on-its-thing' as const]
  return { ...becomes, certificate, notes: [...note ? [note] : [], ...detached, ...notes], otherCertificates }
}

/** What a device becomes by the state of its certificate. */
const OUTCOMES: Readonly<Record<string, { state: DeviceState, stateBefore?: DeviceState, note?: MigrationNote } | undefined>> = {
  ACTIVE: { state: 'ACTIVE' },
  INACTIVE: { state: 'DISABLED', stateBefore: 'ACTIVE', note: 'certificate-inactive' },
  REVOKED: { state: 'REVOKED', note: 'certificate-revoked' }
}

function factsOf (pem: string): CertificateFacts | undefined {
  try {
    return readCertificate(pem)
  } catch {
    return undefined
  }
}
