import { CvmError } from '../errors.ts'
import type { DriftFindings, Finding, FindingKind } from './drift-findings.ts'

/** Which findings of a device an operator accepts, and why. */
export interface AcceptWish { serialNumber: string, kind?: FindingKind, actor: string, reason: string }

/**
 * Accepts the findings of a device, or the one of a kind: they are open no more until they change. Throws `CvmError`: `drift-not-found`
 * where there is none, `state-conflict` where one changed meanwhile, or what the port throws.
 */
export async function acceptDrift (
  { serialNumber, kind, actor, reason }: AcceptWish, { findings, now }: { findings: Pick<DriftFindings, 'of' | 'accept'>, now: () => number }
): Promise<Finding[]> {
  const wanted = (await findings.of(serialNumber)).filter(finding => kind === undefined || finding.kind === kind)
  if (wanted.length === 0) throw new CvmError('drift-not-found')
  const accepted = { at: now(), actor, reason }
  for (const finding of wanted) {
    if (!await findings.accept(finding, accepted)) throw new CvmError('state-conflict', { detail: `the finding ${finding.kind} changed meanwhile` })
  }
  return wanted.map(finding => ({ ...finding, accepted }))
}
