/** Which rule a PEM text broke; the message says it for a human. */
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

const BEGIN = /^-----BEGIN ([A-Z0-9 ]{1,64})-----$/
// RFC 7468 says 64; 76 is what MIME encoders write.
const BASE64_LINE = /^[A-Za-z0-9+/=]{1,76}$/
const EDGE_SPACE = ' \t\r\n'

/**
 * The bytes of a text that is exactly one PEM block with one of the labels: lines end in LF or CRLF, no headers, base64 with the
 * right padding and no spare bits, only white space before and after. Linear in the length of the text.
 * @throws {PemError} for anything else. RFC 7468, section 3 (strict grammar).
 */
export function decodePem (text: string, { labels, maxChars }: PemRules): Buffer {
  if (text.length > maxChars) throw new PemError('too-long', `${text.length} characters, ${maxChars} are allowed`)
  const asWritten = bytesAsWritten(text, labels)
  if (asWritten) return asWritten

  const lines = trim(text).split(/\r?\n/)
  const label = labelOf(lines[0]!, labels)
  if (lines.at(-1) !== `-----END ${label}-----`) throw new PemError('not-one-block', `the last line is not -----END ${label}-----`)

  return bytesOf(lines.slice(1, -1))
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
 * The bytes of each PEM block in a text that has at least one; every block must have one of the labels. What stands between blocks is
 * skipped, unless it looks like a boundary. Linear in the length of the text.
 * @throws {PemError} RFC 7468, section 2.
 */
export function decodePems (text: string, { labels, maxChars }: PemRules): Buffer[] {
  if (text.length > maxChars) throw new PemError('too-long', `${text.length} characters, ${maxChars} are allowed`)

  const blocks: Buffer[] = []
  let label: string | undefined
  let body: string[] = []
  for (const line of text.split(/\r?\n/)) {
    if (label !== undefined && line === `-----END ${label}-----`) {
      blocks.push(bytesOf(body))
      label = undefined
    } else if (label !== undefined) body.push(line)
    else if (line.startsWith('-----')) {
      label = labelOf(line, labels)
      body = []
    }
  }
  if (label !== undefined || blocks.length === 0) throw new PemError('not-one-block', 'there is no whole block')
  return blocks
}

function labelOf (line: string, labels: readonly string[]): string {
  const label = BEGIN.exec(line)?.[1]
  if (label === undefined) throw new PemError('not-one-block', 'a line is neither the BEGIN line of a block nor its END line')
  if (!labels.includes(label)) throw new PemError('wrong-label', `the label is ${label}`)
  return label
}

function bytesOf (body: readonly string[]): Buffer {
  if (body.some(line => line.startsWith('-----'))) throw new PemError('not-one-block', 'there is more than one block')
  if (!body.every(line => BASE64_LINE.test(line))) {
    throw new PemError('not-canonical', 'a line is empty, longer than 76 characters, a header, or not base64')
  }
  const base64 = body.join('')
  const bytes = Buffer.from(base64, 'base64')
  // Writing it again is the whole test of padding, spare bits and '=' in the middle.
  if (bytes.length === 0 || bytes.toString('base64') !== base64) throw new PemError('not-canonical', 'the base64 is cut off or wrongly padded')
  return bytes
}

/** The one PEM form that this service writes: lines of 64, LF, a newline at the end. RFC 7468, section 2. */
export function encodePem (label: string, der: Uint8Array): string {
  const base64 = Buffer.from(der.buffer, der.byteOffset, der.byteLength).toString('base64')
  let lines = ''
  for (let at = 0; at < base64.length; at += 64) lines += `${base64.slice(at, at + 64)}\n`
  return `-----BEGIN ${label}-----\n${lines}-----END ${label}-----\n`
}

// Not String.trim(): that would also take off byte order marks and other Unicode spaces, which AWS IoT may not.
function trim (text: string): string {
  let start = 0
  let end = text.length
  while (start < end && EDGE_SPACE.includes(text[start]!)) start++
  while (end > start && EDGE_SPACE.includes(text[end - 1]!)) end--
  return text.slice(start, end)
}
