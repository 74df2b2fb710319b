import { AwsError, notFound } from './aws-error.ts'
import { parsePolicy, type PolicyDocument } from './policy.ts'
import type { Store } from './state.ts'

/** A policy as AWS IoT keeps it; `text` is what was sent, byte for byte. Times are epoch milliseconds. */
interface Policy {
  readonly name: string
  readonly arn: string
  readonly text: string
  readonly document: PolicyDocument
  readonly createdAt: number
}

// AWS's limits (aws-facts 2.5).
const MAX_PER_TARGET = 10
const MAX_CHARACTERS = 2048

/** The policies of one account, and to which targets (certificate ARNs) they are attached. */
export class Policies implements Store {
  readonly #byName = new Map<string, Policy>()
  readonly #attached = new Map<string, Set<string>>()
  readonly #arnPrefix: string

  constructor (arnPrefix: string) {
    this.#arnPrefix = arnPrefix
  }

  /** Makes a policy; 409 when the name is in use, 400 when the document is not one. */
  create (name: string, text: string): Policy {
    const kept = this.#byName.get(name)
    if (kept !== undefined) {
      throw new AwsError('ResourceAlreadyExistsException', `Policy cannot be created - name already exists (name=${name})`, {
        resourceId: name, resourceArn: kept.arn
      })
    }
    if (text.replace(/\s/g, '').length > MAX_CHARACTERS) {
      throw new AwsError('MalformedPolicyException', `Policy document is longer than ${MAX_CHARACTERS} characters without white space`)
    }
    const policy = { name, arn: `${this.#arnPrefix}:policy/${name}`, text, document: parsePolicy(text), createdAt: Date.now() }
    this.#byName.set(name, policy)
    return policy
  }

  /** The policy of that name; 404 when there is none. */
  get (name: string): Policy {
    const policy = this.#byName.get(name)
    if (policy === undefined) throw notFound(`Policy not found (name=${name})`)
    return policy
  }

  /** Attaches; the same again changes nothing, an eleventh policy is 410. */
  attach (name: string, target: string): void {
    const { name: policy } = this.get(name)
    const names = this.#attached.get(target) ?? new Set()
    if (!names.has(policy) && names.size >= MAX_PER_TARGET) {
      throw new AwsError('LimitExceededException', `The maximum number of policies attached to a principal is ${MAX_PER_TARGET}`)
    }
    this.#attached.set(target, names.add(policy))
  }

  /** Detaches; when nothing is attached, nothing changes. */
  detach (name: string, target: string): void {
    const names = this.#attached.get(target)
    names?.delete(name)
    if (names?.size === 0) this.#attached.delete(target)
  }

  /** Takes every policy off a target that ceases to be. */
  detachAll (target: string): void {
    this.#attached.delete(target)
  }

  /** The policies of a target, sorted by name. */
  of (target: string): Policy[] {
    return [...(this.#attached.get(target) ?? [])].sort().map(name => this.get(name))
  }

  snapshot (): object {
    const policies = [...this.#byName.values()].map(({ document, ...policy }) => policy)
    return { policies, attached: [...this.#attached].map(([target, names]) => [target, [...names]]) }
  }

  restore (kept: unknown): void {
    const { policies, attached } = kept as { policies: Array<Omit<Policy, 'document'>>, attached: Array<[string, string[]]> }
    for (const policy of policies) this.#byName.set(policy.name, { ...policy, document: parsePolicy(policy.text) })
    for (const [target, names] of attached) this.#attached.set(target, new Set(names))
  }
}
