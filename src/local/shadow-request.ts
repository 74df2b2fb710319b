import { AwsError, invalidRequest } from './aws-error.ts'
import { deeperThan, isObject, listsNull, type Json, type JsonObject } from './shadow-document.ts'

/** A change to a shadow that was asked for; a section that is null is to go, one that is absent stays. */
export interface ShadowRequest {
  readonly desired?: JsonObject | null
  readonly reported?: JsonObject | null
  readonly version?: number
  readonly clientToken?: string
}

// AWS's limits (aws-facts 1.6); a request is as large as an MQTT payload can be.
const MAX_REQUEST_BYTES = 128 * 1024
const MAX_TOKEN_BYTES = 64
const MAX_LEVELS = 5

/** Reads a request; refuses in the words of the developer guide's list of shadow errors. */
export function shadowRequest (payload: Buffer): ShadowRequest {
  const clientToken = tokenIn(payload)
  const document = parse(payload)
  const refuse = (message: string): AwsError => invalidShadow(message, clientToken)
  if (!isObject(document)) throw refuse('Payload contains invalid json')
  const { state, version, clientToken: token } = document
  if (token !== undefined && clientToken === undefined) throw refuse('Invalid clientToken')
  if (version !== undefined && (!Number.isSafeInteger(version) || Number(version) < 0)) throw refuse('Invalid version')
  if (state === undefined) throw refuse('Missing required node: state')
  if (state !== null && !isObject(state)) throw refuse('State node must be an object')
  const sections = state ?? { desired: null, reported: null }
  for (const [name, section] of Object.entries(sections)) {
    if (name !== 'desired' && name !== 'reported') throw refuse(`State contains an invalid node: '${name.slice(0, 64)}'`)
    if (section !== null && !isObject(section)) throw refuse(`${name === 'desired' ? 'Desired' : 'Reported'} node must be an object`)
    if (Object.values(section ?? {}).some(value => deeperThan(value, MAX_LEVELS - 1))) {
      throw refuse(`JSON contains too many levels of nesting; maximum is ${MAX_LEVELS}`)
    }
    if (listsNull(section)) throw refuse('JSON contains an invalid node: null in a list')
  }
  return {
    ...(sections as Pick<ShadowRequest, 'desired' | 'reported'>),
    ...(version === undefined ? {} : { version: Number(version) }),
    ...(clientToken === undefined ? {} : { clientToken })
  }
}

/** The client token of any request, if one can be read: refusals carry it too. */
export function tokenIn (payload: Buffer): string | undefined {
  try {
    const document = parse(payload)
    const token = isObject(document) ? document['clientToken'] : undefined
    return typeof token === 'string' && Buffer.byteLength(token) <= MAX_TOKEN_BYTES ? token : undefined
  } catch {
    return undefined
  }
}

/** A 400, with the client token when there is one. */
function invalidShadow (message: string, clientToken: string | undefined): AwsError {
  return new AwsError('InvalidRequestException', message, clientToken === undefined ? {} : { clientToken })
}

function parse (payload: Buffer): Json {
  if (payload.length > MAX_REQUEST_BYTES) throw new AwsError('RequestEntityTooLargeException', 'The payload exceeds the maximum size allowed')
  let text
  try {
    text = new TextDecoder('utf-8', { fatal: true }).decode(payload)
  } catch {
    throw new AwsError('UnsupportedDocumentEncodingException', 'Unsupported documented encoding; supported encoding is UTF-8')
  }
  try {
    return JSON.parse(text) as Json
  } catch {
    throw invalidRequest('Payload contains invalid json')
  }
}
