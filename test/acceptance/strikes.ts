// Faults at exactly one call of exactly one device's vend, and what each means for the calls that follow.
import type { AwsAnswer, AwsCall, Decider, Fate } from './aws-proxy.ts'
import type { Observer } from './observer.ts'

/** The n-th call of one kind in a vend, such as `UpdateItem#2`; `nameless` when nothing in it names the device. */
export interface Step { readonly name: string, readonly nameless: boolean }

export const PHASES = ['before', 'after'] as const
/**
 * `kill`: the process is killed while it waits for this call. `cut`: from this call on it is cut off from AWS, as far as this device
 * goes, until it has answered. `lost`: this one call is never answered; the next ones are.
 */
export const KINDS = ['kill', 'cut', 'lost'] as const

export interface Strike { readonly step: Step, readonly phase: typeof PHASES[number], readonly kind: typeof KINDS[number] }

/** A strike that waits for its call. */
export class Armed {
  readonly strike: Strike
  readonly struck: Promise<void>
  struckAt = 0
  /** The replica that it has struck. */
  from: string | undefined
  over = false
  readonly counts = new Map<string, number>()
  #resolve = (): void => {}

  constructor (strike: Strike) {
    this.strike = strike
    this.struck = new Promise(resolve => { this.#resolve = resolve })
  }

  hit (from: string): void {
    this.from = from
    this.struckAt = Date.now()
    this.#resolve()
  }
}

/** Decides for all proxies of one test: carries out the strikes, and tells the observer everything. */
export class Strikes implements Decider {
  readonly #observer: Observer
  readonly #armed = new Map<string, Armed>()
  /** Those at a call that names no device; there is no other such call while they wait. */
  readonly #nameless = new Set<Armed>()
  readonly #names = new WeakMap<AwsCall, string>()
  #trace: { call: string, nameless: boolean }[] | undefined

  constructor (observer: Observer) {
    this.#observer = observer
  }

  arm (serialNumber: string, strike: Strike): Armed {
    const armed = new Armed(strike)
    if (strike.step.nameless) this.#nameless.add(armed)
    this.#armed.set(serialNumber, armed)
    return armed
  }

  /** From here on the device is left in peace. */
  disarm (serialNumber: string): void {
    const armed = this.#armed.get(serialNumber)
    if (!armed) return
    armed.over = true
    this.#nameless.delete(armed)
  }

  /** The calls that were made while `work` ran, by name. */
  async traced (work: () => Promise<unknown>): Promise<Step[]> {
    const trace: { call: string, nameless: boolean }[] = []
    this.#trace = trace
    await work()
    this.#trace = undefined
    const counts = new Map<string, number>()
    return trace.map(({ call, nameless }) => ({ name: numbered(counts, call), nameless }))
  }

  before (call: AwsCall): Fate {
    this.#observer.sent(call)
    const serialNumber = this.#observer.deviceOf(call)
    this.#trace?.push({ call: call.operation, nameless: serialNumber === undefined })
    const fates = this.#concerned(call).map(armed => {
      if (armed.from !== undefined) return following(armed, call)
      const name = numbered(armed.counts, call.operation)
      this.#names.set(call, name)
      return this.#strikes(armed, name, 'before', call)
    })
    return fates.find(fate => fate !== 'pass') ?? 'pass'
  }

  after (call: AwsCall, answer: AwsAnswer): Fate {
    this.#observer.answered(call, answer)
    const fates = this.#concerned(call).map(armed => {
      if (armed.from !== undefined) return armed.strike.kind === 'cut' ? following(armed, call) : 'pass'
      return this.#strikes(armed, this.#names.get(call) ?? '', 'after', call)
    })
    return fates.find(fate => fate !== 'pass') ?? 'pass'
  }

  #concerned (call: AwsCall): Armed[] {
    const serialNumber = this.#observer.deviceOf(call)
    const concerned = serialNumber === undefined
      ? [...this.#nameless].filter(({ strike }) => strike.step.name.startsWith(`${call.operation}#`))
      : [this.#armed.get(serialNumber)]
    return concerned.filter(armed => armed !== undefined && !armed.over) as Armed[]
  }

  #strikes (armed: Armed, name: string, phase: Strike['phase'], { from }: AwsCall): Fate {
    const { strike } = armed
    if (strike.phase !== phase || strike.step.name !== name) return 'pass'
    armed.hit(from)
    return strike.kind === 'cut' ? 'cut' : 'lose'
  }
}

/** What becomes of the calls that the struck replica makes for the device afterwards. */
function following ({ strike: { kind }, from }: Armed, call: AwsCall): Fate {
  if (kind === 'lost' || call.from !== from) return 'pass'
  return kind === 'cut' ? 'cut' : 'lose'
}

function numbered (counts: Map<string, number>, operation: string): string {
  const n = (counts.get(operation) ?? 0) + 1
  counts.set(operation, n)
  return `${operation}#${n}`
}
