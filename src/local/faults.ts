// Fault injection for tests: only where LocalSettings.faults (LOCAL_FAULTS) asks for it, otherwise none of this is there.
//
// While the local AWS runs, its IoT port then also serves, without signature:
//   PUT    /_local/faults   the body, as below, replaces seed and rules; all counts start anew
//   GET    /_local/faults   what is set, with how often each rule has fired
//   DELETE /_local/faults   no rules
// The body, and LOCAL_FAULTS, is {"seed": 1, "rules": [...]} or just the list of rules. A rule:
//   operation    AWS's name of an operation, such as "AttachPolicy", or "*"
//   kind         latency: answers late, after `latencyMs` · error: 500 InternalFailureException, or with "status": 503
//                ServiceUnavailableException · throttle: ThrottlingException · cut: the connection ends and nothing was done ·
//                cut-after: it ends when the work is done, so the caller cannot know · hang, hang-after: the same with a caller that
//                waits for ever · crash, crash-after: the whole process is killed (SIGKILL), before the work or when it is done. Each kind
//                but latency waits `latencyMs` first where that is given.
//   skip         lets the first calls pass that would meet it
//   times        fires so often and no more; without it, always
//   probability  0 to 1, drawn from the seed: the same seed gives the same sequence for each rule
// The first rule in the list that fires is the one that counts.
import { createHash } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import { AwsError, invalidRequest } from './aws-error.ts'

const KINDS = ['latency', 'error', 'throttle', 'cut', 'cut-after', 'hang', 'hang-after', 'crash', 'crash-after'] as const
type Kind = typeof KINDS[number]

export interface FaultRule {
  readonly operation: string
  readonly kind: Kind
  readonly latencyMs?: number
  readonly status?: 500 | 503
  readonly skip?: number
  readonly times?: number
  readonly probability?: number
}

/** What is set; the seed is 0 unless given. */
export interface FaultPlan { readonly seed?: number, readonly rules: readonly FaultRule[] }

/** What is to become of the connection instead of an answer. */
export type Ending = 'cut' | 'hang'

/** Decides which calls fail, and how. */
export class Faults {
  readonly #crash: () => void
  #seed = 0
  #rules: Array<{ rule: FaultRule, met: number, fired: number }> = []

  constructor (plan: FaultPlan = { rules: [] }, crash = () => { process.kill(process.pid, 'SIGKILL') }) {
    this.#crash = crash
    this.set(plan)
  }

  set ({ seed = 0, rules }: FaultPlan): void {
    this.#seed = seed
    this.#rules = rules.map(rule => ({ rule, met: 0, fired: 0 }))
  }

  /** What is set, with how often each rule has fired. */
  report (): object {
    return { seed: this.#seed, rules: this.#rules.map(({ rule, fired }) => ({ ...rule, fired })) }
  }

  /**
   * Runs one call under the rules. Resolves with the answer, or with how the connection is to end; throws the error a rule asks for.
   */
  async apply<T> (operation: string, run: () => T | Promise<T>): Promise<{ answer: T } | { ending: Ending }> {
    const rule = this.#next(operation)
    if (rule?.latencyMs !== undefined) await sleep(rule.latencyMs)
    switch (rule?.kind) {
      case 'error':
        throw rule.status === 503
          ? new AwsError('ServiceUnavailableException', 'The service is temporarily unavailable (injected fault)')
          : new AwsError('InternalFailureException', 'An unexpected error has occurred (injected fault)')
      case 'throttle': throw new AwsError('ThrottlingException', 'Rate exceeded')
      case 'crash':
        this.#crash()
        return { ending: 'hang' }
      case 'crash-after':
        await Promise.resolve().then(run).catch(() => {})
        this.#crash()
        return { ending: 'hang' }
      case 'cut':
      case 'hang': return { ending: rule.kind }
      case 'cut-after':
      case 'hang-after':
        // Work that fails was not done, and a lost refusal is like a lost answer.
        await Promise.resolve().then(run).catch(() => {})
        return { ending: rule.kind === 'cut-after' ? 'cut' : 'hang' }
      default: return { answer: await run() }
    }
  }

  #next (operation: string): FaultRule | undefined {
    for (const [index, state] of this.#rules.entries()) {
      const { rule } = state
      if ((rule.operation !== '*' && rule.operation !== operation) || state.fired >= (rule.times ?? Infinity)) continue
      const met = state.met++
      if (met < (rule.skip ?? 0) || (rule.probability !== undefined && this.#draw(index, met) >= rule.probability)) continue
      state.fired++
      return rule
    }
    return undefined
  }

  /** A number from 0 up to 1 for the n-th call that meets a rule, whatever other calls came between. */
  #draw (index: number, n: number): number {
    return createHash('sha256').update(`${this.#seed} ${index} ${n}`).digest().readUInt32BE() / 2 ** 32
  }
}

/** Reads a plan from JSON; 400 with the reason for anything else. `operations` are the names a rule may have. */
export function faultPlan (value: unknown, operations?: ReadonlySet<string>): FaultPlan {
  const plan = (Array.isArray(value) ? { rules: value as unknown } : value) as Partial<Record<'seed' | 'rules', unknown>> | null
  if (typeof plan !== 'object' || plan === null || !Array.isArray(plan.rules)) throw invalidRequest('Faults must be a list of rules, or an object with "rules"')
  const { seed = 0 } = plan
  if (!Number.isInteger(seed)) throw invalidRequest('"seed" must be a whole number')
  for (const rule of plan.rules as unknown[]) {
    const fault = faultIn(rule, operations)
    if (fault !== undefined) throw invalidRequest(`${fault}: ${JSON.stringify(rule)}`)
  }
  return { seed: seed as number, rules: plan.rules as FaultRule[] }
}

function faultIn (rule: unknown, operations: ReadonlySet<string> | undefined): string | undefined {
  if (typeof rule !== 'object' || rule === null) return 'A rule must be an object'
  const { operation, kind, latencyMs, status, skip, times, probability, ...unknown } = rule as Record<string, unknown>
  const count = (value: unknown): boolean => value === undefined || (Number.isInteger(value) && (value as number) >= 0)
  if (typeof operation !== 'string') return '"operation" must be the name of an operation, or "*"'
  if (operation !== '*' && operations?.has(operation) === false) return `There is no operation ${operation} here`
  if (!KINDS.some(known => known === kind)) return `"kind" must be one of ${KINDS.join(', ')}`
  if (!count(latencyMs) || (kind === 'latency' && latencyMs === undefined)) return '"latencyMs" must be a number of milliseconds'
  if (status !== undefined && status !== 500 && status !== 503) return '"status" must be 500 or 503'
  if (!count(skip) || !count(times)) return '"skip" and "times" must be whole numbers'
  if (probability !== undefined && !(typeof probability === 'number' && probability >= 0 && probability <= 1)) return '"probability" must be 0 to 1'
  const [extra] = Object.keys(unknown)
  return extra === undefined ? undefined : `A rule has no "${extra}"`
}
