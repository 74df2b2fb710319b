import type { FastifyRequest } from 'fastify'
import { type CvmError, ERRORS, type ErrorCode } from '../errors.ts'

/** Transient failures: the same request again gets what was begun, which EST calls pending (RFC 7030 section 4.2.3). */
const PENDING: readonly ErrorCode[] = ['aws-iot-throttled', 'aws-iot-unavailable', 'vend-in-progress', 'deadline-exceeded']

/** What to do about a failure, where the error table speaks of JSON or of other routes. */
const REMEDIES: Partial<Record<ErrorCode, string>> = {
  'unsupported-media-type': 'Send a PKCS#10 request in base64 as Content-Type: application/pkcs10.',
  'csr-rejected': 'Make a new PKCS#10 request that follows the text above, and send it in base64.',
  'body-too-large': 'Send one PKCS#10 request in base64, and nothing else.',
  'device-not-authorized': 'Send serial number and registration token by HTTP Basic, as user name and password; ask the operator for a new token.',
  'generated-keys-not-allowed': 'Make a key on the device, and use simpleenroll.',
  'key-not-recoverable': 'Ask the operator to reset the device, or use simpleenroll with a key of the device.',
  'already-vended': 'Use simplereenroll with the present certificate, or ask the operator to reset the device.',
  'not-found': 'Check the path: the label is the name of a product.',
  'method-not-allowed': 'Use GET for cacerts and csrattrs, POST for the others.'
}
const OF_CERTIFICATE = 'Connect with the present certificate of the device and its key, or ask the operator to reset the device.'

const COLON = 'The user name of HTTP Basic ends at the first ":" (RFC 7617), so a serial number with ":" must be the common name of the request too.'

/**
 * Plain text for people (RFC 7030 section 4.2.3), with the code for programs. The challenge to a request without credentials has no body:
 * BouncyCastle 1.80 sends the request again without reading one, and fails where there is one. It does the same with what is pending,
 * unless the text has no length that it could miss.
 */
export function answerFailure (error: CvmError, { headers, enrollee }: FastifyRequest) {
  const { status, remedy } = ERRORS[error.code]
  const code = [error.code, error.reason].filter(Boolean).join(' ')
  const isOfCertificate = error.code === 'device-not-authorized' && enrollee?.certificateId !== undefined
  const hint = error.code === 'device-not-authorized' ? hintOf(headers.authorization) : undefined
  const told = isOfCertificate ? OF_CERTIFICATE : REMEDIES[error.code] ?? remedy
  const isPending = PENDING.includes(error.code)
  const isChallenge = status === 401 && headers.authorization === undefined && !isOfCertificate
  return {
    status: isPending ? 202 : status,
    isChunked: isPending,
    type: 'text/plain; charset=utf-8',
    text: isChallenge ? '' : [error.message, told, hint, `(${code})\n`].filter(Boolean).join('\n'),
    ...status === 401 && { challenge: 'Basic realm="cvm"' }
  }
}

/** What may be the matter with credentials that match no device; the same for every device. */
function hintOf (authorization: string | undefined): string | undefined {
  const text = Buffer.from(/^Basic +(\S{1,1024})$/i.exec(authorization ?? '')?.[1] ?? '', 'base64').toString()
  return text.split(':').length > 2 ? COLON : undefined
}
