import { isUtf8 } from 'node:buffer'
import { TAG, oidOf, type DerValue } from './der.ts'

/** What a subject may say about a device, by the names of AWS IoT's certificate variables. RFC 5280, 4.1.2.4; X.520. */
export const ATTRIBUTE_TYPES = {
  CommonName: '2.5.4.3',
  SerialNumber: '2.5.4.5',
  Country: '2.5.4.6',
  StateName: '2.5.4.8',
  Organization: '2.5.4.10',
  OrganizationalUnit: '2.5.4.11',
  DistinguishedNameQualifier: '2.5.4.46'
} as const

// As openssl abbreviates them; any other type is written as its object identifier.
const SHORT_NAMES: Readonly<Record<string, string>> = {
  '2.5.4.3': 'CN',
  '2.5.4.4': 'SN',
  '2.5.4.5': 'serialNumber',
  '2.5.4.6': 'C',
  '2.5.4.7': 'L',
  '2.5.4.8': 'ST',
  '2.5.4.9': 'street',
  '2.5.4.10': 'O',
  '2.5.4.11': 'OU',
  '2.5.4.12': 'title',
  '2.5.4.42': 'GN',
  '2.5.4.46': 'dnQualifier',
  '2.5.4.65': 'pseudonym',
  '1.2.840.113549.1.9.1': 'emailAddress',
  '0.9.2342.19200300.100.1.1': 'UID',
  '0.9.2342.19200300.100.1.25': 'DC'
}

/** One AttributeTypeAndValue of a name; `text` is `undefined` when the value is no well-formed string. */
export interface NameAttribute { readonly oid: string, readonly text: string | undefined }

/**
 * The attributes of a Name in the order they are written, or `undefined` when the value is no Name. RFC 5280, 4.1.2.4.
 */
export function nameAttributes (name: DerValue): NameAttribute[] | undefined {
  if (name.tag !== TAG.sequence) return undefined
  const attributes: NameAttribute[] = []
  for (const relative of name.children) {
    if (relative.tag !== TAG.set || relative.children.length === 0) return undefined
    for (const { tag, children: [type, value, ...rest] } of relative.children) {
      if (tag !== TAG.sequence || type?.tag !== TAG.oid || value === undefined || rest.length > 0) return undefined
      attributes.push({ oid: oidOf(type), text: textOf(value) })
    }
  }
  return attributes
}

/** Whether an attribute is a common name. RFC 4519, 2.3. */
export function isCommonName ({ oid }: NameAttribute): boolean {
  return oid === ATTRIBUTE_TYPES.CommonName
}

/** All values of one type, in the order they are written; `undefined` stands for one that cannot be read. */
export function valuesOf (attributes: readonly NameAttribute[], type: keyof typeof ATTRIBUTE_TYPES): Array<string | undefined> {
  return attributes.filter(({ oid }) => oid === ATTRIBUTE_TYPES[type]).map(({ text }) => text)
}

/** A Name in one line, for people: `CN=…, O=…`, what stands in one set joined by ` + `. RFC 2253's escapes, and control characters. */
export function nameText (name: DerValue): string {
  return name.children.map(({ children }) => children.map(attributeText).join(' + ')).join(', ')
}

function attributeText ({ children: [type, value] }: DerValue): string {
  const oid = oidOf(type!)
  const text = textOf(value!)
  return `${SHORT_NAMES[oid] ?? oid}=${text === undefined ? `#${value!.bytes.toString('hex')}` : escaped(text)}`
}

function escaped (text: string): string {
  const visible = text.replace(/[,+"\\<>;]|^[ #]| $/g, '\\$&')
  return visible.replace(/\p{Cc}/gu, char => [...Buffer.from(char)].map(octet => `\\${octet.toString(16).toUpperCase().padStart(2, '0')}`).join(''))
}

/**
 * The text of the string types that names are made of (X.520 and what openssl reads), or `undefined` when it is none of them or its
 * bytes are not of its character set. TeletexString is read as Latin-1, as everybody does, whatever T.61 says.
 */
function textOf ({ tag, content }: DerValue): string | undefined {
  switch (tag) {
    case 0x0c: return isUtf8(content) ? content.toString('utf8') : undefined
    case 0x14: return content.toString('latin1')
    case 0x12: case 0x13: case 0x16: return content.every(octet => octet < 0x80) ? content.toString('latin1') : undefined
    case 0x1e: return ucs2(content)
    case 0x1c: return ucs4(content)
    default: return undefined
  }
}

function ucs2 (content: Buffer): string | undefined {
  if (content.length % 2 !== 0) return undefined
  const text = Buffer.from(content).swap16().toString('utf16le')
  // BMPString is UCS-2: a pair of surrogates is two characters that do not exist.
  return /[\ud800-\udfff]/.test(text) ? undefined : text
}

function ucs4 (content: Buffer): string | undefined {
  if (content.length % 4 !== 0) return undefined
  let text = ''
  for (let at = 0; at < content.length; at += 4) {
    const point = content.readUInt32BE(at)
    if (point > 0x10ffff || (point >= 0xd800 && point <= 0xdfff)) return undefined
    text += String.fromCodePoint(point)
  }
  return text
}
