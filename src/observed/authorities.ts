import { AuthorityDirectory } from '../vending/authority-directory.ts'
import type { AuditEvent } from '../vending/audit.ts'
import type { Authority } from '../vending/authority.ts'
import type { PageRequest } from '../vending/authority-registry.ts'
import { type AuthorityChange, changeAuthority, deleteAuthority } from '../vending/change-authority.ts'
import { type NewAuthority, registerAuthority } from '../vending/register-authority.ts'
import { RevocationLists } from '../vending/revocation.ts'
import { certificatesOf, listAuthorities, showAuthority } from '../vending/show-authority.ts'
import { truster } from '../vending/trust.ts'
import { isRefused, toFailure } from './outcome.ts'
import type { Parts } from './parts.ts'

/** Who asks, and in which request. */
export interface AuthorityAuthor { requestId: string, actor: string, role: string }

/** How long a change that is made by another replica, or past us, may go unnoticed. */
const REMEMBERED_MS = 5_000

/** Authorities: what operators do to them, audited; and the judgement of certificates by them. */
export function observedAuthorities (parts: Parts) {
  const { config, authorities, authoritySettings: settings, products } = parts
  const deadline = () => AbortSignal.timeout(config.VEND_DEADLINE_MS)
  const directory = new AuthorityDirectory({ registry: authorities, settings, now: Date.now, deadline, maxAgeMs: REMEMBERED_MS })
  const lists = revocationLists(parts)
  const hasCrlFolder = config.CRL_DIR !== ''
  const deps = { authorities, settings, products, hasCrlFolder, now: Date.now, deadline, forget: () => directory.forget() }
  return {
    trust: truster({ directory, checkRevocation: (...question) => lists.check(...question), now: Date.now }),
    authorities: {
      registrationCode: () => authorities.registrationCode(deadline()),
      list: (page: PageRequest) => listAuthorities(page, deps),
      show: (caCertificateId: string) => showAuthority(caCertificateId, deps),
      certificatesOf: (caCertificateId: string, page: PageRequest) => certificatesOf(caCertificateId, page, deps),
      register: (wish: NewAuthority, by: AuthorityAuthor) => audited(parts, 'authority-registered', by, async () => {
        const { outcome, authority } = await registerAuthority(wish, deps)
        return { result: { outcome, authority }, isDone: outcome === 'registered', facts: { caCertificateId: authority.caCertificateId, changed: stateOf(authority) } }
      }),
      change: (caCertificateId: string, change: AuthorityChange, by: AuthorityAuthor, revision?: number) =>
        audited(parts, 'authority-changed', by, async () => {
          const { authority, changed } = await changeAuthority(caCertificateId, change, deps, revision)
          return { result: authority, isDone: changed.length > 0, facts: { caCertificateId, changed: changed.join(', ') || undefined } }
        }, caCertificateId),
      remove: (caCertificateId: string, force: boolean, by: AuthorityAuthor) => audited(parts, 'authority-deleted', by, async () => {
        await deleteAuthority(caCertificateId, { force }, deps)
        return { result: undefined, isDone: true, facts: { caCertificateId, reason: force ? 'force' : undefined } }
      }, caCertificateId)
    }
  }
}

interface Done<T> {
  result: T
  isDone: boolean
  facts: { caCertificateId: string, changed?: string | undefined, reason?: string | undefined }
}

/** Tells what was done, or was not, about which authority; `about` where that is known beforehand. */
async function audited<T> (
  { audit }: Parts, event: AuditEvent, by: AuthorityAuthor, work: () => Promise<Done<T>>, about?: string
): Promise<T> {
  try {
    const { result, isDone, facts } = await work()
    audit({ event, outcome: isDone ? 'done' : 'unchanged', ...by, ...facts })
    return result
  } catch (cause) {
    const isRefusal = isRefused(cause)
    const failure = { code: toFailure(cause).code, caCertificateId: about, ...isRefusal && { reason: cause.reason } }
    audit({ event, outcome: isRefusal ? 'refused' : 'failed', ...by, ...failure }, isRefusal ? cause : undefined)
    throw cause
  }
}

function stateOf ({ status, autoRegistration }: Authority): string {
  return `status=${status}, autoRegistration=${autoRegistration}`
}

function revocationLists ({ config, crlSource, metrics, log }: Parts): RevocationLists {
  return new RevocationLists({
    source: crlSource,
    now: Date.now,
    maxAgeMs: config.CRL_MAX_AGE_MS,
    onFetch (result, where) {
      metrics.crlFetches.inc({ result })
      if (result !== 'fetched' && result !== 'unchanged') log.warn({ result, where }, 'a CRL could not be had')
    },
    onNextUpdate: at => metrics.crlNextUpdate.set(at / 1000),
    onUnavailable (then, reason, caCertificateId) {
      metrics.crlUnavailable.inc({ then })
      log.warn({ then, reason, caCertificateId }, 'no CRL says whether a certificate is revoked')
    }
  })
}
