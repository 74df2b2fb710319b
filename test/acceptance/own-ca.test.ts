// The README on certificates of one's own, typed as it stands there: an authority, certificates made elsewhere, and those seen for the
// first time, which is the document on just-in-time registration from top to bottom.
import { symlinkSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { folder } from './processes.ts'
import { onBestEngine, startService } from './service-process.ts'
import { hasMosquitto, hasTool, isWholeRun } from './tools.ts'
import { typeInto } from './transcript.ts'

t.setTimeout(900_000)

await onBestEngine(t, async (t, engine) => {
  const service = await startService(t, engine)
  const dir = folder(t)
  symlinkSync(service.dir, join(dir, '.cvm'))
  await t.test('an authority', t => typed(t, 'own-ca', dir))
  await t.test('certificates made elsewhere', t => typed(t, 'made-elsewhere', dir))
  const has = (name: string, argument: string, source: string) => hasTool(t, [name, argument], source, 'the document on just-in-time registration')
  const isHere = isWholeRun(t, 'the document on just-in-time registration') && await hasMosquitto(t) && await has('aws', '--version', 'pip: awscli') && await has('jq', '--version', 'Debian: jq')
  if (isHere) await t.test('certificates seen for the first time', t => typed(t, 'jitr', dir))
})

async function typed (t: Test, name: string, cwd: string): Promise<void> {
  const commands = await typeInto(name, { cwd, localDir: join(cwd, '.cvm'), timeout: 600_000 })
  t.ok(commands.length > 5, 'the README has it')
  for (const { command, prints, printed } of commands) t.match(printed, prints, command)
}
