// What `npm test` runs: brings up DynamoDB Local where there is a Docker engine, then the whole suite, then says what was used.
import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import { GenericContainer, type StartedTestContainer, Wait } from 'testcontainers'

/** No file takes nearly as long, also on a slow machine. */
const LONGEST_MS = 900_000

interface Count { passed: number, failed: number }

const running = new Set<ChildProcess>()
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => { for (const child of running) child.kill(signal) })
const isTypeScriptRead = Boolean((process.features as { typescript?: unknown }).typescript)

const IMAGE = 'amazon/dynamodb-local:3.3.1'

const { container, reason } = await startDynamodbLocal()
const engines = container ? 'dynalite, DynamoDB Local (testcontainers)' : `dynalite only (DynamoDB Local left out: ${reason})`
console.log(`engines: ${engines}; Node ${process.versions.node}`)

const { jobs, files } = wishes(process.argv.slice(2))
let exitCode = 1
try {
  const { passed, failed } = await runAll(files, jobs)
  console.log(`engines: ${engines}\n${passed} passed, ${failed} failed`)
  exitCode = failed > 0 || passed === 0 ? 1 : 0
} finally {
  await container?.stop()
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

/** `--jobs=N` and names of test files; all of them where there are none. */
function wishes (args: readonly string[]): { jobs: number, files: string[] } {
  const jobs = Number(args.find(arg => arg.startsWith('--jobs='))?.slice('--jobs='.length) ?? 2)
  const named = args.filter(arg => !arg.startsWith('--'))
  return { jobs, files: named.length > 0 ? named : testsIn('test') }
}

function testsIn (folder: string): string[] {
  return readdirSync(folder, { recursive: true, encoding: 'utf8' }).filter(name => name.endsWith('.test.ts')).sort().map(name => join(folder, name))
}

/** In the order given, so many at a time; says of each how it ended, and what failed in it. */
async function runAll (files: readonly string[], jobs: number): Promise<Count> {
  const sum = { passed: 0, failed: 0 }
  const waiting = [...files]
  await Promise.all(Array.from({ length: jobs }, async () => {
    for (let file = waiting.shift(); file !== undefined; file = waiting.shift()) {
      const { passed, failed } = await runOne(file)
      sum.passed += passed
      sum.failed += failed
    }
  }))
  return sum
}

/**
 * One test file in a process of its own. Node 22.18 and newer read TypeScript themselves, in a fraction of the time that tap's own loader
 * takes for each file; for older ones tsx reads it.
 */
async function runOne (file: string): Promise<Count> {
  const startedAt = performance.now()
  const env: NodeJS.ProcessEnv = { ...process.env, AWS_SDK_JS_NODE_VERSION_SUPPORT_WARNING_DISABLED: 'true', NODE_ENV: 'test', TAP_TIMEOUT: String(LONGEST_MS / 1000) }
  // Without effect on Node 20.
  env['NODE_COMPILE_CACHE'] ??= 'node_modules/.cache/node'
  if (container) env['TEST_DYNAMODB_LOCAL_URL'] = `http://${container.getHost()}:${container.getMappedPort(8000)}`
  const child = spawn(process.execPath, [...isTypeScriptRead ? [] : ['--import', 'tsx'], file], {
    env, stdio: ['ignore', 'pipe', 'inherit'], timeout: LONGEST_MS, killSignal: 'SIGKILL'
  })
  running.add(child)
  child.stdout.setEncoding('utf8')
  let tap = ''
  child.stdout.on('data', (chunk: string) => { tap += chunk })
  const [code, signal] = await once(child, 'close') as [number | null, string | null]
  running.delete(child)
  const { passed, failed, skipped } = countOf(tap)
  // A file that ends badly has failed, also where each of its assertions passed, or none was made; but not one that says why it is left
  // out.
  const count = { passed, failed: failed || (code === 0 && passed + skipped > 0 ? 0 : 1) }
  const seconds = ((performance.now() - startedAt) / 1000).toFixed(1)
  const outcome = count.failed === 0 ? 'ok' : `NOT OK (${failed} failed, exit ${signal ?? code})`
  console.log(`${outcome} ${file} ${passed} in ${seconds} s`)
  for (const line of notable(tap, count.failed > 0)) console.log(line)
  return count
}

/** What was left out and why; of a file that failed, what failed in it, or all where nothing did. */
function notable (tap: string, isFailure: boolean): string[] {
  const lines = tap.split('\n')
  const failures: string[] = []
  let isInside = false
  for (const line of lines) {
    if (/^\s*not ok\b/.test(line) && !/# (SKIP|TODO)/.test(line)) isInside = true
    if (isInside) failures.push(line)
    if (/^\s*\.\.\.$/.test(line)) isInside = false
  }
  const skips = lines.filter(line => /# SKIP \S/.test(line)).map(line => `  ${line.trim()}`)
  return [...skips, ...isFailure && failures.length === 0 ? lines : failures]
}

/** The sums at the end of the file's TAP: assertions. */
function countOf (tap: string): Count & { skipped: number } {
  const last = [...tap.matchAll(/^# \{ total: (\d+).*\}$/gm)].at(-1)?.[0] ?? ''
  const sum = (name: string) => Number(new RegExp(`${name}: (\\d+)`).exec(last)?.[1] ?? 0)
  return { passed: sum('pass'), failed: sum('fail'), skipped: sum('skip') }
}
