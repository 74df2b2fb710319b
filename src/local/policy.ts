import { AwsError } from './aws-error.ts'
import { holds, parseCondition, type Condition } from './policy-conditions.ts'
import { glob, type Variables } from './policy-pattern.ts'

/** What a statement speaks of: the patterns listed, or with `not` everything else. */
interface Scope { readonly not: boolean, readonly patterns: readonly string[] }

interface Statement {
  readonly effect: 'Allow' | 'Deny'
  readonly actions: Scope
  readonly resources: Scope
  readonly conditions: readonly Condition[]
}

/** An AWS IoT policy, understood. */
export type PolicyDocument = readonly Statement[]

const VERSIONS: readonly unknown[] = [undefined, '2012-10-17', '2008-10-17']
const MEMBERS = ['Sid', 'Effect', 'Action', 'NotAction', 'Resource', 'NotResource', 'Condition']

/** Reads a document; 400 MalformedPolicyException with the reason for whatever is not, or not here, a policy. */
export function parsePolicy (text: string): PolicyDocument {
  const document = record(json(text), 'The policy document')
  if (!VERSIONS.includes(document['Version'])) throw malformed('Version must be 2012-10-17')
  const statements = Array.isArray(document['Statement']) ? document['Statement'] : [document['Statement']]
  if (statements.length === 0) throw malformed('Statement must not be empty')
  return statements.map(statement)
}

/** Whether the documents together allow the action: a matching deny wins, and without a matching allow the answer is no. */
export function allows (documents: readonly PolicyDocument[], action: string, resource: string, variables: Variables): boolean {
  const matching = documents.flat().filter(candidate => applies(candidate, action, resource, variables))
  return matching.length > 0 && matching.every(({ effect }) => effect === 'Allow')
}

function applies ({ effect, actions, resources, conditions }: Statement, action: string, resource: string, variables: Variables): boolean {
  return speaksOf(actions, pattern => glob(pattern, new Map(), 'i')?.test(action), effect) &&
    speaksOf(resources, pattern => glob(pattern, variables)?.test(resource), effect) &&
    conditions.every(condition => holds(condition, variables))
}

/** A pattern that cannot be resolved (undefined) matches nothing; under `not` it refuses: an Allow shrinks by it, a Deny does not. */
function speaksOf ({ not, patterns }: Scope, matches: (pattern: string) => boolean | undefined, effect: Statement['effect']): boolean {
  if (!not) return patterns.some(pattern => matches(pattern) === true)
  return patterns.every(pattern => (matches(pattern) ?? effect === 'Allow') === false)
}

function statement (value: unknown): Statement {
  const members = record(value, 'A Statement')
  const effect = members['Effect']
  if (effect !== 'Allow' && effect !== 'Deny') throw malformed('Effect must be Allow or Deny')
  const unknown = Object.keys(members).find(name => !MEMBERS.includes(name))
  if (unknown !== undefined) throw malformed(`${unknown} is not supported in a Statement`)
  return { effect, actions: scope(members, 'Action'), resources: scope(members, 'Resource'), conditions: conditions(members['Condition']) }
}

function scope (members: Record<string, unknown>, member: 'Action' | 'Resource'): Scope {
  const negated = `Not${member}`
  const not = members[negated] !== undefined
  if (not && members[member] !== undefined) throw malformed(`${member} and ${negated} cannot be in one Statement`)
  return { not, patterns: not ? texts(members[negated], negated) : texts(members[member], member) }
}

function conditions (value: unknown): readonly Condition[] {
  if (value === undefined) return []
  return Object.entries(record(value, 'Condition')).flatMap(([name, keys]) =>
    Object.entries(record(keys, name)).map(([key, values]) => parseCondition(name, key, texts(values, key))))
}

function texts (value: unknown, member: string): string[] {
  const values: unknown[] = Array.isArray(value) ? value : [value]
  if (values.length === 0 || !values.every(item => typeof item === 'string' || typeof item === 'boolean')) {
    throw malformed(`${member} must be a string or a list of strings`)
  }
  return values.map(String)
}

function record (value: unknown, what: string): Record<string, unknown> {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw malformed(`${what} must be an object`)
  return value as Record<string, unknown>
}

function json (text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    throw malformed('The policy document is not valid JSON')
  }
}

function malformed (message: string): AwsError {
  return new AwsError('MalformedPolicyException', message)
}
