// What `npm test` runs: brings up DynamoDB Local where there is a Docker engine, then the whole suite, then says what was used.
import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { GenericContainer, type StartedTestContainer, Wait } from 'testcontainers'

const IMAGE = 'amazon/dynamodb-local:3.3.1'

const { container, reason } = await startDynamodbLocal()
const engines = container ? 'dynalite, DynamoDB Local (testcontainers)' : `dynalite only (DynamoDB Local left out: ${reason})`
console.log(`engines: ${engines}; Node ${process.versions.node}`)

const folder = mkdtempSync(join(tmpdir(), 'cvm-test-'))
let exitCode = 1
try {
  exitCode = await runTap(join(folder, 'results.tap'))
  const { passed, failed } = count(readFileSync(join(folder, 'results.tap'), 'utf8'))
  console.log(`engines: ${engines}\n${passed} passed, ${failed} failed`)
  if (failed > 0 || passed === 0) exitCode ||= 1
} finally {
  await container?.stop()
  rmSync(folder, { recursive: true, force: true })
}
process.exitCode = exitCode

async function startDynamodbLocal (): Promise<{ container?: StartedTestContainer, reason?: string }> {
  try {
    const reaper = execFileSync('docker', ['image', 'ls', '-q', 'testcontainers/ryuk'], { stdio: ['ignore', 'pipe', 'ignore'] })
    if (reaper.length === 0) process.env['TESTCONTAINERS_RYUK_DISABLED'] = 'true'
    const command = ['-Xmx256m', '-jar', 'DynamoDBLocal.jar', '-inMemory', '-sharedDb']
    const image = new GenericContainer(IMAGE).withCommand(command).withExposedPorts(8000).withWaitStrategy(Wait.forListeningPorts())
    return { container: await image.start() }
  } catch (cause) {
    if (process.env['REQUIRE_DYNAMODB_LOCAL']) throw cause
    return { reason: (cause as Error).message.split('\n')[0] ?? 'unknown' }
  }
}

async function runTap (results: string): Promise<number> {
  const env: NodeJS.ProcessEnv = { ...process.env, AWS_SDK_JS_NODE_VERSION_SUPPORT_WARNING_DISABLED: 'true', NODE_ENV: 'test' }
  if (container) env['TEST_DYNAMODB_LOCAL_URL'] = `http://${container.getHost()}:${container.getMappedPort(8000)}`
  const args = ['node_modules/@tapjs/run/dist/esm/index.js', `--output-file=${results}`, '--reporter=terse', ...process.argv.slice(2)]
  const tap = spawn(process.execPath, args, { env, stdio: 'inherit' })
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => tap.kill(signal))
  const [code] = await once(tap, 'exit') as [number | null]
  return code ?? 1
}

/** The sums at the end of the raw TAP: assertions, not files. */
function count (tap: string): { passed: number, failed: number } {
  const sums = /^# \{ total: (\d+).*\}$/gm
  const last = [...tap.matchAll(sums)].at(-1)?.[0] ?? ''
  const sum = (name: string) => Number(new RegExp(`${name}: (\\d+)`).exec(last)?.[1] ?? 0)
  return { passed: sum('pass'), failed: sum('fail') }
}
