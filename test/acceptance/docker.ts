// Docker as an operator types it. Where there is no engine, a test says what it leaves out.
import type { Test } from 'tap'
import { ROOT } from './processes.ts'
import { hasTool, isWholeRun, tool } from './tools.ts'

/** Whether the run is whole and an engine answers; when not, says what is left out and why. */
export async function hasDocker (t: Test, untested: string): Promise<boolean> {
  return isWholeRun(t, untested) && await hasTool(t, ['docker', 'version', '--format', '{{.Server.Version}}'], 'it needs a running Docker engine', untested)
}

interface Options { readonly env?: Record<string, string>, readonly timeoutMs?: number }

/** Runs a program from the root of the project; what it wrote to stdout, without the last line break. Rejects when it fails. */
export async function must (file: string, args: readonly string[], { env = {}, timeoutMs = 300_000 }: Options = {}): Promise<string> {
  const { code, stdout, stderr } = await tool(file, args, '', { cwd: ROOT, env: { ...process.env, ...env }, timeout: timeoutMs })
  if (code !== 0) throw new Error(`${file} ${args.join(' ')} ended with ${code}:\n${stderr.slice(-4_000)}`)
  return stdout.trimEnd()
}

export const docker = (...args: readonly string[]): Promise<string> => must('docker', args)
