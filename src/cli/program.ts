import { readFileSync } from 'node:fs'
import { Command, CommanderError } from 'commander'
import { demoCommand } from './demo.ts'
import { deviceCommand } from './device.ts'
import { devicesCommand } from './devices.ts'
import { EXIT, Failure, describe } from './failure.ts'
import { keysCommand } from './keys.ts'
import { lineCommand } from './line.ts'
import { operatorCommand } from './operator.ts'
import { verifyCommand } from './verify.ts'

const { version } = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8')) as { version: string }

const EXIT_CODES = `
Exit codes:
  0  done
  1  failed; of an import or a line: some devices were refused or failed
  2  wrong usage
  3  refused by the service or the broker: final, do not retry
  4  the service could not be reached, or said "later" until the deadline
  130  interrupted with Ctrl-C

Set CVM_DEBUG=1 to see stack traces.`

/** Runs one command line and returns its exit code; says on stderr what is wrong. Never rejects. */
export async function runCvm (args: readonly string[]): Promise<number> {
  const program = new Command('cvm')
    .description('Certificate Vending Machine for AWS IoT: get, check and try device certificates')
    .version(version)
    .addHelpText('after', EXIT_CODES)
    .exitOverride()
  const commands = [deviceCommand(), operatorCommand(), devicesCommand(), lineCommand(), keysCommand(), verifyCommand(), demoCommand()]
  for (const command of commands) program.addCommand(inherit(command, program))
  try {
    await program.parseAsync(args, { from: 'user' })
    return EXIT.done
  } catch (error) {
    // commander has said what is wrong itself.
    if (!(error instanceof CommanderError)) process.stderr.write(describe(error))
    if (process.env.CVM_DEBUG === '1') console.error(error)
    return exitCodeOf(error)
  }
}

/** commander passes its settings on only to commands it makes itself. */
function inherit (command: Command, program: Command): Command {
  command.copyInheritedSettings(program).addHelpText('after', EXIT_CODES)
  for (const child of command.commands) inherit(child, program)
  return command
}

function exitCodeOf (error: unknown): number {
  if (error instanceof Failure) return error.exitCode
  if (error instanceof CommanderError) return error.exitCode === 0 ? EXIT.done : EXIT.usage
  return EXIT.failed
}
