import crypto, { createHash, createPrivateKey, createPublicKey, generateKeyPair, randomBytes, X509Certificate, type KeyObject } from 'node:crypto'
import { promisify } from 'node:util'
import { invalidRequest } from './aws-error.ts'
import { content, der, elements } from './der.ts'
import type { Store } from './state.ts'

/** A certificate as it leaves an issuer; `id` is what AWS calls it: SHA-256 of the DER in lower-case hex. */
export interface Issued { readonly id: string, readonly pem: string, readonly notBefore: Date, readonly notAfter: Date }

// As openssl prints AWS's certificates: one single OU attribute holds the whole line.
const ISSUER = 'Amazon Web Services O=Amazon.com Inc. L=Seattle ST=Washington C=US'
const OWN_KEY_SUBJECT = 'AWS IoT Certificate'
const NOT_AFTER = new Date('2049-12-31T23:59:59Z')
const BACKDATED_MS = 2 * 60_000
const CURVES: ReadonlySet<string | undefined> = new Set(['prime256v1', 'secp384r1', 'secp521r1'])

const SEQUENCE = 0x30
const SHA256_WITH_RSA = Buffer.from('300d06092a864886f70d01010b0500', 'hex')
/** Hash by the signature algorithms AWS IoT takes: SHA-2 with RSA (PKCS #1 v1.5) and with ECDSA, by OID. */
const SIGNATURE_HASHES: ReadonlyMap<string, string> = new Map([
  ['06092a864886f70d01010b', 'sha256'], ['06092a864886f70d01010c', 'sha384'], ['06092a864886f70d01010d', 'sha512'],
  ['06082a8648ce3d040302', 'sha256'], ['06082a8648ce3d040303', 'sha384'], ['06082a8648ce3d040304', 'sha512']
])
const NULL = Uint8Array.of(5, 0)

const makeKeys = promisify(generateKeyPair)

/**
 * Signs device certificates in the form of AWS IoT's (aws-facts 2.2). It writes the DER itself around pieces made once: the general
 * certificate builder takes 2.5 ms of CPU per certificate, this way leaves little more than the RSA signature.
 */
export class DeviceIssuer implements Store {
  readonly #issuer = nameOf('060355040b', ISSUER)
  #key: KeyObject
  #authorityKeyId: Buffer

  private constructor (key: KeyObject) {
    this.#key = key
    this.#authorityKeyId = authorityKeyId(key)
  }

  /** An issuer with a new key. */
  static async create (): Promise<DeviceIssuer> {
    const { privateKey } = await makeKeys('rsa', { modulusLength: 2048 })
    return new DeviceIssuer(privateKey)
  }

  snapshot (): string {
    return this.#key.export({ type: 'pkcs8', format: 'pem' }).toString()
  }

  restore (kept: unknown): void {
    this.#key = createPrivateKey(String(kept))
    this.#authorityKeyId = authorityKeyId(this.#key)
  }

  /** A certificate for the CSR's key and subject, both copied byte for byte; refuses what AWS refuses. */
  async fromCsr (pem: string): Promise<Issued> {
    const { subject, spki } = provenRequest(pem)
    return await this.#issue(subject, spki)
  }

  /** A certificate for a new RSA-2048 key pair; the private key is in the answer and nowhere else. */
  async withNewKey (): Promise<Issued & { publicKey: string, privateKey: string }> {
    const { privateKey, publicKey } = await makeKeys('rsa', { modulusLength: 2048 })
    return {
      ...await this.#issue(nameOf('0603550403', OWN_KEY_SUBJECT), spkiOf(publicKey)),
      publicKey: publicKey.export({ type: 'spki', format: 'pem' }).toString(),
      privateKey: privateKey.export({ type: 'pkcs1', format: 'pem' }).toString()
    }
  }

  async #issue (subject: Buffer, spki: Buffer): Promise<Issued> {
    const notBefore = new Date(Math.floor((Date.now() - BACKDATED_MS) / 1000) * 1000)
    const serial = randomBytes(20)
    serial[0] = ((serial[0] ?? 0) & 0x7f) | 0x40 // positive, and 20 bytes long without padding
    const tbs = der(SEQUENCE,
      Buffer.from('a003020102', 'hex'),
      der(0x02, serial),
      SHA256_WITH_RSA,
      this.#issuer,
      der(SEQUENCE, utcTime(notBefore), utcTime(NOT_AFTER)),
      subject,
      spki,
      der(0xa3, der(SEQUENCE,
        this.#authorityKeyId,
        extension('0603551d0e', false, der(0x04, keyId(spki))),
        extension('0603551d13', true, der(SEQUENCE)),
        extension('0603551d0f', true, Buffer.from('03020780', 'hex'))
      ))
    )
    const signature = await sign(tbs, this.#key)
    const certificate = der(SEQUENCE, tbs, SHA256_WITH_RSA, der(0x03, Uint8Array.of(0), signature))
    // OpenSSL has the last word: a subject it cannot read must not leave the house in a certificate.
    if (!parses(certificate)) throw invalidRequest('The subject of the CSR is not valid')
    return {
      id: createHash('sha256').update(certificate).digest('hex'),
      pem: `-----BEGIN CERTIFICATE-----\n${certificate.toString('base64').replace(/.{1,64}/g, '$&\n')}-----END CERTIFICATE-----\n`,
      notBefore,
      notAfter: NOT_AFTER
    }
  }
}

/** Subject and public key of a CSR whose self-signature verifies and whose key AWS IoT takes. */
function provenRequest (pem: string): { subject: Buffer, spki: Buffer } {
  const body = /-----BEGIN (NEW )?CERTIFICATE REQUEST-----([A-Za-z0-9+/=\s]+)-----END \1?CERTIFICATE REQUEST-----/.exec(pem)
  if (body === null) throw invalidRequest('The CSR is not a PEM certificate request')
  const { info, subject, spki, hash, signature } = dissect(Buffer.from(body[2] ?? '', 'base64'))
  if (hash === undefined) throw invalidRequest('The CSR signature algorithm is not supported')
  const key = publicKeyOf(spki)
  const details = key.asymmetricKeyDetails
  const accepted = (key.asymmetricKeyType === 'rsa' && (details?.modulusLength ?? 0) >= 2048) ||
    (key.asymmetricKeyType === 'ec' && CURVES.has(details?.namedCurve) && namesCurve(spki))
  if (!accepted) throw invalidRequest('The CSR key must be RSA of at least 2048 bits or an EC key on P-256, P-384 or P-521')
  if (!verifies(hash, info, key, signature)) throw invalidRequest('The CSR signature does not match its public key')
  return { subject, spki }
}

function dissect (request: Buffer): { info: Buffer, subject: Buffer, spki: Buffer, hash: string | undefined, signature: Buffer } {
  try {
    const [outer, trailing] = elements(request)
    const [info, algorithm, signature] = elements(content(outer ?? request))
    const [version, subject, spki] = elements(content(info ?? request))
    // What this emulator does not know AWS to refuse, it takes: any version number, and attributes of any form, or none.
    const shaped = trailing === undefined && outer?.[0] === SEQUENCE && info?.[0] === SEQUENCE && algorithm?.[0] === SEQUENCE &&
      version?.[0] === 0x02 && subject?.[0] === SEQUENCE && spki?.[0] === SEQUENCE &&
      signature?.[0] === 0x03 && content(signature)[0] === 0
    if (!shaped) throw new RangeError('not a certification request')
    return { info, subject, spki, hash: hashOf(algorithm), signature: content(signature).subarray(1) }
  } catch {
    throw invalidRequest('The CSR is not a certification request')
  }
}

/** Parameters may be absent or NULL for both families: RFC 4055 section 5 demands it for RSA, and mbedTLS writes NULL for ECDSA. */
function hashOf (algorithm: Buffer): string | undefined {
  const [oid, parameters, ...more] = elements(content(algorithm))
  if (oid === undefined || more.length > 0 || parameters?.equals(NULL) === false) return undefined
  return SIGNATURE_HASHES.get(oid.toString('hex'))
}

function publicKeyOf (spki: Buffer): KeyObject {
  try {
    return createPublicKey({ key: spki, format: 'der', type: 'spki' })
  } catch {
    throw invalidRequest('The CSR public key cannot be read')
  }
}

/** Whether the curve is given by its OID; OpenSSL also recognises it spelled out as explicit parameters, which AWS does not take. */
function namesCurve (spki: Buffer): boolean {
  const [algorithm] = elements(content(spki))
  return algorithm !== undefined && elements(content(algorithm))[1]?.[0] === 0x06
}

function verifies (hash: string, info: Buffer, key: KeyObject, signature: Buffer): boolean {
  try {
    return crypto.verify(hash, info, key, signature)
  } catch {
    return false
  }
}

function parses (certificate: Buffer): boolean {
  try {
    return new X509Certificate(certificate).raw.length === certificate.length
  } catch {
    return false
  }
}

// With a callback the signature is made on the thread pool, so both cores work and the event loop stays free.
function sign (bytes: Buffer, key: KeyObject): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    crypto.sign('sha256', bytes, key, (error, signature) => { if (error === null) resolve(signature); else reject(error) })
  })
}

function spkiOf (key: KeyObject): Buffer {
  return key.export({ type: 'spki', format: 'der' })
}

function authorityKeyId (key: KeyObject): Buffer {
  return extension('0603551d23', false, der(SEQUENCE, der(0x80, keyId(spkiOf(createPublicKey(key))))))
}

/** RFC 5280, 4.2.1.2, method 1: SHA-1 over the bits of the public key. */
function keyId (spki: Buffer): Buffer {
  const bits = elements(content(spki))[1]
  return createHash('sha1').update(bits === undefined ? spki : content(bits).subarray(1)).digest()
}

/** A name of one attribute, whose type is given as an encoded OID. */
function nameOf (oid: string, value: string): Buffer {
  return der(SEQUENCE, der(0x31, der(SEQUENCE, Buffer.from(oid, 'hex'), der(0x0c, Buffer.from(value)))))
}

function extension (oid: string, critical: boolean, value: Buffer): Buffer {
  return der(SEQUENCE, Buffer.from(oid, 'hex'), Buffer.from(critical ? '0101ff' : '', 'hex'), der(0x04, value))
}

function utcTime (date: Date): Buffer {
  return der(0x17, Buffer.from(date.toISOString().replace(/^\d\d|[-:T]|\.\d+/g, '')))
}
