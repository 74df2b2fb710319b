// Holds a container of DynamoDB Local for as long as the process lives whose id it is given; says its address, or why there is none.
import { execFileSync } from 'node:child_process'
import { setTimeout as delay } from 'node:timers/promises'
import { GenericContainer, Wait } from 'testcontainers'
import { removeEngineFile } from './engine-file.ts'

const IMAGE = 'amazon/dynamodb-local:3.3.1'
const LOOK_MS = 250

const runner = Number(process.argv[2])
try {
  if (!hasReaper()) process.env['TESTCONTAINERS_RYUK_DISABLED'] = 'true'
  const command = ['-Xmx256m', '-jar', 'DynamoDBLocal.jar', '-inMemory', '-sharedDb']
  const image = new GenericContainer(IMAGE).withCommand(command).withExposedPorts(8000).withWaitStrategy(Wait.forListeningPorts())
  const container = await image.start()
  say({ url: `http://${container.getHost()}:${container.getMappedPort(8000)}` })
  while (isAlive()) await delay(LOOK_MS)
  await container.stop()
  removeEngineFile(runner)
} catch (cause) {
  say({ reason: (cause as Error).message.split('\n')[0] })
}

function say (answer: object): void {
  process.stdout.write(`${JSON.stringify(answer)}\n`)
}

/** testcontainers' own cleaner, which a machine without the public images lacks. */
function hasReaper (): boolean {
  try {
    return execFileSync('docker', ['image', 'ls', '-q', 'testcontainers/ryuk'], { stdio: ['ignore', 'pipe', 'ignore'] }).length > 0
  } catch {
    throw new Error('no Docker engine answers')
  }
}

function isAlive (): boolean {
  try {
    return process.kill(runner, 0)
  } catch {
    return false
  }
}
