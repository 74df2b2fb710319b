// The README's "A fleet's day", typed as it stands there: what stands behind each `#` is what the command must print, in that order.
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { connectAsync } from 'mqtt'
import t from 'tap'
import type { Test } from 'tap'
import { CLI, folder } from './processes.ts'
import { type Engine, onEachEngine, startService } from './service-process.ts'
import { isWholeRun, tool } from './tools.ts'
import { README, commandsOf } from './transcript.ts'

t.setTimeout(900_000)

/** What a run did, a device that was served in an earlier try or run included: a slow machine may need more than one. */
function settled (said: string): string {
  const done = [...said.matchAll(/^(?:vended|replayed|registered|unchanged|done before) +(\d+)$/gm)].reduce((sum, [, count]) => sum + Number(count), 0)
  return said.replace(/^(vended|registered)( +)\d+$/m, `$1$2${done}`)
}

/** The service ends an array in time, with items that it has not begun; the README has one type the same command again. */
const isUnfinished = (said: string) => /^failed +[1-9]/m.test(said)
const MOST_RUNS = 30

const CVM = `cvm () { '${process.execPath}' '${CLI}' "$@"; }`

if (isWholeRun(t, 'the README\'s fleet\'s day')) await onEachEngine(t, day)

async function day (t: Test, engine: Engine): Promise<void> {
  const service = await startService(t, engine)
  const dir = folder(t)
  const env = { PATH: process.env['PATH'] ?? '', CVM_LOCAL_DIR: service.dir, XDG_CONFIG_HOME: dir, AWS_SDK_JS_NODE_VERSION_SUPPORT_WARNING_DISABLED: 'true' }
  const type = async (t: Test, part: string) => {
    const commands = commandsOf(part)
    t.ok(commands.length > 1, 'the README has it')
    const helper = /^token \(\).*$/m.exec(README)?.[0] ?? ''
    for (const { command, prints } of commands) {
      let said = ''
      for (let run = 0; run === 0 || (isUnfinished(said) && run < MOST_RUNS); run++) {
        const { stdout, stderr } = await tool('bash', ['--norc', '-c', `${CVM}\n${helper}\n${command}`], undefined, { cwd: dir, env, timeout: 600_000 })
        said = stdout + stderr
      }
      t.match(settled(said), prints, command.trim())
    }
  }

  await t.test('the morning', async t => await type(t, 'morning'))

  const files = (name: string) => readFileSync(join(dir, 'sn-0002', name))
  const session = await connectAsync({
    protocol: 'mqtts',
    host: 'localhost',
    port: Number(new URL(service.mqttUrl).port),
    ca: files('iot-root-ca.crt'),
    cert: files('iot-certificate.pem.crt'),
    key: files('iot-private.pem.key'),
    clientId: 'sn-0002',
    reconnectPeriod: 0
  })
  t.teardown(() => session.end(true))
  const ended = new Promise<void>(resolve => session.once('close', () => resolve()))

  await t.test('the afternoon', async t => await type(t, 'afternoon'))
  await ended
  t.pass('the MQTT session of the revoked device is over')

  const held = await service.certificates()
  const statuses = held.map(({ status }) => status).sort()
  t.strictSame(statuses.filter(status => status === 'ACTIVE').length, 102, 'the line\'s hundred are ACTIVE, and of the four the first and the one that was reset')
}
