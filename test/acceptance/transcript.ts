// The README's transcripts: commands to be typed, with what each must print behind its `#`.
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { ROOT } from './processes.ts'

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
    const words = expected.split(' ').map(word => word.replace(/[.*+?^${}()|[\]\\]/g, '\\$&'))
    commands.push({ command: open, prints: new RegExp(words.join('[^]*?')) })
    open = ''
  }
  return commands
}
