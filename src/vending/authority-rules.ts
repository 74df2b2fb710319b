import { CvmError } from '../errors.ts'
import { signatureFault } from '../x509/certificate-rules.ts'
import { checkAuthority } from '../x509/chain.ts'
import { isCommonName } from '../x509/names.ts'
import { encodePem } from '../x509/pem.ts'
import { CHAIN_REFUSALS, type ChainRefusal } from '../x509/refusals.ts'
import { isWeak } from '../x509/signature-policy.ts'
import { type Certificate, readCertificates } from '../x509/strict-certificate.ts'
import type { AuthorityMode, AuthoritySettings } from './authority.ts'

/** What a CA and what comes with it must be, beside the rules for certificates: the `reason` beside `authority-rejected`. */
export const AUTHORITY_REFUSALS = {
  'not-one-certificate': 'Send exactly one certificate',
  'verification-missing': 'Send a verification certificate, or register the CA with the mode SNI_ONLY',
  'verification-not-taken': 'AWS IoT takes no verification certificate for the mode SNI_ONLY; leave it out',
  'verification-other-code': 'The common name of the verification certificate must be the registration code of this account and Region',
  'verification-other-issuer': 'The issuer of the verification certificate must be, byte for byte, the subject of the CA',
  'intermediate-unconnected': 'Each intermediate must be signed by the CA, or by another of the intermediates',
  'intermediate-is-the-authority': 'The CA itself is none of its intermediates; leave it out',
  'crl-not-an-address': 'Each CRL must be an http(s) URL without user, password and fragment, or the name of a file',
  'crl-folder-not-set': 'CRLs from files need a folder: the setting CRL_DIR'
} as const

/** The name of a file in the folder of the setting: never a path, nothing hidden. */
const CRL_FILE = /^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$/

/**
 * The CA certificate of a PEM text, kept to every rule that trust in it begins with: a CA that may sign, valid now, with a key and, where
 * it signed itself, a signature that are strong enough. Raises `CvmError('authority-rejected')`, as all here do.
 */
export function checkCa (pem: string, now: number): Certificate {
  return about('caCertificatePem', () => {
    const ca = oneIn(pem)
    checkAuthority(ca, { now })
    if (ca.issuerDer.equals(ca.subjectDer)) insist(signatureFault(ca, ca))
    else if (isWeak(ca.signatureAlgorithm)) throw refused('signature-too-weak', CHAIN_REFUSALS['signature-too-weak'])
    return ca
  })
}

/** Whether a verification certificate is wanted for the mode, before anybody is asked for the registration code. */
export function checkVerificationWanted (mode: AuthorityMode, pem: string | undefined): void {
  if (mode === 'DEFAULT' && pem === undefined) throw rejected('verification-missing')
  if (mode === 'SNI_ONLY' && pem !== undefined) throw rejected('verification-not-taken')
}

/** That whoever registers the CA has its key: it signed the code that AWS IoT gave this account. */
export function checkVerification (pem: string, ca: Certificate, registrationCode: string, now: number): Certificate {
  return about('verificationCertificatePem', () => {
    const verification = oneIn(pem)
    if (!verification.issuerDer.equals(ca.subjectDer)) throw rejected('verification-other-issuer')
    insist(signatureFault(verification, ca))
    const [name, ...others] = verification.subjectAttributes.filter(isCommonName)
    if (name?.text !== registrationCode || others.length > 0) throw rejected('verification-other-code')
    if (now < verification.notBefore) throw refused('not-yet-valid', CHAIN_REFUSALS['not-yet-valid'])
    if (now > verification.notAfter) throw refused('expired', CHAIN_REFUSALS.expired)
    return verification
  })
}

/** The intermediates in one PEM form, without what stood between them: CAs, each signed on the way down from the authority. */
export function checkIntermediates (pem: string, ca: Certificate, now: number): string {
  return about('intermediatesPem', () => {
    const intermediates = readCertificates(pem)
    for (const each of intermediates) {
      if (each.certificateId === ca.certificateId) throw rejected('intermediate-is-the-authority')
      checkAuthority(each, { now })
      const above = [ca, ...intermediates].filter(other => other !== each && other.subjectDer.equals(each.issuerDer))
      if (!above.some(other => !signatureFault(each, other))) throw rejected('intermediate-unconnected', `certificate ${each.serialNumber}`)
    }
    return intermediates.map(pemOf).join('')
  })
}

/** That each CRL is where a CRL may be. */
export function checkCrls (crls: AuthoritySettings['crls'], hasFolder: boolean): void {
  for (const [n, source] of crls.entries()) {
    const isFile = CRL_FILE.test(source)
    if (!isFile && !isPlainUrl(source)) throw rejected('crl-not-an-address', `/crls/${n}`)
    if (isFile && !hasFolder) throw rejected('crl-folder-not-set', `/crls/${n}`)
  }
}

/** The one PEM form of a certificate, for AWS IoT. */
export function pemOf ({ der }: Certificate): string {
  return encodePem('CERTIFICATE', der)
}

function isPlainUrl (source: string): boolean {
  if (!/^https?:\/\//.test(source) || !URL.canParse(source)) return false
  const { username, password, hash } = new URL(source)
  return username === '' && password === '' && hash === ''
}

function oneIn (pem: string): Certificate {
  const [first, ...others] = readCertificates(pem)
  if (!first || others.length > 0) throw rejected('not-one-certificate')
  return first
}

function insist (fault: { reason: ChainRefusal, specifics: string } | undefined): void {
  if (fault) throw refused(fault.reason, CHAIN_REFUSALS[fault.reason], fault.specifics)
}

function rejected (reason: keyof typeof AUTHORITY_REFUSALS, specifics?: string): CvmError {
  return refused(reason, AUTHORITY_REFUSALS[reason], specifics)
}

function refused (reason: string, advice: string, specifics?: string): CvmError {
  return new CvmError('authority-rejected', { reason, detail: specifics === undefined ? `${advice}.` : `${advice} (${specifics}).` })
}

/** Says which text is meant, in one code whatever rule was broken. */
function about<T> (member: string, check: () => T): T {
  try {
    return check()
  } catch (cause) {
    if (!(cause instanceof CvmError) || !OF_CERTIFICATES.has(cause.code)) throw cause
    throw new CvmError('authority-rejected', { detail: `${member}: ${cause.message}`, ...cause.reason !== undefined && { reason: cause.reason }, cause })
  }
}

const OF_CERTIFICATES: ReadonlySet<string> = new Set(['authority-rejected', 'certificate-rejected', 'certificate-not-trusted'])
