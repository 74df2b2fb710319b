import { isUtf8 } from 'node:buffer'
import { TAG, oidOf, type DerValue } from './der.ts'

const COMMON_NAME = '2.5.4.3'

/** One AttributeTypeAndValue of a name; `text` is `undefined` when the value is no well-formed string. */
interface NameAttribute { readonly oid: string, readonly text: string | undefined }

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
  return oid === COMMON_NAME
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
