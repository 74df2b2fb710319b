// A device that renews its certificate, by its own hand and not by our command line.
import { createPrivateKey } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { setTimeout as delay } from 'node:timers/promises'
import type { Test } from 'tap'
import { proofBy } from '../fixtures/proofs.ts'
import { CURED_WITHIN_MS, type Fleet } from './fleet.ts'
import type { Observer } from './observer.ts'
import { folder } from './processes.ts'
import { type Vended, keyAndCsr, vendBody } from './tools.ts'

export const ASKED = ['renew', 'confirm'] as const
export type Asked = typeof ASKED[number]
export interface Reply { readonly status: number, readonly body: Partial<Vended> & { code?: string }, readonly retryAfterMs: number }

async function post (url: string, body: object): Promise<Reply> {
  try {
    const headers = { 'content-type': 'application/json' }
    const signal = AbortSignal.timeout(30_000)
    const answer = await fetch(url, { method: 'POST', headers, body: JSON.stringify(body), signal })
    return { status: answer.status, body: await answer.json() as Reply['body'], retryAfterMs: Number(answer.headers.get('retry-after') ?? 0) * 1000 }
  } catch {
    return { status: 0, body: {}, retryAfterMs: 0 }
  }
}

/** Asks until it is served; what was said at last where it never was. */
async function served (ask: () => Promise<Reply>): Promise<Reply> {
  for (const deadline = Date.now() + CURED_WITHIN_MS; ;) {
    const reply = await ask()
    const isPassing = reply.status === 0 || reply.status >= 500 || reply.retryAfterMs > 0
    if (!isPassing || Date.now() > deadline) return reply
    await delay(reply.retryAfterMs || 200)
  }
}

/** A device with its certificate, and all that it needs to renew it. */
export class RenewingDevice {
  readonly serialNumber: string
  readonly present: Vended
  readonly #keys: { present: string, next: string }
  readonly #csr: string
  /** The service to ask, as it is just now. */
  #urlOf: () => string
  next: Partial<Vended> = {}

  private constructor (urlOf: () => string, present: Vended, keys: { present: string, next: string }, csr: string) {
    this.#urlOf = urlOf
    this.serialNumber = present.serialNumber
    this.present = present
    this.#keys = keys
    this.#csr = csr
  }

  /** Registers it, and has a certificate vended to it. */
  static async vended (t: Test, { aws }: Fleet, observer: Observer, urlOf: () => string): Promise<RenewingDevice> {
    const dir = folder(t)
    const device = await aws.register()
    const [first, second] = [await keyAndCsr(dir, device.serialNumber), await keyAndCsr(dir, device.serialNumber, 'P-256', 'next')]
    for (const { csr } of [first, second]) observer.expect(device.serialNumber, csr)
    const { status, body } = await served(() => post(`${urlOf()}/v1/certificates`, JSON.parse(vendBody(device, first.csr)) as object))
    if (status >= 300) throw new Error(`a clean vend ended with ${status} ${body.code}`)
    return new RenewingDevice(urlOf, body as Vended, { present: first.keyFile, next: second.keyFile }, second.csr)
  }

  /** Asks there from now on. */
  use (urlOf: () => string): void {
    this.#urlOf = urlOf
  }

  /** Each time with a new proof, as the README's recipe does; by the device's clock, or by one that is `aheadMs` of it. */
  async ask (asked: Asked, aheadMs = 0): Promise<Reply> {
    const { serialNumber, present: { certificateId, endpoint } } = this
    const proof = async (key: string, id: string, csr?: string) =>
      proofBy(createPrivateKey(readFileSync(key)), id, endpoint, Date.now() + aheadMs, csr)
    if (asked === 'confirm') {
      return post(`${this.#urlOf()}/v1/certificates/confirm`, { serialNumber, proof: await proof(this.#keys.next, this.next.certificateId ?? '') })
    }
    const reply = await post(`${this.#urlOf()}/v1/certificates/renew`, {
      serialNumber, certificateSigningRequest: this.#csr, proof: await proof(this.#keys.present, certificateId, this.#csr)
    })
    if (reply.body.certificateId) this.next = reply.body
    return reply
  }

  persist (asked: Asked, aheadMs = 0): Promise<Reply> {
    return served(() => this.ask(asked, aheadMs))
  }
}
