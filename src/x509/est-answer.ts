import { createPrivateKey } from 'node:crypto'
import { decodePem } from './pem.ts'
import { base64Lines, certsOnly } from './pkcs7.ts'

/** How base64 is written: in lines of 64, or in one line without an end. */
export type Base64Layout = 'lines' | 'one-line'

export const CERTS_ONLY = 'application/pkcs7-mime; smime-type=certs-only'
/** The separator of the parts of a serverkeygen answer. */
export const BOUNDARY = 'cvm-est-part'

export function base64Of (bytes: Uint8Array, layout: Base64Layout): string {
  return layout === 'one-line' ? Buffer.from(bytes).toString('base64') : base64Lines(bytes)
}

/** The certificates of a PEM text as a certs-only message in base64. RFC 7030 section 4.1.3. */
export function certificatesOf (pem: string, layout: Base64Layout): string {
  const blocks = pem.match(/-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g) ?? []
  return base64Of(certsOnly(blocks.map(block => decodePem(block, { labels: ['CERTIFICATE'], maxChars: 65_536 }))), layout)
}

/** A private key and its certificate in two parts. RFC 7030 section 4.4.2. */
export function keyAndCertificate (privateKeyPem: string, certificatePem: string, layout: Base64Layout): string {
  const key = base64Of(createPrivateKey(privateKeyPem).export({ type: 'pkcs8', format: 'der' }), layout)
  return [['application/pkcs8', key], [CERTS_ONLY, certificatesOf(certificatePem, layout)]]
    .map(([type, body]) => `--${BOUNDARY}\r\nContent-Type: ${type}\r\nContent-Transfer-Encoding: base64\r\n\r\n${body}\r\n`).join('') + `--${BOUNDARY}--\r\n`
}
