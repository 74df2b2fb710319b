import { whatIsNotPem } from './not-pem.ts'

/** Which rule a PEM text broke; the message says what was found, in visible ASCII. */
export class PemError extends Error {
  override readonly name = 'PemError'
  readonly fault: 'too-long' | 'not-one-block' | 'wrong-label' | 'not-canonical'

  constructor (fault: PemError['fault'], message: string) {
    super(message)
    this.fault = fault
  }
}

interface PemRules {
  /** The labels that may stand in the encapsulation boundary. */
  readonly labels: readonly string[]
  /** Of the text as it came, white space included. */
  readonly maxChars: number
}

interface Block { readonly label: string, readonly bytes: Buffer }

const BOUNDARY = /-----(BEGIN|END) ([ -~]{0,64}?)-----/g
const SECRET = ', and a private key must never be sent: make a new one'
const SPACE = /[ \t\r\n]+/g

/**
 * The bytes of a text that holds exactly one PEM block, with one of the labels. As tools and editors leave it: text before and after the
 * block, any line ends, white space anywhere in the base64, lines of any length. The base64 itself has one form: right padding, no spare
 * bits; there are no headers. Linear in the length of the text.
 * @throws {PemError} for anything else. RFC 7468, section 2 and section 3 (lax grammar).
 */
export function decodePem (text: string, rules: PemRules): Buffer {
  refuseLong(text, rules)
  const asWritten = bytesAsWritten(text, rules.labels)
  if (asWritten) return asWritten
  const [block, ...others] = blocksIn(text, rules.labels)
  if (others.length > 0) throw new PemError('not-one-block', `there are ${1 + others.length}`)
  return block!.bytes
}

/**
 * The bytes of a block that is written as we and OpenSSL write it, as nearly every one is: what is the same when written anew needs no
 * other test.
 */
function bytesAsWritten (text: string, labels: readonly string[]): Buffer | undefined {
  const label = labels.find(label => text.startsWith(label, 11))
  if (label === undefined) return undefined
  const whole = text.endsWith('\n') ? text : `${text}\n`
  const bytes = Buffer.from(whole.slice(17 + label.length, -16 - label.length), 'base64')
  return bytes.length > 0 && encodePem(label, bytes) === whole ? bytes : undefined
}

/**
 * The bytes of each PEM block in a text that has at least one; every block must have one of the labels. Otherwise as `decodePem`.
 * @throws {PemError}
 */
export function decodePems (text: string, rules: PemRules): Buffer[] {
  refuseLong(text, rules)
  return blocksIn(text, rules.labels).map(({ bytes }) => bytes)
}

/** Whether a text has the first line of a PEM block. */
export function hasPemBlock (text: string): boolean {
  return text.includes('-----BEGIN ')
}

function refuseLong (text: string, { maxChars }: PemRules): void {
  if (text.length > maxChars) throw new PemError('too-long', `${text.length} characters, ${maxChars} are allowed`)
}

function blocksIn (text: string, labels: readonly string[]): Block[] {
  const boundaries = [...text.matchAll(BOUNDARY)].map(({ 0: line, 1: kind, 2: label = '', index }) => ({ kind, label, from: index, to: index + line.length }))
  const wrong = boundaries.find(({ label }) => !labels.includes(label))
  if (wrong) throw new PemError('wrong-label', `there is a block with the label ${wrong.label}${wrong.label.endsWith('PRIVATE KEY') ? SECRET : ''}`)
  if (boundaries.length === 0) throw new PemError('not-one-block', whatIsNotPem(text))

  const blocks: Block[] = []
  for (let at = 0; at < boundaries.length; at += 2) {
    const [begin, end] = [boundaries[at]!, boundaries[at + 1]]
    if (begin.kind !== 'BEGIN') throw new PemError('not-one-block', `the line -----END ${begin.label}----- has no BEGIN line before it`)
    if (end?.kind !== 'END' || end.label !== begin.label) {
      throw new PemError('not-one-block', `the line -----BEGIN ${begin.label}----- has no END line of the same name after it; the text may be cut off`)
    }
    blocks.push({ label: begin.label, bytes: bytesOf(text.slice(begin.to, end.from)) })
  }
  return blocks
}

function bytesOf (body: string): Buffer {
  const base64 = body.replace(SPACE, '')
  const bytes = Buffer.from(base64, 'base64')
  // Writing it again is the whole test of padding, spare bits and '=' in the middle.
  if (bytes.length === 0 || bytes.toString('base64') !== base64) throw new PemError('not-canonical', faultIn(base64))
  return bytes
}

function faultIn (base64: string): string {
  if (base64 === '') return 'there is nothing in the block'
  if (/^[\w-]+:/.test(base64)) return 'it begins with a header, as encrypted keys do'
  const strange = /[^A-Za-z0-9+/=]/u.exec(base64)?.[0]
  if (strange === '-' || strange === '_') return 'it is base64url, or cut by a damaged line'
  if (strange === '\\') return 'a backslash stands in it: line ends are escaped twice; JSON writes each as \\n, not as \\\\n'
  if (strange === '%') return 'it is percent-encoded; send it as it is'
  if (strange !== undefined) return `it has the character U+${strange.codePointAt(0)!.toString(16).toUpperCase().padStart(4, '0')}`
  return 'it is cut off or wrongly padded'
}

/** The one PEM form that this service writes: lines of 64, LF, a newline at the end. RFC 7468, section 2. */
export function encodePem (label: string, der: Uint8Array): string {
  const base64 = Buffer.from(der.buffer, der.byteOffset, der.byteLength).toString('base64')
  let lines = ''
  for (let at = 0; at < base64.length; at += 64) lines += `${base64.slice(at, at + 64)}\n`
  return `-----BEGIN ${label}-----\n${lines}-----END ${label}-----\n`
}
