// The processes that are measured, or measured against; none outlives the bench.
import { type ChildProcess, type ForkOptions, execFileSync, fork, spawn } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

const running = new Set<ChildProcess>()
const folders = new Set<string>()
process.on('exit', leaveNothing)
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => process.exit(1))

function leaveNothing (): void {
  for (const child of running) child.kill('SIGKILL')
  for (const folder of folders) rmSync(folder, { recursive: true, force: true })
}

export const SERVER = fileURLToPath(new URL('../../dist/server.js', import.meta.url))
export const LOCAL_AWS = fileURLToPath(new URL('../../dist/local/main.js', import.meta.url))

export interface Child { readonly pid: number, readonly process: ChildProcess, readonly stop: () => Promise<void> }

/** A folder that is gone at the end. */
export function folder (): string {
  const made = mkdtempSync(join(tmpdir(), 'cvm-bench-'))
  folders.add(made)
  return made
}

function kept (child: ChildProcess): Child {
  running.add(child)
  const ended = new Promise<void>(resolve => child.once('close', () => { running.delete(child); resolve() }))
  return { pid: child.pid!, process: child, async stop () { child.kill('SIGKILL'); await ended } }
}

/** A module of the bench as a process of its own; its first message. */
export async function forked<T> (module: string, args: readonly string[] = [], options: ForkOptions = {}): Promise<Child & { first: T }> {
  const child = kept(fork(new URL(module, import.meta.url), args, options))
  const first = await new Promise<T>((resolve, reject) => {
    child.process.once('message', message => resolve(message as T)).once('exit', code => reject(new Error(`${module} ended with ${code}`)))
  })
  return { ...child, first }
}

interface Start { readonly env?: Record<string, string>, readonly cwd?: string }

/** Another program. */
export function launched (file: string, args: readonly string[], { env, cwd }: Start = {}): Child {
  return kept(spawn(file, args, { cwd, env: { ...process.env, ...env }, stdio: ['ignore', 'pipe', 'ignore'] }))
}

/** Another program, once it has said what `find` looks for on stdout. */
export async function spawned<T> (
  file: string, args: readonly string[], start: Start, find: (output: string) => T | undefined
): Promise<Child & { found: T }> {
  const child = launched(file, args, start)
  let output = ''
  const found = await new Promise<T>((resolve, reject) => {
    child.process.stdout!.setEncoding('utf8').on('data', (chunk: string) => {
      output = (output + chunk).slice(-100_000)
      const result = find(output)
      if (result !== undefined) resolve(result)
    })
    child.process.once('exit', code => reject(new Error(`${file} ended with ${code}: ${output}`)))
  })
  return { ...child, found }
}

/** Whether a program is here. */
export function has (program: string): boolean {
  try {
    execFileSync('which', [program], { stdio: 'ignore' })
    return true
  } catch {
    return false
  }
}

/** Keeps a process, and the threads that it has by now, on one core. */
export function pin (pid: number, core: number): void {
  execFileSync('taskset', ['-a', '-p', '-c', String(core), String(pid)], { stdio: 'ignore' })
}

export function freePort (): Promise<number> {
  return new Promise(resolve => {
    const server = createServer().listen(0, '127.0.0.1', () => {
      const { port } = server.address() as { port: number }
      server.close(() => resolve(port))
    })
  })
}
