import { BlockList, isIP } from 'node:net'
import { AwsError } from './aws-error.ts'
import { glob, literal, type Variables } from './policy-pattern.ts'

/** One test of a Condition block; all of a statement's must hold. */
export interface Condition {
  readonly operator: Operator
  /** How a key with several values is taken; without, one value that fits is enough. */
  readonly set: 'all' | 'any'
  readonly key: string
  readonly values: readonly string[]
}

type Operator = keyof typeof TESTS
type Test = (actual: string, wanted: string, variables: Variables) => boolean

const TESTS = {
  Bool: (actual, wanted) => actual.toLowerCase() === wanted.toLowerCase(),
  StringEquals: (actual, wanted, variables) => actual === literal(wanted, variables),
  StringNotEquals: (actual, wanted, variables) => actual === literal(wanted, variables),
  StringLike: (actual, wanted, variables) => glob(wanted, variables)?.test(actual) === true,
  StringNotLike: (actual, wanted, variables) => glob(wanted, variables)?.test(actual) === true,
  IpAddress: inRange,
  NotIpAddress: inRange
} satisfies Record<string, Test>

const NEGATED: ReadonlySet<Operator> = new Set(['StringNotEquals', 'StringNotLike', 'NotIpAddress'])

/** Reads an operator's name as it stands in a policy, such as `ForAllValues:StringEquals`; 400 for what is not understood here. */
export function parseCondition (name: string, key: string, values: readonly string[]): Condition {
  const [, set, plain] = /^(?:(ForAllValues|ForAnyValue):)?(.*)$/s.exec(name) ?? []
  // An operator that is not understood must not be skipped: the policy would mean something else here than at AWS.
  if (plain === undefined || !Object.hasOwn(TESTS, plain)) throw malformed(`The condition operator ${name} is not supported`)
  const operator = plain as Operator
  if (TESTS[operator] === inRange && !values.every(value => rangeOf(value) !== undefined)) {
    throw malformed(`${key} must be IP addresses or ranges in CIDR notation`)
  }
  return { operator, set: set === 'ForAllValues' ? 'all' : 'any', key, values }
}

/**
 * As IAM has it: a key that is absent meets no condition except a negated one and ForAllValues, which it meets.
 */
export function holds ({ operator, set, key, values }: Condition, variables: Variables): boolean {
  const found = variables.get(key)
  const actual = found === undefined ? [] : typeof found === 'string' ? [found] : found
  const negated = NEGATED.has(operator)
  if (actual.length === 0) return negated || set === 'all'
  const fits = (value: string): boolean => values.some(wanted => TESTS[operator](value, wanted, variables)) !== negated
  return set === 'all' ? actual.every(fits) : actual.some(fits)
}

function inRange (actual: string, wanted: string): boolean {
  const family = isIP(actual)
  // BlockList takes an IPv4 address for one of IPv6 too; a policy that names an IPv6 range does not.
  return family !== 0 && wanted.includes(':') === (family === 6) && rangeOf(wanted)?.check(actual, family === 4 ? 'ipv4' : 'ipv6') === true
}

function rangeOf (text: string): BlockList | undefined {
  const [, address = '', length] = /^([^/]+)(?:\/(\d{1,3}))?$/.exec(text) ?? []
  const family = isIP(address)
  const bits = family === 4 ? 32 : 128
  if (family === 0 || Number(length ?? 0) > bits) return undefined
  const list = new BlockList()
  list.addSubnet(address, Number(length ?? bits), family === 4 ? 'ipv4' : 'ipv6')
  return list
}

function malformed (message: string): AwsError {
  return new AwsError('MalformedPolicyException', message)
}
