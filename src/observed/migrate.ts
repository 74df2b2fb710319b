import { type MigrateDeps, type MigrationPage, type MigrationWish, migrate } from '../vending/migrate.ts'
import type { Parts } from './parts.ts'

/** Who takes devices over, and in which request. */
interface Migrator { requestId: string, actor: string, role: string }

/** Taking over the devices of old services, as bulk work; each one that was is audited. */
export function observedMigration ({ config, audit, registry, oldDevices, forBulk, hashToken, products }: Parts) {
  const deadline = () => AbortSignal.timeout(config.VEND_DEADLINE_MS)
  const deps: MigrateDeps = { oldDevices, registry, controlPlane: forBulk, hashToken, products, now: Date.now, deadline }
  return async ({ table, ...wish }: MigrationWish, { role, ...author }: Migrator): Promise<MigrationPage> => {
    const other = table === config.DEVICE_TABLE ? undefined : table
    const page = await migrate({ ...wish, table: other }, author, deps)
    for (const { outcome, serialNumber, certificateId, notes } of page.results) {
      if (outcome !== 'migrated') continue
      audit({ event: 'device-migrated', outcome: 'done', ...author, role, serialNumber, certificateId, reason: notes.join(' ') || undefined })
    }
    return page
  }
}
