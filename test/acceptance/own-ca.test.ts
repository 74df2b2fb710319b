// The README's "Your own CA", typed as it stands there, with openssl's CA.
import t from 'tap'
import { CLI, folder } from './processes.ts'
import { onEachEngine, startService } from './service-process.ts'
import { tool } from './tools.ts'
import { commandsOf } from './transcript.ts'

t.setTimeout(300_000)

await onEachEngine(t, async (t, engine) => {
  const service = await startService(t, engine)
  const dir = folder(t)
  const env = { PATH: process.env['PATH'] ?? '', CVM_LOCAL_DIR: service.dir, XDG_CONFIG_HOME: dir, AWS_SDK_JS_NODE_VERSION_SUPPORT_WARNING_DISABLED: 'true' }
  const commands = commandsOf('own-ca')
  t.ok(commands.length > 5, 'the README has it')
  // Each in a shell of its own, so that what it prints is known: the variable of one is for those after it.
  const cvm = `cvm () { '${process.execPath}' '${CLI}' "$@"; }`
  const variable = commands.flatMap(({ command }) => /^CA=.*$/m.exec(command)?.[0] ?? [])[0] ?? ''
  for (const [n, { command, prints }] of commands.entries()) {
    const script = [cvm, ...n > 0 ? [variable] : [], command].join('\n')
    const { stdout, stderr } = await tool('bash', ['--norc', '-c', script], undefined, { cwd: dir, env, timeout: 120_000 })
    t.match(stdout + stderr, prints, command.trim())
  }
})
