import { type JWTVerifyGetKey, createRemoteJWKSet, customFetch, errors } from 'jose'
import { CvmError } from '../errors.ts'

/** Where the keys are, and how patiently they are asked for. Times in milliseconds. */
export interface KeySource {
  issuer: string
  /** Empty: asked of the issuer's discovery document. */
  jwksUrl: string
  /** For one look, discovery included. */
  timeoutMs?: number
  /** After a look, unknown keys are refused without another for so long. */
  cooldownMs?: number
  /** How long keys are believed without another look. */
  cacheMs?: number
  /** After a look that failed, the next is not before so long. */
  pauseMs?: number
  /** How long keys are believed while the provider cannot be asked, from the last look that succeeded. */
  outageMs?: number
}

/** Enough for a hundred keys with their certificates. */
const MAX_BYTES = 262_144

const COME_BACK_MS = 2_000

const HOUR_MS = 3_600_000

/** What a key set says when a token is at fault. */
const TOKEN_FAULTS = [errors.JWKSNoMatchingKey, errors.JWKSMultipleMatchingKeys, errors.JOSENotSupported]

/**
 * The public keys of an identity provider (RFC 7517), fetched when first needed and again when they are old or one is unknown, so that
 * it may rotate them. While the provider cannot be asked, the keys of the last look stay good, for a day unless told otherwise.
 * Throws `CvmError('identity-provider-unavailable')` where they cannot be had in time or the key of a token may be newer than the last
 * look, and jose's errors for a token that no key is for.
 */
export function keysOf (source: KeySource): JWTVerifyGetKey {
  const { timeoutMs = 5_000, cooldownMs = 30_000, cacheMs = 600_000, pauseMs = COME_BACK_MS, outageMs = 24 * HOUR_MS } = source
  const address = addressOf(source)
  let failedAt = -Infinity
  let known: { document: unknown, at: number } | undefined
  let isAway = false
  const keys = createRemoteJWKSet(new URL(address), {
    timeoutDuration: timeoutMs,
    cooldownDuration: cooldownMs,
    cacheMaxAge: cacheMs,
    async [customFetch] (_url, options) {
      try {
        // Tokens that cannot be judged must not become requests to a provider that is in trouble.
        if (performance.now() - failedAt < pauseMs) throw new Error('the identity provider did not answer a moment ago')
        const document = await look(source, options).catch((cause: unknown) => { failedAt = performance.now(); throw cause })
        known = { document, at: performance.now() }
        isAway = false
      } catch (cause) {
        isAway = true
        if (known === undefined || performance.now() - known.at >= outageMs) throw cause
      }
      return Response.json(known.document)
    }
  })
  return async (header, token) => {
    try {
      return await keys(header, token)
    } catch (cause) {
      const isJudged = TOKEN_FAULTS.some(fault => cause instanceof fault) && !(isAway && cause instanceof errors.JWKSNoMatchingKey)
      if (isJudged) throw cause
      // `fetch` says what went wrong one level down.
      throw new CvmError('identity-provider-unavailable', { retryAfterMs: COME_BACK_MS, cause: (cause as Error).cause ?? cause })
    }
  }
}

function addressOf ({ issuer, jwksUrl }: KeySource): string {
  return jwksUrl || `${issuer.replace(/\/$/, '')}/.well-known/openid-configuration`
}

/** The provider's key set as it is now. */
async function look (source: KeySource, options: RequestInit): Promise<unknown> {
  const document = await fetchJson(addressOf(source), options)
  return source.jwksUrl ? document : await fetchJson(jwksUrlIn(document, source.issuer), options)
}

/** OpenID Connect Discovery 1.0 section 4.3: a document that names another issuer is not this one's. */
function jwksUrlIn (document: unknown, issuer: string): string {
  const { issuer: named, jwks_uri: url } = (document ?? {}) as { issuer?: unknown, jwks_uri?: unknown }
  if (named !== issuer) throw new Error('the discovery document names another issuer')
  if (typeof url !== 'string' || !URL.canParse(url)) throw new Error('the discovery document names no keys')
  // Keys are as trustworthy as the way they come: no weaker than the issuer's own.
  if (new URL(url).protocol !== 'https:' && new URL(url).origin !== new URL(issuer).origin) throw new Error('the keys are not to be had over https')
  return url
}

async function fetchJson (url: string, options: RequestInit): Promise<unknown> {
  const response = await fetch(url, options)
  if (response.status !== 200 || !response.body) {
    await response.body?.cancel()
    throw new Error(`status ${response.status}`)
  }
  const chunks: Uint8Array[] = []
  let length = 0
  for await (const chunk of response.body as unknown as AsyncIterable<Uint8Array>) {
    length += chunk.length
    if (length > MAX_BYTES) throw new Error('the answer is too long')
    chunks.push(chunk)
  }
  return JSON.parse(Buffer.concat(chunks).toString('utf8'))
}
