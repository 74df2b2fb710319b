import { type Hash, type Hmac, type KeyObject, createHash, createHmac, createSecretKey } from 'node:crypto'

type Secret = string | ArrayBuffer | ArrayBufferView

/** The keys that signatures are made with, which are the same for a day: those of one account, and its secret. */
const keys = new WeakMap<object, KeyObject>()
let latest: { secret: string, key: KeyObject } | undefined

/**
 * SHA-256 for the SDK's signatures. Importing a key costs more than the hash, so it is done once for each and not twice for each call.
 * AWS Signature Version 4.
 */
export class SigningHash {
  readonly #hash: Hash | Hmac

  constructor (secret?: Secret) {
    this.#hash = secret === undefined ? createHash('sha256') : createHmac('sha256', keyOf(secret))
  }

  update (data: Secret): void {
    this.#hash.update(typeof data === 'string' ? data : bytesOf(data))
  }

  async digest (): Promise<Uint8Array> {
    return this.#hash.digest()
  }

  /** The SDK makes a new one for each. */
  reset (): never {
    throw new Error('a hash is used once')
  }
}

function keyOf (secret: Secret): KeyObject {
  if (typeof secret === 'string') {
    if (latest?.secret !== secret) latest = { secret, key: createSecretKey(secret, 'utf8') }
    return latest.key
  }
  const known = keys.get(secret) ?? createSecretKey(bytesOf(secret))
  keys.set(secret, known)
  return known
}

function bytesOf (data: ArrayBuffer | ArrayBufferView): Uint8Array {
  return ArrayBuffer.isView(data) ? new Uint8Array(data.buffer, data.byteOffset, data.byteLength) : new Uint8Array(data)
}
