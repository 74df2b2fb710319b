import { type KeyObject, createHmac, createSecretKey, hash } from 'node:crypto'

type Secret = string | ArrayBuffer | ArrayBufferView

/** The keys that signatures are made with, which are the same for a day. */
const keys = new WeakMap<object, KeyObject>()
/** What an account's secret last gave: at each call the SDK asks by it whether it has the day's key already. */
let latest: { secret: string, data: Uint8Array, digest: Uint8Array } | undefined

/**
 * SHA-256 for the SDK's signatures. Importing a key costs more than the hash, so it is done once for each and not twice for each call.
 * AWS Signature Version 4.
 */
export class SigningHash {
  readonly #secret: Secret | undefined
  readonly #parts: Uint8Array[] = []

  constructor (secret?: Secret) {
    this.#secret = secret
  }

  update (data: Secret): void {
    this.#parts.push(bytesOf(data))
  }

  async digest (): Promise<Uint8Array> {
    const [first = new Uint8Array()] = this.#parts
    const data = this.#parts.length > 1 ? Buffer.concat(this.#parts) : first
    if (this.#secret === undefined) return hash('sha256', data, 'buffer')
    return typeof this.#secret === 'string' ? digestBy(this.#secret, data) : createHmac('sha256', keyOf(this.#secret)).update(data).digest()
  }

  /** The SDK makes a new one for each. */
  reset (): never {
    throw new Error('a hash is used once')
  }
}

function digestBy (secret: string, data: Uint8Array): Uint8Array {
  if (latest?.secret === secret && Buffer.compare(latest.data, data) === 0) return latest.digest
  const digest = createHmac('sha256', secret).update(data).digest()
  latest = { secret, data, digest }
  return digest
}

function keyOf (secret: ArrayBuffer | ArrayBufferView): KeyObject {
  const known = keys.get(secret) ?? createSecretKey(bytesOf(secret))
  keys.set(secret, known)
  return known
}

function bytesOf (data: Secret): Uint8Array {
  if (typeof data === 'string') return Buffer.from(data)
  return ArrayBuffer.isView(data) ? new Uint8Array(data.buffer, data.byteOffset, data.byteLength) : new Uint8Array(data)
}
