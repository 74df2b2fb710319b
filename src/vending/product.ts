import { CvmError } from '../errors.ts'
import { type CommonNameRule, type Csr, quoted } from '../x509/csr.ts'
import { type ATTRIBUTE_TYPES, valuesOf } from '../x509/names.ts'
import type { Thing } from './control-plane.ts'
import { DEFAULT_PRODUCT, type Device } from './device.ts'

/** The kinds of key that a product may take. */
export const KEY_TYPES = ['EC-P256', 'EC-P384', 'EC-P521', 'RSA'] as const

/** What a subject must say: the serial number or nothing, or the serial number; `any`: the common name is not judged. */
export const SUBJECT_RULES = ['serial-number-or-none', 'serial-number', 'any'] as const

/** How base64 may be written in EST answers. */
export const EST_BASE64 = ['lines', 'one-line'] as const

/** What a product does about a key that is, or was, another device's. */
export const KEY_REUSE = ['refuse', 'warn'] as const

/** What is done where the registry and AWS IoT differ about a device: nothing, the registry follows, or AWS IoT is set. */
export const REPAIR_MODES = ['report', 'registry', 'aws'] as const

/** Why a product refuses a CSR: the `reason` beside the code `csr-rejected`. */
export const PRODUCT_REASONS = [
  'key-type-not-allowed-by-product', 'common-name-required-by-product', 'serial-number-required-by-product', 'subject-other-device'
] as const

/** Where a device's serial number goes in a template. */
// eslint-disable-next-line no-template-curly-in-string -- written so in the file
export const SERIAL_NUMBER_HERE = '${serialNumber}'

/** The most characters that AWS IoT takes in the name of a thing. */
const MAX_THING_NAME = 128

/** Settings shared by devices of a kind. Durations are in milliseconds. */
export interface Product {
  name: string
  policyName: string
  thingType: string | undefined
  thingGroups: readonly string[]
  attributes: Readonly<Record<string, string>>
  keyTypes: readonly (typeof KEY_TYPES[number])[]
  minRsaBits: number
  subject: typeof SUBJECT_RULES[number]
  /** Where subjects say the serial number, of CSRs and of certificates that were made elsewhere. */
  serialNumberFrom: keyof typeof ATTRIBUTE_TYPES
  /** What becomes of a request for a certificate for another device's key; a compromised key is always refused. */
  keyReuse: typeof KEY_REUSE[number]
  /** Whether its devices may have certificates that they signed themselves. */
  selfSigned: boolean
  /** Whether a device that nobody has registered may become one of it, by a certificate of an authority (JITR). */
  openEnrolment: boolean
  thingNameTemplate: string
  renewAfterMs: number
  replayWindowMs: number
  /** For so long after a vend, the same token with another key vends anew; 0: never. */
  reVendGraceMs: number
  /** For so long after its end a certificate may still be renewed; 0: never. */
  renewExpiredForMs: number
  /** Whether AWS IoT may make the key pair. */
  generatedKeys: boolean
  /** How EST answers write base64: in lines of 64, or in one line for clients that read no line ends (strongSwan's `pki --est`). */
  estBase64: typeof EST_BASE64[number]
  /** What is done where the registry and AWS IoT differ about one of its devices; what, in `drift-repair`. */
  repair: typeof REPAIR_MODES[number]
  /** Whether lines may register its devices as they vend them. */
  lineRegistration: boolean
}

/** The products by name; {@link DEFAULT_PRODUCT} is always among them. */
export type Products = ReadonlyMap<string, Product>

/** The product of a device. Raises {@link notConfigured} where it is not in the file any more. */
export function productOf ({ product }: Pick<Device, 'product'>, products: Products): Product {
  const found = products.get(product)
  if (!found) throw notConfigured(product)
  return found
}

/** The error for a device whose product is not in the file. */
export function notConfigured (product: string): CvmError {
  return new CvmError('product-not-configured', { detail: `the product ${product} is not configured`, retryAfterMs: 60_000 })
}

/** The times of a product; the default's for one that is not in the file any more, so that what was vended can still be looked at. */
export function timesOf (product: string, products: Products): Pick<Product, 'renewAfterMs' | 'replayWindowMs'> {
  const found = products.get(product) ?? products.get(DEFAULT_PRODUCT)
  if (!found) throw new Error('there is no default product')
  return found
}

/** The thing that a device of this product gets. */
export function thingOf (product: Product, serialNumber: string): Thing {
  const { thingType, thingGroups, attributes } = product
  return { thingName: thingNameOf(product, serialNumber), thingType, thingGroups, attributes }
}

/**
 * What each product that refuses a request says to it; others are not in it. Known before the device's row is read, so that a refused
 * request writes nothing.
 */
export function refusalsOf (
  products: Products, { serialNumber, product: wanted }: { serialNumber: string, product?: string }, csr: Csr | undefined
): ReadonlyMap<string, CvmError> {
  const refusals = new Map<string, CvmError>()
  for (const product of products.values()) {
    const refusal = csr ? refusalOfCsr(product, csr, serialNumber) : refusalOfGeneratedKey(product)
    if (wanted !== undefined && wanted !== product.name) refusals.set(product.name, new CvmError('product-mismatch'))
    else if (refusal) refusals.set(product.name, refusal)
    else if (!hasRoomFor(product, serialNumber)) refusals.set(product.name, new CvmError('thing-name-too-long'))
  }
  return refusals
}

/** Whether AWS IoT takes the thing name that the product makes of a serial number. */
export function hasRoomFor (product: Product, serialNumber: string): boolean {
  return thingNameOf(product, serialNumber).length <= MAX_THING_NAME
}

function thingNameOf ({ thingNameTemplate }: Product, serialNumber: string): string {
  return thingNameTemplate.replace(SERIAL_NUMBER_HERE, () => serialNumber)
}

/** Why the product does not take a kind of key, in words; undefined where it does. */
export function faultOfKey ({ keyTypes, minRsaBits }: Product, keyType: string): string | undefined {
  const rsaBits = keyType.startsWith('RSA-') ? Number(keyType.slice('RSA-'.length)) : undefined
  if (keyTypes.some(type => type === (rsaBits === undefined ? keyType : 'RSA')) && (rsaBits ?? Infinity) >= minRsaBits) return undefined
  const allowed = keyTypes.map(type => type === 'RSA' ? `RSA of at least ${minRsaBits} bits` : type).join(', ')
  return `The product of the device takes keys of ${allowed}, not ${keyType}.`
}

/** What a CSR's common name must be before the device's product is known. */
export function commonNameRule (products: Products): CommonNameRule {
  return [...products.values()].some(({ subject }) => subject === 'any') ? 'any' : 'serial-number-or-none'
}

/** Where a subject must say nothing but the serial number, under the names of AWS IoT's policy variables. */
function judgedAttributes ({ subject, serialNumberFrom }: Product): ReadonlyArray<keyof typeof ATTRIBUTE_TYPES> {
  const judged = new Set(['CommonName', serialNumberFrom] as const)
  if (subject === 'any') judged.delete('CommonName')
  return [...judged]
}

function refusalOfCsr (product: Product, { keyType, subjectAttributes }: Csr, serialNumber: string): CvmError | undefined {
  const { subject, serialNumberFrom } = product
  const fault = faultOfKey(product, keyType)
  if (fault) return refused('key-type-not-allowed-by-product', fault)
  for (const type of judgedAttributes(product)) {
    const other = valuesOf(subjectAttributes, type).find(value => value !== serialNumber)
    if (other !== undefined) {
      return refused('subject-other-device', `${type} in the subject must be the serial number of the device, or be left out (it is ${quoted(other)}).`)
    }
  }
  if (subject === 'serial-number' && valuesOf(subjectAttributes, serialNumberFrom).length === 0) {
    return serialNumberFrom === 'CommonName'
      ? refused('common-name-required-by-product', 'The common name in the subject must be the serial number of the device.')
      : refused('serial-number-required-by-product', `${serialNumberFrom} in the subject must be the serial number of the device.`)
  }
  return undefined
}

function refusalOfGeneratedKey ({ generatedKeys }: Product): CvmError | undefined {
  return generatedKeys ? undefined : new CvmError('generated-keys-not-allowed')
}

function refused (reason: typeof PRODUCT_REASONS[number], detail: string): CvmError {
  return new CvmError('csr-rejected', { reason, detail })
}
