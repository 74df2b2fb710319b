// The command line as a process of its own, with nothing of this machine's settings.
import { spawn } from 'node:child_process'
import { text } from 'node:stream/consumers'

export interface Surroundings { env?: Record<string, string>, input?: string, shell?: string }

const CVM = [process.execPath, '--import', 'tsx', 'src/cli/main.ts']

/** Runs `cvm` to its end. `shell` is put before it in a shell, such as `ulimit -f 1;`. */
export async function cvm (args: string[], { env = {}, input = '', shell }: Surroundings = {}) {
  const command = [...CVM, ...args]
  const [program, ...rest] = shell === undefined ? command : ['sh', '-c', `${shell} exec "$@"`, 'sh', ...command]
  const child = spawn(program as string, rest, { env: { ...clean(), ...env } })
  child.stdin.end(input)
  const ended = new Promise<number | null>(resolve => child.on('close', resolve))
  const [stdout, stderr] = await Promise.all([text(child.stdout), text(child.stderr)])
  return { status: await ended, stdout, stderr }
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
  return { ...Object.fromEntries(own), CVM_LOCAL_DIR: '/nonexistent', XDG_CONFIG_HOME: '/nonexistent' }
}
