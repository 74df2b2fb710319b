// An observer of its own, who asks the local AWS IoT directly, past the service and the weather.
import { DescribeCertificateCommand, ListPrincipalThingsCommand } from '@aws-sdk/client-iot'
import { setTimeout as delay } from 'node:timers/promises'
import type { Aws } from '../service-process.ts'

export class CertificateWatch {
  /** Each moment at which a thing had more than one ACTIVE certificate (G1), in words. */
  readonly violations = new Set<string>()
  /** How often it has looked. */
  looks = 0
  readonly #aws: Aws
  readonly #things = new Map<string, string>()

  constructor (aws: Aws) {
    this.#aws = aws
  }

  /** The ACTIVE certificates of each thing. */
  async look (): Promise<Map<string, string[]>> {
    const active = new Map<string, string[]>()
    for (const { certificateId = '', certificateArn = '', status } of await this.#aws.certificates()) {
      if (status !== 'ACTIVE') continue
      const thing = await this.#thingOf(certificateId, certificateArn)
      if (thing !== undefined) active.set(thing, [...active.get(thing) ?? [], certificateId])
    }
    this.looks++
    return active
  }

  /** Looks until told to end. */
  async watch (everyMs: number, end: AbortSignal): Promise<void> {
    while (!end.aborted) {
      for (const [thing, [one, ...others]] of await this.look()) {
        for (const other of others) {
          // The list is of several moments. Where one is ACTIVE before and after the other one is seen so, both were at once.
          const seen = [await this.#statusOf(one!), await this.#statusOf(other), await this.#statusOf(one!)]
          if (seen.every(status => status === 'ACTIVE')) this.violations.add(`${thing}: ${one} and ${other} are both ACTIVE`)
        }
      }
      await delay(everyMs, undefined, { signal: end }).catch(() => {})
    }
  }

  /** A certificate's thing stays the same; undefined where it is gone or on no thing. */
  async #thingOf (certificateId: string, principal: string): Promise<string | undefined> {
    const known = this.#things.get(certificateId)
    if (known !== undefined) return known
    const { things: [thing] = [] } = await this.#aws.iot.send(new ListPrincipalThingsCommand({ principal })).catch(gone({ things: [] }))
    if (thing !== undefined) this.#things.set(certificateId, thing)
    return thing
  }

  async #statusOf (certificateId: string): Promise<string | undefined> {
    const answer = await this.#aws.iot.send(new DescribeCertificateCommand({ certificateId })).catch(gone({}))
    return 'certificateDescription' in answer ? answer.certificateDescription?.status : undefined
  }
}

/** What stands for the answer about a certificate that was deleted meanwhile. */
function gone<T> (instead: T): (error: Error) => T {
  return error => {
    if (error.name !== 'ResourceNotFoundException') throw error
    return instead
  }
}
