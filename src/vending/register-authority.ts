import { CvmError } from '../errors.ts'
import { type Authority, type AuthoritySettings, DEFAULT_SETTINGS } from './authority.ts'
import type { AuthorityRegistry, AuthoritySettingsStore, NewCaCertificate } from './authority-registry.ts'
import { checkCa, checkVerification, checkVerificationWanted, pemOf } from './authority-rules.ts'
import { type GivenSettings, differences, settingsOf, withGiven } from './authority-settings.ts'
import type { Products } from './product.ts'
import { showAuthority } from './show-authority.ts'

/** A CA that an operator wants registered, and its settings where they differ from the defaults. */
export type NewAuthority = NewCaCertificate & GivenSettings

export interface AuthorityDeps {
  authorities: AuthorityRegistry
  settings: AuthoritySettingsStore
  products: Products
  /** Whether CRLs may be files. */
  hasCrlFolder: boolean
  now: () => number
  /** For one call to AWS IoT, with all that it waits for. */
  deadline: () => AbortSignal
  /** Something was changed: what is remembered of authorities is out of date. */
  forget: () => void
}

/**
 * Registers a CA. What AWS IoT would refuse is refused here first, with a reason. The settings are written before AWS IoT knows the CA,
 * so that nothing is ever judged by others; a repetition finishes what a crash cut off, and else changes nothing. Raises `CvmError`:
 * `authority-rejected`, `unknown-product`, `authority-exists` where it is registered in another way, `authority-limit-exceeded`,
 * `precondition-failed` where somebody else registers it at this moment, and what the ports raise.
 */
export async function registerAuthority (
  wish: NewAuthority, deps: AuthorityDeps
): Promise<{ outcome: 'registered' | 'unchanged', authority: Authority }> {
  const { authorities, now, deadline, forget } = deps
  const { verificationCertificatePem, mode, status, autoRegistration } = wish
  const ca = checkCa(wish.caCertificatePem, now())
  const settings = withGiven(DEFAULT_SETTINGS, wish, () => ca, deps)
  const { certificateId: caCertificateId } = ca
  let outcome: 'registered' | 'unchanged' = 'unchanged'
  if (!await authorities.describe(caCertificateId, deadline())) {
    checkVerificationWanted(mode, verificationCertificatePem)
    const verify = async (pem: string) => pemOf(checkVerification(pem, ca, await authorities.registrationCode(deadline()), now()))
    const proof = verificationCertificatePem !== undefined && { verificationCertificatePem: await verify(verificationCertificatePem) }
    await keepSettings(caCertificateId, settings, deps)
    const isNew = await authorities.register({ caCertificatePem: pemOf(ca), ...proof, mode, status, autoRegistration }, deadline())
    forget()
    if (isNew) outcome = 'registered'
  }
  // Also where it was registered just now: somebody else may have been at it with other settings.
  const authority = await showAuthority(caCertificateId, deps)
  const inAws = ([['mode', mode], ['status', status], ['autoRegistration', autoRegistration]] as const)
    .filter(([name, wanted]) => authority[name] !== wanted).map(([name]) => name)
  const different = [...inAws, ...differences(authority, settings)]
  if (different.length > 0) throw new CvmError('authority-exists', { detail: `It differs in ${different.join(', ')}.` })
  return { outcome, authority }
}

async function keepSettings (caCertificateId: string, wanted: AuthoritySettings, { settings: store }: AuthorityDeps): Promise<void> {
  const kept = await settingsOf(caCertificateId, store)
  if (differences(kept, wanted).length === 0) return
  const { applied, settings } = await store.put(caCertificateId, wanted, kept.revision)
  // A write that is repeated because its answer was lost finds its own settings.
  if (!applied && differences(settings, wanted).length > 0) throw new CvmError('precondition-failed', { detail: 'somebody else is registering this CA' })
}
