/** What the exit codes of `cvm` mean; a test holds `cvm --help` to this table. */
export const EXIT = { done: 0, failed: 1, usage: 2, refused: 3, later: 4, interrupted: 130 } as const

export type ExitCode = typeof EXIT[keyof typeof EXIT]

/** The members of a problem document (RFC 9457) that a person at the terminal needs. */
export interface Problem {
  code?: string
  reason?: string
  detail?: string
  remedy?: string
  requestId?: string
}

/** Anything that stops a command: what failed, the exit code that follows, and what the service or the machine said about it. */
export class Failure extends Error {
  readonly exitCode: ExitCode
  readonly problem: Problem

  constructor (exitCode: ExitCode, what: string, problem: Problem = {}, cause?: unknown) {
    super(what, { cause })
    this.name = 'Failure'
    this.exitCode = exitCode
    this.problem = problem
  }
}

/** Renders any thrown value for stderr: never a stack trace, never control characters of a stranger's answer. */
export function describe (error: unknown, what?: string): string {
  const { message, problem } = error instanceof Failure ? error : machineFailure(error, what)
  const { code, reason, detail, remedy, requestId } = problem
  const rows = [['code', code], ['reason', reason], ['detail', detail], ['remedy', remedy], ['request id', requestId]]
    .filter((row): row is [string, string] => row[1] !== undefined && row[1] !== '')
    .map(([name, value]) => `  ${`${name}:`.padEnd(12)}${printable(value)}\n`)
  return `cvm: ${printable(message)}\n${rows.join('')}`
}

/** What is said of an error that no command explains; `what` names the attempt that failed. */
function machineFailure (error: unknown, what?: string): { message: string, problem: Problem } {
  const remedy = MACHINE_REMEDIES[codeOf(error)]
  return { message: what === undefined ? messageOf(error) : `${what}: ${messageOf(error)}`, problem: remedy === undefined ? {} : { remedy } }
}

const MORE_FILES = 'Raise the limit of open files (ulimit -n), or let fewer programs run'
const MORE_ROOM = 'Make room on the disk'

/** What to do about the machine's own limits. */
const MACHINE_REMEDIES: Readonly<Record<string, string>> = { EMFILE: MORE_FILES, ENFILE: MORE_FILES, ENOSPC: MORE_ROOM, EDQUOT: MORE_ROOM }

/** The message of any thrown value; an AggregateError (several addresses tried) speaks through its first member. */
export function messageOf (error: unknown): string {
  if (error instanceof AggregateError && error.message === '') return messageOf(error.errors[0])
  return error instanceof Error ? error.message : String(error)
}

const FILE_ERRORS: Readonly<Record<string, string>> = {
  ENOENT: 'There is no such file',
  EISDIR: 'It is a folder, not a file',
  ENOTDIR: 'A part of its path is a file, not a folder',
  EACCES: 'This user may not read it'
}

/** For a file that cannot be read, what it is. */
export function unreadable (file: string, error: unknown): Failure {
  const remedy = MACHINE_REMEDIES[codeOf(error)]
  return new Failure(EXIT.failed, `cannot read ${file}`, { detail: FILE_ERRORS[codeOf(error)] ?? messageOf(error), ...remedy !== undefined && { remedy } }, error)
}

/** The `code` that Node, OpenSSL or commander put on an error, or ''. */
export function codeOf (error: unknown): string {
  if (typeof error !== 'object' || error === null || !('code' in error)) return ''
  return typeof error.code === 'string' ? error.code : ''
}

/** Text from elsewhere made safe for a terminal: one line, bounded, no escape sequences, nothing that turns the direction of writing. */
export function printable (text: string): string {
  // eslint-disable-next-line no-control-regex
  return text.replace(/[\u0000-\u001f\u007f-\u009f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069]+/g, ' ').slice(0, 1000)
}
