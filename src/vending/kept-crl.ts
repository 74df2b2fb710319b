import { type Crl, readCrl } from '../x509/crl.ts'
import { CrlError, type CrlRefusal } from '../x509/refusals.ts'
import type { Certificate } from '../x509/strict-certificate.ts'
import { CrlFetchError, type CrlFetchFault, type CrlSource, type Validators } from './crl-source.ts'

/** How a fetch of a list ended: `unchanged` where the one that is here is still the newest. */
export type FetchResult = 'fetched' | 'unchanged' | CrlFetchFault | CrlRefusal

/** Why a list says nothing about a certificate now. */
export interface CrlFault { reason: CrlFetchFault | CrlRefusal | 'crl-stale' | 'crl-not-yet-valid', detail: string }

export interface KeptCrlDeps {
  source: CrlSource
  now: () => number
  /** After so long a newer list is looked for, also before the old one says that there will be one. */
  maxAgeMs: number
  /** `where` is a host or the name of a file, never a whole address, which may hold a secret. */
  onFetch: (result: FetchResult, where: string) => void
}

/** A source that failed, or whose newest list has ended, is asked again no sooner. */
export const RETRY_MS = 10_000

/** How far the clock of a list's issuer may be ahead. */
const CLOCK_SKEW_MS = 300_000

interface Read { issuer: Certificate, list: Crl | CrlError }

/** What is known from one source: the list that was fetched last, as each issuer it was asked for would have signed it. */
export class KeptCrl {
  readonly #name: string
  readonly #deps: KeptCrlDeps
  #bytes: Buffer | undefined
  #validators: Validators = {}
  #reads = new Map<string, Read>()
  #succeededAt = -Infinity
  #triedAt = -Infinity
  #fault: CrlFetchError | undefined
  #fetching: Promise<void> | undefined

  constructor (name: string, deps: KeptCrlDeps) {
    this.#name = name
    this.#deps = deps
  }

  /** When the first of its lists ends; undefined where none says so. */
  get nextUpdate (): number | undefined {
    const ends = this.#lists().flatMap(({ nextUpdate }) => nextUpdate ?? [])
    return ends.length > 0 ? Math.min(...ends) : undefined
  }

  /** Looks for a newer list where it is time. One fetch at a time, for all who wait; one that fails leaves what is here. */
  async refresh (): Promise<void> {
    const { now, maxAgeMs } = this.#deps
    const isDue = this.#succeededAt + maxAgeMs <= now() || (this.nextUpdate ?? Infinity) < now()
    if (isDue && !this.#fetching && this.#triedAt + RETRY_MS <= now()) {
      this.#triedAt = now()
      this.#fetching = this.#fetch().finally(() => { this.#fetching = undefined })
    }
    await this.#fetching
  }

  /** The list that this issuer signed, also after its end; else why there is none. */
  listOf (issuer: Certificate): Crl | CrlFault {
    const read = this.#reads.get(issuer.certificateId) ?? this.#readFor(issuer)
    if (read && !(read.list instanceof CrlError)) return read.list
    const { reason, message: detail } = (read?.list ?? this.#fault) as CrlError | CrlFetchError
    return { reason, detail }
  }

  /** Why a list is not in force; undefined where it is. */
  faultOf ({ thisUpdate, nextUpdate }: Crl): CrlFault | undefined {
    const now = this.#deps.now()
    const end = nextUpdate ?? this.#succeededAt + this.#deps.maxAgeMs
    if (thisUpdate > now + CLOCK_SKEW_MS) return { reason: 'crl-not-yet-valid', detail: `It is of ${new Date(thisUpdate).toISOString()}.` }
    if (now <= end) return undefined
    const why = this.#fault ? ` ${this.#fault.message}` : ''
    return { reason: 'crl-stale', detail: `It ended at ${new Date(end).toISOString()}, and there is no newer one.${why}` }
  }

  async #fetch (): Promise<void> {
    const { source, now } = this.#deps
    const where = URL.canParse(this.#name) ? new URL(this.#name).host : this.#name
    const onFetch = (result: FetchResult): void => this.#deps.onFetch(result, where)
    try {
      const fetched = await source.fetch(this.#name, this.#validators)
      this.#succeededAt = now()
      this.#fault = undefined
      if (!fetched) return onFetch('unchanged')
      this.#bytes = fetched.bytes
      this.#validators = fetched.validators
      onFetch(this.#replace(fetched.bytes))
    } catch (cause) {
      if (!(cause instanceof CrlFetchError)) throw cause
      this.#fault = cause
      onFetch(cause.reason)
    }
  }

  /** Neither an older list, which whoever is on the way may bring back, nor a broken one takes the place of a good one. */
  #replace (bytes: Buffer): FetchResult {
    let result: FetchResult = 'fetched'
    for (const read of this.#reads.values()) {
      const list = listIn(bytes, read.issuer)
      if (list instanceof CrlError && list.reason !== 'crl-issuer-mismatch') result = list.reason
      const isBetter = !(list instanceof CrlError) && (read.list instanceof CrlError || list.thisUpdate >= read.list.thisUpdate)
      if (isBetter || read.list instanceof CrlError) read.list = list
    }
    return result
  }

  #readFor (issuer: Certificate): Read | undefined {
    if (!this.#bytes) return undefined
    const read = { issuer, list: listIn(this.#bytes, issuer) }
    this.#reads.set(issuer.certificateId, read)
    return read
  }

  #lists (): Crl[] {
    return [...this.#reads.values()].flatMap(({ list }) => list instanceof CrlError ? [] : list)
  }
}

function listIn (bytes: Buffer, issuer: Certificate): Crl | CrlError {
  try {
    return readCrl(bytes, issuer)
  } catch (cause) {
    if (cause instanceof CrlError) return cause
    throw cause
  }
}
