import { type Static, type TSchema, Type } from 'typebox'
import { Compile } from 'typebox/compile'
import { DEVICE_STATES } from '../vending/device.ts'

/** The most that a JavaScript `Date` holds: what is beyond cannot be shown as a time. */
const LATEST = 8.64e15

/** What quarantine writes where there is no `claimExpiresAt`, which is the sort key of its index. */
export const NO_END = -1

const TEXT = Type.String({ description: 'a string' })
const TIME = Type.Number({ minimum: -LATEST, maximum: LATEST, description: 'a time in epoch milliseconds' })
const SET = Type.Array(TEXT, { description: 'a string set' })
const STATE = Type.Enum([...DEVICE_STATES], { description: `one of ${DEVICE_STATES.join(', ')}` })
const WAY = Type.Enum(['csr', 'keys', 'registered', 'jitr'], { description: 'one of csr, keys, registered, jitr' })

/** What a row has of a certificate, all of it or nothing. */
const CERTIFICATE = ['certificateId', 'certificateArn', 'certificatePem', 'publicKeyFingerprint', 'way', 'issuedAt', 'notAfter'] as const

const CertificateMap = Type.Object({
  certificateId: TEXT,
  certificateArn: TEXT,
  certificatePem: TEXT,
  publicKeyFingerprint: TEXT,
  way: WAY,
  thingName: TEXT,
  caCertificateId: Type.Optional(TEXT),
  certificateMode: Type.Optional(TEXT),
  issuedAt: TIME,
  notAfter: TIME
}, { description: 'a map' })

/** The attributes that a row may have; others are a later version's. The old services' own attributes may hold anything. */
const Row = Type.Partial(Type.Object({
  state: STATE,
  product: TEXT,
  revision: Type.Number({ description: 'a number' }),
  listing: TEXT,
  tokenHash: TEXT,
  tokenExpiresAt: TIME,
  tokenSpentAt: TIME,
  claimId: TEXT,
  claimExpiresAt: TIME,
  way: WAY,
  publicKeyFingerprint: TEXT,
  certificateId: TEXT,
  certificateArn: TEXT,
  certificatePem: TEXT,
  thingName: TEXT,
  caCertificateId: TEXT,
  certificateMode: TEXT,
  issuedAt: TIME,
  notAfter: TIME,
  committedAt: TIME,
  recheckAt: TIME,
  retiring: SET,
  pending: Type.Object({
    operation: Type.Enum(['reset', 'revoke', 'disable', 'enable', 'decommission'], { description: 'an operation' }),
    operationId: TEXT,
    actor: TEXT,
    reason: TEXT,
    tokenHash: Type.Optional(TEXT),
    tokenExpiresAt: Type.Optional(TIME),
    until: Type.Optional(TIME)
  }, { description: 'a map' }),
  stateBefore: STATE,
  renewal: Type.Object({
    phase: Type.Enum(['issuing', 'issued', 'swapping'], { description: 'one of issuing, issued, swapping' }),
    claimId: TEXT,
    expiresAt: TIME,
    publicKeyFingerprint: TEXT,
    nonce: Type.Optional(TEXT),
    certificate: Type.Optional(CertificateMap)
  }, { description: 'a map' }),
  usedProofs: Type.Array(Type.Object({ nonce: TEXT, expiresAt: TIME }, { description: 'a map' }), { description: 'a list' }),
  renewedFrom: TEXT,
  renewedAt: TIME,
  suspectClaimId: TEXT,
  suspectSince: TIME,
  suspectUntil: TIME,
  suspects: SET,
  history: Type.Array(Type.Object({
    at: TIME,
    event: TEXT,
    requestId: TEXT,
    certificateId: Type.Optional(TEXT),
    actor: Type.Optional(TEXT),
    reason: Type.Optional(TEXT)
  }, { description: 'a map' }), { description: 'a list' })
}))

const checked = Compile(Row)
const isCertificate = Compile(CertificateMap)

type Attributes = Readonly<Record<string, unknown>>

/** What is wrong with a row as it comes from DynamoDB: the first attribute that is wrong or missing; undefined where it can be read. */
export function faultOf (row: Attributes): { attribute: string, detail: string } | undefined {
  const view = { ...row, ...setsOf(row) }
  if (!checked.Check(view)) return wrongIn(row, view)
  const name = missingIn(row)
  return name === undefined ? undefined : { attribute: name, detail: `\`${name}\` is missing` }
}

/** The certificate of a renewal, where that much can be read. */
export function renewalCertificateOf (row: Attributes): Static<typeof CertificateMap> | undefined {
  const { certificate } = (row['renewal'] ?? {}) as { certificate?: unknown }
  return isCertificate.Check(certificate) ? certificate : undefined
}

/** DynamoDB's sets as lists, which a schema can describe; a list in the place of a set cannot be added to. */
function setsOf (row: Attributes): Attributes {
  const given = ['retiring', 'suspects'].filter(name => row[name] !== undefined)
  return Object.fromEntries(given.map(name => [name, row[name] instanceof Set ? [...row[name]] : kindOf(row[name])]))
}

function wrongIn (row: Attributes, view: Attributes): { attribute: string, detail: string } {
  const [fault] = checked.Errors(view)
  const path = (fault?.instancePath ?? '').split('/').slice(1)
  const names = path.join('.')
  const { requiredProperties: [lacking] = [] } = (fault?.params ?? {}) as { requiredProperties?: string[] }
  if (lacking !== undefined) return { attribute: `${names}.${lacking}`, detail: `\`${names}.${lacking}\` is missing` }
  const found = path.reduce<unknown>((value, name) => {
    return value instanceof Set ? [...value][Number(name)] : (value as Attributes | undefined)?.[name]
  }, row)
  return { attribute: names, detail: `\`${names}\` is ${kindOf(found)} where ${wantedAt(path)} belongs` }
}

function wantedAt (path: readonly string[]): string {
  const schema = path.reduce<TSchema | undefined>((at, name) => {
    const { properties, items } = (at ?? {}) as { properties?: Record<string, TSchema>, items?: TSchema }
    return properties?.[name] ?? items
  }, Row)
  return (schema as { description?: string } | undefined)?.description ?? 'something else'
}

/** The kind of a value, never the value: a value that was put there by hand may be a secret. */
function kindOf (value: unknown): string {
  if (value === null) return 'null'
  if (value instanceof Set) return 'a set'
  if (Array.isArray(value)) return 'a list'
  if (value instanceof Uint8Array) return 'binary'
  if (typeof value === 'object') return 'a map'
  return typeof value === 'string' ? 'another string' : `a ${typeof value}`
}

function missingIn (row: Attributes): string | undefined {
  const has = (name: string) => row[name] !== undefined
  const wasVendedThere = has('certinfo') || has('applyState')
  const { phase, certificate } = (row['renewal'] ?? {}) as { phase?: string, certificate?: unknown }
  const needs: [boolean, readonly string[]][] = [
    [row['state'] === 'ISSUING', ['claimId', 'way']],
    [has('unfinished') || has('claimId'), ['claimExpiresAt']],
    [row['state'] === 'ISSUED' || (row['state'] === 'ACTIVE' && !wasVendedThere), CERTIFICATE],
    [has('certificateId') || has('certificateArn') || has('certificatePem'), CERTIFICATE],
    [has('suspectClaimId') || has('suspectSince') || has('suspects'), ['suspectClaimId', 'suspectSince']]
  ]
  const missing = needs.flatMap(([applies, names]) => applies ? names.filter(name => !has(name)) : [])
  if (has('claimId') && row['claimExpiresAt'] === NO_END) return 'claimExpiresAt'
  return missing[0] ?? (phase !== undefined && phase !== 'issuing' && certificate === undefined ? 'renewal.certificate' : undefined)
}
