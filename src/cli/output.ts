import { codeOf } from './failure.ts'

let isGone = false

/**
 * Lets a command end as it would when the reader of its output has seen enough, as head(1) has: what it changes it still finishes, and
 * what it prints from then on goes nowhere.
 */
export function endQuietlyWithoutReader (): void {
  for (const stream of [process.stdout, process.stderr]) {
    stream.on('error', error => {
      if (codeOf(error) !== 'EPIPE') throw error
      isGone ||= stream === process.stdout
    })
  }
}

/** Whether the output has no reader any more: what only prints may end. */
export function isReaderGone (): boolean {
  return isGone
}
