// tap runs this before the test files: starts DynamoDB Local where there is a Docker engine, and says which engines the run uses.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { type EngineFile, writeEngineFile } from './engine-file.ts'

const runner = process.ppid
// A process of its own holds the container, so that it ends with the runner, however the runner ends.
const keeper = spawn(process.execPath, [...process.execArgv, fileURLToPath(new URL('dynamodb-local.ts', import.meta.url)), String(runner)], {
  detached: true, stdio: ['ignore', 'pipe', 'ignore']
})
const [answer] = await once(keeper.stdout, 'data') as [Buffer]
const { url, reason } = JSON.parse(String(answer)) as EngineFile & { reason?: string }
keeper.stdout.destroy()
keeper.unref()

console.log(`engines: ${url ? 'dynalite, DynamoDB Local (testcontainers)' : `dynalite only (DynamoDB Local left out: ${reason})`}; Node ${process.versions.node}`)
if (url) writeEngineFile(runner, { url })
else if (process.env['REQUIRE_DYNAMODB_LOCAL']) {
  console.error('REQUIRE_DYNAMODB_LOCAL is set, so the run ends here.')
  // tap would begin the first files before it looks at this process' exit code.
  process.kill(runner, 'SIGTERM')
}
