import { CvmError } from '../errors.ts'
import { type Certificate, readCertificates } from '../x509/strict-certificate.ts'
import type { Authority, CaCertificate } from './authority.ts'
import type { AuthorityRegistry, AuthoritySettingsStore, KeptSettings } from './authority-registry.ts'

/** An authority with its certificates read. */
export interface KnownAuthority {
  authority: Authority
  certificate: Certificate
  intermediates: readonly Certificate[]
}

interface DirectoryDeps {
  registry: Pick<AuthorityRegistry, 'list' | 'describe'>
  settings: Pick<AuthoritySettingsStore, 'find'>
  now: () => number
  /** For one look at all of them. */
  deadline: () => AbortSignal
  /** How long a change that is made elsewhere may go unnoticed. */
  maxAgeMs: number
}

/** What AWS IoT lists at once, and how many of those are looked at, ACTIVE ones first: any other must be asked for by its id. */
const PAGE_SIZE = 250
const MOST = 100

/**
 * The account's authorities, remembered for some seconds. One look at a time, shared by all who wait for it. One whose certificate
 * cannot be read strictly is not in it: nothing could be verified to it.
 */
export class AuthorityDirectory {
  readonly #deps: DirectoryDeps
  #looked: { at: number, all: Promise<readonly KnownAuthority[]> } | undefined
  /** What never changes about a CA need not be asked for again. */
  readonly #described = new Map<string, CaCertificate>()

  constructor (deps: DirectoryDeps) {
    this.#deps = deps
  }

  /** The authorities, ACTIVE ones first. Raises what the ports raise, and `deadline-exceeded`. */
  async list (signal: AbortSignal): Promise<readonly KnownAuthority[]> {
    const { now, maxAgeMs } = this.#deps
    if (!this.#looked || this.#looked.at + maxAgeMs <= now()) {
      const looked = { at: now(), all: this.#look() }
      this.#looked = looked
      looked.all.catch(() => { if (this.#looked === looked) this.#looked = undefined })
    }
    return untilAborted(this.#looked.all, signal)
  }

  /** The authority of that id; undefined where there is none, or none whose certificate can be read. */
  async find (caCertificateId: string, signal: AbortSignal): Promise<KnownAuthority | undefined> {
    const known = (await this.list(signal)).find(({ authority }) => authority.caCertificateId === caCertificateId)
    if (known) return known
    const ca = await this.#deps.registry.describe(caCertificateId, signal)
    return ca && read(ca, await this.#deps.settings.find([caCertificateId]))
  }

  /** Looks anew at the next question: something was changed here. */
  forget (): void {
    this.#looked = undefined
  }

  async #look (): Promise<readonly KnownAuthority[]> {
    const { registry, settings, deadline } = this.#deps
    const signal = deadline()
    const { items } = await registry.list({ limit: PAGE_SIZE }, signal)
    const listed = items.toSorted((a, b) => Number(b.status === 'ACTIVE') - Number(a.status === 'ACTIVE')).slice(0, MOST)
    const kept = await settings.find(listed.map(({ caCertificateId }) => caCertificateId))
    const found: KnownAuthority[] = []
    for (const { caCertificateId, status } of listed) {
      const ca = this.#described.get(caCertificateId) ?? await registry.describe(caCertificateId, signal)
      if (!ca) continue
      this.#described.set(caCertificateId, ca)
      const known = read({ ...ca, status }, kept)
      if (known) found.push(known)
    }
    for (const id of this.#described.keys()) if (!kept.has(id)) this.#described.delete(id)
    return found
  }
}

function read (ca: CaCertificate, settings: ReadonlyMap<string, KeptSettings>): KnownAuthority | undefined {
  const kept = settings.get(ca.caCertificateId)
  if (!kept) throw new Error('the settings of each authority are found')
  try {
    const [certificate, ...others] = readCertificates(ca.caCertificatePem)
    if (!certificate || others.length > 0) return undefined
    const intermediates = kept.intermediatesPem === undefined ? [] : readCertificates(kept.intermediatesPem)
    return { authority: { ...ca, ...kept }, certificate, intermediates }
  } catch (cause) {
    if (cause instanceof CvmError && cause.code === 'certificate-rejected') return undefined
    throw cause
  }
}

/** Waits for what others wait for as well, as long as this one may. */
export function untilAborted<T> (shared: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    const leave = () => reject(new CvmError('deadline-exceeded', { retryAfterMs: 2_000 }))
    if (signal.aborted) return leave()
    signal.addEventListener('abort', leave, { once: true })
    shared.then(resolve, reject).finally(() => signal.removeEventListener('abort', leave))
  })
}
