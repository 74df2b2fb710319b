import 'reflect-metadata'
import { createHash, webcrypto } from 'node:crypto'
import * as x509 from '@peculiar/x509'

const DAY_MS = 86_400_000
const P256_SHA256 = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' }
const RSA_SHA256 = rsa(2048, 'SHA-256')

/** A certificate as tests need it, with whatever fault they want in it. */
interface Wish {
  name?: string
  ca?: boolean
  /** Days from now. */
  from?: number
  to?: number
  algorithm?: webcrypto.EcKeyGenParams & { hash: string } | webcrypto.RsaHashedKeyGenParams
}

/** A certificate in PEM with its key, which can sign others. */
export interface Made { pem: string, id: string, sign: (wish?: Wish) => Promise<Made>, again: () => Promise<Made> }

export function rsa (modulusLength: number, hash: string): webcrypto.RsaHashedKeyGenParams {
  return { name: 'RSASSA-PKCS1-v1_5', modulusLength, publicExponent: Uint8Array.of(1, 0, 1), hash }
}

/** A certificate that signed itself: a CA unless `ca` is false. */
export async function selfSigned (wish: Wish = {}): Promise<Made> {
  const { algorithm = P256_SHA256 } = wish
  const keys = await webcrypto.subtle.generateKey(algorithm, true, ['sign', 'verify']) as webcrypto.CryptoKeyPair
  return await made({ ca: true, ...wish }, keys)
}

async function made (wish: Wish, keys: webcrypto.CryptoKeyPair, issuer?: { name: string, keys: webcrypto.CryptoKeyPair }): Promise<Made> {
  const { name = 'CN=Test CA,O=Line 1', ca = false, from = -1, to = 365, algorithm = P256_SHA256 } = wish
  const certificate = await x509.X509CertificateGenerator.create({
    subject: name,
    issuer: issuer?.name ?? name,
    notBefore: new Date(Date.now() + from * DAY_MS),
    notAfter: new Date(Date.now() + to * DAY_MS),
    publicKey: keys.publicKey,
    signingKey: (issuer?.keys ?? keys).privateKey,
    signingAlgorithm: issuer?.keys.privateKey.algorithm.name === 'RSASSA-PKCS1-v1_5' ? RSA_SHA256 : algorithm,
    extensions: [new x509.BasicConstraintsExtension(ca, undefined, true)]
  })
  const again = async (): Promise<Made> => await made(wish, keys, issuer)
  return {
    pem: `${certificate.toString('pem')}\n`,
    id: createHash('sha256').update(Buffer.from(certificate.rawData)).digest('hex'),
    again,
    sign: async (below = {}) => {
      const own = await webcrypto.subtle.generateKey(below.algorithm ?? P256_SHA256, true, ['sign', 'verify']) as webcrypto.CryptoKeyPair
      return await made({ name: 'CN=dev-1', ...below }, own, { name, keys })
    }
  }
}
