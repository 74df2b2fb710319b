import { CrlError } from './refusals.ts'
import type { EndTurn } from './turns.ts'

const [BEGIN, END] = ['-----BEGIN X509 CRL-----', '-----END X509 CRL-----']
/** Decoded in about a millisecond. */
const SLICE_CHARS = 262_144

/**
 * The bytes of the one X509 CRL block in a text. Text before and after the block is skipped, as `openssl crl -text` writes some. The text
 * is decoded in slices, each in its own turn of the event loop.
 * @throws {CrlError} `crl-not-pem` where there is no block, more than one, or base64 that is not canonical. RFC 7468.
 */
export async function decodeCrlPem (text: Buffer, endTurn: EndTurn): Promise<Buffer> {
  const begin = text.indexOf(BEGIN)
  const start = begin + BEGIN.length
  const stop = begin < 0 ? -1 : text.indexOf(END, start)
  if (stop < 0) throw new CrlError('crl-not-pem', 'there is no whole X509 CRL block')
  if (text.indexOf('-----BEGIN') !== begin || text.indexOf('-----BEGIN', start) >= 0) throw new CrlError('crl-not-pem', 'there is more than one block')
  const parts: Buffer[] = []
  let rest = ''
  for (let at = start; at < stop; at += SLICE_CHARS) {
    const end = Math.min(at + SLICE_CHARS, stop)
    const base64 = rest + text.toString('latin1', at, end).replace(/[\r\n\t ]+/g, '')
    const isLast = end === stop
    const whole = isLast ? base64 : base64.slice(0, base64.length - base64.length % 4)
    rest = base64.slice(whole.length)
    parts.push(bytesOf(whole, isLast))
    if (!isLast) await endTurn(0)
  }
  return Buffer.concat(parts)
}

function bytesOf (base64: string, isLast: boolean): Buffer {
  const bytes = Buffer.from(base64, 'base64')
  const isCanonical = bytes.toString('base64') === base64 && (isLast || !base64.endsWith('='))
  if (!isCanonical) throw new CrlError('crl-not-pem', 'it is not base64, or its padding is wrong')
  return bytes
}
