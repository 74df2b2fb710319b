// Requests that no tool would write, signed all the same: only the part under test is wrong. Shares no code with src.
import { createPrivateKey, createPublicKey, sign } from 'node:crypto'

interface InfoParts { version?: Buffer, subject?: Buffer, spki?: Buffer, attributes?: Buffer }
interface SealParts { algorithm?: Buffer, digest?: string | null }

/** `subjectAltName` and the like go in `attributes`, which is empty unless given. */
export function requestInfo (privateKeyPem: string, { version, subject, spki, attributes }: InfoParts = {}): Buffer {
  return tlv(0x30, version ?? tlv(0x02, hex('00')), subject ?? name(), spki ?? spkiOf(privateKeyPem), attributes ?? tlv(0xa0))
}

/** Signs the bytes of a CertificationRequestInfo, whatever they are, as ecdsa-with-SHA256 unless told otherwise. */
export function sealed (info: Buffer, privateKeyPem: string, { algorithm = ECDSA_SHA256, digest = 'sha256' }: SealParts = {}): Buffer {
  return tlv(0x30, info, algorithm, tlv(0x03, hex('00'), sign(digest, info, createPrivateKey(privateKeyPem))))
}

/** A request with the given parts, in PEM. */
export function handmadeCsr (privateKeyPem: string, parts: InfoParts & SealParts = {}): string {
  return pemOf(sealed(requestInfo(privateKeyPem, parts), privateKeyPem, parts))
}

export function pemOf (der: Uint8Array, label = 'CERTIFICATE REQUEST'): string {
  const lines = Buffer.from(der).toString('base64').match(/.{1,64}/g) ?? []
  return [`-----BEGIN ${label}-----`, ...lines, `-----END ${label}-----`, ''].join('\n')
}

export function derOf (pem: string): Buffer {
  return Buffer.from(pem.replace(/-----[^-]*-----/g, ''), 'base64')
}

export function tlv (tag: number, ...contents: readonly Uint8Array[]): Buffer {
  const content = Buffer.concat(contents)
  const length = content.length.toString(16)
  const long = hex(length.length % 2 ? `0${length}` : length)
  return Buffer.concat([Buffer.from(content.length < 0x80 ? [tag, content.length] : [tag, 0x80 + long.length]), content.length < 0x80 ? hex('') : long, content])
}

export function hex (text: string): Buffer {
  return Buffer.from(text.replaceAll(' ', ''), 'hex')
}

/** A name of one attribute for each pair of object identifier (hex) and value (a whole TLV). */
export function name (...attributes: ReadonlyArray<readonly [oid: string, value: Buffer]>): Buffer {
  return tlv(0x30, ...attributes.map(([oid, value]) => tlv(0x31, tlv(0x30, tlv(0x06, hex(oid)), value))))
}

export function utf8 (text: string): Buffer {
  return tlv(0x0c, Buffer.from(text))
}

export function spkiOf (privateKeyPem: string): Buffer {
  return createPublicKey(privateKeyPem).export({ type: 'spki', format: 'der' })
}

/** A value taken apart, so that a test can change it and write it again with lengths that fit. */
export interface Tree { tag: number, content: Buffer | Tree[] }

export function treeOf (der: Buffer): Tree {
  return valuesIn(der)[0]!
}

export function bytesOf ({ tag, content }: Tree): Buffer {
  return tlv(tag, ...Array.isArray(content) ? content.map(bytesOf) : [content])
}

function valuesIn (der: Buffer): Tree[] {
  const values: Tree[] = []
  for (let at = 0; at < der.length;) {
    const count = der[at + 1]! < 0x80 ? 0 : der[at + 1]! - 0x80
    const start = at + 2 + count
    const end = start + (count === 0 ? der[at + 1]! : der.readUIntBE(at + 2, count))
    const content = der.subarray(start, end)
    values.push({ tag: der[at]!, content: der[at]! & 0x20 ? valuesIn(content) : content })
    at = end
  }
  return values
}

export const CN = '550403'
export const O = '55040a'
export const ECDSA_SHA256 = tlv(0x30, tlv(0x06, hex('2a8648ce3d040302')))
export const RSA_SHA256 = tlv(0x30, tlv(0x06, hex('2a864886f70d01010b')), tlv(0x05))
