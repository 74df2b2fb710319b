// The built command line, with nothing of this machine's settings. Most of its time is its start, so most runs share one process.
import { type ChildProcess, fork, spawn } from 'node:child_process'
import { once } from 'node:events'
import { text } from 'node:stream/consumers'
import { fileURLToPath } from 'node:url'

export interface Surroundings {
  env?: Record<string, string>
  input?: string
  /** Put before it in a shell, such as `ulimit -f 1;`. */
  shell?: string
  /** In a process of its own, which may be killed. */
  isAlone?: boolean
}

interface Ended { status: number | null, stdout: string, stderr: string }

const CVM = [process.execPath, 'dist/cli/main.js']
const HOST = fileURLToPath(new URL('host.mjs', import.meta.url))

/** Runs `cvm` to its end: in a process of its own where that makes a difference, else one after the other in a process for all. */
export async function cvm (args: string[], { env = {}, input = '', shell, isAlone = false }: Surroundings = {}): Promise<Ended> {
  if (!isAlone && input === '' && shell === undefined) return await hosted(args, { ...clean(), ...env })
  const command = [...CVM, ...args]
  const [program, ...rest] = shell === undefined ? command : ['sh', '-c', `${shell} exec "$@"`, 'sh', ...command]
  const child = spawn(program as string, rest, { env: { ...clean(), ...env } })
  child.stdin.end(input)
  const ended = new Promise<number | null>(resolve => child.on('close', resolve))
  const [stdout, stderr] = await Promise.all([text(child.stdout), text(child.stderr)])
  return { status: await ended, stdout, stderr }
}

let host: ChildProcess | undefined
let last: Promise<unknown> = Promise.resolve()

function hosted (args: string[], env: Record<string, string | undefined>): Promise<Ended> {
  const run = last.then(async () => {
    host ??= fork(HOST, { env: clean(), execArgv: [], stdio: ['ignore', 'ignore', 'inherit', 'ipc'] })
    // It must not keep the test from ending, but for an answer.
    host.ref()
    host.channel?.ref()
    const over = new AbortController()
    const died = once(host, 'exit', over).then(([code, signal]) => { throw new Error(`cvm ${args.join(' ')} ended its process: ${signal ?? code}`) })
    const answered = once(host, 'message', over)
    for (const promise of [died, answered]) promise.catch(() => {})
    host.send({ args, env })
    const [ended] = await Promise.race([answered, died]).finally(() => over.abort()) as [Ended]
    host.unref()
    host.channel?.unref()
    return ended
  })
  last = run.catch(() => {})
  return run
}

/** Runs `cvm` on a terminal of script(1) with 100 columns, and types once what `type` says to what was shown. Returns all of that. */
export async function onTerminal (
  args: string[], env: Record<string, string>, type?: (shown: string) => string | undefined): Promise<string> {
  const command = [...CVM, ...args].map(word => `'${word}'`).join(' ')
  const child = spawn('script', ['-qec', `stty cols 100; ${command}; echo exit $?`, '/dev/null'], { env: { ...clean(), TERM: 'xterm', CI: '', ...env } })
  let shown = ''
  let isTyped = false
  child.stdout.on('data', chunk => {
    shown += chunk
    const keys = isTyped ? undefined : type?.(shown)
    if (keys === undefined) return
    isTyped = true
    child.stdin.write(keys)
  })
  await new Promise(resolve => child.on('close', resolve))
  return shown
}

function clean (): Record<string, string | undefined> {
  const own = Object.entries(process.env).filter(([name]) => !/^(CVM_|NODE_OPTIONS$|NO_COLOR$)/.test(name))
  return { ...Object.fromEntries(own), NODE_COMPILE_CACHE: 'node_modules/.cache/node', CVM_LOCAL_DIR: '/nonexistent', XDG_CONFIG_HOME: '/nonexistent' }
}
