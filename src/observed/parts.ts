import type { Logger } from 'pino'
import type { Config } from '../config.ts'
import type { Metrics } from '../plugins/metrics.ts'
import type { Adoptions } from '../vending/adoptions.ts'
import type { Audit } from '../vending/audit.ts'
import type { AuthorityRegistry, AuthoritySettingsStore } from '../vending/authority-registry.ts'
import type { CertificateHolds } from '../vending/certificate-holds.ts'
import type { ControlPlane } from '../vending/control-plane.ts'
import type { CrlSource } from '../vending/crl-source.ts'
import type { VendWay } from '../vending/device.ts'
import type { DeviceCatalog } from '../vending/device-catalog.ts'
import type { DriftFindings } from '../vending/drift-findings.ts'
import type { DeviceRegistry } from '../vending/device-registry.ts'
import type { KeyOwners } from '../vending/key-owners.ts'
import type { OldDevices } from '../vending/old-devices.ts'
import type { Products } from '../vending/product.ts'
import type { TokenHasher } from '../vending/registration-token.ts'
import type { Renewals } from '../vending/renewals.ts'
import type { RuleDestinations } from '../vending/rule-destinations.ts'
import type { Shadows } from '../vending/shadows.ts'
import type { UnfinishedDevices } from '../vending/unfinished-devices.ts'

/** What the use cases are made of. */
export interface Parts {
  config: Config
  log: Logger
  audit: Audit
  metrics: Metrics
  registry: DeviceRegistry
  renewals: Renewals
  adoptions: Adoptions
  certificateHolds: CertificateHolds
  keyOwners: KeyOwners
  devices: UnfinishedDevices
  oldDevices: OldDevices
  catalog: DeviceCatalog
  findings: DriftFindings
  /** Where devices and operators go first, where reconcile has time, and where all others go first. */
  forDevices: ControlPlane
  forBulk: ControlPlane
  forSweep: ControlPlane
  shadows: Shadows
  authorities: AuthorityRegistry
  authoritySettings: AuthoritySettingsStore
  crlSource: CrlSource
  destinations: RuleDestinations
  admitLine: (way: VendWay, stop: AbortSignal) => Promise<() => void>
  hashToken: TokenHasher
  products: Products
}

/** Where a request comes from, and whose it is where that is not the device itself. */
export interface Author { address: string, actor?: string, role?: string, route?: string }
