// The command line as a process of its own, with nothing of this machine's settings.
import { spawn } from 'node:child_process'
import { text } from 'node:stream/consumers'

export interface Surroundings { env?: Record<string, string>, input?: string, shell?: string }

/** Runs `cvm` to its end. `shell` is put before it in a shell, such as `ulimit -f 1;`. */
export async function cvm (args: string[], { env = {}, input = '', shell }: Surroundings = {}) {
  const clean = Object.fromEntries(Object.entries(process.env).filter(([name]) => !/^(CVM_|NODE_OPTIONS$|NO_COLOR$)/.test(name)))
  const command = [process.execPath, '--import', 'tsx', 'src/cli/main.ts', ...args]
  const [program, ...rest] = shell === undefined ? command : ['sh', '-c', `${shell} exec "$@"`, 'sh', ...command]
  const child = spawn(program as string, rest, { env: { ...clean, CVM_LOCAL_DIR: '/nonexistent', XDG_CONFIG_HOME: '/nonexistent', ...env } })
  child.stdin.end(input)
  const ended = new Promise<number | null>(resolve => child.on('close', resolve))
  const [stdout, stderr] = await Promise.all([text(child.stdout), text(child.stderr)])
  return { status: await ended, stdout, stderr }
}
