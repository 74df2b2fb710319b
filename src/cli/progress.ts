import { progress } from '@clack/prompts'
import { EXIT } from './failure.ts'

/** Tells a person how far the work has come. */
export interface Progress {
  /** So many more are done; `note` is shown beside how many. */
  readonly advance: (count: number, note?: string) => void
  /** Why nothing happens just now. */
  readonly say: (text: string) => void
  /** No more is to be told. */
  readonly stop: (text: string) => void
}

const STEPS = 10
const LEAST_COLUMNS = 60
const BAR_COLUMNS = 30

/**
 * A bar on a terminal that is wide enough; elsewhere, and where colours are not wanted, a line on stderr for each tenth. The bar ends the
 * process at once on Ctrl-C: `isPlain` is for work that must not end like that.
 */
export function startProgress (what: string, total: number, isPlain = false): Progress {
  const { NO_COLOR, TERM, CI } = process.env
  // Some terminals say that they have no columns at all.
  const isFit = process.stderr.isTTY && process.stderr.columns >= LEAST_COLUMNS
  return !isPlain && isFit && !NO_COLOR && TERM !== 'dumb' && !CI ? bar(what, total) : lines(what, total, line => process.stderr.write(`${line}\n`))
}

/** A line at the start and for each tenth that is done. @public */
export function lines (what: string, total: number, write: (line: string) => void): Progress {
  let done = 0
  let told = 0
  write(`${what}: ${total} devices`)
  return {
    advance (count, note = '') {
      done += count
      const step = Math.floor(done * STEPS / total)
      if (step > told) write(`${done} of ${total} done (${Math.floor(done * 100 / total)} %)${note && `, ${note}`}`)
      told = Math.max(told, step)
    },
    say: write,
    stop: write
  }
}

/**
 * How fast it goes, what went wrong and how long it will take, for `advance`: `done` of `total` in so many milliseconds, without what an
 * earlier run had done.
 */
export function paceOf (done: number, total: number, wrong: number, elapsedMs: number): string {
  const rate = done * 1000 / Math.max(1, elapsedMs)
  const seconds = rate === 0 ? 0 : Math.ceil((total - done) / rate)
  const left = seconds < 100 ? `${seconds} s` : seconds < 6000 ? `${Math.ceil(seconds / 60)} min` : `${(seconds / 3600).toFixed(1)} h`
  return `${rate.toFixed(1)}/s, ${wrong} not vended, ${left} left`
}

function bar (what: string, total: number): Progress {
  const shown = progress({
    max: total,
    size: BAR_COLUMNS,
    output: process.stderr,
    cancelMessage: 'interrupted: the same command goes on from here',
    onCancel: () => process.exit(EXIT.interrupted)
  })
  // The bar reads the keyboard, and ends the process with 0 when it sees Ctrl-C.
  const interrupted = () => { process.exitCode = EXIT.interrupted }
  process.once('exit', interrupted)
  let done = 0
  shown.start(what)
  return {
    advance (count, note = '') {
      done += count
      shown.advance(count, `${done} of ${total}${note && `, ${note}`}`)
    },
    say: text => shown.message(text),
    stop (text) {
      process.off('exit', interrupted)
      shown.stop(text)
    }
  }
}
