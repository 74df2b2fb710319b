import type { FastifyBodyParser, FastifyInstance, FastifyRequest } from 'fastify'
import { CvmError } from '../errors.ts'
import { jsonFault } from './json-fault.ts'

/** Reads a JSON text; raises for what {@link strictJson} refuses. */
export type JsonReader = (request: FastifyRequest, bytes: Buffer) => Promise<unknown>

/**
 * A reader of JSON in UTF-8 that refuses members given twice (two readers, such as a firewall and this service, could see two different
 * values) and members that would change an object's prototype. Raises `CvmError('malformed-json')` or what Fastify's parser raises.
 */
export function strictJson (app: FastifyInstance): JsonReader {
  // Its type allows a promise, which this one never returns.
  const parse = app.getDefaultJsonParser('error', 'error') as (...args: Parameters<FastifyBodyParser<string>>) => void
  return async (request, bytes) => {
    const text = textOf(bytes)
    const value = await new Promise((resolve, reject) => {
      parse(request, text, (error, value) => error ? reject(explained(error, text)) : resolve(value))
    })
    refuseRepeats(text, value)
    return value
  }
}

/** Says where the fault is; what needs no place, such as an empty body, stays as it is. */
function explained (cause: Error, text: string): Error {
  const detail = text === '' ? undefined : jsonFault(text)
  return detail === undefined ? cause : new CvmError('malformed-json', { detail, cause })
}

/** Raises `CvmError('unsupported-media-type')` for a body in another charset, or compressed. */
export function refuseEncodings ({ headers }: FastifyRequest): void {
  const { 'content-type': type = '', 'content-encoding': encoding = 'identity' } = headers
  const [, charset = 'utf-8'] = /;\s*charset\s*=\s*"?([^";\s]*)/i.exec(type) ?? []
  if (charset.toLowerCase() !== 'utf-8') throw new CvmError('unsupported-media-type', { detail: 'JSON is sent in UTF-8' })
  if (encoding !== 'identity') throw new CvmError('unsupported-media-type', { detail: 'the body must not be compressed' })
}

function textOf (bytes: Buffer): string {
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes)
  } catch (cause) {
    throw new CvmError('malformed-json', { detail: 'the body is not valid UTF-8', cause })
  }
}

/** `JSON.parse` keeps the last of members with the same name, so fewer are left than the text has. */
function refuseRepeats (text: string, value: unknown): void {
  const written = [...text.matchAll(/"[^"\\]*(?:\\.[^"\\]*)*"\s*(:?)/g)].filter(([, colon]) => colon).length
  if (written !== countMembers(value)) throw new CvmError('malformed-json', { detail: 'a member is given more than once' })
}

function countMembers (value: unknown): number {
  let count = 0
  const pending = [value]
  while (pending.length > 0) {
    const next = pending.pop()
    if (typeof next !== 'object' || next === null) continue
    const members = Object.values(next)
    if (!Array.isArray(next)) count += members.length
    for (const member of members) pending.push(member)
  }
  return count
}
