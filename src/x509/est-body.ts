import { encodePem, hasPemBlock } from './pem.ts'
import { refusal } from './refusals.ts'

/** Far longer than any request that AWS IoT takes, line ends included. */
const MAX_CHARS = 16_384

/**
 * The body of an EST enrolment as the PEM that `checkCsr` takes: base64 of a PKCS#10 request, with or without line ends, or a text with
 * the PEM in it, which some clients send. Only the wrapping is judged here.
 * @throws {CvmError} `csr-rejected`. RFC 7030, section 4.2.1; RFC 8951, section 3.1.
 */
export function readEstCsr (body: unknown): string {
  if (typeof body !== 'string') throw refusal('csr-not-der', 'the body is empty')
  if (body.length > MAX_CHARS) throw refusal('csr-too-long', `${body.length} characters`)
  if (hasPemBlock(body)) return body
  const base64 = body.replace(/^\ufeff|\0+$|[\r\n\t ]+/g, '')
  if (base64 === '') throw refusal('csr-not-der', 'the body is empty')
  const bytes = Buffer.from(base64, 'base64')
  if (bytes.toString('base64') !== base64) throw refusal('pem-not-canonical', 'the body is not base64')
  return encodePem('CERTIFICATE REQUEST', bytes)
}
