import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { readdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { lock } from '../../src/cli/file-lock.ts'
import { until } from '../fixtures/until.ts'

const LOCK = JSON.stringify(new URL('../../dist/cli/file-lock.js', import.meta.url).href)
const CONTENDERS = 4
const TURNS = 40

/** A process that runs this with `lock` and the file's path. */
function contender (t: Test, file: string, code: string): ChildProcess {
  const child = spawn(process.execPath, ['--input-type=module', '-e', `
    import fs from 'node:fs'
    import { setTimeout as delay } from 'node:timers/promises'
    import { lock } from ${LOCK}
    const file = process.argv[1]
    ${code}`, file], { stdio: ['pipe', 'inherit', 'inherit'] })
  t.teardown(() => child.kill('SIGKILL'))
  return child
}

await t.test('of many processes one at a time has the lock', async t => {
  const file = join(t.testdir(), 'rows.csv')
  // A process that finds another one inside ends with an error. A killed process has left a sign with the number of each of them.
  const children = Array.from({ length: CONTENDERS }, () => contender(t, file, `
    fs.writeFileSync(file + '.lock-' + process.pid + '-1', '')
    for (let turns = 0; turns < ${TURNS};) {
      const release = await lock(file).catch(error => { if (!/being written/.test(error.message)) throw error })
      if (!release) continue
      fs.writeFileSync(file + '.inside', '', { flag: 'wx' })
      await delay(Math.random() * 2)
      fs.rmSync(file + '.inside')
      await release()
      turns++
    }`))
  const exits = await Promise.all(children.map(async child => await once(child, 'exit')))
  t.strictSame(exits, children.map(() => [0, null]))
  t.strictSame(readdirSync(join(file, '..')), [], 'nothing is left')
})

await t.test('a stopped process keeps the lock, a killed one loses it', async t => {
  const file = join(t.testdir(), 'rows.csv')
  const child = contender(t, file, 'await lock(file); fs.writeFileSync(file, ""); await delay(1e8)')
  t.ok(await until(() => readdirSync(join(file, '..')).includes('rows.csv')))
  child.kill('SIGSTOP')
  const remedy = new RegExp(`^Wait for process ${child.pid}, then run the same command again; if there is no such process, remove .*rows\\.csv\\.lock-${child.pid}-\\d+$`)
  await t.rejects(lock(file), { exitCode: 1, message: `${file} is being written by another process`, problem: { remedy } })
  await t.rejects(lock(file, 'it is in use'), { message: 'it is in use' })
  child.kill('SIGKILL')
  await once(child, 'exit')
  const release = await lock(file)
  await t.rejects(lock(file), { message: `${file} is being written by another process` }, 'also within one process')
  await release()
  t.strictSame(readdirSync(join(file, '..')), ['rows.csv'])
})

await t.test('a sign of an earlier process with the same number does not count', { skip: process.platform !== 'linux' && 'only Linux says when a process began' }, async t => {
  const file = join(t.testdir(), 'rows.csv')
  writeFileSync(`${file}.lock-1-1`, '')
  const [own = ''] = await lock(file).then(async release => {
    const names = readdirSync(join(file, '..'))
    await release()
    return names
  })
  t.match(own, new RegExp(`^rows\\.csv\\.lock-${process.pid}-[1-9]`), 'process 1 began at another time')
  writeFileSync(join(file, '..', own), '')
  await (await lock(file))()
  t.strictSame(readdirSync(join(file, '..')), [])
})

await t.test('a folder that is not there', async t => {
  await t.rejects(lock(join(t.testdir(), 'nowhere', 'rows.csv')), { code: 'ENOENT' })
})
