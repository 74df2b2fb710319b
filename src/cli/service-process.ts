import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { setTimeout as delay } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { EXIT, Failure } from './failure.ts'
import { readEndpoints } from './local-mode.ts'
import type { Endpoints } from './local-mode.ts'

/** A service in local mode, run by us as a process of its own. */
export interface LocalService {
  readonly endpoints: Endpoints
  /** Rejects with a `Failure` when the process ends before `stop` is called; never resolves. */
  readonly died: Promise<never>
  /** SIGTERM, then waits for the end; SIGKILL when that takes too long. Returns how it ended: `0` is clean. */
  readonly stop: () => Promise<number | string>
}

const START_MS = 60_000
const STOP_MS = 15_000
const POLL_MS = 50
const TAIL = 4000

// Next to this file's folder: as built by tsc, or, in development, as source that needs a loader.
const IS_SOURCE = import.meta.url.endsWith('.ts')
const SERVER = fileURLToPath(new URL(IS_SOURCE ? '../server.ts' : '../server.js', import.meta.url))

/**
 * Starts the service on free ports with its state in `folder`, and waits until it says where it listens. Throws a `Failure` with what
 * the process wrote when it ends or takes too long. The process inherits no settings: nothing of ours may reach a real AWS account.
 */
export async function startLocalService (folder: string, signal: AbortSignal, server = SERVER): Promise<LocalService> {
  const child = spawn(process.execPath, [...IS_SOURCE ? ['--import', import.meta.resolve('tsx')] : [], server], {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: {
      ...inherited(),
      HOST: '127.0.0.1',
      PORT: '0',
      OPS_PORT: '0',
      LOCAL_IOT_PORT: '0',
      LOCAL_MQTT_PORT: '0',
      LOCAL_DYNAMODB_PORT: '0',
      CVM_LOCAL_DIR: folder,
      LOG_LEVEL: 'warn'
    }
  })
  let output = ''
  const keep = (chunk: Buffer) => { output = (output + chunk.toString()).slice(-TAIL) }
  child.stdout.on('data', keep)
  child.stderr.on('data', keep)
  const over = new AbortController()
  const ended = once(child, 'close').then(([code, by]) => (code ?? by) as number | string).finally(() => over.abort())
  let stopping = false
  const died = ended.then<never>(how => {
    if (stopping) return new Promise<never>(() => {})
    process.stderr.write(output)
    throw new Failure(EXIT.failed, `the local service ended by itself (${how}); what it wrote is above`)
  })
  // Somebody may stop listening before the process ends; that must not look like a fault nobody handles.
  died.catch(() => {})
  const stop = async () => {
    stopping = true
    child.kill('SIGTERM')
    const timer = setTimeout(() => child.kill('SIGKILL'), STOP_MS)
    return await ended.finally(() => clearTimeout(timer))
  }
  try {
    return { endpoints: await Promise.race([appeared(folder, AbortSignal.any([signal, over.signal])), died]), died, stop }
  } catch (error) {
    await stop()
    throw error
  }
}

async function appeared (folder: string, signal: AbortSignal): Promise<Endpoints> {
  const deadline = Date.now() + START_MS
  while (Date.now() < deadline) {
    const endpoints = await readEndpoints(folder)
    if (endpoints !== undefined) return endpoints
    await delay(POLL_MS, undefined, { signal })
  }
  throw new Failure(EXIT.failed, `the local service was not up within ${START_MS / 1000} s`)
}

function inherited (): NodeJS.ProcessEnv {
  const names = ['PATH', 'HOME', 'TMPDIR', 'TEMP', 'TMP', 'SYSTEMROOT', 'LANG', 'TZ', 'NODE_EXTRA_CA_CERTS']
  return Object.fromEntries(names.flatMap(name => process.env[name] === undefined ? [] : [[name, process.env[name]]]))
}
