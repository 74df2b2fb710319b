import { type Crl, crlDerOf, readCrl } from '../x509/crl.ts'
import { CrlError, type CrlRefusal } from '../x509/refusals.ts'
import type { Certificate } from '../x509/strict-certificate.ts'
import { CrlFetchError, type CrlFetchFault, type CrlSource, type Validators } from './crl-source.ts'

/** How a fetch of a list ended: `unchanged` where the list that is kept is still the newest. A list that cannot be used counts as why. */
type FetchResult = 'fetched' | 'unchanged' | CrlFetchFault | CrlRefusal

/** Why a list says nothing about a certificate now. */
export interface CrlFault { reason: CrlFetchFault | CrlRefusal | 'crl-stale' | 'crl-not-yet-valid', detail: string }

/** A certificate to judge, its issuer, and certificates of the issuer's other keys that the issuer itself has signed. */
export interface Judged { certificate: Certificate, issuer: Certificate, otherKeys: readonly Certificate[] }

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
/** A source whose list cannot be used is asked again no sooner: only its operator can help. */
export const UNUSABLE_RETRY_MS = 60_000

/** How far the clock of a list's issuer may be ahead. */
const CLOCK_SKEW_MS = 300_000

/** The list as an issuer has signed it; else why it has not, or why it cannot be used. */
interface Read { judged: Judged, list: Crl | CrlError }

/** What is known from one source: the list that was fetched last, as each issuer it was asked for would have signed it. */
export class KeptCrl {
  readonly name: string
  readonly #deps: KeptCrlDeps
  /** The last list as DER, or why it is no list. */
  #der: Buffer | CrlError | undefined
  #validators: Validators = {}
  readonly #reads = new Map<string, Read>()
  #succeededAt = -Infinity
  #triedAt = -Infinity
  #fault: CrlFetchError | undefined
  #work: Promise<void> = Promise.resolve()

  constructor (name: string, deps: KeptCrlDeps) {
    this.name = name
    this.#deps = deps
  }

  /** When the first of its lists ends; undefined where none says so. */
  get nextUpdate (): number | undefined {
    const ends = this.#lists().flatMap(({ nextUpdate }) => nextUpdate ?? [])
    return ends.length > 0 ? Math.min(...ends) : undefined
  }

  /**
   * Fetches a newer list where it is time, and reads it for these issuers. One caller at a time; the others wait and find it done. A fetch
   * that fails leaves what is kept.
   */
  async refresh (judged: readonly Judged[]): Promise<void> {
    const work = this.#work.then(() => this.#refresh(judged))
    // The next caller waits for this one, and does not inherit its failure.
    this.#work = work.catch(() => {})
    await work
  }

  /** The list that this issuer signed, also after its end; else why there is none. Call after {@link refresh}. */
  listOf (judged: Judged): Crl | CrlFault {
    const list = this.#reads.get(keyOf(judged))?.list ?? this.#fault
    if (list === undefined) return { reason: 'crl-unreachable', detail: 'It has not been fetched yet.' }
    return list instanceof Error ? { reason: list.reason, detail: list.message } : list
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

  async #refresh (judged: readonly Judged[]): Promise<void> {
    const { now } = this.#deps
    const unread = judged.filter(each => !this.#reads.has(keyOf(each)))
    if (this.#isDue() && this.#triedAt + RETRY_MS <= now()) {
      this.#triedAt = now()
      await this.#fetch(judged, unread)
    } else await this.#read(unread)
  }

  /** Also while the list that is kept cannot be used: its operator may have mended it. */
  #isDue (): boolean {
    const { now, maxAgeMs } = this.#deps
    const ageMs = this.#unusable() ? Math.min(UNUSABLE_RETRY_MS, maxAgeMs) : maxAgeMs
    return this.#succeededAt + ageMs <= now() || (this.nextUpdate ?? Infinity) < now()
  }

  async #fetch (judged: readonly Judged[], unread: readonly Judged[]): Promise<void> {
    const { source, now, onFetch } = this.#deps
    const where = URL.canParse(this.name) ? new URL(this.name).host : this.name
    try {
      const fetched = await source.fetch(this.name, this.#validators)
      this.#succeededAt = now()
      this.#fault = undefined
      const broken = fetched && await this.#replace(fetched.bytes)
      if (fetched) this.#validators = fetched.validators
      await this.#read(unread)
      onFetch(broken ?? this.#unusable(judged) ?? (fetched ? 'fetched' : 'unchanged'), where)
    } catch (cause) {
      if (!(cause instanceof CrlFetchError)) throw cause
      this.#fault = cause
      onFetch(cause.reason, where)
    }
  }

  /**
   * Takes the new bytes in place of the old, for every issuer that was read. An older list, which an attacker on the way may bring back, or
   * a broken one does not replace a good one; the answer is then what is wrong.
   */
  async #replace (bytes: Buffer): Promise<CrlRefusal | undefined> {
    let broken: CrlRefusal | undefined
    this.#der = await orError(crlDerOf(bytes))
    for (const read of this.#reads.values()) {
      const list = await this.#listFor(read.judged, this.#der)
      if (list instanceof CrlError && !OF_ANOTHER.has(list.reason)) broken = list.reason
      const isBetter = !(list instanceof CrlError) && (read.list instanceof CrlError || list.thisUpdate >= read.list.thisUpdate)
      if (isBetter || read.list instanceof CrlError) read.list = list
    }
    return broken
  }

  async #read (unread: readonly Judged[]): Promise<void> {
    if (!this.#der) return
    for (const judged of unread) this.#reads.set(keyOf(judged), { judged, list: await this.#listFor(judged, this.#der) })
  }

  async #listFor ({ issuer, otherKeys }: Judged, der: Buffer | CrlError): Promise<Crl | CrlError> {
    return der instanceof CrlError ? der : await orError(readCrl(der, issuer, { otherKeys }))
  }

  /** Why the list that is kept can be of no use to any issuer; for certificates that are given, also that it is not about them. */
  #unusable (judged: readonly Judged[] = []): CrlRefusal | undefined {
    if (this.#der instanceof CrlError) return this.#der.reason
    const lists = this.#lists()
    if (lists.length === 0) {
      return [...this.#reads.values()].flatMap(({ list }) => list instanceof CrlError && !OF_ANOTHER.has(list.reason) ? list.reason : [])[0]
    }
    const asked = judged.flatMap(each => {
      const list = this.#reads.get(keyOf(each))?.list
      return list === undefined || list instanceof CrlError ? [] : [list.gapFor(each.certificate, this.name)]
    })
    return asked.length > 0 && asked.every(gap => gap !== undefined) ? 'crl-is-partial' : undefined
  }

  #lists (): Crl[] {
    return [...this.#reads.values()].flatMap(({ list }) => list instanceof CrlError ? [] : list)
  }
}

/** A list of another CA, or of another key of the CA, is no fault of the list. */
export const OF_ANOTHER: ReadonlySet<string> = new Set<CrlRefusal>(['crl-issuer-mismatch', 'crl-of-another-key'])

function keyOf ({ issuer, otherKeys }: Judged): string {
  return [issuer, ...otherKeys].map(({ certificateId }) => certificateId).join()
}

async function orError<T> (work: Promise<T>): Promise<T | CrlError> {
  try {
    return await work
  } catch (cause) {
    if (cause instanceof CrlError) return cause
    throw cause
  }
}
