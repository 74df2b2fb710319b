/** HTTP status of each error code: the API models of both planes, and the gateway's own (403, Serialization, UnknownOperation). */
const STATUS = {
  CertificateValidationException: 400,
  InvalidRequestException: 400,
  MalformedPolicyException: 400,
  RegistrationCodeValidationException: 400,
  SerializationException: 400,
  SqlParseException: 400,
  ThrottlingException: 400,
  UnauthorizedException: 401,
  ForbiddenException: 403,
  InvalidSignatureException: 403,
  MissingAuthenticationTokenException: 403,
  ResourceNotFoundException: 404,
  UnknownOperationException: 404,
  MethodNotAllowedException: 405,
  CertificateStateException: 406,
  CertificateConflictException: 409,
  ConflictException: 409,
  ConflictingResourceUpdateException: 409,
  DeleteConflictException: 409,
  ResourceAlreadyExistsException: 409,
  VersionConflictException: 409,
  VersionsLimitExceededException: 409,
  LimitExceededException: 410,
  RequestEntityTooLargeException: 413,
  UnsupportedDocumentEncodingException: 415,
  InternalFailureException: 500,
  ServiceUnavailableException: 503
} as const

type AwsErrorCode = keyof typeof STATUS

/** A refusal in AWS's own words: `code` travels in `x-amzn-errortype`, the rest in the JSON body. */
export class AwsError extends Error {
  readonly code: AwsErrorCode
  readonly status: number
  readonly members: Readonly<Record<string, string>>

  constructor (code: AwsErrorCode, message: string, members: Readonly<Record<string, string>> = {}) {
    super(message)
    this.name = code
    this.code = code
    this.status = STATUS[code]
    this.members = members
  }
}

/** The most common refusal: the request itself is wrong. */
export function invalidRequest (message: string): AwsError {
  return new AwsError('InvalidRequestException', message)
}

/** A named resource is not there. */
export function notFound (message: string): AwsError {
  return new AwsError('ResourceNotFoundException', message)
}
