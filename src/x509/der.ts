/** What the bytes broke; the message is for a human. */
export class DerError extends Error {
  override readonly name = 'DerError'
}

/** One value: `bytes` with its header, `content` without, `children` when it is made of values. */
export interface DerValue {
  readonly tag: number
  readonly bytes: Buffer
  readonly content: Buffer
  readonly children: readonly DerValue[]
}

/** Identifier octets of the universal types that requests, certificates and lists are made of. */
export const TAG = {
  boolean: 0x01,
  integer: 0x02,
  bitString: 0x03,
  octetString: 0x04,
  null: 0x05,
  oid: 0x06,
  enumerated: 0x0a,
  utcTime: 0x17,
  generalizedTime: 0x18,
  sequence: 0x30,
  set: 0x31
} as const

// Requests and certificates nest eight deep at most; a reader that calls itself must stop somewhere.
const MAX_DEPTH = 16
const CONSTRUCTED = 0x20

/**
 * Reads exactly one value, in the one way DER allows to write it: definite and shortest lengths, canonical primitives,
 * sorted sets, nothing after it. Knows no schema, so what an implicit tag hides is taken as it is.
 * Linear in the length of `input`; keeps views, copies nothing.
 * @throws {DerError} for anything else. ITU-T X.690, sections 8, 10 and 11.
 */
export function readDer (input: Buffer): DerValue {
  const { value, stop } = readValue(input, 0, input.length, 0)
  if (stop !== input.length) throw new DerError('there are bytes after the value')
  return value
}

/**
 * The dotted form of an OBJECT IDENTIFIER that `readDer` returned. X.690, 8.19.
 * Arcs beyond 2^53 lose digits; no arc that anything is compared with is near that.
 */
export function oidOf ({ content }: DerValue): string {
  let dotted = ''
  let arc = 0
  for (let at = 0; at < content.length; at++) {
    const octet = content[at]!
    arc = arc * 128 + (octet & 0x7f)
    if (octet & 0x80) continue
    if (dotted === '') {
      const root = Math.min(2, Math.floor(arc / 40))
      dotted = `${root}.${arc - root * 40}`
    } else dotted += `.${arc}`
    arc = 0
  }
  return dotted
}

/** Where a value lies in its bytes: from `start` with its header, from `at` without, up to `stop`. */
export interface DerSpan { readonly tag: number, readonly start: number, readonly at: number, readonly stop: number }

/**
 * The span of the value that begins at `start` and must end by `end`, for lists that are too long to be kept as values. What is in it
 * is for the caller to read.
 * @throws {DerError} as `readDer` does for tags and lengths.
 */
export function spanAt (input: Buffer, start: number, end: number): DerSpan {
  if (end - start < 2) throw new DerError('a value is cut off')
  const tag = input[start]!
  if ((tag & 0x1f) === 0x1f) throw new DerError('a tag is longer than one byte')

  let at = start + 2
  let length = input[start + 1]!
  if (length >= 0x80) {
    const count = length - 0x80
    if (count === 0) throw new DerError('a length is indefinite (BER)')
    if (count > 4 || at + count > end) throw new DerError('a length is longer than the data')
    length = input.readUIntBE(at, count)
    if (length < 0x80 || input[at] === 0) throw new DerError('a length is not written in its shortest form (BER)')
    at += count
  }
  if (length > end - at) throw new DerError('a length is longer than the data')
  return { tag, start, at, stop: at + length }
}

/** Views are made when somebody asks for them: most values are only passed by on the way to others. */
class Value implements DerValue {
  readonly tag: number
  readonly children: readonly DerValue[]
  readonly #input: Buffer
  readonly #span: DerSpan

  constructor (input: Buffer, span: DerSpan, children: readonly DerValue[]) {
    this.tag = span.tag
    this.children = children
    this.#input = input
    this.#span = span
  }

  get bytes (): Buffer {
    return this.#input.subarray(this.#span.start, this.#span.stop)
  }

  get content (): Buffer {
    return this.#input.subarray(this.#span.at, this.#span.stop)
  }
}

const NONE: readonly DerValue[] = []

function readValue (input: Buffer, from: number, end: number, depth: number): { value: DerValue, stop: number } {
  if (depth > MAX_DEPTH) throw new DerError(`values are nested more than ${MAX_DEPTH} deep`)
  const span = spanAt(input, from, end)
  const { tag, at, stop } = span
  let children = NONE
  if (tag & CONSTRUCTED) {
    const read: DerValue[] = []
    for (let next = at; next < stop;) {
      const child = readValue(input, next, stop, depth + 1)
      read.push(child.value)
      next = child.stop
    }
    children = read
  }
  if (tag < 0x40 && !isCanonical(input, span, children)) throw new DerError(`a value with tag 0x${tag.toString(16)} is not in DER form`)
  return { value: new Value(input, span, children), stop }
}

/** Universal types only: whether the content is the only one that DER allows for its meaning. */
function isCanonical (input: Buffer, { tag, at, stop }: DerSpan, children: readonly DerValue[]): boolean {
  const length = stop - at
  const first = input[at]!
  const last = input[stop - 1]!
  switch (tag) {
    case TAG.boolean: return length === 1 && (first === 0 || first === 0xff)
    case TAG.integer: case TAG.enumerated: return length === 1 || (length > 1 && !isPadding(first, input[at + 1]!))
    case TAG.bitString: return length === 1 ? first === 0 : length > 1 && first < 8 && (last & ((1 << first) - 1)) === 0
    case TAG.null: return length === 0
    case TAG.oid: return length > 0 && last < 0x80 && hasShortestArcs(input, at, stop)
    case TAG.set: return children.every((child, i) => i === 0 || Buffer.compare(children[i - 1]!.bytes, child.bytes) <= 0)
    case TAG.sequence: return true
    // Octets, times and strings: every content is canonical; whether a string is one is for its reader.
    case TAG.octetString: case TAG.utcTime: case TAG.generalizedTime: return true
    case 0x0c: case 0x12: case 0x13: case 0x14: case 0x16: case 0x1a: case 0x1c: case 0x1e: return true
    default: return false
  }
}

/** Whether no arc of an OBJECT IDENTIFIER begins with a byte that adds nothing. X.690, 8.19.2. */
function hasShortestArcs (input: Buffer, at: number, stop: number): boolean {
  for (let i = at; i < stop; i++) if (input[i] === 0x80 && (i === at || input[i - 1]! < 0x80)) return false
  return true
}

/** Whether the first byte of an INTEGER only repeats the sign of the second. */
function isPadding (first: number, second: number): boolean {
  return first === (second < 0x80 ? 0 : 0xff)
}
