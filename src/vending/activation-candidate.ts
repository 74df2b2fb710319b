import { CvmError } from '../errors.ts'
import type { Certificate } from '../x509/strict-certificate.ts'
import type { Authority } from './authority.ts'
import type { DeviceRegistry } from './device-registry.ts'
import { refusalsOfForeign, serialNumberIn } from './foreign-certificate.ts'
import type { Product, Products } from './product.ts'

/** Why no device can be told from a certificate that was seen for the first time: the `reason` beside `certificate-rejected`. */
export const CANDIDATE_REFUSALS = {
  'serial-number-missing': 'No product finds a serial number in the subject',
  'serial-number-ambiguous': 'The subject names several devices of the registry',
  'device-of-other-product': 'A device of this serial number is registered for a product that finds another one in the subject, or none',
  'product-ambiguous': 'Several products with open enrolment find a serial number in the subject, and the authority names more than one of them'
} as const

/** The device that a certificate is for, by its subject. */
export interface Candidate {
  serialNumber: string
  certificate: Certificate
  voucher: { authority: Authority, isDirect: boolean }
  refusals: ReadonlyMap<string, CvmError>
  /** The product to register the device for, where nobody has. */
  enrolAs?: string
}

interface CandidateDeps { registry: Pick<DeviceRegistry, 'find'>, products: Products }

/**
 * The registry is the allow-list: the device whose serial number the subject says by the rule of its own product. One that nobody has
 * registered may become a device of the one product that enrols openly and that the authority names. Raises `CvmError`:
 * `certificate-rejected` with a `reason` of {@link CANDIDATE_REFUSALS}, `device-not-found`, and what a product refuses.
 */
export async function findCandidate (
  certificate: Certificate, voucher: Candidate['voucher'], { registry, products }: CandidateDeps
): Promise<Candidate> {
  const named = serialNumbersIn(certificate, products)
  if (named.size === 0) throw rejected('serial-number-missing')
  const rows = await Promise.all([...named.keys()].map(serialNumber => registry.find(serialNumber)))
  const devices = rows.filter(device => device !== undefined)
  const own = devices.filter(({ serialNumber, product }) => named.get(serialNumber)?.some(({ name }) => name === product))
  if (own.length > 1) throw rejected('serial-number-ambiguous')
  const [device] = own
  if (!device && devices.length > 0) throw rejected('device-of-other-product')
  const open = device ? undefined : openProduct(named, voucher.authority)
  const serialNumber = device?.serialNumber ?? open?.serialNumber
  if (serialNumber === undefined) throw new CvmError('device-not-found')
  const refusals = refusalsOfForeign(products, serialNumber, certificate, voucher)
  const refusal = open && refusals.get(open.product)
  if (refusal) throw refusal
  return { serialNumber, certificate, voucher, refusals, ...open && { enrolAs: open.product } }
}

/** The serial numbers that the products' rules find, each with those products. */
function serialNumbersIn (certificate: Certificate, products: Products): ReadonlyMap<string, Product[]> {
  const named = new Map<string, Product[]>()
  for (const product of products.values()) {
    const serialNumber = serialNumberIn(certificate, product)
    if (serialNumber !== undefined) named.set(serialNumber, [...named.get(serialNumber) ?? [], product])
  }
  return named
}

/** Only where the authority names the product: another one's devices are not to be had by whoever has a certificate of some CA. */
function openProduct (named: ReadonlyMap<string, Product[]>, { products: allowed = [] }: Authority) {
  const open = [...named].flatMap(([serialNumber, products]) => products
    .filter(({ openEnrolment, name }) => openEnrolment && allowed.includes(name))
    .map(({ name }) => ({ serialNumber, product: name })))
  if (open.length > 1) throw rejected('product-ambiguous')
  return open[0]
}

function rejected (reason: keyof typeof CANDIDATE_REFUSALS): CvmError {
  return new CvmError('certificate-rejected', { reason, detail: `${CANDIDATE_REFUSALS[reason]}.` })
}
