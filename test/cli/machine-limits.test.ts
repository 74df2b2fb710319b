// What the machine refuses: no room on the disk, no more files, no home. A line of text and an exit code each, never a stack trace.
import t from 'tap'
import { describe } from '../../src/cli/failure.ts'
import { cvm } from './command.ts'

t.setTimeout(300_000)

await t.test('output that has no room: said on stderr, exit code 1', async t => {
  const { status, stderr } = await cvm(['--help'], { shell: 'exec >/dev/full;' })
  t.equal(status, 1)
  t.match(stderr, /^cvm: cannot write the output: ENOSPC.*\n {2}remedy: +Make room on the disk\n$/)
})

await t.test('errors that cannot be printed either: the exit code alone', async t => {
  t.match(await cvm(['nonsense'], { shell: 'exec 2>/dev/full;' }), { status: 2, stdout: '', stderr: '' })
})

await t.test('too many open files: what to do', async t => {
  const error = Object.assign(new Error('EMFILE: too many open files, open \'x\''), { code: 'EMFILE' })
  t.equal(describe(error), 'cvm: EMFILE: too many open files, open \'x\'\n  remedy:     Raise the limit of open files (ulimit -n), or let fewer programs run\n')
})

await t.test('a user without a home: there is no configuration file', async t => {
  // As os.homedir() answers a user of a container who is in no list of users.
  const noHome = `import os from 'node:os'; import { syncBuiltinESMExports } from 'node:module'
    os.homedir = () => { throw new Error('uv_os_homedir returned ENOENT') }; syncBuiltinESMExports()`
  const env = { XDG_CONFIG_HOME: '', NODE_OPTIONS: `--import=data:text/javascript,${encodeURIComponent(noHome)}` }
  const { status, stderr } = await cvm(['operator', 'list'], { shell: ':;', env })
  t.notMatch(stderr, /homedir|^ +at /m)
  t.match(stderr, /^cvm: the API key is missing\n/)
  t.equal(status, 2)
})
