import { CvmError } from '../errors.ts'
import type { AuditRecord } from '../vending/audit.ts'
import { type DeviceProof, checkToken } from '../vending/check-token.ts'
import type { Device } from '../vending/device.ts'
import { type ShadowChange, type ShadowDeps, changeShadow, setDesired, shadowOf, showShadow } from '../vending/shadow-access.ts'
import type { Desired, ShadowDocument } from '../vending/shadows.ts'
import { isRefused, toFailure } from './outcome.ts'
import type { Parts } from './parts.ts'

/** Who asks for a change to a shadow, and in which request. */
interface Changer { requestId: string, actor: string, role: string }

/** A device that asks for itself, with its token. */
export interface Oneself extends DeviceProof { requestId: string, address: string }

/** Shadows for operators, and for old clients themselves; changes and refusals are audited. */
export function observedShadows ({ config, audit, registry, hashToken, shadows, products }: Parts) {
  const deps: ShadowDeps = { registry, shadows, products, deadline: () => AbortSignal.timeout(config.VEND_DEADLINE_MS) }
  return {
    show: (serialNumber: string, name: string | undefined): Promise<ShadowDocument> => showShadow(serialNumber, name, deps),
    change: (serialNumber: string, change: ShadowChange, author: Changer): Promise<ShadowDocument> =>
      changed({ serialNumber, ...author }, () => changeShadow(serialNumber, change, deps)),
    showOwn: async (oneself: Oneself): Promise<ShadowDocument | undefined> => shadowOf(await known(oneself), undefined, deps),
    async changeOwn (oneself: Oneself, desired: Desired): Promise<ShadowDocument> {
      const device = await known(oneself)
      const { serialNumber, requestId, address } = oneself
      return changed({ serialNumber, requestId, address }, () => setDesired(device, { desired }, deps))
    }
  }

  async function changed (facts: Omit<AuditRecord, 'event' | 'outcome'>, work: () => Promise<ShadowDocument>): Promise<ShadowDocument> {
    const event = 'shadow-changed'
    try {
      const document = await work()
      audit({ ...facts, event, outcome: 'done' })
      return document
    } catch (cause) {
      const { code } = toFailure(cause)
      const { serialNumber, ...rest } = facts
      // What is no serial number of ours may be anything.
      const about = code === 'device-not-found' ? rest : facts
      audit({ ...about, event, outcome: isRefused(cause) ? 'refused' : 'failed', code }, isRefused(cause) ? cause : undefined)
      throw cause
    }
  }

  async function known ({ requestId, address, ...proof }: Oneself): Promise<Device> {
    let device = {}
    const onKnown = () => { device = { serialNumber: proof.serialNumber } }
    try {
      return await checkToken(proof, { registry, hashToken, now: Date.now, onKnown })
    } catch (cause) {
      if (cause instanceof CvmError && isRefused(cause)) audit({ event: 'shadow-refused', outcome: 'refused', requestId, ...device, code: cause.code, address }, cause)
      throw cause
    }
  }
}
