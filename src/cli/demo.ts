import { mkdtemp, rm } from 'node:fs/promises'
import { existsSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Command } from 'commander'
import { EXIT, Failure } from './failure.ts'
import { startLocalService } from './service-process.ts'
import type { LocalService } from './service-process.ts'
import { tellStory } from './story.ts'

/** `cvm demo`: the story of one vend against a service of its own. Its action throws `Failure` at the first thing that is not so. */
export function demoCommand (): Command {
  return new Command('demo')
    .description('start everything on this machine, vend a certificate, connect with it, clean up; needs no AWS account')
    .action(async () => await runDemo())
}

/** Runs the demo; whatever happens, Ctrl-C included, the service is stopped and its folder removed. Throws a `Failure`. @public */
export async function runDemo (server?: string, tell = tellStory): Promise<void> {
  const interrupt = new AbortController()
  const { signal } = interrupt
  const onSignal = () => interrupt.abort(new Failure(EXIT.failed, 'interrupted'))
  const names = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const
  for (const name of names) process.on(name, onSignal)
  const interrupted = new Promise<never>((_resolve, reject) => signal.addEventListener('abort', () => reject(signal.reason)))
  interrupted.catch(() => {})
  const folder = await mkdtemp(join(tmpdir(), 'cvm-demo-'))
  let service: LocalService | undefined
  let story: Promise<void> | undefined
  let say: (text: string) => void
  try {
    process.stdout.write('Starting the service, a local AWS IoT Core, its store and its MQTT broker on this machine ...\n')
    service = await startLocalService(folder, signal, server)
    say = numbered()
    story = tell(folder, service.endpoints, say, signal)
    await Promise.race([story, service.died, interrupted])
    const how = await service.stop()
    if (how !== 0) throw new Failure(EXIT.failed, `the service did not stop cleanly (${how})`)
  } catch (error) {
    throw signal.aborted ? signal.reason : error
  } finally {
    // Also ends whatever of the story is still waiting for an answer.
    interrupt.abort()
    await service?.stop()
    // The story still writes until it notices, and would make the folder again.
    await Promise.allSettled([story])
    await rm(folder, { recursive: true, force: true })
    for (const name of names) process.off(name, onSignal)
  }
  if (existsSync(folder)) throw new Failure(EXIT.failed, `${folder} could not be removed`)
  say('The service was asked to stop and ended cleanly; its temporary folder is gone.')
  process.stdout.write('\nDone. To try it by hand: npm start\n')
}

function numbered (): (text: string) => void {
  let step = 0
  return text => { process.stdout.write(`${String(++step).padStart(2)}. ${text}\n`) }
}
