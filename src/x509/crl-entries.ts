import { TAG, readDer, spanAt, type DerSpan, type DerValue } from './der.ts'
import { extensionsIn, readExtension } from './extensions.ts'
import { CrlError } from './refusals.ts'
import { ShapeError, timeOf } from './shape.ts'

/** By number; 7 is not used. RFC 5280, 5.3.1. */
const REASONS = [
  'unspecified', 'keyCompromise', 'cACompromise', 'affiliationChanged', 'superseded', 'cessationOfOperation', 'certificateHold', 'unspecified',
  'removeFromCRL', 'privilegeWithdrawn', 'aACompromise'
] as const
type Reason = typeof REASONS[number]

/** Why and when a certificate was revoked; one on `certificateHold` may come back. `revokedAt` is in milliseconds since 1970. */
export interface Revocation { readonly reason: Reason, readonly revokedAt: number }

const [REASON_CODE, CERTIFICATE_ISSUER] = ['2.5.29.21', '2.5.29.29']
// The longest that a reason takes alone; other extensions differ from entry to entry and are not worth remembering.
const REASON_BYTES = 14

/**
 * Where in the bytes each revoked serial number has its entry, by the content of its INTEGER in Latin-1. All entries are read, and
 * the list is refused for one that cannot be. An entry that says `removeFromCRL` revokes nothing; where another entry for the same
 * number does, that one counts.
 */
export function revocationsIn (der: Buffer, list: DerSpan | undefined, isV2: boolean): ReadonlyMap<string, number> {
  const revoked = new Map<string, number>()
  // Nearly all entries say one of a few reasons, in the same bytes.
  const known = new Map<string, Reason>()
  for (let at = list?.at ?? 0; at < (list?.stop ?? 0);) {
    const entry = entryAt(der, at, list!.stop)
    if (entry.extensions !== undefined && !isV2) throw new ShapeError('an entry has extensions in version 1')
    if (reasonIn(der, entry.extensions, known) !== 'removeFromCRL') revoked.set(entry.serial, at)
    timeOf(entry.date)
    at = entry.stop
  }
  return revoked
}

/** The entry at a place that `revocationsIn` gave. */
export function revocationAt (der: Buffer, at: number): Revocation {
  const { date, extensions } = entryAt(der, at, der.length)
  return { reason: reasonIn(der, extensions), revokedAt: timeOf(date) }
}

interface Entry { readonly serial: string, readonly date: Pick<DerValue, 'tag' | 'content'>, readonly extensions: DerSpan | undefined, readonly stop: number }

function entryAt (der: Buffer, start: number, end: number): Entry {
  const entry = spanAt(der, start, end)
  if (entry.tag !== TAG.sequence) throw new ShapeError('an entry is not a sequence')
  const serial = spanAt(der, entry.at, entry.stop)
  const date = spanAt(der, serial.stop, entry.stop)
  const extensions = date.stop < entry.stop ? spanAt(der, date.stop, entry.stop) : undefined
  if (serial.tag !== TAG.integer || (extensions ?? date).stop !== entry.stop) throw new ShapeError('an entry is malformed')
  const [first, second = 0] = der.subarray(serial.at, serial.stop)
  const isPadded = serial.stop - serial.at > 1 && first === (second < 0x80 ? 0 : 0xff)
  if (first === undefined || isPadded) throw new ShapeError('a serial number is not in DER form')
  return {
    serial: der.toString('latin1', serial.at, serial.stop),
    date: { tag: date.tag, content: der.subarray(date.at, date.stop) },
    extensions,
    stop: entry.stop
  }
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
