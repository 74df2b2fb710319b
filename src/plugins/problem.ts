import { STATUS_CODES } from 'node:http'
import type { FastifyError } from 'fastify'
import { CvmError, ERRORS, type ErrorCode } from '../errors.ts'

/** An error answer (RFC 9457). `code`, `reason` and `errors[].pointer` are for programs, the rest for people. */
export interface Problem {
  type: string
  title: string
  status: number
  detail: string
  code: ErrorCode
  reason?: string
  remedy: string
  requestId?: string
  errors?: { pointer: string, detail: string }[]
}

type FastifyFaults = NonNullable<FastifyError['validation']>

/** Framework errors by their code, as entries of the error table. */
const FRAMEWORK: Readonly<Record<string, ErrorCode>> = {
  FST_ERR_CTP_INVALID_JSON_BODY: 'malformed-json',
  FST_ERR_CTP_EMPTY_JSON_BODY: 'malformed-json',
  FST_ERR_CTP_BODY_TOO_LARGE: 'body-too-large',
  FST_ERR_CTP_INVALID_MEDIA_TYPE: 'unsupported-media-type',
  FST_ERR_MAX_PARAM_LENGTH: 'uri-too-long',
  FST_ERR_NOT_FOUND: 'not-found'
}

/** Whatever was thrown, as a failure of the table. Texts of unknown errors never reach a caller. */
export function toCvmError (error: unknown): CvmError {
  if (error instanceof CvmError) return error
  const { code, statusCode, validation, name } = error as Partial<FastifyError>
  const known = FRAMEWORK[code ?? '']
  if (known) return new CvmError(known, { cause: error })
  if (code === 'FST_ERR_BAD_URL') return new CvmError('invalid-request', { detail: 'the path cannot be decoded', cause: error })
  if (validation) return new CvmError('invalid-request', { cause: error })
  // Thrown by the JSON parser for prototype poisoning, among others.
  if (name === 'SyntaxError' && statusCode === 400) return new CvmError('malformed-json', { cause: error })
  if (statusCode !== undefined && statusCode >= 400 && statusCode < 500) return new CvmError('invalid-request', { detail: STATUS_CODES[statusCode] ?? '', cause: error })
  return new CvmError('internal-error', { cause: error })
}

/** The problem document of a failure. */
export function problemOf (error: CvmError, requestId?: string): Problem {
  const { status, title, remedy } = ERRORS[error.code]
  const faults = faultsOf(error.cause)
  return {
    type: `urn:cvm:problem:${error.code}`,
    title,
    status,
    detail: error.message,
    code: error.code,
    ...(error.reason && { reason: error.reason }),
    remedy,
    ...(requestId && { requestId }),
    ...(faults && { errors: faults })
  }
}

/** What a pattern means, in words. */
const PATTERNS: Readonly<Record<string, string>> = {
  registrationToken: 'has white space around it, or a line end or tab in it; send the token alone'
}

/** Each fault of a validated body by its JSON pointer (RFC 6901); names the member, never its value. */
function faultsOf (cause: unknown): Problem['errors'] {
  const { validation } = (cause ?? {}) as Partial<FastifyError>
  return validation && meant(validation).map(({ instancePath, keyword, message = 'is not valid', params }) => {
    const unknown = keyword === 'additionalProperties' ? `/${escapePointer(String(params['additionalProperty']))}` : ''
    const detail = keyword === 'pattern' ? PATTERNS[instancePath.split('/').at(-1) ?? ''] ?? message : message
    return { pointer: instancePath + unknown, detail: unknown ? 'is not a member of this request' : detail }
  })
}

/** Of alternatives, such as one or many, the one that was not meant says only that the type is another. */
function meant (faults: FastifyFaults): FastifyFaults {
  const alternatives = faults.filter(({ keyword }) => keyword === 'anyOf').map(({ instancePath }) => instancePath)
  const telling = faults.filter(({ keyword, instancePath }) => !alternatives.includes(instancePath) || !['anyOf', 'type'].includes(keyword))
  return telling.length > 0 ? telling : faults
}

function escapePointer (name: string): string {
  return name.slice(0, 64).replaceAll('~', '~0').replaceAll('/', '~1')
}
