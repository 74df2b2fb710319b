import { EXTENSION } from './extensions.ts'
import { KeyError } from './key-policy.ts'
import type { ChainRefusal, KeyRefusal } from './refusals.ts'
import { SignatureError, checkSignatureAlgorithm, isWeak, verifies } from './signature-policy.ts'
import { publicKeyOf, type Certificate } from './strict-certificate.ts'

/** A rule of a path that a certificate breaks, and which certificate it is. */
export interface Fault { readonly reason: ChainRefusal, readonly specifics: string }

const CLIENT_AUTH = '1.3.6.1.5.5.7.3.2'
const ANY_PURPOSE = '2.5.29.37.0'
const WEAK: ReadonlySet<KeyRefusal> = new Set(['rsa-key-too-small', 'rsa-key-weak'])
const { nameConstraints: NAME_CONSTRAINTS, crlDistributionPoints: CRL_POINTS } = EXTENSION
// Nobody here asks for policies or alternative names, so they restrict nothing; what could demand policies is not in the list. CRLs are
// those that the operator sets, so a certificate that demands its own is not understood.
const KNOWN = new Set<string>(Object.values(EXTENSION).filter(oid => oid !== NAME_CONSTRAINTS && oid !== CRL_POINTS))

/** What is wrong with a certificate as that of a device, whoever signed it. `now` is in milliseconds since 1970. */
export function deviceFault (certificate: Certificate, now: number): Fault | undefined {
  const { notBefore, notAfter, extensions } = certificate
  if (now < notBefore) return fault('not-yet-valid', certificate, from(notBefore))
  if (now > notAfter) return fault('expired', certificate, to(notAfter))
  if (!(extensions.keyUsage?.has('digitalSignature') ?? true) || !isForClients(certificate)) return fault('leaf-not-for-clients', certificate)
  return criticalFault(certificate) ?? keyFault(certificate)
}

/** What is wrong with a certificate as that of a CA under which `below` other CAs stand on the way to a device. */
export function authorityFault (certificate: Certificate, now: number, below = 0): Fault | undefined {
  const { notBefore, notAfter, extensions: { isCa, keyUsage, pathLength, oids } } = certificate
  if (!isCa) return fault('issuer-not-a-ca', certificate)
  if (!(keyUsage?.has('keyCertSign') ?? true)) return fault('issuer-may-not-sign', certificate)
  if (!isForClients(certificate)) return fault('issuer-not-for-clients', certificate)
  if (now < notBefore) return fault('issuer-not-yet-valid', certificate, from(notBefore))
  if (now > notAfter) return fault('issuer-expired', certificate, to(notAfter))
  if (pathLength !== undefined && below > pathLength) return fault('path-too-long', certificate, `allows ${pathLength}`)
  if (oids.includes(NAME_CONSTRAINTS)) return fault('name-constraints-not-supported', certificate)
  return criticalFault(certificate) ?? keyFault(certificate)
}

/** What is wrong with the signature of a certificate as that of `issuer`, or with the issuer's key. RFC 5280, 6.1.3 (a)(1). */
export function signatureFault (certificate: Certificate, issuer: Certificate): Fault | undefined {
  const { signatureAlgorithm, signature, tbs } = certificate
  const unfit = keyFault(issuer)
  if (unfit) return unfit
  try {
    const digest = checkSignatureAlgorithm(signatureAlgorithm, issuer.keyType)
    return verifies(digest, tbs, publicKeyOf(issuer), signature) ? undefined : fault('signature-invalid', certificate)
  } catch (error) {
    if (!(error instanceof SignatureError)) throw error
    if (error.fault === 'signature-algorithm-mismatch') return fault('signature-invalid', certificate, error.message)
    if (error.fault === 'algorithm-parameters-wrong') return fault(error.fault, certificate, error.message)
    return fault(isWeak(signatureAlgorithm) ? 'signature-too-weak' : error.fault, certificate, error.message)
  }
}

/** By the serial number, which is in hex and cannot hide anything. */
export function fault (reason: ChainRefusal, { serialNumber }: Certificate, what = ''): Fault {
  return { reason, specifics: `certificate ${serialNumber}${what && `: ${what}`}` }
}

function keyFault (certificate: Certificate): Fault | undefined {
  try {
    publicKeyOf(certificate)
    return undefined
  } catch (error) {
    if (!(error instanceof KeyError)) throw error
    return fault(WEAK.has(error.fault) ? 'key-too-weak' : 'key-not-allowed', certificate, error.message || error.fault)
  }
}

function criticalFault (certificate: Certificate): Fault | undefined {
  const unknown = certificate.extensions.critical.find(oid => !KNOWN.has(oid))
  return unknown === undefined ? undefined : fault('unknown-critical-extension', certificate, unknown)
}

function isForClients ({ extensions: { extendedKeyUsage } }: Certificate): boolean {
  return extendedKeyUsage?.some(purpose => purpose === CLIENT_AUTH || purpose === ANY_PURPOSE) ?? true
}

function from (notBefore: number): string {
  return `from ${new Date(notBefore).toISOString()}`
}

function to (notAfter: number): string {
  return `to ${new Date(notAfter).toISOString()}`
}
