#!/usr/bin/env node
import { endQuietlyWithoutReader } from './output.ts'
import { runCvm } from './program.ts'

endQuietlyWithoutReader()
const exitCode = await runCvm(process.argv.slice(2))
// A command may have set another itself.
if (exitCode !== 0) process.exitCode = exitCode
