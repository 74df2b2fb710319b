// Ctrl-C: the run ends at once, its files and what they started end with it, and no file that waits is started.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { until } from '../fixtures/until.ts'

const PATIENCE_MS = 120_000

const HANGS = `
import { writeFileSync } from 'node:fs'
import { start } from '../../../test/acceptance/processes.ts'
import t from 'tap'
await t.test('hangs', async t => {
  const child = start(t, process.execPath, ['-e', 'setInterval(() => {}, 1000)'], {})
  writeFileSync(import.meta.filename + '.pids', [process.pid, child.pid].join(' '))
  await child.ended
})
`

await t.test('SIGINT ends the run at once and leaves no process behind', async t => {
  const folder = t.testdir({ 'a.test.ts': HANGS, 'b.test.ts': HANGS, 'c.test.ts': HANGS })
  const files = ['a', 'b', 'c'].map(name => join(folder, `${name}.test.ts`))
  const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => !/^_?TAP/.test(name)))
  const { NODE_OPTIONS: _options, ...clean } = env
  // Without a Docker engine, which this test does not need.
  const run = spawn(process.execPath, ['node_modules/tap/dist/esm/run.mjs', ...files], { env: { ...clean, DOCKER_HOST: 'unix:///nonexistent.sock' }, stdio: ['ignore', 'pipe', 'pipe'] })
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

function isAlive (pid: number): boolean {
  try {
    return process.kill(pid, 0)
  } catch {
    return false
  }
}
