#!/usr/bin/env node
import { EXIT, describe } from './failure.ts'
import { endWithoutOutput } from './output.ts'

endWithoutOutput()
process.on('uncaughtException', fail)
// Loaded here, so that a machine that has no files left to open is said in words, too.
const exitCode = await import('./program.ts').then(({ runCvm }) => runCvm(process.argv.slice(2)), fail)
// A command may have set another itself.
if (exitCode !== 0) process.exitCode = exitCode

/** What no command caught, such as an error of a socket. */
function fail (error: unknown): never {
  process.stderr.write(describe(error))
  if (process.env['CVM_DEBUG'] === '1') console.error(error)
  process.exit(EXIT.failed)
}
