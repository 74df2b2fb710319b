// Certificates that no tool would write, signed all the same: only the part under test is wrong. Shares no code with src.
import { createPrivateKey, generateKeyPairSync, sign } from 'node:crypto'
import { CN, ECDSA_SHA256, RSA_SHA256, hex, name, pemOf, spkiOf, tlv, utf8 } from './handmade.ts'

export interface CertificateParts {
  /** Whole TLVs; `null` leaves the version out. */
  version?: Buffer | null
  serial?: Buffer
  algorithm?: Buffer
  /** The one inside, where it shall differ. */
  innerAlgorithm?: Buffer
  issuer?: Buffer
  /** Milliseconds since 1970, or a whole TLV. */
  notBefore?: number | Buffer
  notAfter?: number | Buffer
  subject?: Buffer
  spki?: Buffer
  /** After the key: unique identifiers, extensions and what else. */
  tail?: readonly Buffer[]
  extensions?: readonly Buffer[]
  digest?: string | null
}

export interface Signer { readonly key: string, readonly subject: Buffer }

export const NOW = Date.UTC(2026, 5, 1)
export const DAY = 86_400_000
export const V3 = tlv(0xa0, tlv(0x02, hex('02')))

export function commonName (text: string): Buffer {
  return name([CN, utf8(text)])
}

/** The TBSCertificate; `key` is the subject's private key, whose public half goes in. */
export function tbsOf (key: string, signer: Signer, parts: CertificateParts = {}): Buffer {
  const { version = V3, serial = tlv(0x02, hex('4711')), algorithm = algorithmFor(signer.key), subject = commonName('SN-0001') } = parts
  const { issuer = signer.subject, notBefore = NOW - DAY, notAfter = NOW + DAY, spki = spkiOf(key), extensions = [], tail } = parts
  const dates = tlv(0x30, ...[notBefore, notAfter].map(date => Buffer.isBuffer(date) ? date : timeOf(date)))
  const end = tail ?? (extensions.length === 0 ? [] : [tlv(0xa3, tlv(0x30, ...extensions))])
  return tlv(0x30, ...version ? [version] : [], serial, parts.innerAlgorithm ?? algorithm, issuer, dates, subject, spki, ...end)
}

/** A certificate in DER for the public half of `key`, a device's unless its extensions say otherwise. */
export function certificateDer (key: string, signer: Signer, parts: CertificateParts = {}): Buffer {
  return sealed(tbsOf(key, signer, parts), signer.key, parts)
}

export function certificatePem (key: string, signer: Signer, parts: CertificateParts = {}): string {
  return pemOf(certificateDer(key, signer, parts), 'CERTIFICATE')
}

/** Signs any bytes as a certificate's or a list's. */
export function sealed (tbs: Buffer, key: string, { algorithm = algorithmFor(key), digest = 'sha256' }: CertificateParts = {}): Buffer {
  return tlv(0x30, tbs, algorithm, tlv(0x03, hex('00'), sign(digest, tbs, createPrivateKey(key))))
}

export function extension (oid: string, value: Buffer, critical = false): Buffer {
  return tlv(0x30, tlv(0x06, hex(oid)), ...critical ? [tlv(0x01, hex('ff'))] : [], tlv(0x04, value))
}

export function basicConstraints (isCa: boolean, pathLength?: number): Buffer {
  const members = [...isCa ? [tlv(0x01, hex('ff'))] : [], ...pathLength === undefined ? [] : [tlv(0x02, Buffer.from([pathLength]))]]
  return extension('551d13', tlv(0x30, ...members), true)
}

/** Bits from digitalSignature (0) by keyCertSign (5) and cRLSign (6) to decipherOnly (8). */
export function keyUsage (...bits: number[]): Buffer {
  const octets = Buffer.alloc(Math.max(...bits) > 7 ? 2 : 1)
  for (const bit of bits) octets[bit >> 3]! |= 0x80 >> (bit & 7)
  return extension('551d0f', tlv(0x03, Buffer.from([7 - Math.max(...bits) % 8]), octets), true)
}

export function extendedKeyUsage (...oids: string[]): Buffer {
  return extension('551d25', tlv(0x30, ...oids.map(oid => tlv(0x06, hex(oid)))))
}

/** UTCTime until 2049, GeneralizedTime from then on. */
export function timeOf (date: number): Buffer {
  const digits = new Date(date).toISOString().replace(/\.\d+|[-:T]/g, '')
  const isShort = digits > '195' && digits < '205'
  return tlv(isShort ? 0x17 : 0x18, Buffer.from(isShort ? digits.slice(2) : digits))
}

function algorithmFor (key: string): Buffer {
  return createPrivateKey(key).asymmetricKeyType === 'rsa' ? RSA_SHA256 : ECDSA_SHA256
}

export const CLIENT_AUTH = '2b06010505070302'
export const SERVER_AUTH = '2b06010505070301'
export const CA = [basicConstraints(true), keyUsage(5, 6)] as const

/** A CA with a fresh P-256 key, or the one given, and its certificate, signed by itself unless by another. */
export function authority (subject: Buffer, wish: CertificateParts & { by?: Signer, key?: string } = {}): Authority {
  const { by, key = freshKey(), ...parts } = wish
  const signer = by ?? { key, subject }
  return { key, subject, pem: certificatePem(key, signer, { subject, extensions: CA, ...parts }) }
}

export interface Authority extends Signer { readonly pem: string }

export function freshKey (): string {
  return generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey.export({ type: 'pkcs8', format: 'pem' }) as string
}
