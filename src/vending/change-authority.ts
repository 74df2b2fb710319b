import { CvmError } from '../errors.ts'
import type { Authority, CaCertificate } from './authority.ts'
import { checkCa } from './authority-rules.ts'
import { type GivenSettings, differences, namesOf, settingsOf, withGiven } from './authority-settings.ts'
import type { AuthorityDeps } from './register-authority.ts'
import { showAuthority } from './show-authority.ts'

/** What an operator wants changed; what is absent stays. */
export type AuthorityChange = GivenSettings & Partial<Pick<CaCertificate, 'status' | 'autoRegistration'>>

/** How often settings may change under an operator's hands before they are told to try again. */
const TRIES = 5

/** How far the certificates of an authority are looked through before it is deleted. */
const PAGE_SIZE = 250
const MOST_PAGES = 4

/**
 * Changes an authority: its settings first, so that it does not become ACTIVE under those it had; then AWS IoT. What is so already
 * stays untouched, and a deactivation alone is done without the registry. With a `revision` (If-Match), only while its settings are at
 * that one; what AWS IoT holds knows no such condition. Raises `CvmError`: `authority-not-found`, `authority-rejected`, `unknown-product`,
 * `precondition-failed`, and what the ports raise.
 */
export async function changeAuthority (
  caCertificateId: string, change: AuthorityChange, deps: AuthorityDeps, revision?: number
): Promise<{ authority: Authority, changed: string[] }> {
  const { authorities } = deps
  const ca = await authorities.describe(caCertificateId, deps.deadline())
  if (!ca) throw new CvmError('authority-not-found')
  const changed = [...await changeSettings(ca, change, deps, revision), ...await changeInAws(ca, change, deps)]
  if (changed.length > 0) deps.forget()
  return { authority: await showAuthority(caCertificateId, deps), changed }
}

/**
 * Deletes an INACTIVE authority that no certificate needs any more; with `force` also one that some do: they go on working, but AWS IoT
 * will not know of whom they are. Raises `CvmError`: `authority-not-found`, `authority-active`, `authority-in-use`, what the ports raise.
 */
export async function deleteAuthority (caCertificateId: string, { force }: { force: boolean }, deps: AuthorityDeps): Promise<void> {
  const { authorities, settings } = deps
  const ca = await authorities.describe(caCertificateId, deps.deadline())
  if (ca?.status === 'ACTIVE') throw new CvmError('authority-active')
  if (ca && !force && await isInUse(caCertificateId, deps)) throw new CvmError('authority-in-use')
  if (ca) await authorities.delete(caCertificateId, deps.deadline())
  deps.forget()
  // Also where it is gone already: a crash may have left them.
  await settings.reset(caCertificateId)
  if (!ca) throw new CvmError('authority-not-found')
}

async function changeSettings (ca: CaCertificate, change: AuthorityChange, deps: AuthorityDeps, revision?: number): Promise<string[]> {
  if (namesOf(change).length === 0 && revision === undefined) return []
  const { caCertificateId, caCertificatePem } = ca
  for (let tries = 0; tries < TRIES; tries++) {
    const kept = await settingsOf(caCertificateId, deps.settings)
    if (revision !== undefined && kept.revision !== revision) throw new CvmError('precondition-failed')
    const wanted = withGiven(kept, change, () => checkCa(caCertificatePem, deps.now()), deps)
    const different = differences(kept, wanted)
    if (different.length === 0 && revision === undefined) return []
    const { applied, settings } = await deps.settings.put(caCertificateId, wanted, kept.revision)
    // A write that is repeated because its answer was lost finds its own settings.
    if (applied || (settings.revision === kept.revision + 1 && differences(settings, wanted).length === 0)) return different
  }
  throw new CvmError('precondition-failed', { detail: 'the settings keep changing' })
}

async function changeInAws (ca: CaCertificate, { status, autoRegistration }: AuthorityChange, deps: AuthorityDeps): Promise<string[]> {
  const change = {
    ...status !== undefined && status !== ca.status && { status },
    ...autoRegistration !== undefined && autoRegistration !== ca.autoRegistration && { autoRegistration }
  }
  if (Object.keys(change).length === 0) return []
  if (!await deps.authorities.update(ca.caCertificateId, change, deps.deadline())) throw new CvmError('authority-not-found')
  return Object.entries(change).map(([name, value]) => `${name}=${value}`)
}

/** A certificate that is REVOKED needs no authority; what is beyond the bound is taken for one that does. */
async function isInUse (caCertificateId: string, { authorities, deadline }: AuthorityDeps): Promise<boolean> {
  let cursor: string | undefined
  for (let pages = 0; pages < MOST_PAGES; pages++) {
    const page = await authorities.certificatesOf(caCertificateId, { limit: PAGE_SIZE, ...cursor !== undefined && { cursor } }, deadline())
    if (page.items.some(({ status }) => status !== 'REVOKED')) return true
    cursor = page.nextCursor
    if (cursor === undefined) return false
  }
  return true
}
