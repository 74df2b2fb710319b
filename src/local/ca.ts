import 'reflect-metadata'
import { createPrivateKey, generateKeyPairSync, webcrypto, X509Certificate as NodeCertificate, type KeyObject } from 'node:crypto'
import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { isIP } from 'node:net'
import path from 'node:path'
import * as x509 from '@peculiar/x509'

const DAY_MS = 86_400_000
const EC = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' }
const NAMES = ['localhost', '127.0.0.1', '::1']

/** A certificate with its private key, both PEM. */
export interface Credentials { readonly cert: string, readonly key: string }

/**
 * The root that vouches for the local servers, the part Amazon Root CA 1 plays for AWS. Kept in `dir` and used again when it is there
 * and still good, so that devices set up yesterday connect today; `''` keeps it in memory.
 */
export async function serverRoot (dir: string): Promise<Credentials> {
  if (dir === '') return await makeRoot()
  const files = { cert: path.join(dir, 'root-ca.pem'), key: path.join(dir, 'root-ca.key') }
  const kept = await load(files)
  if (kept !== undefined) return kept
  const made = await makeRoot()
  await mkdir(dir, { recursive: true, mode: 0o700 })
  await writeFile(files.key, made.key, { mode: 0o600 })
  await writeFile(files.cert, made.cert, { mode: 0o600 })
  return made
}

/** A server certificate of the root for this machine and the names given; made anew at each start. */
export async function serverCertificate (root: Credentials, names: readonly string[]): Promise<Credentials> {
  const issuer = new x509.X509Certificate(root.cert)
  const keys = newKeys()
  const publicKey = await importPublic(keys.publicKey)
  const certificate = await x509.X509CertificateGenerator.create({
    subject: 'CN=localhost',
    issuer: issuer.subjectName,
    notBefore: new Date(Date.now() - DAY_MS),
    notAfter: new Date(Math.min(Date.now() + 397 * DAY_MS, issuer.notAfter.getTime())),
    publicKey,
    signingKey: await importPrivate(createPrivateKey(root.key)),
    signingAlgorithm: EC,
    extensions: [
      new x509.BasicConstraintsExtension(false, undefined, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.digitalSignature, true),
      new x509.ExtendedKeyUsageExtension([x509.ExtendedKeyUsage.serverAuth]),
      new x509.SubjectAlternativeNameExtension([...new Set([...NAMES, ...names])].map(value => ({ type: isIP(value) ? 'ip' : 'dns', value }))),
      await x509.AuthorityKeyIdentifierExtension.create(issuer),
      await x509.SubjectKeyIdentifierExtension.create(publicKey)
    ]
  })
  return { cert: pemOf(certificate), key: pkcs8(keys.privateKey) }
}

async function makeRoot (): Promise<Credentials> {
  const keys = newKeys()
  const publicKey = await importPublic(keys.publicKey)
  const certificate = await x509.X509CertificateGenerator.create({
    subject: 'CN=CVM local root CA',
    issuer: 'CN=CVM local root CA',
    notBefore: new Date(Date.now() - DAY_MS),
    notAfter: new Date(Date.now() + 3650 * DAY_MS),
    publicKey,
    signingKey: await importPrivate(keys.privateKey),
    signingAlgorithm: EC,
    extensions: [
      new x509.BasicConstraintsExtension(true, undefined, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.cRLSign, true),
      await x509.SubjectKeyIdentifierExtension.create(publicKey)
    ]
  })
  return { cert: pemOf(certificate), key: pkcs8(keys.privateKey) }
}

/** What is kept, unless a file is missing, the two do not belong together (a crash between the writes) or the end is near. */
async function load (files: Credentials): Promise<Credentials | undefined> {
  try {
    const kept = { cert: await readFile(files.cert, 'utf8'), key: await readFile(files.key, 'utf8') }
    const certificate = new NodeCertificate(kept.cert)
    const good = certificate.checkPrivateKey(createPrivateKey(kept.key)) && Date.parse(certificate.validTo) > Date.now() + 30 * DAY_MS
    return good ? kept : undefined
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw new Error(`The local CA cannot be used; remove ${files.cert} and ${files.key} to make a new one`, { cause: error })
  }
}

function newKeys (): { privateKey: KeyObject, publicKey: KeyObject } {
  return generateKeyPairSync('ec', { namedCurve: 'P-256' })
}

async function importPublic (key: KeyObject): Promise<webcrypto.CryptoKey> {
  return await webcrypto.subtle.importKey('spki', key.export({ type: 'spki', format: 'der' }), EC, true, ['verify'])
}

async function importPrivate (key: KeyObject): Promise<webcrypto.CryptoKey> {
  return await webcrypto.subtle.importKey('pkcs8', key.export({ type: 'pkcs8', format: 'der' }), EC, false, ['sign'])
}

function pkcs8 (key: KeyObject): string {
  return key.export({ type: 'pkcs8', format: 'pem' }).toString()
}

function pemOf (certificate: x509.X509Certificate): string {
  return `${certificate.toString('pem').trimEnd()}\n`
}
