import { invalidRequest, type AwsError } from './aws-error.ts'

/** What the AWS API model says about a string member. */
interface Constraint {
  readonly min?: number
  readonly max?: number
  readonly pattern?: RegExp
  readonly values?: readonly string[]
}

// Shared shapes of the API model (2015-05-28).
export const CERTIFICATE_ID: Constraint = { min: 64, max: 64, pattern: /^(0x)?[a-fA-F0-9]+$/ }
export const CERTIFICATE_STATUS: Constraint = {
  values: ['ACTIVE', 'INACTIVE', 'REVOKED', 'PENDING_TRANSFER', 'REGISTER_INACTIVE', 'PENDING_ACTIVATION']
}
export const CA_STATUS: Constraint = { values: ['ACTIVE', 'INACTIVE'] }
export const AUTO_REGISTRATION: Constraint = { values: ['ENABLE', 'DISABLE'] }
export const CERTIFICATE_MODE: Constraint = { values: ['DEFAULT', 'SNI_ONLY'] }
export const CERTIFICATE_PEM: Constraint = { min: 1, max: 65536 }
export const TEMPLATE_BODY: Constraint = { max: 10240 }
export const TEMPLATE_NAME: Constraint = { min: 1, max: 36, pattern: /^[0-9A-Za-z_-]+$/ }
export const ROLE_ARN: Constraint = { min: 20, max: 2048 }
export const CSR: Constraint = { min: 1, max: 4096 }
export const NAME: Constraint = { min: 1, max: 128, pattern: /^[a-zA-Z0-9:_-]+$/ }
export const ATTRIBUTE_NAME: Constraint = { max: 128, pattern: /^[a-zA-Z0-9_.,@/:#-]+$/ }
export const ATTRIBUTE_VALUE: Constraint = { max: 800, pattern: /^[a-zA-Z0-9_.,@/:#=[\]-]*$/ }
export const POLICY_NAME: Constraint = { min: 1, max: 128, pattern: /^[\w+=,.@-]+$/ }
export const POLICY_VERSION_ID: Constraint = { pattern: /^[0-9]+$/ }
export const POLICY_DOCUMENT: Constraint = { max: 404600 }
/** The model's `[\p{Graph}\x20]*`, for which JavaScript has no class: whatever shows, and the space. */
export const DESCRIPTION: Constraint = { max: 2028, pattern: /^[^\p{C}\p{Zl}\p{Zp}]*$/u }
export const TAG_KEY: Constraint = { min: 1, max: 128, pattern: /^[\p{L}\p{Z}\p{N}_.:/=+\-@]*$/u }
export const TAG_VALUE: Constraint = { max: 256 }
export const MARKER: Constraint = { max: 1024, pattern: /^[A-Za-z0-9+/]+={0,2}$/ }
export const THING_PRINCIPAL_TYPE: Constraint = { values: ['EXCLUSIVE_THING', 'NON_EXCLUSIVE_THING'] }
/** A principal or target; what it must look like is the operation's affair. */
export const PRINCIPAL: Constraint = { min: 1, max: 2048 }

/** The member's text; refused in AWS's wording when it is missing or breaks the constraint. */
export function text (value: unknown, member: string, constraint: Constraint): string {
  if (value === undefined || value === null) throw broken(null, member, 'Member must not be null')
  if (typeof value !== 'string') throw broken(value, member, 'Member must be a string')
  const { min = 0, max = Infinity, pattern, values } = constraint
  if (value.length < min) throw broken(value, member, `Member must have length greater than or equal to ${min}`)
  if (value.length > max) throw broken(value, member, `Member must have length less than or equal to ${max}`)
  if (pattern !== undefined && !pattern.test(value)) {
    throw broken(value, member, `Member must satisfy regular expression pattern: ${pattern.source.replace(/^\^|\$$/g, '')}`)
  }
  if (values !== undefined && !values.includes(value)) {
    throw broken(value, member, `Member must satisfy enum value set: [${values.join(', ')}]`)
  }
  return value
}

/** The same for a member that may be absent. */
export function optionalText (value: unknown, member: string, constraint: Constraint): string | undefined {
  return value === undefined || value === null ? undefined : text(value, member, constraint)
}

/** A boolean of the query string: absent is false, anything but `true` and `false` is refused. */
export function flag (value: unknown, member: string): boolean {
  return optionalText(value, member, { values: ['true', 'false'] }) === 'true'
}

/** A boolean of the body, where it is a JSON boolean. */
export function optionalFlag (value: unknown, member: string): boolean | undefined {
  if (value === undefined || value === null) return undefined
  if (typeof value !== 'boolean') throw broken(value, member, 'Member must be a boolean')
  return value
}

/** A whole number, which the body has as a JSON number and the query string as digits. */
export function optionalWhole (value: unknown, member: string): number | undefined {
  if (value === undefined || value === null) return undefined
  const number = typeof value === 'string' && /^-?\d{1,19}$/.test(value) ? Number(value) : value
  if (typeof number !== 'number' || !Number.isInteger(number)) throw broken(value, member, 'Member must be a whole number')
  return number
}

/** A page size of the query string, 1 to `max`. */
export function pageSize (value: unknown, member: string, fallback: number, max = 250): number {
  const digits = optionalText(value, member, { min: 1, max: 10, pattern: /^-?\d+$/ })
  if (digits === undefined) return fallback
  const size = Number(digits)
  if (size < 1) throw broken(digits, member, 'Member must have value greater than or equal to 1')
  if (size > max) throw broken(digits, member, `Member must have value less than or equal to ${max}`)
  return size
}

/** An object member of the body that may be absent; a list or a scalar in its place is refused. */
export function optionalObject (value: unknown, member: string): Record<string, unknown> | undefined {
  if (value === undefined || value === null) return undefined
  if (typeof value !== 'object' || Array.isArray(value)) throw broken(value, member, 'Member must be an object')
  return value as Record<string, unknown>
}

/** A list member of the body that may be absent; its items are checked one by one. */
export function optionalList<T> (value: unknown, member: string, item: (value: unknown, member: string) => T): T[] | undefined {
  if (value === undefined || value === null) return undefined
  if (!Array.isArray(value)) throw broken(value, member, 'Member must be a list')
  return value.map((one: unknown, index) => item(one, `${member}.${index + 1}.member`))
}

function broken (value: unknown, member: string, rule: string): AwsError {
  // AWS repeats the value; a CSR or policy document of kilobytes helps nobody, and a key must not travel back.
  const shown = value === null ? 'null' : `'${typeof value === 'string' ? value.slice(0, 128) : typeof value}'`
  return invalidRequest(`1 validation error detected: Value ${shown} at '${member}' failed to satisfy constraint: ${rule}`)
}
