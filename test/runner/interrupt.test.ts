// Ctrl-C: the run ends at once, its files and what they started end with it, and no file that waits is started.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { until } from '../fixtures/until.ts'

const PATIENCE_MS = 120_000

const HANGS = `
import { writeFileSync } from 'node:fs'
import { start } from '${new URL('../acceptance/processes.ts', import.meta.url).href}'
import t from 'tap'
await t.test('hangs', async t => {
  const child = start(t, process.execPath, ['-e', 'setInterval(() => {}, 1000)'], {})
  writeFileSync(import.meta.filename + '.pids', [process.pid, child.pid].join(' '))
  await child.ended
})
`

await t.test('SIGINT ends the run at once and leaves no process behind', async t => {
  // A folder of its own, so that runs side by side do not meet; in the clone, because a file there finds tap.
  mkdirSync('.tap', { recursive: true })
  const folder = mkdtempSync(join('.tap', 'interrupt-'))
  t.teardown(() => { rmSync(folder, { recursive: true }) })
  const files = ['a', 'b', 'c'].map(name => join(folder, `${name}.test.ts`))
  for (const file of files) writeFileSync(file, HANGS)
  const run = spawn(process.execPath, ['node_modules/tap/dist/esm/run.mjs', '--jobs=2', ...files], { env: environment(), stdio: ['ignore', 'pipe', 'pipe'] })
  let output = ''
  for (const stream of [run.stdout, run.stderr]) stream.on('data', chunk => { output += chunk })
  const pidsOf = (file: string) => existsSync(`${file}.pids`) ? readFileSync(`${file}.pids`, 'utf8').split(' ').map(Number) : []
  t.ok(await until(() => files.flatMap(pidsOf).length === 4, PATIENCE_MS), `two files run:\n${output}`)
  run.kill('SIGINT')
  const [code, signal] = await once(run, 'close')
  t.strictSame({ code, signal }, { code: null, signal: 'SIGINT' })
  t.match(output, /interrupted by SIGINT\n0 passed, 1 failed\n/)
  t.notOk(existsSync(`${files[2]}.pids`), 'the third file was not started')
  t.ok(await until(() => !files.flatMap(pidsOf).some(isAlive), PATIENCE_MS), 'no process is left')
})

/** That of a run of its own, without a Docker engine, which this test does not need. */
function environment (): NodeJS.ProcessEnv {
  const { NODE_OPTIONS: _options, REQUIRE_DYNAMODB_LOCAL: _required, TEST_DYNAMODB_LOCAL_URL: _url, ...env } = process.env
  const clean = Object.fromEntries(Object.entries(env).filter(([name]) => !/^_?TAP/.test(name)))
  return { ...clean, DOCKER_HOST: 'unix:///nonexistent.sock' }
}

function isAlive (pid: number): boolean {
  try {
    return process.kill(pid, 0)
  } catch {
    return false
  }
}
