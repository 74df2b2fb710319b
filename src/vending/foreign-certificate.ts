import { CvmError } from '../errors.ts'
import { valuesOf } from '../x509/names.ts'
import type { Certificate } from '../x509/strict-certificate.ts'
import type { ForeignCertificate } from './adoption-steps.ts'
import { type Authority, refusalByAuthority } from './authority.ts'
import { pemOf } from './authority-rules.ts'
import { SERIAL_NUMBER } from './names.ts'
import { type Product, type Products, faultOfKey, hasRoomFor } from './product.ts'

/** Why a certificate that was made elsewhere is refused by a product, or by what its subject says: beside the codes named. */
export const FOREIGN_REFUSALS = {
  'self-signed-not-allowed-by-product': 'The product of the device takes no certificates that devices signed themselves; have an authority sign it',
  'key-type-not-allowed-by-product': 'The key of the certificate must be of a kind that the product of the device takes',
  'subject-other-device': 'Where the product looks for it, the subject must say the serial number of the device, once',
  'serial-number-required-by-product': 'The subject must say the serial number of the device where the product looks for it'
} as const

/** Who vouches for a certificate that was made elsewhere: a registered authority, or nobody but the device's own key. */
export type Voucher = { authority: Authority, isDirect: boolean } | 'own-key'

/** The certificate as the steps of adoption take it. Only the authority that signed it itself is sent along to AWS IoT. */
export function foreignOf (certificate: Certificate, voucher: Voucher): ForeignCertificate {
  const { certificateId, publicKeyFingerprint, notAfter } = certificate
  const facts = { certificateId, certificatePem: pemOf(certificate), publicKeyFingerprint, notAfter }
  if (voucher === 'own-key') return { ...facts, certificateMode: 'SNI_ONLY' }
  const { authority: { caCertificateId, caCertificatePem, mode }, isDirect } = voucher
  return { ...facts, caCertificateId, ...isDirect && { caCertificatePem }, ...(!isDirect || mode === 'SNI_ONLY') && { certificateMode: 'SNI_ONLY' } }
}

/** What each product that refuses the certificate for this device says to it; others are not in it. */
export function refusalsOfForeign (
  products: Products, serialNumber: string, certificate: Certificate, voucher: Voucher
): ReadonlyMap<string, CvmError> {
  const refusals = [...products.values()].map(product => [product.name, refusalOf(product, serialNumber, certificate, voucher)] as const)
  return new Map(refusals.filter((refusal): refusal is [string, CvmError] => refusal[1] !== undefined))
}

/** The serial number that the subject names by the product's rule; undefined where it names none, several, or what can be none. */
export function serialNumberIn ({ subjectAttributes }: Certificate, { serialNumberFrom }: Product): string | undefined {
  const [first, ...others] = valuesOf(subjectAttributes, serialNumberFrom)
  return first !== undefined && others.length === 0 && new RegExp(SERIAL_NUMBER).test(first) ? first : undefined
}

function refusalOf (product: Product, serialNumber: string, certificate: Certificate, voucher: Voucher): CvmError | undefined {
  if (voucher === 'own-key' && !product.selfSigned) return refused('certificate-not-trusted', 'self-signed-not-allowed-by-product')
  const byAuthority = voucher === 'own-key' ? undefined : refusalByAuthority(voucher.authority, product.name)
  if (byAuthority) return byAuthority
  const fault = faultOfKey(product, certificate.keyType)
  if (fault) return new CvmError('certificate-rejected', { reason: 'key-type-not-allowed-by-product', detail: fault })
  const isJudged = product.subject !== 'any' || product.serialNumberFrom !== 'CommonName'
  const named = valuesOf(certificate.subjectAttributes, product.serialNumberFrom)
  if (isJudged && (named.some(value => value !== serialNumber) || named.length > 1)) return refused('certificate-rejected', 'subject-other-device', product)
  if (named.length === 0 && product.subject === 'serial-number') return refused('certificate-rejected', 'serial-number-required-by-product', product)
  return hasRoomFor(product, serialNumber) ? undefined : new CvmError('thing-name-too-long')
}

function refused (code: 'certificate-not-trusted' | 'certificate-rejected', reason: keyof typeof FOREIGN_REFUSALS, product?: Product): CvmError {
  return new CvmError(code, { reason, detail: `${FOREIGN_REFUSALS[reason]}${product ? ` (${product.serialNumberFrom})` : ''}.` })
}
