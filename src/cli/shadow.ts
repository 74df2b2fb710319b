import { text } from 'node:stream/consumers'
import { untilAnswered } from './back-off.ts'
import type { Call } from './client.ts'
import { readText } from './device-folder.ts'
import { EXIT, Failure } from './failure.ts'
import { connect } from './settings.ts'
import type { ConnectionOptions } from './settings.ts'

interface ShadowOptions extends ConnectionOptions { name?: string, set?: string, ifVersion?: number }

const PATIENCE = { timeoutMs: 120_000 }

/** Prints a device's shadow as it is, or sets what is wanted of the device and prints what the service says to that. Throws a `Failure`. */
export async function shadow (serial: string, options: ShadowOptions): Promise<void> {
  const query = options.name === undefined ? '' : `?${new URLSearchParams({ name: options.name })}`
  const path = `v1/devices/${encodeURIComponent(serial)}/shadow${query}`
  const { body } = await untilAnswered(await connect(options), await callFor(path, options), PATIENCE)
  process.stdout.write(`${JSON.stringify(body, null, 2)}\n`)
}

async function callFor (path: string, { set, ifVersion: version }: ShadowOptions): Promise<Call> {
  if (set === undefined && version !== undefined) throw new Failure(EXIT.usage, '--if-version goes with --set')
  if (set === undefined) return { path }
  const desired = wantedIn(set === '-' ? await text(process.stdin) : await readText(set), set)
  return { path, method: 'PUT', body: Buffer.from(JSON.stringify({ desired, ...version !== undefined && { version } })) }
}

/** Its own words on a fault: those of `JSON.parse` quote the text, and what is wanted of a device may be secret. */
function wantedIn (json: string, origin: string): unknown {
  try {
    const value: unknown = JSON.parse(json)
    if (typeof value === 'object' && !Array.isArray(value)) return value
  } catch {}
  throw new Failure(EXIT.usage, `${origin === '-' ? 'standard input' : origin} is not a JSON object`)
}
