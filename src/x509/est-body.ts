import { encodePem, hasPemBlock } from './pem.ts'
import { CvmError } from '../errors.ts'
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
  const bytes = Buffer.from(base64, 'base64')
  if (bytes.toString('base64') === base64) return encodePem('CERTIFICATE REQUEST', bytes)
  // A SEQUENCE longer than 127 bytes, as every request is; its second byte is no UTF-8.
  if (body.startsWith('0\ufffd')) throw unreadable('pem-not-canonical', 'The body is DER. Send it in base64: openssl base64 -in request.der.')
  throw unreadable('pem-not-canonical', base64.startsWith('{') ? 'The body is JSON. EST takes a PKCS#10 request in base64.' : NOT_BASE64)
}

const EMPTY = 'The body is empty. Send a PKCS#10 request in base64.'
const NOT_BASE64 = 'The body is not base64, or its padding is wrong. Send the base64 of a PKCS#10 request in DER, or its PEM.'

/** As `refusal`, in the words of EST. */
function unreadable (reason: CsrRefusal, detail: string): CvmError {
  return new CvmError('csr-rejected', { reason, detail })
}
