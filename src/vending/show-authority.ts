import { CvmError } from '../errors.ts'
import type { Authority } from './authority.ts'
import type { AuthorityRegistry, AuthoritySettingsStore, AwsPage, CertificateOfAuthority, PageRequest } from './authority-registry.ts'
import { settingsOf } from './authority-settings.ts'

export interface ShowDeps {
  authorities: Pick<AuthorityRegistry, 'describe' | 'list' | 'certificatesOf'>
  settings: Pick<AuthoritySettingsStore, 'find'>
  deadline: () => AbortSignal
}

/** How many authorities of a page are asked for at once, so that a page does not fill the queue before AWS IoT. */
const AT_ONCE = 4

/** The authority as it stands. Raises `CvmError('authority-not-found')`, and what the ports raise. */
export async function showAuthority (caCertificateId: string, { authorities, settings, deadline }: ShowDeps): Promise<Authority> {
  const [ca, kept] = await Promise.all([authorities.describe(caCertificateId, deadline()), settingsOf(caCertificateId, settings)])
  if (!ca) throw new CvmError('authority-not-found')
  return { ...ca, ...kept }
}

/** A page of authorities, each as it stands; one that is deleted meanwhile is left out. */
export async function listAuthorities (page: PageRequest, { authorities, settings, deadline }: ShowDeps): Promise<AwsPage<Authority>> {
  const signal = deadline()
  const { items, ...next } = await authorities.list(page, signal)
  const kept = await settings.find(items.map(({ caCertificateId }) => caCertificateId))
  const found: (Authority | undefined)[] = []
  const waiting = [...items.entries()]
  await Promise.all(Array.from({ length: AT_ONCE }, async () => {
    for (let next = waiting.shift(); next; next = waiting.shift()) {
      const [place, { caCertificateId }] = next
      const [ca, own] = [await authorities.describe(caCertificateId, signal), kept.get(caCertificateId)]
      found[place] = ca && own && { ...ca, ...own }
    }
  }))
  return { items: found.filter(authority => authority !== undefined), ...next }
}

/** A page of the certificates that AWS IoT knows as the authority's. Raises `CvmError('authority-not-found')`, and what the ports raise. */
export async function certificatesOf (
  caCertificateId: string, page: PageRequest, { authorities, deadline }: ShowDeps
): Promise<AwsPage<CertificateOfAuthority>> {
  const found = await authorities.certificatesOf(caCertificateId, page, deadline())
  // AWS IoT lists nothing for a CA that it does not know; only then is it worth asking whether it does.
  if (found.items.length === 0 && !await authorities.describe(caCertificateId, deadline())) throw new CvmError('authority-not-found')
  return found
}
