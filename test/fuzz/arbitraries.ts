// What fuzzing draws from: wild values, edits of bytes, headers, and bodies between right and wrong.
import fc from 'fast-check'

const SHARES = 100_000

type Edit = readonly [kind: 'flip' | 'set' | 'insert' | 'remove' | 'repeat', at: number, value: number]

const kind = fc.constantFrom('flip', 'set', 'insert', 'remove', 'repeat')
const edit: fc.Arbitrary<Edit> = fc.tuple(kind, fc.integer({ min: 0, max: SHARES - 1 }), fc.integer({ min: 0, max: 255 }))

/** A few edits of bytes; positions are shares, so that they fit whatever is edited. */
export const edits = fc.array(edit, { minLength: 1, maxLength: 3 })

export function edited (original: Uint8Array, edits: readonly Edit[]): Buffer {
  let bytes = Buffer.from(original)
  for (const [kind, share, value] of edits) {
    const at = Math.floor(share / SHARES * bytes.length)
    const [before, here, after] = [bytes.subarray(0, at), bytes.subarray(at, at + 1), bytes.subarray(at + 1)]
    switch (kind) {
      case 'flip': bytes = Buffer.concat([before, Buffer.from([(here[0] ?? 0) ^ (1 << (value & 7))]), after]); break
      case 'set': bytes = Buffer.concat([before, Buffer.from([value]), after]); break
      case 'insert': bytes = Buffer.concat([before, Buffer.from([value]), here, after]); break
      case 'remove': bytes = Buffer.concat([before, bytes.subarray(at + 1 + value % 16)]); break
      case 'repeat': bytes = Buffer.concat([before, here, ...Array<Buffer>(value % 32).fill(here), after]); break
    }
  }
  return bytes
}

const words = fc.constantFrom('', '\0', '\ud800', '__proto__', '{}', '-----BEGIN')
const text = fc.oneof(fc.string({ unit: 'binary', maxLength: 40 }), fc.string({ maxLength: 300 }), words)

/** Any JSON value, and some that only look like it. */
export const wild = fc.oneof(text, fc.jsonValue({ maxDepth: 3 }), fc.constantFrom(null, true, 0, -1, 1e308, [], {}))

/** A body with some members right, some wild, some missing and some that do not belong. */
export function bodyAround (right: Readonly<Record<string, fc.Arbitrary<unknown>>>): fc.Arbitrary<Record<string, unknown>> {
  const mostly = (good: fc.Arbitrary<unknown>) => fc.oneof({ weight: 6, arbitrary: good }, { weight: 1, arbitrary: wild })
  const members = Object.fromEntries(Object.entries(right).map(([name, good]) => [name, mostly(good)]))
  const name = fc.oneof(fc.string({ maxLength: 12 }), fc.constantFrom('setAsActive', 'constructor', 'toString', 'serialnumber'))
  const more = fc.dictionary(name, wild, { maxKeys: 2 })
  const some = fc.oneof({ weight: 3, arbitrary: fc.record(members) }, { weight: 1, arbitrary: fc.record(members, { requiredKeys: [] }) })
  return fc.tuple(some, fc.option(more, { freq: 1 })).map(([body, extra]) => ({ ...extra, ...body }))
}

const characters = (min: number, max: number) =>
  fc.integer({ min, max }).filter(code => code !== 0x7f).map(code => String.fromCharCode(code))

/** Header values as a parser hands them on: no control characters. */
const headerText = fc.string({ unit: characters(0x20, 0xff), maxLength: 80 })

export const headers = fc.record({
  'content-type': fc.oneof(
    { weight: 8, arbitrary: fc.constant('application/json') },
    fc.constantFrom('application/json; charset=utf-8', 'application/json;charset=latin1', 'text/plain', 'application/json;;', 'APPLICATION/JSON', 'a/b; c="d'),
    headerText
  ),
  accept: fc.oneof(fc.constantFrom('*/*', 'application/json', 'application/pem-certificate-chain', ',;q=,'), headerText),
  'accept-version': headerText,
  'content-encoding': fc.oneof({ weight: 8, arbitrary: fc.constant('identity') }, headerText),
  'x-request-id': headerText,
  'x-forwarded-for': headerText,
  expect: headerText,
  host: headerText,
  authorization: headerText,
  cookie: headerText
}, { requiredKeys: ['content-type'] })

export const methods = fc.constantFrom('GET', 'HEAD', 'PUT', 'PATCH', 'DELETE', 'OPTIONS', 'POST')

const NEAR = [
  ...['/v1/certificates', '/v1/keys-and-certificates', '/v1/certificates/', '/v1/certificates?a=%zz', '/v1/%2e%2e/certificates'],
  ...['/', '//', '/%', '/livez']
]

/** Addresses near those that there are, and any that a URL can name. */
export const addresses = fc.oneof(
  fc.constantFrom(...NEAR),
  fc.webPath().map(path => path || '/'),
  fc.string({ unit: characters(0x21, 0x7e), maxLength: 60 }).map(path => `/${path}`).filter(path => URL.canParse(path, 'http://localhost'))
)
