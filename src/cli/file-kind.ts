import { X509Certificate, createPrivateKey, createPublicKey } from 'node:crypto'
import 'reflect-metadata'
import { Pkcs10CertificateRequest, X509Crl } from '@peculiar/x509'
import { codeOf } from './failure.ts'

const LABELS: Readonly<Record<string, string>> = {
  CERTIFICATE: 'a certificate',
  'X509 CERTIFICATE': 'a certificate',
  'TRUSTED CERTIFICATE': 'a certificate with trust settings of OpenSSL',
  'CERTIFICATE REQUEST': 'a certificate signing request',
  'NEW CERTIFICATE REQUEST': 'a certificate signing request',
  'PRIVATE KEY': 'a private key',
  'EC PRIVATE KEY': 'a private key',
  'RSA PRIVATE KEY': 'a private key',
  'ENCRYPTED PRIVATE KEY': 'an encrypted private key',
  'OPENSSH PRIVATE KEY': 'a private key in the form of OpenSSH',
  'PUBLIC KEY': 'a public key',
  'RSA PUBLIC KEY': 'a public key',
  'EC PARAMETERS': 'the parameters of a curve',
  'X509 CRL': 'a CRL',
  PKCS7: 'a PKCS#7 bundle',
  CMS: 'a PKCS#7 bundle'
}

const BEGIN = /-----BEGIN ([^-\r\n]{1,64})-----/g
const PKCS12_VERSION = Buffer.from('020103', 'hex')
const SIGNED_DATA = Buffer.from('06092a864886f70d010702', 'hex')

/** The text of a file that a person made: UTF-8, or UTF-16, which PowerShell writes; without a byte order mark. */
export function textOf (bytes: Buffer): string {
  const [first, second] = bytes
  if ((first === 0xff && second === 0xfe) || (first !== undefined && first !== 0 && second === 0)) return new TextDecoder('utf-16le').decode(bytes)
  if ((first === 0xfe && second === 0xff) || (first === 0 && second !== undefined && second !== 0)) return new TextDecoder('utf-16be').decode(bytes)
  return bytes.toString('utf8').replace(/^\ufeff/, '')
}

/** Whether a file begins as an ASN.1 SEQUENCE, as keys and certificates in DER do; a short one, which text might be, must end with it. */
export function isDer (bytes: Buffer): boolean {
  const [tag, length = 0] = bytes
  return tag === 0x30 && (length >= 0x80 || bytes.length === length + 2)
}

/** What a file is, in words that go on after "It is"; nothing of its content, which may be secret. */
export function kindOf (bytes: Buffer): string {
  if (isDer(bytes)) return derKindOf(bytes)
  const text = textOf(bytes)
  if (text.trim() === '') return 'empty'
  const labels = [...text.matchAll(BEGIN)].map(([, label = '']) => label)
  if (labels.length > 0) return pemKindOf(text, labels)
  if (/^PuTTY-User-Key-File/.test(text)) return 'a key in the form of PuTTY'
  if (/^(?:---- BEGIN SSH2|ssh-|ecdsa-sha2-)/.test(text)) return 'a public key in the form of OpenSSH'
  if (/^\s*</.test(text)) return 'HTML or XML'
  if (/^\s*[{[]/.test(text)) return /"kty"/.test(text) ? 'a key in JSON (JWK)' : 'JSON'
  // eslint-disable-next-line no-control-regex
  if (/[\u0000-\u0008\ufffd]/.test(text)) return 'neither text nor DER'
  if (/^[A-Za-z0-9+/=\s]{100,}$/.test(text)) return 'base64 without the BEGIN and END lines of PEM'
  if (/^\s*\S*[/\\]\S*\s*$/.test(text)) return 'the path of another file'
  return 'text without a PEM block'
}

function pemKindOf (text: string, labels: readonly string[]): string {
  const isEncrypted = /^Proc-Type: 4,ENCRYPTED/m.test(text)
  const kinds = labels.map(label => {
    const kind = LABELS[label] ?? `a block of ${label}`
    return isEncrypted && kind === 'a private key' ? 'an encrypted private key' : kind
  })
  const open = labels.find(label => !text.includes(`-----END ${label}-----`))
  const fault = text.includes('\\n')
    ? ', with \\n written out where its lines end'
    : open === undefined ? '' : `, cut off before the line -----END ${open}-----`
  return `${[...new Set(kinds)].join(' and ')} in PEM${fault}`
}

function derKindOf (bytes: Buffer): string {
  const readers: readonly [string, () => unknown][] = [
    ['a certificate', () => new X509Certificate(bytes)],
    ['a private key', () => privateKeyInDer(bytes)],
    ['a public key', () => createPublicKey({ key: bytes, format: 'der', type: 'spki' })],
    ['a certificate signing request', () => new Pkcs10CertificateRequest(bytes)],
    ['a CRL', () => new X509Crl(bytes)]
  ]
  const start = bytes[1]! < 0x80 ? 2 : 2 + (bytes[1]! & 0x7f)
  if (bytes.subarray(start).indexOf(SIGNED_DATA) === 0) return 'a PKCS#7 bundle'
  if (bytes.subarray(start).indexOf(PKCS12_VERSION) === 0) return 'a PKCS#12 bundle (.p12, .pfx)'
  for (const [kind, read] of readers) {
    try {
      read()
      return `${kind} in DER`
    } catch (error) {
      if (kind === 'a private key' && codeOf(error) === 'ERR_MISSING_PASSPHRASE') return 'an encrypted private key in DER'
    }
  }
  return 'DER, but no key, certificate or request'
}

/** A private key in DER: PKCS#8, or the forms of its own that EC and RSA have. Throws what OpenSSL says. */
export function privateKeyInDer (key: Buffer, passphrase?: string) {
  for (const type of ['sec1', 'pkcs1'] as const) {
    try {
      return createPrivateKey({ key, format: 'der', type })
    } catch {}
  }
  return createPrivateKey({ key, format: 'der', type: 'pkcs8', ...passphrase !== undefined && { passphrase } })
}
