import { AwsError, invalidRequest } from './aws-error.ts'
import { parseRule, type RulePayload } from './rule-payload.ts'
import { isTemplate } from './sql.ts'
import type { Destinations } from './destinations.ts'
import type { Store } from './state.ts'

/** A topic rule; times are epoch milliseconds. */
export interface Rule {
  readonly name: string
  readonly arn: string
  readonly payload: RulePayload
  readonly createdAt: number
  disabled: boolean
}

const MAX = 1000

/** The topic rules of an account (aws-facts 1.5, 4); the destinations their http actions need are made along with them. */
export class Rules implements Store {
  readonly #byName = new Map<string, Rule>()
  readonly #arnPrefix: string
  readonly #destinations: Destinations

  constructor (arnPrefix: string, destinations: Destinations) {
    this.#arnPrefix = arnPrefix
    this.#destinations = destinations
  }

  create (name: string, payload: RulePayload): Rule {
    const kept = this.#byName.get(name)
    if (kept !== undefined) {
      throw new AwsError('ResourceAlreadyExistsException', `A rule already exists with name ${name}`, { resourceId: name, resourceArn: kept.arn })
    }
    if (this.#byName.size >= MAX) throw invalidRequest(`The maximum number of rules is ${MAX}`)
    return this.#put({ name, arn: `${this.#arnPrefix}:rule/${name}`, payload, createdAt: Date.now(), disabled: payload.disabled })
  }

  replace (name: string, payload: RulePayload): Rule {
    return this.#put({ ...this.get(name), payload, disabled: payload.disabled })
  }

  /** The rule of that name; 401 when there is none, as AWS has it. */
  get (name: string): Rule {
    const rule = this.#byName.get(name)
    if (rule === undefined) throw new AwsError('UnauthorizedException', `Access to topic rule '${name}' was denied`)
    return rule
  }

  /** All of them, by name. */
  list (): Rule[] {
    return [...this.#byName.values()].sort((one, other) => one.name < other.name ? -1 : 1)
  }

  remove (name: string): void {
    this.#byName.delete(this.get(name).name)
  }

  snapshot (): object[] {
    return this.list().map(({ payload, ...rule }) => ({ ...rule, sent: payload.sent }))
  }

  restore (kept: unknown): void {
    for (const { sent, ...rule } of kept as Array<Omit<Rule, 'payload'> & Pick<RulePayload, 'sent'>>) {
      this.#byName.set(rule.name, { ...rule, payload: parseRule(sent) })
    }
  }

  #put (rule: Rule): Rule {
    for (const action of [...rule.payload.actions, rule.payload.errorAction]) {
      if (action?.kind !== 'http') continue
      const { url, confirmationUrl = url } = action.http
      // Whose URL is only known with a message, that destination its owner makes himself.
      if (!isTemplate(confirmationUrl)) this.#destinations.ensure(confirmationUrl)
    }
    this.#byName.set(rule.name, rule)
    return rule
  }
}
