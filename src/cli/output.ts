import { EXIT, codeOf, describe } from './failure.ts'

let isGone = false

/**
 * Lets a command end as it would when its output cannot be written: what it changes it still finishes, and what it prints from then on goes
 * nowhere. A reader that has seen enough, as head(1) has, is no failure; a full disk is: it is said on stderr, and the exit code is 1.
 */
export function endWithoutOutput (): void {
  for (const stream of [process.stdout, process.stderr]) {
    stream.on('error', error => {
      const isFirst = !isGone
      isGone ||= stream === process.stdout
      if (codeOf(error) === 'EPIPE' || stream === process.stderr || !isFirst) return
      process.exitCode = EXIT.failed
      process.stderr.write(describe(error, 'cannot write the output'))
    })
  }
}

/** Whether the output has no reader any more, or no room: what only prints may end. */
export function isReaderGone (): boolean {
  return isGone
}
