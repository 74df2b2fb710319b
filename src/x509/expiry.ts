import { X509Certificate } from 'node:crypto'

const CERTIFICATE = /-----BEGIN CERTIFICATE-----[^]*?-----END CERTIFICATE-----/g

/**
 * When the first of the certificates in a PEM text expires, in milliseconds since 1970: a chain is good for as long as all of it is.
 * Infinity where there is none. Nothing is verified: the text is our own.
 * @throws {Error} of node:crypto, where a block holds no certificate.
 */
export function firstExpiry (chainPem: string): number {
  return Math.min(...(chainPem.match(CERTIFICATE) ?? []).map(block => Date.parse(new X509Certificate(block).validTo)))
}
