import type { Account } from './account.ts'
import { AwsError } from './aws-error.ts'
import type { Message } from './messages.ts'
import { shadowRequest, tokenIn } from './shadow-request.ts'

const NO_PAYLOAD = Buffer.alloc(0)
// Requests per second and thing (aws-facts 1.6).
const RATE = 20
const TOPIC = /^\$aws\/things\/([a-zA-Z0-9:_-]{1,128})\/shadow\/(?:name\/([$a-zA-Z0-9:_-]{1,64})\/)?(get|update|delete)$/

/**
 * What can be asked of shadows, over HTTPS and MQTT alike, and what the devices hear of it: each accepted change is told on the
 * shadow's topics, whichever way it came in.
 */
export class ShadowTopics {
  readonly #account: Account

  constructor (account: Account) {
    this.#account = account
  }

  get (thing: string, name: string): object {
    this.#spend(thing)
    return this.#account.shadows.get(thing, name)
  }

  update (thing: string, name: string, payload: Buffer): object {
    this.#spend(thing)
    const { accepted, delta, documents } = this.#account.shadows.update(thing, name, shadowRequest(payload))
    this.#account.touch()
    this.#announce(thing, name, 'update/accepted', accepted)
    if (delta !== undefined) this.#announce(thing, name, 'update/delta', delta)
    this.#announce(thing, name, 'update/documents', documents)
    return accepted
  }

  /** Over MQTT `payload` may hold a clientToken, which the answer repeats. */
  remove (thing: string, name: string, payload: Buffer = NO_PAYLOAD): object {
    this.#spend(thing)
    const answer = this.#account.shadows.remove(thing, name)
    this.#account.touch()
    this.#announce(thing, name, 'delete/accepted', { ...answer, ...token(payload) })
    return answer
  }

  /** Answers the shadow requests among the messages; to be called with each one. */
  readonly hear = ({ topic, payload }: Message): void => {
    const [, thing, name = '', verb] = TOPIC.exec(topic) ?? []
    if (thing === undefined || verb === undefined) return
    try {
      this.#answer(thing, name, verb, payload)
    } catch (error) {
      // Any other fault is this emulator's; the device hears of it as of a fault of AWS.
      const { code, message, members } = refusal(error)
      this.#announce(thing, name, `${verb}/rejected`, { code, message, timestamp: Math.floor(Date.now() / 1000), ...token(payload), ...members })
    }
  }

  #answer (thing: string, name: string, verb: string, payload: Buffer): void {
    if (verb === 'get') this.#announce(thing, name, 'get/accepted', { ...this.get(thing, name), ...token(payload) })
    else if (verb === 'update') this.update(thing, name, payload)
    else this.remove(thing, name, payload)
  }

  #announce (thing: string, name: string, answer: string, content: object): void {
    const topic = `$aws/things/${thing}/shadow/${name === '' ? '' : `name/${name}/`}${answer}`
    this.#account.afterKept(() => { this.#account.messages.announce(topic, content) })
  }

  #spend (thing: string): void {
    this.#account.quotas.take(`shadow of ${thing}`, RATE)
  }
}

function refusal (error: unknown): { code: number, message: string, members: object } {
  if (!(error instanceof AwsError)) return { code: 500, message: 'Internal service failure', members: {} }
  return { code: error.code === 'ThrottlingException' ? 429 : error.status, message: error.message, members: error.members }
}

function token (payload: Buffer): object {
  const clientToken = tokenIn(payload)
  return clientToken === undefined ? {} : { clientToken }
}
