// The README's transcripts: commands to be typed, with what each must print behind its `#`.
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { CLI, ROOT } from './processes.ts'
import { tool } from './tools.ts'

export const README = readFileSync(join(ROOT, 'README.md'), 'utf8')

/** The commands of a transcript, each up to and with what it prints: these words, in this order. */
export function commandsOf (name: string): { command: string, prints: RegExp }[] {
  const block = new RegExp(`<!-- transcript: ${name} -->\n\`\`\`sh\n([^]*?)\`\`\``).exec(README)?.[1] ?? ''
  const commands: { command: string, prints: RegExp }[] = []
  let open = ''
  for (const line of block.split('\n')) {
    const [, command = '', expected] = /^(.*?)(?: {2,}# (.*))?$/.exec(line) ?? []
    open += `${command}\n`
    if (expected === undefined) continue
    const words = expected.split(' ').map(word => word === '(new)' ? NEW : word.replace(/[.*+?^${}()|[\]\\]/g, '\\$&'))
    commands.push({ command: open, prints: new RegExp(words.join('[^]*?')) })
    open = ''
  }
  return commands
}

/** A device that had to ask twice, as on a slow machine, is told that nothing is new. */
const NEW = '\\((?:new|the same as before)\\)'

const MARK = '@@@ typed @@@'

/** Types the commands of a transcript into one shell, where `cvm` is a command, and gives what each printed. */
export async function typeInto (name: string, { cwd, localDir, timeout }: { cwd: string, localDir: string, timeout: number }) {
  const commands = commandsOf(name)
  const env = {
    PATH: process.env['PATH'] ?? '', CVM_LOCAL_DIR: localDir, XDG_CONFIG_HOME: cwd, AWS_SDK_JS_NODE_VERSION_SUPPORT_WARNING_DISABLED: 'true'
  }
  const script = ['exec 2>&1', `cvm () { '${process.execPath}' '${CLI}' "$@"; }`, ...commands.map(({ command }) => `${command}\necho '${MARK}'`)].join('\n')
  const { stdout } = await tool('bash', ['--norc', '-c', script], undefined, { cwd, env, timeout })
  const printed = stdout.split(MARK)
  return commands.map(({ command, prints }, n) => ({ command: command.trim(), prints, printed: printed[n] ?? '' }))
}
