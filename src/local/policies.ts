import { AwsError, notFound } from './aws-error.ts'
import { parsePolicy, type PolicyDocument } from './policy.ts'
import type { Store } from './state.ts'
import { TrackedMap, type Change } from './tracked-map.ts'

/** One version of a policy; `text` is what was sent, byte for byte. Times are epoch milliseconds. */
export interface PolicyVersion {
  readonly id: string
  readonly text: string
  readonly document: PolicyDocument
  readonly createdAt: number
}

/** A policy as AWS IoT keeps it; its default version is the one that counts. */
export interface Policy {
  readonly name: string
  readonly arn: string
  readonly createdAt: number
  /** Rises with each policy; the order of lists. */
  readonly sequence: number
  readonly versions: Map<string, PolicyVersion>
  defaultVersion: PolicyVersion
  /** That of the default version. */
  document: PolicyDocument
  changedAt: number
  /** Version ids are not given a second time. */
  lastVersion: number
}

/** How a policy is kept: documents are read anew from their text. */
type Kept = Omit<Policy, 'versions' | 'defaultVersion' | 'document'> & { versions: Array<Omit<PolicyVersion, 'document'>>, defaultId: string }

interface PolicyChanges { readonly policies: Change<Kept>[], readonly attached: Change<string[]>[] }

// AWS's limits (aws-facts 2.5).
const MAX_PER_PRINCIPAL = 10
const MAX_PER_GROUP = 2
const MAX_CHARACTERS = 2048
const MAX_VERSIONS = 5

/** The policies of one account, and to which targets (ARNs of certificates and thing groups) they are attached. */
export class Policies implements Store {
  readonly #byName = new TrackedMap<Policy>()
  readonly #attached = new TrackedMap<Set<string>>()
  readonly #arnPrefix: string
  #sequence = 0

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
    const first = version(1, text)
    const { createdAt } = first
    const policy = {
      name,
      arn: `${this.#arnPrefix}:policy/${name}`,
      createdAt,
      sequence: ++this.#sequence,
      versions: new Map([[first.id, first]]),
      defaultVersion: first,
      document: first.document,
      changedAt: createdAt,
      lastVersion: 1
    }
    this.#byName.set(name, policy)
    return policy
  }

  find (name: string): Policy | undefined {
    return this.#byName.get(name)
  }

  /** The policy of that name; 404 when there is none. */
  get (name: string): Policy {
    const policy = this.#byName.get(name)
    if (policy === undefined) throw notFound(`Policy not found (name=${name})`)
    return policy
  }

  /** All of them, oldest first. */
  list (): Policy[] {
    return [...this.#byName.values()]
  }

  /** Adds a version, which counts at once when it is to be the default; a sixth is 409. */
  addVersion (policy: Policy, text: string, setAsDefault: boolean): PolicyVersion {
    if (policy.versions.size >= MAX_VERSIONS) {
      throw new AwsError('VersionsLimitExceededException', `The policy ${policy.name} already has the maximum number of versions (${MAX_VERSIONS})`)
    }
    const added = version(policy.lastVersion + 1, text)
    policy.lastVersion++
    policy.versions.set(added.id, added)
    this.#byName.touch(policy.name)
    if (setAsDefault) this.setDefault(policy, added)
    return added
  }

  /** The version of that id; 404 when there is none. */
  versionOf (policy: Policy, id: string): PolicyVersion {
    const version = policy.versions.get(id)
    if (version === undefined) throw notFound(`Policy version not found (name=${policy.name}, version=${id})`)
    return version
  }

  setDefault (policy: Policy, version: PolicyVersion): void {
    policy.defaultVersion = version
    policy.document = version.document
    policy.changedAt = Date.now()
    this.#byName.touch(policy.name)
  }

  /** Deletes a version; 409 for the one that counts. */
  removeVersion (policy: Policy, { id }: PolicyVersion): void {
    if (policy.defaultVersion.id === id) {
      throw new AwsError('DeleteConflictException', `Cannot delete the default version of a policy (name=${policy.name}, version=${id})`)
    }
    policy.versions.delete(id)
    this.#byName.touch(policy.name)
  }

  /** Deletes a policy; 409 as long as it is attached anywhere or has versions besides the default one. */
  remove ({ name, versions }: Policy): void {
    if (this.targetsOf(name).length > 0) {
      throw new AwsError('DeleteConflictException', `The policy cannot be deleted as the policy is attached to one or more principals (name=${name})`)
    }
    if (versions.size > 1) {
      throw new AwsError('DeleteConflictException', `Cannot delete the policy because it has one or more policy versions attached to it (name=${name})`)
    }
    this.#byName.delete(name)
  }

  /** Attaches; the same again changes nothing. 410 for a certificate's eleventh policy and a thing group's third. */
  attach (name: string, target: string): void {
    const { name: policy } = this.get(name)
    const names = this.#attached.get(target) ?? new Set()
    const limit = target.startsWith(`${this.#arnPrefix}:thinggroup/`) ? MAX_PER_GROUP : MAX_PER_PRINCIPAL
    if (!names.has(policy) && names.size >= limit) {
      throw new AwsError('LimitExceededException', `The maximum number of policies attached to this target is ${limit}`)
    }
    this.#attached.set(target, names.add(policy))
  }

  /** Detaches; when nothing is attached, nothing changes. */
  detach (name: string, target: string): void {
    const names = this.#attached.get(target)
    names?.delete(name)
    this.#attached.touch(target)
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

  /** The targets of a policy, sorted; 404 when there is no such policy. */
  targetsOf (name: string): string[] {
    const { name: wanted } = this.get(name)
    return [...this.#attached].filter(([, names]) => names.has(wanted)).map(([target]) => target).sort()
  }

  snapshot (): object {
    return { policies: this.list().map(keptOf), attached: [...this.#attached].map(([target, names]) => [target, [...names]]) }
  }

  restore (kept: unknown): void {
    const { policies, attached } = kept as { policies: Kept[], attached: Array<[string, string[]]> }
    this.apply({ policies: policies.map(policy => [policy.name, policy]), attached })
  }

  changes (): PolicyChanges | undefined {
    const changes = { policies: this.#byName.take(keptOf), attached: this.#attached.take(names => [...names]) }
    return changes.policies.length + changes.attached.length === 0 ? undefined : changes
  }

  apply (changes: unknown): void {
    const { policies, attached } = changes as PolicyChanges
    this.#byName.apply(policies, kept => {
      this.#sequence = Math.max(this.#sequence, kept.sequence)
      return policyOf(kept)
    })
    this.#attached.apply(attached, names => new Set(names))
  }
}

function keptOf ({ document, versions, defaultVersion, ...policy }: Policy): Kept {
  return { ...policy, versions: [...versions.values()].map(({ document, ...version }) => version), defaultId: defaultVersion.id }
}

function policyOf ({ versions: texts, defaultId, ...policy }: Kept): Policy {
  const versions = new Map(texts.map(version => [version.id, { ...version, document: parsePolicy(version.text) }]))
  const defaultVersion = versions.get(defaultId)
  if (defaultVersion === undefined) throw new Error(`policy ${policy.name} has no default version`)
  return { ...policy, versions, defaultVersion, document: defaultVersion.document }
}

function version (number: number, text: string): PolicyVersion {
  if (text.replace(/\s/g, '').length > MAX_CHARACTERS) {
    throw new AwsError('MalformedPolicyException', `Policy document is longer than ${MAX_CHARACTERS} characters without white space`)
  }
  return { id: String(number), text, document: parsePolicy(text), createdAt: Date.now() }
}
