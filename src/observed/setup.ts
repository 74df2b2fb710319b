import type { Logger } from 'pino'
import type { Metrics } from '../plugins/metrics.ts'
import { SETUP_PARTS, type SetupCheck, type SetupFault } from '../vending/setup.ts'

interface SetupOptions {
  checks: readonly SetupCheck[]
  metrics: Metrics
  log: Logger
  /** Time between two looks while all is well. */
  intervalMs: number
}

/** What the last looks have found. */
export interface SetupReport {
  faults: readonly SetupFault[]
  /** What AWS does not let the service look at, and why, in words. */
  unchecked: readonly string[]
}

/** All checks of one look together may take this long, the many policies of many products included. */
const LOOK_MS = 30_000

/** The start waits no longer for the first look: what AWS does not answer by then is unknown. */
const START_MS = 5_000

/** The longest time until the next look while something is missing or AWS does not answer; the shortest between two looks out of turn. */
const SOON_MS = 10_000

const DENIED = /AccessDenied|Unauthorized|Forbidden/

/** The service cannot work with what there is in AWS; the message says what is missing, and how to mend it. */
export class SetupError extends Error {
  override name = 'SetupError'
  readonly faults: readonly SetupFault[]
  constructor (faults: readonly SetupFault[]) {
    super(`the set-up in AWS has ${faults.length} ${faults.length === 1 ? 'fault' : 'faults'}:\n${faults.map(({ text }) => `  ${text}`).join('\n')}`)
    this.faults = faults
  }
}

/**
 * Watches what the service needs in AWS: at the start, then again and again, never for a request. A fault is what AWS says for certain; it
 * stays until AWS says otherwise. Where AWS cannot be asked (denied, throttled, away) nothing is found, and the log says so once.
 */
export class SetupWatch {
  readonly #options: SetupOptions
  readonly #faults = new Map<SetupCheck, SetupFault[]>()
  readonly #unchecked = new Map<SetupCheck, { text: string, isDenied: boolean }>()
  #told = new Set<string>()
  #timer: NodeJS.Timeout | undefined
  #lookedAt = -Infinity
  #isOver = false

  constructor (options: SetupOptions) {
    this.#options = options
  }

  get report (): SetupReport {
    return { faults: [...this.#faults.values()].flat(), unchecked: [...this.#unchecked.values()].map(({ text }) => text) }
  }

  /** What the service cannot work without. */
  get fatal (): readonly SetupFault[] {
    return this.report.faults.filter(({ isFatal }) => isFatal)
  }

  /** Whether a dependency answers, but not with what the service needs of it. */
  isUnusable (dependency: string): boolean {
    return this.fatal.some(fault => fault.dependency === dependency)
  }

  /** The first look, and then the next ones in their time. Throws {@link SetupError} where the service cannot work. */
  async start (): Promise<void> {
    const looked = this.#look()
    await Promise.race([looked, new Promise(resolve => setTimeout(resolve, START_MS).unref())])
    if (this.fatal.length > 0) throw new SetupError(this.fatal)
    looked.then(this.#schedule, this.#schedule)
  }

  /** For when a call has just failed as it does where something is missing: looks now, unless it has a moment ago. */
  suspect (): void {
    if (this.#timer === undefined || performance.now() - this.#lookedAt < SOON_MS) return
    clearTimeout(this.#timer)
    this.#again()
  }

  stop (): void {
    this.#isOver = true
    clearTimeout(this.#timer)
  }

  #schedule = (): void => {
    if (this.#isOver) return
    const isWell = this.report.faults.length === 0 && [...this.#unchecked.values()].every(({ isDenied }) => isDenied)
    const { intervalMs } = this.#options
    this.#timer = setTimeout(() => this.#again(), isWell ? intervalMs : Math.min(intervalMs, SOON_MS))
    this.#timer.unref()
  }

  #again (): void {
    this.#timer = undefined
    this.#look().then(this.#schedule, this.#schedule)
  }

  /** One check after the other in each dependency, so that many policies are no burst. */
  async #look (): Promise<void> {
    const signal = AbortSignal.timeout(LOOK_MS)
    const { checks } = this.#options
    this.#lookedAt = performance.now()
    await Promise.all([...new Set(checks.map(({ dependency }) => dependency))].map(async dependency => {
      const found: Array<() => void> = []
      for (const check of checks.filter(check => check.dependency === dependency)) {
        try {
          const faults = await check.look(signal)
          found.push(() => { this.#faults.set(check, faults); this.#unchecked.delete(check) })
        } catch (cause) {
          found.push(() => this.#unchecked.set(check, unchecked(check, cause as Error)))
        }
      }
      this.#publish(dependency, found)
    }))
  }

  /** In one step, so that readiness, metrics and log never differ. */
  #publish (dependency: string, found: ReadonlyArray<() => void>): void {
    const { dependencyUp } = this.#options.metrics
    const wasUnusable = this.isUnusable(dependency)
    for (const keep of found) keep()
    const isUnusable = this.isUnusable(dependency)
    if (isUnusable !== wasUnusable) dependencyUp.set({ dependency }, isUnusable ? 0 : 1)
    this.#tell()
  }

  /** Logs what is new and what is over, and sets the gauge. */
  #tell (): void {
    const { log, metrics: { setupFaults } } = this.#options
    const { faults, unchecked } = this.report
    for (const part of SETUP_PARTS) setupFaults.set({ part }, faults.filter(fault => fault.part === part).length)
    for (const { part, isFatal, text } of faults) if (!this.#told.has(text)) log.error({ part, isFatal }, `missing in AWS: ${text}`)
    for (const text of unchecked) if (!this.#told.has(text)) log.warn(`not looked at: ${text}`)
    const now = new Set([...faults.map(({ text }) => text), ...unchecked])
    for (const text of this.#told) if (!now.has(text)) log.info(`no longer so: ${text}`)
    this.#told = now
  }
}

function unchecked ({ subject, action }: SetupCheck, { name }: Error): { text: string, isDenied: boolean } {
  const isDenied = DENIED.test(name)
  const text = isDenied
    ? `${subject}: AWS denies ${action} (${name}). The service goes on without looking; allow its role the action (infra/access.tf) to have it look.`
    : `${subject}: AWS does not answer ${action} (${name}). It is asked again.`
  return { text, isDenied }
}
