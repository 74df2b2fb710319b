import { der, derOid, derSetOf } from './der-writer.ts'

const DATA = '1.2.840.113549.1.7.1'
const SIGNED_DATA = '1.2.840.113549.1.7.2'

const SEQUENCE = 0x30
const SET = 0x31
const VERSION_1 = der(0x02, Buffer.from([1]))
/** `[0]`: explicit around the content, implicit around the certificates. */
const CONTEXT_0 = 0xa0

/**
 * A "certs-only" message: SignedData that nobody has signed, around certificates in DER.
 * RFC 5652, sections 3 and 5.1; RFC 5751, section 3.2.2; RFC 7030, section 4.1.3.
 */
export function certsOnly (certificates: readonly Buffer[]): Buffer {
  const signedData = der(SEQUENCE, VERSION_1, der(SET), der(SEQUENCE, derOid(DATA)), derSetOf(CONTEXT_0, certificates), der(SET))
  return der(SEQUENCE, derOid(SIGNED_DATA), der(CONTEXT_0, signedData))
}

/** Base64 as EST bodies are written: lines of 64, each with a newline at its end, for line-oriented readers. RFC 8951, section 3.1. */
export function base64Lines (bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('base64').replace(/.{1,64}/g, '$&\n')
}
