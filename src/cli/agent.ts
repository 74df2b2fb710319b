import { setTimeout as delay } from 'node:timers/promises'
import { readFacts } from './device-folder.ts'
import { EXIT, Failure } from './failure.ts'
import { type Renewal, isRenewing, renew } from './renew.ts'
import { takeOverAlone } from './renewal-folder.ts'

export interface Agent extends Renewal {
  /** Ends the agent, when it is safe. */
  readonly signal: AbortSignal
  readonly random: () => number
  /** Told of everything that happens, in words. */
  readonly say: (line: string) => void
  readonly sleep?: (ms: number, signal: AbortSignal) => Promise<unknown>
}

/** Looks at the clock as often, because a device's may be set meanwhile, and a timer cannot run for months. */
const LONGEST_SLEEP_MS = 3_600_000

/** On top of `renewAfter`, which the service spreads already: devices that were off together shall not come back together. */
const MOST_JITTER_MS = 600_000

/** Between two renewals, and before the first retry. */
const LEAST_PAUSE_MS = 60_000
const LONGEST_RETRY_MS = 3_600_000

/**
 * Renews the certificate in a folder whenever it is due, until it is told to end. A renewal that fails is tried again, each time later;
 * what it has begun is finished first, also after a crash. Throws a `Failure` where there is no device in the folder.
 */
export async function runAgent (agent: Agent): Promise<void> {
  const { folder, signal, now, random, say, sleep = pause } = agent
  if (await takeOverAlone(folder)) say('finished a renewal that was confirmed before')
  let failures = 0
  let dueAt = await isRenewing(folder) ? now() : await nextDue(agent)
  while (!signal.aborted) {
    const leftMs = dueAt - now()
    if (leftMs > 0) {
      await sleep(Math.min(leftMs, LONGEST_SLEEP_MS), signal)
      continue
    }
    try {
      const { certificateId, notAfter, renewAfter } = await renew(agent)
      failures = 0
      dueAt = Math.max(await nextDue(agent), now() + LEAST_PAUSE_MS)
      say(`renewed: certificate ${certificateId}, valid until ${notAfter}, to be renewed after ${renewAfter}`)
    } catch (error) {
      if (!(error instanceof Failure)) throw error
      const waitMs = Math.min(LONGEST_RETRY_MS, LEAST_PAUSE_MS * 2 ** failures++) * (0.5 + random() / 2)
      dueAt = now() + waitMs
      say(`not renewed: ${error.message}${error.problem.code ? ` (${error.problem.code})` : ''}; again in ${Math.round(waitMs / 1000)} s`)
    }
  }
}

async function nextDue ({ folder, random }: Agent): Promise<number> {
  const facts = await readFacts(folder)
  if (!facts) throw new Failure(EXIT.failed, `${folder} holds no enrolled device`, { remedy: `cvm device enroll --out ${folder}` })
  const [renewAfter, notAfter] = [Date.parse(facts.renewAfter), Date.parse(facts.notAfter)]
  return renewAfter + random() * Math.min(MOST_JITTER_MS, Math.max(0, notAfter - renewAfter) / 10)
}

/** Ends early, and well, when the signal aborts. */
async function pause (ms: number, signal: AbortSignal): Promise<void> {
  await delay(ms, undefined, { signal }).catch(() => {})
}
