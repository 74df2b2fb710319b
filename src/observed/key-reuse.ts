import type { KeyReuse } from '../vending/key-reuse.ts'
import type { Parts } from './parts.ts'

/** Reused keys, counted and audited, whether they are refused or not. */
export function observedKeyReuse ({ audit, metrics }: Pick<Parts, 'audit' | 'metrics'>) {
  return ({ isRefused, ...about }: KeyReuse): void => {
    metrics.keyReuse.inc({ code: about.code, then: isRefused ? 'refuse' : 'warn' })
    audit({ ...about, event: 'key-reused', outcome: isRefused ? 'refused' : 'done' })
  }
}
