/** Ids that are remembered: some 40 MB. Beyond them a certificate is asked for by itself. */
const MOST = 500_000

/** As much of an id as tells half a million from each other. */
const PREFIX = 16

/**
 * The certificates that AWS IoT has listed in the present pass of the sweep, as far as this replica did the listing. It only saves calls:
 * for a certificate that is not in it, AWS IoT is asked.
 */
export class SeenCertificates {
  #pass = 0
  #ids = new Set<string>()

  add (pass: number, certificateIds: readonly string[]): void {
    if (pass !== this.#pass) this.#ids = new Set()
    this.#pass = pass
    for (const id of certificateIds) {
      if (this.#ids.size >= MOST) return
      this.#ids.add(id.slice(0, PREFIX))
    }
  }

  has (pass: number, certificateId: string): boolean {
    return pass === this.#pass && this.#ids.has(certificateId.slice(0, PREFIX))
  }
}
