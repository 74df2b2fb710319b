// Runs tap with what the command line says. Where Node does not read TypeScript itself, it runs compiled copies of the tests.
import { compileTests } from './compile-tests.mjs'

const TESTS = 'test/**/*.test.ts'

if (!process.features.typescript) {
  const compiled = await compileTests()
  const given = process.argv.slice(2)
  const files = given.some(argument => argument.endsWith('.ts')) ? given : [...given, TESTS]
  process.argv.splice(2, given.length, ...files.map(argument => argument.endsWith('.ts') ? compiled(argument) : argument))
}
await import('../node_modules/tap/dist/esm/run.mjs')
