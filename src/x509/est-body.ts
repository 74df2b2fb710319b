import { CvmError } from '../errors.ts'
import { whatIsNotPem } from './not-pem.ts'
import { encodePem, hasPemBlock } from './pem.ts'
import { type CsrRefusal, refusal } from './refusals.ts'

/** Far longer than any request that AWS IoT takes, line ends included. */
const MAX_CHARS = 16_384

/**
 * The body of an EST enrolment as the PEM that `checkCsr` takes: base64 of a PKCS#10 request, with or without line ends, or a text with
 * the PEM in it, which some clients send. Only the wrapping is judged here.
 * @throws {CvmError} `csr-rejected`. RFC 7030, section 4.2.1; RFC 8951, section 3.1.
 */
export function readEstCsr (body: unknown): string {
  if (typeof body !== 'string') throw unreadable('csr-not-der', EMPTY)
  if (body.length > MAX_CHARS) throw refusal('csr-too-long', `${body.length} characters`)
  if (hasPemBlock(body)) return body
  const base64 = body.replace(/^\ufeff|\0+$|[\r\n\t ]+/g, '')
  if (base64 === '') throw unreadable('csr-not-der', EMPTY)
  const other = whatItIs(body, base64)
  if (other) throw unreadable('pem-not-canonical', other)
  const bytes = Buffer.from(base64, 'base64')
  if (bytes.toString('base64') !== base64) throw unreadable('pem-not-canonical', `The body is not base64, or its padding is wrong. ${WANTED}`)
  if (bytes.subarray(0, 10).equals(PEM_START)) throw unreadable('csr-not-der', 'The body is a PEM text in base64. Send the PEM as it is.')
  return encodePem('CERTIFICATE REQUEST', bytes)
}

const EMPTY = 'The body is empty. Send a PKCS#10 request in base64.'
const WANTED = 'Send the base64 of a PKCS#10 request in DER, or its PEM.'
const PEM_START = Buffer.from('-----BEGIN')

/** What else than the base64 of a request a body is, where it can be told; nothing of it is quoted. */
function whatItIs (body: string, base64: string): string | undefined {
  // A SEQUENCE longer than 127 bytes, as every request is; its second byte is no UTF-8.
  if (body.startsWith('0\ufffd')) return 'The body is DER. Send it in base64: openssl base64 -in request.der.'
  if (/^30[0-9a-f]+$/i.test(base64)) return `The body is hex. ${WANTED}`
  if (base64.startsWith('{')) return 'The body is JSON. EST takes a PKCS#10 request in base64.'
  if (/^[\w-]+=*$/.test(base64) && /[-_]/.test(base64)) return 'The body is base64url. Write + for - and / for _, with padding.'
  if (/^[\w+/-]+=?%[0-9a-f]{2}/i.test(base64)) return 'The body is percent-encoded. Send it as it is.'
  const found = whatIsNotPem(body)
  return /UTF-16|name of a file|damaged/.test(found) ? `The body is not base64: ${found}. ${WANTED}` : undefined
}

/** As `refusal`, in the words of EST. */
function unreadable (reason: CsrRefusal, detail: string): CvmError {
  return new CvmError('csr-rejected', { reason, detail })
}
