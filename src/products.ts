import { readFileSync } from 'node:fs'
import { type Static, type TSchema, Type } from 'typebox'
import { Value } from 'typebox/value'
import { type Config, ConfigError } from './config.ts'
import { DEFAULT_PRODUCT } from './vending/device.ts'
import { ATTRIBUTE_TYPES } from './x509/names.ts'
import { EST_BASE64, KEY_REUSE, KEY_TYPES, type Product, type Products, REPAIR_MODES, SERIAL_NUMBER_HERE, SUBJECT_RULES } from './vending/product.ts'

const NAME = '[a-zA-Z0-9:_-]'
const NAMED = { pattern: `^${NAME}{1,128}$` }
const ALLOWED_NAME = '1 to 128 of `A-Z a-z 0-9 : _ -`'
const GENERATED_KEYS = 'whether AWS IoT may make key pairs; must be false where `keyTypes` and `minRsaBits` do not take RSA-2048, which is what it makes'
const SUBJECT_ATTRIBUTES = Object.keys(ATTRIBUTE_TYPES) as Array<keyof typeof ATTRIBUTE_TYPES>
const milliseconds = (minimum: number, description: string) => Type.Optional(Type.Integer({
  minimum, maximum: Number.MAX_SAFE_INTEGER, description, allowed: `a whole number of milliseconds from ${minimum}`
}))

/** A product in the file: its members, what each allows (AWS IoT's rules for names) and means. The README's table is made from it. */
export const PRODUCT = Type.Object({
  name: Type.String({ pattern: '^[A-Za-z0-9._-]{1,64}$', description: 'what devices are registered with', allowed: '1 to 64 of `A-Z a-z 0-9 . _ -`' }),
  policyName: Type.Optional(Type.String({
    pattern: '^[\\w+=,.@-]{1,128}$', description: 'AWS IoT policy that its certificates get', allowed: '1 to 128 of `A-Z a-z 0-9 _ + = , . @ -`'
  })),
  thingType: Type.Optional(Type.String({ ...NAMED, description: 'type of its things; must exist', allowed: ALLOWED_NAME })),
  thingGroups: Type.Optional(Type.Array(Type.String(NAMED), {
    maxItems: 10, uniqueItems: true, description: 'static groups that its things join; must exist', allowed: `a list of at most 10 names, none twice, each ${ALLOWED_NAME}`
  })),
  attributes: Type.Optional(Type.Record(
    Type.String({ pattern: '^[a-zA-Z0-9_.,@/:#-]{1,128}$' }),
    Type.String({ pattern: '^[a-zA-Z0-9_.,@/:#=\\[\\]-]{1,800}$' }),
    {
      additionalProperties: false,
      maxProperties: 50,
      description: 'attributes of its things; more than 3 need a `thingType`',
      allowed: 'an object of at most 50 texts of 1 to 800 of `A-Z a-z 0-9 _ . , @ / : # = [ ] -`, with names of 1 to 128 of the same without `= [ ]`'
    }
  )),
  keyTypes: Type.Optional(Type.Array(Type.Enum([...KEY_TYPES]), {
    minItems: 1, uniqueItems: true, description: 'keys that CSRs may have', allowed: `a list of ${KEY_TYPES.join(', ')}, none twice`
  })),
  minRsaBits: Type.Optional(Type.Integer({ minimum: 2048, maximum: 4096, description: 'least size of RSA keys', allowed: 'a whole number from 2048 to 4096' })),
  subject: Type.Optional(Type.Enum([...SUBJECT_RULES], { description: 'what a subject must say where `serialNumberFrom` looks, and as its common name; `any` takes every common name', allowed: `one of ${SUBJECT_RULES.join(', ')}` })),
  serialNumberFrom: Type.Optional(Type.Enum(SUBJECT_ATTRIBUTES, {
    description: 'where subjects say the serial number: those of CSRs and of certificates made elsewhere', allowed: `one of ${SUBJECT_ATTRIBUTES.join(', ')}`
  })),
  keyReuse: Type.Optional(Type.Enum([...KEY_REUSE], {
    description: 'what becomes of a certificate for a key that is, or was, another device\'s: refused, or made with an audit event', allowed: `one of ${KEY_REUSE.join(', ')}`
  })),
  selfSigned: Type.Optional(Type.Boolean({ description: 'whether its devices may have certificates that they signed themselves', allowed: 'true or false' })),
  openEnrolment: Type.Optional(Type.Boolean({
    description: 'whether a device that nobody registered becomes one of this product by its certificate (JITR); only below an authority that names the product', allowed: 'true or false'
  })),
  thingNameTemplate: Type.Optional(Type.String({
    pattern: `^${NAME}*\\$\\{serialNumber\\}${NAME}*$`,
    maxLength: 127 + SERIAL_NUMBER_HERE.length,
    description: 'name of its things, and MQTT client id to connect with; at most 128 characters once the serial number is in it',
    allowed: `${SERIAL_NUMBER_HERE} once, with at most 127 of \`A-Z a-z 0-9 : _ -\` around it`
  })),
  renewAfterMs: milliseconds(1, 'age at which its devices are told to renew'),
  replayWindowMs: milliseconds(1, 'how long after a vend the same request gets the same certificate'),
  reVendGraceMs: milliseconds(0, 'how long after a vend the same token with another key vends anew; 0: never'),
  renewExpiredForMs: milliseconds(0, 'how long after its end a certificate may still be renewed; 0: not'),
  generatedKeys: Type.Optional(Type.Boolean({ description: GENERATED_KEYS, allowed: 'true or false' })),
  estBase64: Type.Optional(Type.Enum([...EST_BASE64], {
    description: 'how EST answers write base64: in lines of 64, or in one line for clients that read no line ends (strongSwan 5.9)',
    allowed: `one of ${EST_BASE64.join(', ')}`
  })),
  repair: Type.Optional(Type.Enum([...REPAIR_MODES], {
    description: 'what is done where the registry and AWS IoT differ about one of its devices: only reported, or repaired in the registry or in AWS IoT where that is safe',
    allowed: `one of ${REPAIR_MODES.join(', ')}`
  })),
  lineRegistration: Type.Optional(Type.Boolean({ description: 'whether a batch may register its devices as it vends them', allowed: 'true or false' }))
})

/** Members that the environment's settings stand in for. */
export const FROM_ENVIRONMENT = { policyName: 'IOT_POLICY_NAME', renewAfterMs: 'RENEW_AFTER_MS', replayWindowMs: 'REPLAY_WINDOW_MS' } as const

/** The other members as they are without being told. */
export const INITIAL: Omit<Product, 'name' | keyof typeof FROM_ENVIRONMENT> = {
  thingType: undefined,
  thingGroups: [],
  attributes: {},
  keyTypes: KEY_TYPES,
  minRsaBits: 2048,
  subject: 'serial-number-or-none',
  serialNumberFrom: 'CommonName',
  keyReuse: 'refuse',
  selfSigned: false,
  openEnrolment: false,
  thingNameTemplate: SERIAL_NUMBER_HERE,
  reVendGraceMs: 0,
  renewExpiredForMs: 0,
  generatedKeys: true,
  estBase64: 'lines',
  repair: 'report',
  lineRegistration: false
}

type Entry = Static<typeof PRODUCT>

const MAX_PRODUCTS = 100

/** Every fault of the file of products: product, member and what is allowed. None where there is no file, or none that can be read. */
export function productFaults ({ PRODUCTS_FILE }: Pick<Config, 'PRODUCTS_FILE'>): string[] {
  const text = PRODUCTS_FILE ? textOf(PRODUCTS_FILE) : ''
  return text ? faultsOf(text).map(fault => `PRODUCTS_FILE ${fault}`) : []
}

/**
 * The products of the file, and `default` from the environment where the file has none. Raises {@link ConfigError} with every fault at
 * once.
 */
export function readProducts (config: Pick<Config, 'PRODUCTS_FILE' | typeof FROM_ENVIRONMENT[keyof typeof FROM_ENVIRONMENT]>): Products {
  const faults = productFaults(config)
  if (faults.length > 0) throw new ConfigError(faults)
  const given = config.PRODUCTS_FILE ? JSON.parse(readFileSync(config.PRODUCTS_FILE, 'utf8')) as Entry[] : []
  const entries = given.some(({ name }) => name === DEFAULT_PRODUCT) ? given : [...given, { name: DEFAULT_PRODUCT }]
  const { IOT_POLICY_NAME: policyName, RENEW_AFTER_MS: renewAfterMs, REPLAY_WINDOW_MS: replayWindowMs } = config
  return new Map(entries.map(entry => [entry.name, { ...INITIAL, policyName, renewAfterMs, replayWindowMs, ...entry }]))
}

function faultsOf (text: string): string[] {
  const entries = parsed(text)
  if (!Array.isArray(entries)) return ['must hold a JSON array of products']
  const faults = entries.length > MAX_PRODUCTS ? [`must hold at most ${MAX_PRODUCTS} products, not ${entries.length}`] : []
  const names = new Set<unknown>()
  for (const [index, entry] of (entries as unknown[]).entries()) {
    const isObject = typeof entry === 'object' && entry !== null && !Array.isArray(entry)
    const { name } = (isObject ? entry : {}) as { name?: unknown }
    const product = typeof name === 'string' ? `product ${shown(name)}` : `product number ${index + 1}`
    if (typeof name === 'string' && names.has(name)) faults.push(`${product}: there must be one of that name, not two`)
    names.add(name)
    faults.push(...isObject ? faultsOfEntry(entry as Record<string, unknown>).map(fault => `${product}: ${fault}`) : [`${product} must be an object with a name`])
  }
  return faults
}

function faultsOfEntry (entry: Record<string, unknown>): string[] {
  const members: Record<string, TSchema & { allowed?: string }> = PRODUCT.properties
  const unknown = Object.keys(entry).filter(member => !Object.hasOwn(members, member))
  const wrong = Object.entries(members).filter(([member, schema]) =>
    (Object.hasOwn(entry, member) || member === 'name') && !Value.Check(schema, entry[member])).map(([member]) => member)
  return [
    ...unknown.map(member => `${shown(member)} is no member; there are ${Object.keys(members).join(', ')}`),
    ...wrong.map(member => `${member} must be ${members[member]?.allowed}, not ${shown(entry[member])}`),
    ...faultsTogether({ ...INITIAL, ...entry as Entry }, (...of) => !of.some(member => wrong.includes(member)))
  ]
}

/** What members mean for each other; not judged where one of them is wrong by itself. */
function faultsTogether (entry: typeof INITIAL, areRight: (...members: string[]) => boolean): string[] {
  const { attributes, thingType, keyTypes, minRsaBits, generatedKeys } = entry
  const faults: string[] = []
  const count = areRight('attributes', 'thingType') && thingType === undefined ? Object.keys(attributes).length : 0
  if (count > 3) faults.push(`attributes must be at most 3 without thingType, not ${count}`)
  if (areRight('keyTypes', 'minRsaBits', 'generatedKeys') && generatedKeys && (!keyTypes.includes('RSA') || minRsaBits > 2048)) {
    faults.push('generatedKeys must be false where keyTypes and minRsaBits do not take RSA-2048, which is what AWS IoT makes')
  }
  return faults
}

function textOf (file: string): string {
  try {
    return readFileSync(file, 'utf8')
  } catch {
    return ''
  }
}

function parsed (text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

/** What was found, cut short. */
function shown (value: unknown): string {
  const text = JSON.stringify(value) ?? 'nothing'
  return text.length > 80 ? `${text.slice(0, 80)}…` : text
}
