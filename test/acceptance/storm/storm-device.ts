// A device in a storm: has a certificate vended, renews it, asks for the same again; and notes what it must never be told.
import type { KeyObject } from 'node:crypto'
import { createPrivateKey } from 'node:crypto'
import { proofBy } from '../../fixtures/proofs.ts'
import { type KeyAndRequest, keyAndRequest } from '../key-and-request.ts'
import type { Device } from '../service-process.ts'
import type { Vended } from '../tools.ts'
import { type Reply, askOnce, persist } from './ask.ts'
import type { Scene } from './scene.ts'

interface Pair extends Pick<Vended, 'certificateId' | 'certificatePem' | 'endpoint'> { readonly privateKey: KeyObject }

/** So long after an operator's request its device may be surprised: a paused replica carries the request out when it goes on. */
const TOUCHED_MS = 45_000
const SERVED_WITHIN_MS = 400_000

/** Asks an operator for what the device cannot do itself, with the code that it was refused with. */
type Help = (device: StormDevice, code: string | undefined) => Promise<void>

interface Nature { readonly way: 'csr' | 'keys', readonly isUntouched: boolean, readonly help: Help }

export class StormDevice {
  readonly serialNumber: string
  readonly way: 'csr' | 'keys'
  /** What the device has on its disk, and works with. */
  held: Pair | undefined
  /** An operator is never to touch this one: nothing but a certificate that works is right for it. */
  readonly isUntouched: boolean
  isDecommissioned = false
  /** When an operator last had a request for it under way. */
  touchedAt = -Infinity
  readonly #scene: Scene
  readonly #help: Help
  #token: string
  #key: KeyAndRequest | undefined
  #next: { key: KeyAndRequest, pair?: Pair } | undefined
  #newToken: string | undefined
  #vendedPem: string | undefined

  constructor (scene: Scene, { serialNumber, registrationToken }: Device, { way, isUntouched, help }: Nature) {
    this.#scene = scene
    this.#help = help
    this.serialNumber = serialNumber
    this.#token = registrationToken
    this.way = way
    this.isUntouched = isUntouched
  }

  /** An operator brings a new token: what the device had is worth nothing any more. */
  giveToken (token: string): void {
    this.#newToken = token
  }

  /** One errand: a certificate where it has none, else a renewal or the same request again. */
  async work (): Promise<void> {
    if (this.#newToken) {
      this.#token = this.#newToken
      this.#newToken = this.held = this.#key = this.#next = this.#vendedPem = undefined
    }
    if (!this.held) return await this.#vend()
    if (this.#key && this.#vendedPem === this.held.certificatePem && this.way === 'csr' && this.#scene.weather.random(4, 'replay') === 0) return await this.#vend()
    return await this.renew()
  }

  /** The request of a batch for it; what became of it is told by `take`. */
  async request (): Promise<{ line: string, take: (vended: Vended) => void }> {
    this.#key ??= await keyAndRequest({ serialNumber: this.serialNumber, registrationToken: this.#token })
    const { csr, body, privateKey } = this.#key
    this.#scene.observer.expect(this.serialNumber, csr)
    return { line: body, take: vended => this.#take(vended, privateKey) }
  }

  async #vend (): Promise<void> {
    const { url, observer } = this.#scene
    let ask = () => askOnce(url, '/v1/keys-and-certificates', { serialNumber: this.serialNumber, registrationToken: this.#token })
    if (this.way === 'csr') {
      this.#key ??= await keyAndRequest({ serialNumber: this.serialNumber, registrationToken: this.#token })
      const { csr, body } = this.#key
      observer.expect(this.serialNumber, csr)
      ask = () => askOnce(url, '/v1/certificates', JSON.parse(body) as object)
    }
    const reply = await this.#persist('vend', ask)
    if (reply.status < 300) {
      const { keyPair } = reply.body
      if (this.#newToken || (this.way === 'keys' && !keyPair)) return
      this.#take(reply.body as Vended, this.way === 'csr' ? this.#key!.privateKey : createPrivateKey(keyPair!.privateKey))
      this.#scene.weather.count('vend answered')
      return
    }
    // Its private key was in an answer that was lost: only an operator helps, as the README says.
    if (reply.code === 'key-not-recoverable') this.touchedAt = Date.now()
    await this.#refused('vend', reply)
  }

  #take (vended: Vended, privateKey: KeyObject): void {
    const { certificateId, certificatePem, endpoint } = vended
    if (this.#vendedPem !== undefined && this.#vendedPem !== certificatePem) this.#wrong('two certificates were given for one token and key (G2)')
    this.#vendedPem = certificatePem
    this.held ??= { certificateId, certificatePem, privateKey, endpoint }
  }

  /** A whole renewal, as the README tells a device to do it. */
  async renew (): Promise<void> {
    const { weather } = this.#scene
    const held = this.held!
    if (!this.#next?.pair && !await this.#ask(held)) return
    let confirmed = await this.#confirm()
    if (confirmed.code === 'renewal-gone' || confirmed.code === 'device-not-authorized') {
      if (!await this.#ask(held)) return
      confirmed = await this.#confirm()
    }
    if (confirmed.status >= 300) return await this.#refused('confirm', confirmed)
    if (this.#newToken) return
    this.held = this.#next!.pair!
    this.#next = undefined
    weather.count('renewal confirmed')
  }

  /** Whether the new key has a certificate now. */
  async #ask (held: Pair): Promise<boolean> {
    const { url, observer } = this.#scene
    const { serialNumber } = this
    this.#next ??= { key: await keyAndRequest({ serialNumber, registrationToken: '' }) }
    const { key } = this.#next
    observer.expect(serialNumber, key.csr)
    const { privateKey, certificateId: heldId, endpoint: audience } = held
    const reply = await this.#persist('renew', async () => askOnce(url, '/v1/certificates/renew', {
      serialNumber, certificateSigningRequest: key.csr, proof: await proofBy(privateKey, heldId, audience, Date.now(), key.csr)
    }))
    if (reply.status >= 300) {
      await this.#refused('renew', reply)
      return false
    }
    const { certificateId, certificatePem, endpoint } = reply.body as Vended
    if (this.#next) this.#next = { key, pair: { certificateId, certificatePem, endpoint, privateKey: key.privateKey } }
    return this.#next !== undefined
  }

  async #confirm (): Promise<Reply> {
    const { url } = this.#scene
    const { certificateId, endpoint, privateKey } = this.#next!.pair!
    return await this.#persist('confirm', async () => askOnce(url, '/v1/certificates/confirm', {
      serialNumber: this.serialNumber, proof: await proofBy(privateKey, certificateId, endpoint, Date.now())
    }))
  }

  #persist (what: string, ask: () => Promise<Reply>): Promise<Reply> {
    return persist(ask, SERVED_WITHIN_MS, ({ status, code }) => {
      this.#scene.weather.count(`${what}: ${status === 0 ? 'no answer' : `${status} ${code ?? ''}`.trim()}`)
      if (code === 'internal-error' || code === 'aws-iot-refused') this.#wrong(`${what} was answered ${status} ${code}`)
    })
  }

  /** What only an operator can help with must come of an operator. */
  async #refused (what: string, { status, code, reason }: Reply): Promise<void> {
    const isExplained = Date.now() - this.touchedAt < TOUCHED_MS
    if (!isExplained && !this.#newToken) this.#wrong(`${what} was refused at last: ${status} ${code} ${reason ?? ''}, and no operator touched the device`)
    if (!this.#newToken) await this.#help(this, code)
  }

  #wrong (what: string): void {
    this.#scene.wrong.push(`${new Date().toISOString()} ${this.serialNumber}: ${what}`)
  }
}
