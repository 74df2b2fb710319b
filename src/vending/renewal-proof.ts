import { createHash, createPublicKey, type KeyObject, X509Certificate } from 'node:crypto'
import { compactVerify, decodeProtectedHeader } from 'jose'
import { CvmError } from '../errors.ts'
import { rawSignature } from '../x509/ecdsa-signature.ts'
import type { Certificate } from './device.ts'

/** A compact JWS (RFC 7515) that its maker signs with the key of a certificate, which its header names by `x5t#S256`. */
export interface JwsProof { kind: 'jws', jws: string }

/** The client certificate of a TLS connection, whose handshake has shown that the client has its key. */
export interface TlsProof { kind: 'tls', certificateId: string }

/** What a proof must be for, and when. */
interface ProofRules {
  /** What `aud` must be, or hold. */
  audience: string
  now: number
  /** How far `iat` may be from now, either way. */
  windowMs: number
  /** The CSR in DER, as the device wrote it, whose SHA-256 (base64url) `csr` must be; absent: the proof must name none. */
  csrDer?: Uint8Array
}

/** A signature by any other is the wrong one: no HMAC with a public key, no `none`. RFC 7518 section 3.1. */
const ALGORITHMS: Readonly<Record<string, readonly string[]>> = {
  rsa: ['RS256', 'RS384', 'RS512', 'PS256', 'PS384', 'PS512'],
  prime256v1: ['ES256'],
  secp384r1: ['ES384'],
  secp521r1: ['ES512']
}

/** Octets of r and of s, by the algorithm. RFC 7518 section 3.4. */
const NUMBER_OCTETS: Readonly<Record<string, number>> = { ES256: 32, ES384: 48, ES512: 66 }

/** Checked for devices that do not exist, so that they are refused after the same work (G7). Nobody has kept its private half. */
const NOBODY = createPublicKey('-----BEGIN PUBLIC KEY-----\n' +
  'MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEhbGFnFZOdsOHPmkae1CqtFrwxiw5\nCbgKEXSANN5XC2lwlCVIKAZdiCU3OeYLRMRxiB2oq23lnPFWSKRDvj20mg==\n-----END PUBLIC KEY-----\n')

const NONCE = /^[\x21-\x7e]{8,128}$/

/**
 * Which of the certificates the proof is by, the nonce it may be used with once, and whether its signature was in DER and was written anew.
 * Throws `CvmError('device-not-authorized')`, alike for a certificate that is none of these, a wrong signature and what is no JWS; the
 * reason `signature-format` of `proof-rejected` whatever the device; and only for what is rightly signed `proof-not-current` and the
 * other reasons of `proof-rejected`.
 */
export async function verifyProof (
  jws: string, certificates: readonly (Certificate | undefined)[], rules: ProofRules
): Promise<{ certificate: Certificate, nonce: string, isRepaired: boolean }> {
  const written = withRawSignature(jws)
  const named = namedBy(written)
  const certificate = certificates.find(known => known !== undefined && known.certificateId === named)
  const payload = await signedBy(certificate ? new X509Certificate(certificate.certificatePem).publicKey : NOBODY, written)
  if (!certificate || !payload) throw new CvmError('device-not-authorized', { detail: NOT_PROVEN })
  return { certificate, nonce: checkClaims(payload, rules), isRepaired: written !== jws }
}

const NOT_PROVEN = 'The proof must be a compact JWS by the key of the device\'s present certificate, which its header names by `x5t#S256`.'

/** The JWS with r and s as they must be, where its signature is the DER that mbedTLS, wolfSSL, ATECC608 and openssl give. */
function withRawSignature (jws: string): string {
  const octets = NUMBER_OCTETS[String(headerOf(jws)?.alg)]
  const [header, payload, signature = ''] = jws.split('.')
  const bytes = Buffer.from(signature, 'base64url')
  if (octets === undefined || bytes.length === 2 * octets) return jws
  const raw = rawSignature(bytes, octets)
  if (raw) return `${header}.${payload}.${raw.toString('base64url')}`
  const detail = `The signature has ${bytes.length} octets; ${headerOf(jws)?.alg} wants ${2 * octets}: r and s of ${octets} octets each, in base64url (RFC 7518 section 3.4).`
  throw rejected('signature-format', detail)
}

function headerOf (jws: string): ReturnType<typeof decodeProtectedHeader> | undefined {
  try {
    return decodeProtectedHeader(jws)
  } catch {
    return undefined
  }
}

/** The certificateId in the header `x5t#S256` (RFC 7515 section 4.1.8), which is what AWS IoT calls a certificate. */
function namedBy (jws: string): string | undefined {
  const thumbprint = headerOf(jws)?.['x5t#S256']
  return typeof thumbprint === 'string' ? Buffer.from(thumbprint, 'base64url').toString('hex') : undefined
}

async function signedBy (key: KeyObject, jws: string): Promise<Uint8Array | undefined> {
  const { asymmetricKeyType = '', asymmetricKeyDetails } = key
  const algorithms = ALGORITHMS[asymmetricKeyDetails?.namedCurve ?? asymmetricKeyType]
  try {
    return algorithms && (await compactVerify(jws, key, { algorithms: [...algorithms] })).payload
  } catch {
    return undefined
  }
}

function checkClaims (payload: Uint8Array, { audience, now, windowMs, csrDer }: ProofRules): string {
  const { aud, iat, exp, jti, csr } = objectOf(payload)
  if (aud !== audience && !(Array.isArray(aud) && aud.includes(audience))) throw rejected('audience', `\`aud\` must be ${audience}`)
  if (typeof jti !== 'string' || !NONCE.test(jti)) throw rejected('nonce', '`jti` must be 8 to 128 printable characters that no proof had before')
  const wanted = csrDer && createHash('sha256').update(csrDer).digest('base64url')
  if (csr !== wanted) throw rejected('csr-digest', wanted ? '`csr` must be the SHA-256 of the DER of the CSR, in base64url' : 'there must be no `csr` in it')
  const isEarly = typeof iat !== 'number' || iat * 1000 > now + windowMs
  const isLate = (iat as number) * 1000 < now - windowMs || (exp !== undefined && !(typeof exp === 'number' && exp * 1000 > now))
  if (isEarly || isLate) {
    const detail = `\`iat\` must be within ${Math.floor(windowMs / 1000)} s of ${Math.floor(now / 1000)}, the time here, and \`exp\`, if it is there, after it`
    throw new CvmError('proof-not-current', { detail })
  }
  return jti
}

function objectOf (payload: Uint8Array): Record<string, unknown> {
  try {
    const value: unknown = JSON.parse(Buffer.from(payload).toString('utf8'))
    if (typeof value === 'object' && value !== null) return { ...value }
  } catch {}
  throw rejected('payload', 'the payload must be a JSON object')
}

function rejected (reason: string, detail: string): CvmError {
  return new CvmError('proof-rejected', { reason, detail })
}
