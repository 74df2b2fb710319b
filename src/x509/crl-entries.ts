import { TAG, readDer, spanAt, type DerSpan, type DerValue } from './der.ts'
import { extensionsIn, readExtension } from './extensions.ts'
import { CrlError } from './refusals.ts'
import { ShapeError, timeOf } from './shape.ts'
import type { EndTurn } from './turns.ts'

/** By number; 7 is not used. RFC 5280, 5.3.1. */
const REASONS = [
  'unspecified', 'keyCompromise', 'cACompromise', 'affiliationChanged', 'superseded', 'cessationOfOperation', 'certificateHold', 'unspecified',
  'removeFromCRL', 'privilegeWithdrawn', 'aACompromise'
] as const
type Reason = typeof REASONS[number]

/** Why and when a certificate was revoked; one on `certificateHold` may come back. `revokedAt` is in milliseconds since 1970. */
export interface Revocation { readonly reason: Reason, readonly revokedAt: number }

/** The most entries, and the most bytes of them, that are read in one turn of the event loop. */
export const TURN_ENTRIES = 1_000
const TURN_BYTES = 65_536

const [REASON_CODE, CERTIFICATE_ISSUER] = ['2.5.29.21', '2.5.29.29']
// The longest that a reason takes alone; other extensions differ from entry to entry and are not worth remembering.
const REASON_BYTES = 14
const MAX_ENTRY_BYTES = 65_536
// A sequence of an INTEGER of one byte and a UTCTime.
const MIN_ENTRY_BYTES = 20

/**
 * Where in the bytes of a list each revoked serial number has its entry: a hash table with open addressing over the bytes themselves. It
 * holds no object for an entry, so that a long list costs the garbage collector nothing.
 */
export class Revocations {
  readonly #der: Buffer
  /** The place of an entry; 0 where there is none, because no entry begins there. */
  readonly #slots: Uint32Array
  #size = 0

  constructor (der: Buffer, listBytes: number) {
    this.#der = der
    this.#slots = new Uint32Array(2 ** Math.ceil(Math.log2(2 * (listBytes / MIN_ENTRY_BYTES + 1))))
  }

  /** How many certificates are revoked. */
  get size (): number {
    return this.#size
  }

  /** Where there are two entries for a serial number, the later one counts. */
  add ({ serial: { at, stop }, start }: Entry): void {
    const slot = this.#slotOf(this.#der.subarray(at, stop))
    if (this.#slots[slot] === 0) this.#size++
    this.#slots[slot] = start
  }

  /** What the list says of a serial number, given as the content of its INTEGER. */
  find (serial: Buffer): Revocation | undefined {
    const start = this.#slots[this.#slotOf(serial)]!
    if (start === 0) return undefined
    const { date, extensions } = entryAt(this.#der, start, this.#der.length)
    return { reason: reasonIn(this.#der, extensions), revokedAt: timeOf(contentOf(this.#der, date)) }
  }

  /** The slot that holds the serial number, or the empty one that would. */
  #slotOf (serial: Buffer): number {
    const last = this.#slots.length - 1
    let slot = hashOf(serial) & last
    while (this.#slots[slot] !== 0 && !this.#isOf(this.#slots[slot]!, serial)) slot = (slot + 1) & last
    return slot
  }

  #isOf (start: number, serial: Buffer): boolean {
    const entry = spanAt(this.#der, start, this.#der.length)
    const { at, stop } = spanAt(this.#der, entry.at, entry.stop)
    return stop - at === serial.length && serial.compare(this.#der, at, stop) === 0
  }
}

/**
 * The entries of a list, all of them read, in slices of {@link TURN_ENTRIES}; the list is refused for one that cannot be read. An entry
 * that says `removeFromCRL` revokes nothing; where another entry for the same number does, that one counts.
 */
export async function revocationsIn (der: Buffer, list: DerSpan | undefined, isV2: boolean, endTurn: EndTurn): Promise<Revocations> {
  const { at: from, stop } = list ?? { at: 0, stop: 0 }
  const revoked = new Revocations(der, stop - from)
  // Nearly all entries say one of a few reasons, in the same bytes.
  const known = new Map<string, Reason>()
  let read = 0
  for (let at = from, turnEnds = from + TURN_BYTES; at < stop;) {
    const entry = entryAt(der, at, stop)
    if (entry.extensions !== undefined && !isV2) throw new ShapeError('an entry has extensions in version 1')
    if (reasonIn(der, entry.extensions, known) !== 'removeFromCRL') revoked.add(entry)
    timeOf(contentOf(der, entry.date))
    at = entry.stop
    if (++read < TURN_ENTRIES && at < turnEnds) continue
    await endTurn(read)
    read = 0
    turnEnds = at + TURN_BYTES
  }
  await endTurn(read)
  return revoked
}

interface Entry {
  readonly serial: DerSpan
  readonly date: DerSpan
  readonly extensions: DerSpan | undefined
  readonly start: number
  readonly stop: number
}

function entryAt (der: Buffer, start: number, end: number): Entry {
  const entry = spanAt(der, start, end)
  if (entry.tag !== TAG.sequence) throw new ShapeError('an entry is not a sequence')
  if (entry.stop - start > MAX_ENTRY_BYTES) throw new ShapeError(`an entry is longer than ${MAX_ENTRY_BYTES} bytes`)
  const serial = spanAt(der, entry.at, entry.stop)
  const date = spanAt(der, serial.stop, entry.stop)
  const extensions = date.stop < entry.stop ? spanAt(der, date.stop, entry.stop) : undefined
  if (serial.tag !== TAG.integer || (extensions ?? date).stop !== entry.stop) throw new ShapeError('an entry is malformed')
  const octets = serial.stop - serial.at
  const isPadded = octets > 1 && der[serial.at] === (der[serial.at + 1]! < 0x80 ? 0 : 0xff)
  if (octets === 0 || isPadded) throw new ShapeError('a serial number is not in DER form')
  return { serial, date, extensions, start, stop: entry.stop }
}

function contentOf (der: Buffer, { tag, at, stop }: DerSpan): Pick<DerValue, 'tag' | 'content'> {
  return { tag, content: der.subarray(at, stop) }
}

/** FNV-1a with a last mixing, because the low bits choose the slot. */
function hashOf (bytes: Buffer): number {
  let hash = 0x811c9dc5
  for (const byte of bytes) hash = Math.imul(hash ^ byte, 0x01000193)
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b)
  return (hash ^ (hash >>> 13)) >>> 0
}

function reasonIn (der: Buffer, span: DerSpan | undefined, known?: Map<string, Reason>): Reason {
  if (span === undefined) return 'unspecified'
  const isShort = span.stop - span.start <= REASON_BYTES
  const key = isShort ? der.toString('latin1', span.start, span.stop) : ''
  const reason = (isShort ? known?.get(key) : undefined) ?? readReason(readDer(der.subarray(span.start, span.stop)))
  if (isShort) known?.set(key, reason)
  return reason
}

function readReason (list: DerValue): Reason {
  const extensions = extensionsIn(list)
  if (extensions.has(CERTIFICATE_ISSUER)) throw new CrlError('crl-is-partial', 'an entry is about another issuer')
  for (const [oid, { critical }] of extensions) if (critical && oid !== REASON_CODE) throw new CrlError('crl-critical-extension', oid)
  const code = extensions.get(REASON_CODE)
  return code === undefined ? 'unspecified' : readExtension(REASON_CODE, code, reasonOf)
}

/** A number that nobody has given a meaning still revokes. */
function reasonOf ({ tag, content }: DerValue): Reason {
  if (tag !== TAG.enumerated || content.length !== 1) throw new ShapeError('it is not one of the reasons')
  return REASONS[content[0]!] ?? 'unspecified'
}
