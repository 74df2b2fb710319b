import { type KeyObject, createHash, randomUUID } from 'node:crypto'
import { CompactSign } from 'jose'

/** What a proof is for: a certificate and its key, the service, and to renew a CSR. */
interface ProofRequest {
  readonly key: KeyObject
  readonly certificateId: string
  readonly audience: string
  readonly now: number
  readonly csrPem?: string
}

const ALGORITHMS: Readonly<Record<string, string>> = { prime256v1: 'ES256', secp384r1: 'ES384', secp521r1: 'ES512' }

/** A compact JWS (RFC 7515) by the key of a certificate, as the service wants it for renewing and confirming; used once. */
export async function makeProof ({ key, certificateId, audience, now, csrPem }: ProofRequest): Promise<string> {
  const csr = csrPem && createHash('sha256').update(Buffer.from(csrPem.replaceAll(/-----[^-]+-----/g, ''), 'base64')).digest('base64url')
  const payload = { aud: audience, iat: Math.floor(now / 1000), jti: randomUUID(), ...csr && { csr } }
  const alg = ALGORITHMS[key.asymmetricKeyDetails?.namedCurve ?? ''] ?? 'RS256'
  return await new CompactSign(Buffer.from(JSON.stringify(payload)))
    .setProtectedHeader({ alg, 'x5t#S256': Buffer.from(certificateId, 'hex').toString('base64url') })
    .sign(key)
}
