import type { IoTClient } from '@aws-sdk/client-iot'
import type { AuthorityRegistry } from '../vending/authority-registry.ts'
import type { ControlPlane } from '../vending/control-plane.ts'
import type { VendWay } from '../vending/device.ts'
import type { Products } from '../vending/product.ts'
import type { RuleDestinations } from '../vending/rule-destinations.ts'
import type { SetupCheck } from '../vending/setup.ts'
import { type AwsSettings, type Pace, iotBindingClient, iotIssuingClient, iotTendingClient } from './aws-clients.ts'
import { IotAuthorities } from './iot-authorities.ts'
import { IotDestinations } from './iot-destinations.ts'
import { IotControlPlane } from './iot-control-plane.ts'
import { isThrottled } from './iot-failures.ts'
import { type Forecast, LineAdmission } from './line-admission.ts'
import { type Clock, type PaceObserver, Pacer, type Priority } from './pacer.ts'
import { policyChecks } from './policy-setup.ts'

/** AWS's default quotas, calls a second of an account in a Region (aws-facts 3.1). */
const QUOTAS: Readonly<Record<string, number>> = {
  CreateCertificateFromCsr: 15,
  AttachPolicy: 15,
  DetachPolicy: 15,
  ListAttachedPolicies: 15,
  AttachThingPrincipal: 100,
  DetachThingPrincipal: 100,
  CreateThing: 100,
  UpdateThing: 100,
  DeleteThing: 100,
  DescribeThing: 350,
  AddThingToThingGroup: 100,
  RemoveThingFromThingGroup: 100,
  CreateThingGroup: 25,
  DescribeThingGroup: 100,
  ListThingGroupsForThing: 100
}
const OTHER_QUOTA = 10

/** These share a quota besides their own: "device certificates that can be registered per second". */
const NEW_CERTIFICATE = ['CreateCertificateFromCsr', 'CreateKeysAndCertificate', 'RegisterCertificate', 'RegisterCertificateWithoutCA']
const NEW_CERTIFICATES_QUOTA = 15

/** The calls that a vend begins with, and those that it then needs: it should not begin when one of them would keep it waiting. */
const BEGINS: Readonly<Record<VendWay, string>> = { csr: 'CreateCertificateFromCsr', keys: 'CreateKeysAndCertificate' }
const VEND_BEGINS = [...Object.values(BEGINS), 'RegisterCertificate', 'RegisterCertificateWithoutCA']
const VEND_NEEDS = ['AttachPolicy', 'AttachThingPrincipal', 'UpdateCertificate']

/** A vend that has begun may wait this much longer at each call, because sending it away would waste what was done. */
const BEGUN = 2

export interface PaceSettings {
  /** How many times AWS's default quotas the account has; 0: calls are not paced. */
  quotaFactor: number
  /** Quotas by operation, in calls a second, where they differ from that. */
  quotas: Readonly<Record<string, number>>
  /** The longest wait at one operation; a call that would wait longer is refused at once. */
  maxWaitMs: Readonly<Record<Priority, number>>
  clock: Clock
  observer: PaceObserver
}

type IotSettings = Omit<ConstructorParameters<typeof IotControlPlane>[0], 'issuing' | 'binding' | 'tending'>

/** AWS IoT's control plane for devices, which go first, for batches and reconcile, and for the sweep: views that keep one pace. */
export interface PacedControlPlanes {
  forDevices: ControlPlane
  forBulk: ControlPlane
  forSweep: ControlPlane
  /** The account's CA certificates; in the devices' class. */
  authorities: AuthorityRegistry
  /** The destinations of the account's rules; in the devices' class. */
  destinations: RuleDestinations
  /** Resolves when a line of a batch may begin: see {@link LineAdmission}. */
  admitLine: (way: VendWay, stop: AbortSignal) => Promise<() => void>
  /** The checks of the policies that the products name; in the class of bulk work. */
  policyChecks: (products: Products, region: string) => SetupCheck[]
  /** The account's own endpoint for devices and shadows, whatever devices are told. */
  accountEndpoint: () => Promise<string>
  /** Ends the connections. */
  release: () => void
}

/**
 * The control plane within AWS's quotas. Every call to AWS IoT waits for its turn, retries and pages too; one that AWS throttles all the
 * same slows its operation down and is made again until its deadline. What cannot be served in time ends as `aws-iot-throttled`, with
 * the time after which it can.
 */
export function pacedControlPlanes (aws: Omit<AwsSettings, 'pace'>, iot: IotSettings, settings: PaceSettings): PacedControlPlanes {
  const pacers = new Pacers(settings)
  const admission = new LineAdmission(way => pacers.forecast(way), settings.clock)
  const clients: IoTClient[] = []
  const client = (make: typeof iotTendingClient, priority: Priority): IoTClient => {
    const made = make({ ...aws, pace: pacers.paceOf(priority) })
    clients.push(made)
    return made
  }
  const view = (priority: Priority, named = iot): ControlPlane => {
    const clientOf = (make: typeof iotTendingClient) => client(make, priority)
    const [issuing, binding, tending] = [clientOf(iotIssuingClient), clientOf(iotBindingClient), clientOf(iotTendingClient)]
    return new IotControlPlane({ ...named, issuing, binding, tending })
  }
  const forDevices = view('device')
  const tending = client(iotTendingClient, 'device')
  const looking = client(iotTendingClient, 'bulk')
  const account = iot.endpoint === undefined ? forDevices : view('device', { endpoint: undefined })
  return {
    forDevices,
    forBulk: view('bulk'),
    forSweep: view('sweep'),
    authorities: new IotAuthorities(tending),
    destinations: new IotDestinations(tending),
    policyChecks: (products, region) => policyChecks(looking, products, region),
    accountEndpoint: () => account.endpoint(),
    admitLine: (way, stop) => admission.admit(way, stop),
    release () { for (const client of clients) client.destroy() }
  }
}

/** A pacer for each operation, made when it is first needed. */
class Pacers {
  readonly #settings: PaceSettings
  readonly #pacers = new Map<string, Pacer>()

  constructor (settings: PaceSettings) {
    this.#settings = settings
  }

  paceOf (priority: Priority): Pace {
    const { clock, maxWaitMs: { [priority]: maxWaitMs } } = this.#settings
    return async (operation, given, call) => {
      const pacers = this.#pacersOf(operation)
      if (pacers.length === 0) return call()
      const begins = VEND_BEGINS.includes(operation)
      const needed = begins ? VEND_NEEDS.map(name => this.#pacer(name)).filter(pacer => pacer !== undefined) : []
      const [longest] = [...pacers, ...needed].map(pacer => ({ pacer, waitMs: pacer.waitMs(priority) })).sort((a, b) => b.waitMs - a.waitMs)
      if (longest && longest.waitMs > maxWaitMs * (begins ? 1 : BEGUN)) throw longest.pacer.refusal(priority, longest.waitMs)
      const signal = given ?? AbortSignal.timeout(maxWaitMs)
      for (let again = false; ; again = true) {
        for (const pacer of pacers) await pacer.turn({ priority, signal, again })
        const startedAt = clock.now()
        try {
          return await call()
        } catch (cause) {
          if (!isThrottled(cause)) throw cause
          for (const pacer of pacers) pacer.throttled(startedAt)
        }
      }
    }
  }

  /** What awaits a line of a batch. */
  forecast (way: VendWay): Forecast {
    const pacers = [...this.#pacersOf(BEGINS[way]), ...VEND_NEEDS.map(name => this.#pacer(name))].filter(pacer => pacer !== undefined)
    return {
      perSecond: Math.min(Infinity, ...pacers.map(({ perSecond }) => perSecond)),
      waitMs: Math.max(0, ...pacers.map(pacer => pacer.waitMs('bulk')))
    }
  }

  #pacersOf (operation: string): Pacer[] {
    const shared = NEW_CERTIFICATE.includes(operation) ? [this.#pacer('NewCertificates')] : []
    return [this.#pacer(operation), ...shared].filter(pacer => pacer !== undefined)
  }

  #pacer (operation: string): Pacer | undefined {
    const quota = this.#quotaOf(operation)
    if (quota === 0) return undefined
    const { clock, observer } = this.#settings
    const pacer = this.#pacers.get(operation) ?? new Pacer(operation, quota, clock, observer)
    this.#pacers.set(operation, pacer)
    return pacer
  }

  /** Who has more of one way of making certificates has as much of all of them together. */
  #quotaOf (operation: string): number {
    const { quotaFactor, quotas } = this.#settings
    if (operation !== 'NewCertificates') return quotas[operation] ?? quotaFactor * (QUOTAS[operation] ?? OTHER_QUOTA)
    return quotaFactor === 0 ? 0 : Math.max(quotaFactor * NEW_CERTIFICATES_QUOTA, ...NEW_CERTIFICATE.map(name => quotas[name] ?? 0))
  }
}
