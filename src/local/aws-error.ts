/** HTTP status of each error code the control plane answers with (AWS API model 2015-05-28; 403 and 404 below are the gateway's own). */
const STATUS = {
  InvalidRequestException: 400,
  MalformedPolicyException: 400,
  SerializationException: 400,
  InvalidSignatureException: 403,
  MissingAuthenticationTokenException: 403,
  ResourceNotFoundException: 404,
  UnknownOperationException: 404,
  CertificateStateException: 406,
  DeleteConflictException: 409,
  ResourceAlreadyExistsException: 409,
  LimitExceededException: 410,
  InternalFailureException: 500
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
