// Our programs as a stranger runs them: the built files, in processes of their own, with an environment that nothing else gets into.
import { type ChildProcess, spawn } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { Test } from 'tap'

/** How a process ended: its exit code, or the signal that ended it. */
export type Exit = number | NodeJS.Signals

export interface RunningProcess {
  readonly pid: number
  /** All of stdout and stderr so far. */
  readonly output: () => string
  /** Resolves once it has ended and all it wrote has been read. */
  readonly ended: Promise<Exit>
  readonly signal: (name: NodeJS.Signals) => void
  /** Resolves with what `find` found in the output; rejects when the process ends, or takes too long, before that. */
  readonly said: <T>(find: (output: string) => T | undefined) => Promise<T>
  /** SIGTERM, and SIGKILL for one that does not end. */
  readonly stop: () => Promise<Exit>
}

export const ROOT = fileURLToPath(new URL('../..', import.meta.url))
export const SERVER = join(ROOT, 'dist/server.js')
export const LOCAL_AWS = join(ROOT, 'dist/local/main.js')
export const CLI = join(ROOT, 'dist/cli/main.js')

const PATIENCE_MS = 300_000
const STOP_MS = 60_000
const alive = new Set<ChildProcess>()
const folders = new Set<string>()

// The last resort, for a test file that ends without its teardowns: by itself, by a signal, or by tap's alarm when it takes too long.
process.once('exit', leaveNothing)
process.once('SIGALRM', leaveNothing)
for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
  process.once(name, () => {
    leaveNothing()
    process.kill(process.pid, name)
  })
}

function leaveNothing (): void {
  for (const child of alive) child.kill('SIGKILL')
  for (const dir of folders) rmSync(dir, { recursive: true, force: true })
}

/** Starts a program; it is gone when the test is over, however that ends. `asGroup`: signals reach its children too, as Ctrl-C does. */
export function start (t: Test, file: string, args: readonly string[], env: Record<string, string>, asGroup = false): RunningProcess {
  const child = spawn(file, args, { cwd: ROOT, env: { ...inherited(), ...env }, stdio: ['ignore', 'pipe', 'pipe'], detached: asGroup })
  alive.add(child)
  let output = ''
  const listeners = new Set<() => void>()
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8').on('data', chunk => {
      output += chunk
      for (const listener of [...listeners]) listener()
    })
  }
  const ended = new Promise<Exit>((resolve, reject) => {
    child.once('error', reject)
    child.once('close', (code, signal) => {
      alive.delete(child)
      resolve(code ?? signal!)
    })
  })
  ended.catch(() => {})
  const signal = (name: NodeJS.Signals) => {
    if (asGroup && alive.has(child)) process.kill(-child.pid!, name)
    else child.kill(name)
  }
  const stop = async () => {
    signal('SIGTERM')
    const timer = setTimeout(() => signal('SIGKILL'), STOP_MS)
    return await ended.finally(() => clearTimeout(timer))
  }
  const said = <T>(find: (output: string) => T | undefined) => new Promise<T>((resolve, reject) => {
    const look = () => {
      const found = find(output)
      if (found !== undefined) settle(() => resolve(found))
    }
    const fail = (why: string) => settle(() => reject(new Error(`${args[0] ?? file} ${why}:\n${output}`)))
    const timer = setTimeout(() => fail(`did not say it within ${PATIENCE_MS} ms`), PATIENCE_MS)
    const settle = (end: () => void) => {
      clearTimeout(timer)
      listeners.delete(look)
      end()
    }
    listeners.add(look)
    look()
    ended.then(exit => fail(`ended (${exit})`), reject)
  })
  t.teardown(stop)
  return { pid: child.pid ?? 0, output: () => output, ended, signal, said, stop }
}

/** Runs a program of Node's to its end. */
export async function run (t: Test, args: readonly string[], env: Record<string, string> = {}): Promise<{ exit: Exit, output: string }> {
  const { ended, output } = start(t, process.execPath, args, env)
  return { exit: await ended, output: output() }
}

/** A folder that is gone when the test is over. Ask for it before the processes that use it: teardowns run in reverse. */
export function folder (t: Test): string {
  const dir = mkdtempSync(join(tmpdir(), 'cvm-acceptance-'))
  folders.add(dir)
  t.teardown(() => {
    rmSync(dir, { recursive: true, force: true })
    folders.delete(dir)
  })
  return dir
}

/** What any program needs; no settings, and no credentials that could reach a real AWS account. */
function inherited (): NodeJS.ProcessEnv {
  const names = ['PATH', 'HOME', 'TMPDIR', 'LANG', 'TZ', 'NODE_EXTRA_CA_CERTS']
  // What one process compiled, the next of them reads: a fifth of the CPU of a start. Without effect on Node 20.
  const compileCache = process.env['NODE_COMPILE_CACHE'] ?? join(ROOT, 'node_modules/.cache/node')
  const env = Object.fromEntries(names.flatMap(name => process.env[name] === undefined ? [] : [[name, process.env[name]]]))
  return { ...env, NODE_COMPILE_CACHE: compileCache, AWS_SDK_JS_NODE_VERSION_SUPPORT_WARNING_DISABLED: 'true' }
}
