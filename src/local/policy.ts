import { AwsError } from './aws-error.ts'

interface Statement {
  readonly effect: 'Allow' | 'Deny'
  readonly actions: readonly string[]
  readonly resources: readonly string[]
  readonly conditions: ReadonlyArray<{ readonly operator: Operator, readonly key: string, readonly values: readonly string[] }>
}

/** An AWS IoT policy, understood. */
export type PolicyDocument = readonly Statement[]

/** Values of policy variables of one connection, by name without `${}`; a variable that is absent is unresolved. */
export type Variables = ReadonlyMap<string, string>

const OPERATORS = ['Bool', 'StringEquals', 'StringNotEquals', 'StringLike', 'StringNotLike'] as const
type Operator = typeof OPERATORS[number]

const VERSIONS: readonly unknown[] = [undefined, '2012-10-17', '2008-10-17']

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

function applies ({ actions, resources, conditions }: Statement, action: string, resource: string, variables: Variables): boolean {
  return actions.some(pattern => glob(pattern, new Map(), 'i')?.test(action)) &&
    resources.some(pattern => glob(pattern, variables)?.test(resource)) &&
    conditions.every(({ operator, key, values }) => holds(operator, variables.get(key), values, variables))
}

function holds (operator: Operator, actual: string | undefined, values: readonly string[], variables: Variables): boolean {
  if (actual === undefined) return false
  switch (operator) {
    case 'Bool': return values.some(value => value.toLowerCase() === actual.toLowerCase())
    case 'StringEquals': return values.includes(actual)
    case 'StringNotEquals': return !values.includes(actual)
    case 'StringLike': return values.some(value => glob(value, variables)?.test(actual))
    case 'StringNotLike': return values.every(value => glob(value, variables)?.test(actual) !== true)
  }
}

/**
 * `*` is any text, `?` any one character, `${name}` the variable's value taken literally. Undefined when a variable is unresolved, or
 * when its value could be read as a wildcard (AWS substitutes none that holds `* $ + ? #`): the statement then matches nothing.
 */
function glob (pattern: string, variables: Variables, flags = ''): RegExp | undefined {
  let source = ''
  for (const [token, name] of pattern.matchAll(/\$\{([^}]*)\}|[^]/gu)) {
    if (name !== undefined) {
      const value = variables.get(name)
      if (value === undefined || /[*$+?#]/.test(value)) return undefined
      source += escape(value)
    } else source += token === '*' ? '.*' : token === '?' ? '.' : escape(token)
  }
  return new RegExp(`^${source}$`, `su${flags}`)
}

function escape (text: string): string {
  return text.replace(/[\\^$.*+?()[\]{}|/]/g, '\\$&')
}

function statement (value: unknown): Statement {
  const members = record(value, 'A Statement')
  const effect = members['Effect']
  if (effect !== 'Allow' && effect !== 'Deny') throw malformed('Effect must be Allow or Deny')
  const unknown = Object.keys(members).find(name => !['Sid', 'Effect', 'Action', 'Resource', 'Condition'].includes(name))
  if (unknown !== undefined) throw malformed(`${unknown} is not supported in a Statement`)
  return { effect, actions: texts(members['Action'], 'Action'), resources: texts(members['Resource'], 'Resource'), conditions: conditions(members['Condition']) }
}

function conditions (value: unknown): Statement['conditions'] {
  if (value === undefined) return []
  return Object.entries(record(value, 'Condition')).flatMap(([name, keys]) => {
    const operator = OPERATORS.find(known => known === name)
    // An operator that is not understood must not be skipped: the policy would mean something else here than at AWS.
    if (operator === undefined) throw malformed(`The condition operator ${name} is not supported`)
    return Object.entries(record(keys, name)).map(([key, values]) => ({ operator, key, values: texts(values, key) }))
  })
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
