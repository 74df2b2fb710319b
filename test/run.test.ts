// How `npm test` counts: files that pass, that say why they are left out, that fail, and that say nothing.
import { spawnSync } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'

const TAP = {
  passes: 'ok 1\n# { total: 1, pass: 1 }',
  skips: 'ok 1 # SKIP there is no engine\n# { total: 1, pass: 0, skip: 1 }',
  fails: 'not ok 1\n# { total: 1, pass: 0, fail: 1 }',
  saysNothing: ''
}

await t.test('what is left out fails nothing, and what says nothing does', async t => {
  const folder = t.testdir({})
  const run = (...kinds: (keyof typeof TAP)[]) => {
    const files = kinds.map(kind => join(folder, `${kind}.ts`))
    kinds.forEach((kind, i) => { writeFileSync(files[i]!, `console.log(${JSON.stringify(TAP[kind])})\n`) })
    const { REQUIRE_DYNAMODB_LOCAL: _required, ...env } = process.env
    // Without an engine: only the counting is looked at.
    const { status, stdout } = spawnSync(process.execPath, [...process.execArgv, 'test/run.ts', ...files], {
      encoding: 'utf8', env: { ...env, DOCKER_HOST: 'unix:///nonexistent.sock' }
    })
    return { status, last: stdout.trim().split('\n').at(-1), skips: stdout.includes('# SKIP there is no engine') }
  }
  t.strictSame(run('passes', 'skips'), { status: 0, last: '1 passed, 0 failed', skips: true })
  t.strictSame(run('passes', 'fails'), { status: 1, last: '1 passed, 1 failed', skips: false })
  t.strictSame(run('passes', 'saysNothing'), { status: 1, last: '1 passed, 1 failed', skips: false })
  t.strictSame(run('skips'), { status: 1, last: '0 passed, 0 failed', skips: true }, 'and where nothing was tested, nothing has passed')
})
