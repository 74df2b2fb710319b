// A certificate authority made with the openssl command line, so that what the CLI reads was not written by a library it uses.
import { execFileSync } from 'node:child_process'
import { createHash, X509Certificate } from 'node:crypto'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Test } from 'tap'

export interface Pair { readonly certificate: string, readonly privateKey: string }

export class Authority {
  readonly #folder: string
  readonly certificate: string
  #count = 0

  constructor (t: Test, name: string) {
    this.#folder = mkdtempSync(join(tmpdir(), 'cvm-authority-'))
    t.teardown(() => rmSync(this.#folder, { recursive: true }))
    run(['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '30', '-subj', `/CN=${name}`,
      '-keyout', this.#at('ca.key'), '-out', this.#at('ca.crt'), '-addext', 'keyUsage=critical,keyCertSign'])
    this.certificate = readFileSync(this.#at('ca.crt'), 'utf8')
  }

  /** Certifies the key of a CSR; `days` may be negative for one that has expired. */
  sign (csr: string, extension = 'basicConstraints=CA:FALSE', days = 10): string {
    const name = `${++this.#count}`
    writeFileSync(this.#at(`${name}.csr`), csr)
    writeFileSync(this.#at(`${name}.ext`), extension)
    run(['x509', '-req', '-in', this.#at(`${name}.csr`), '-CA', this.#at('ca.crt'), '-CAkey', this.#at('ca.key'), '-extfile', this.#at(`${name}.ext`),
      '-days', `${days}`, '-out', this.#at(`${name}.crt`)])
    return readFileSync(this.#at(`${name}.crt`), 'utf8')
  }

  /** A new key and its certificate. */
  issue (subject: string, extension?: string, days?: number): Pair {
    const file = this.#at(`${++this.#count}.key`)
    const csr = run(['req', '-new', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-subj', subject, '-keyout', file])
    return { certificate: this.sign(csr, extension, days), privateKey: readFileSync(file, 'utf8') }
  }

  /** A server certificate for this machine. */
  issueServer (): Pair {
    return this.issue('/CN=localhost', 'subjectAltName=DNS:localhost,IP:127.0.0.1')
  }

  #at (name: string): string {
    return join(this.#folder, name)
  }
}

/** What the service would answer for this CSR, with a certificate of the given authority. */
export function vendAnswer (authority: Authority, csr: string, serialNumber: string): Record<string, unknown> {
  const certificatePem = authority.sign(csr)
  const certificateId = createHash('sha256').update(new X509Certificate(certificatePem).raw).digest('hex')
  return {
    serialNumber,
    thingName: `thing-${serialNumber}`,
    certificateId,
    certificateArn: `arn:aws:iot:eu-central-1:123456789012:cert/${certificateId}`,
    certificatePem,
    rootCaPem: authority.certificate,
    endpoint: 'localhost:8883',
    notAfter: '2049-12-31T23:59:59.000Z',
    renewAfter: '2049-01-01T00:00:00.000Z'
  }
}

function run (args: string[]): string {
  return execFileSync('openssl', args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] })
}
