import type { Fleet } from '../fleet.ts'
import type { Observer } from '../observer.ts'
import type { Weather } from './weather.ts'

/** How much there is of everything. */
export interface StormSize {
  readonly ms: number
  readonly devices: number
  readonly batches: number
  readonly batch: number
  readonly operatorEveryMs: number
  readonly killEveryMs: number
  readonly idleMs: number
  readonly folders: number
  readonly lineDevices: number
  readonly watchEveryMs: number
}

/** What everyone in a storm works with. */
export interface Scene {
  readonly fleet: Fleet
  readonly weather: Weather
  /** Sees each call to AWS. */
  readonly observer: Observer
  /** The balancer. */
  readonly url: string
  readonly size: StormSize
  /** What must never be, in words. */
  readonly wrong: string[]
}
