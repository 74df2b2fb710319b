import { readFile, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { CrlFetchError, type CrlSource, type Fetched, type Validators } from '../vending/crl-source.ts'

interface CrlSettings {
  /** The folder of the files; none are taken when it is empty. */
  dir: string
  /** For the whole of one fetch. */
  timeoutMs: number
  maxBytes: number
}

const NOT_MODIFIED = 304

/** Lists over HTTP and from files. Follows no redirect: whom an operator named is whom the service speaks to. */
export class CrlFilesAndUrls implements CrlSource {
  readonly #settings: CrlSettings

  constructor (settings: CrlSettings) {
    this.#settings = settings
  }

  fetch (source: string, known: Validators): Promise<Fetched | undefined> {
    return /^https?:/.test(source) ? this.#fromUrl(source, known) : this.#fromFile(source, known)
  }

  async #fromUrl (url: string, { etag, lastModified }: Validators): Promise<Fetched | undefined> {
    const headers = {
      accept: 'application/pkix-crl, application/x-pem-file;q=0.9, */*;q=0.1',
      // What is compressed could grow here beyond its limit.
      'accept-encoding': 'identity',
      'user-agent': 'cvm',
      ...etag !== undefined && { 'if-none-match': etag },
      ...lastModified !== undefined && { 'if-modified-since': lastModified }
    }
    try {
      const response = await fetch(url, { headers, redirect: 'manual', signal: AbortSignal.timeout(this.#settings.timeoutMs) })
      return await this.#read(response)
    } catch (cause) {
      if (cause instanceof CrlFetchError) throw cause
      if ((cause as Error).name === 'TimeoutError') throw new CrlFetchError('crl-timeout', `It did not come within ${this.#settings.timeoutMs} ms.`, cause)
      throw new CrlFetchError('crl-unreachable', 'Its server could not be reached, or ended the connection.', cause)
    }
  }

  async #read (response: Response): Promise<Fetched | undefined> {
    const { status, headers, body } = response
    if (status === NOT_MODIFIED) return undefined
    if (status !== 200) {
      await body?.cancel()
      if (status >= 300 && status < 400) throw new CrlFetchError('crl-redirected', 'Its server says that it is elsewhere; set the address that it is at.')
      throw new CrlFetchError('crl-http-status', `Its server answered ${status}.`)
    }
    const chunks: Uint8Array[] = []
    let size = 0
    for await (const chunk of body ?? []) {
      size += chunk.length
      if (size > this.#settings.maxBytes) throw tooLarge(this.#settings)
      chunks.push(chunk)
    }
    const [etag, lastModified] = [headers.get('etag'), headers.get('last-modified')]
    return { bytes: Buffer.concat(chunks), validators: { ...etag && { etag }, ...lastModified && { lastModified } } }
  }

  async #fromFile (name: string, known: Validators): Promise<Fetched | undefined> {
    const { dir, maxBytes } = this.#settings
    if (dir === '') throw new CrlFetchError('crl-folder-not-set', 'It is a file, and CRL_DIR is not set.')
    try {
      const path = join(dir, name)
      const facts = await stat(path)
      if (!facts.isFile()) throw new CrlFetchError('crl-file-missing', 'It is no file.')
      if (facts.size > maxBytes) throw tooLarge(this.#settings)
      const etag = [facts.ino, facts.size, facts.mtimeMs].join('-')
      return etag === known.etag ? undefined : { bytes: await readFile(path), validators: { etag } }
    } catch (cause) {
      if (cause instanceof CrlFetchError) throw cause
      throw new CrlFetchError('crl-file-missing', 'The file is not there, or cannot be read.', cause)
    }
  }
}

function tooLarge ({ maxBytes }: CrlSettings): CrlFetchError {
  return new CrlFetchError('crl-too-large', `It is larger than ${maxBytes} bytes.`)
}
