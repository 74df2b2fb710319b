import type { Way } from './device.ts'

/** Every security event that is logged, and what it says. The README's table is made of it. */
export const AUDIT_EVENTS = {
  'device-registered': 'a device was registered, or was to be',
  'device-migrated': 'an operator took a device over from an earlier service; `reason` says what is to be known of it',
  'certificate-vended': 'a device was given a certificate; `resumed`: one that an earlier request had begun',
  'certificate-replayed': 'a device got the answer again that it had been given before',
  'vend-refused': 'a device was refused; `code` says why, and the serial number is there where there is such a device',
  'certificate-renewed': 'a device was given the certificate that is to follow its present one; `unchanged`: again',
  'renewal-confirmed': 'a device put its new certificate into force, and the one before was revoked; `unchanged`: it had done so before',
  'renewal-refused': 'a device was refused a renewal or its confirmation; `code` says why, and the serial number is there where the proof was right',
  'certificate-adopted': 'a certificate that was made elsewhere became its device\'s: brought by an operator or a line, or first seen at a connection (JITR)',
  'adoption-refused': 'such a certificate was refused; `code` and `reason` say why, and `changed` what became of it in AWS IoT',
  'key-reused': 'a device asked for a certificate for a key that is, or was, the device\'s that `keyOwner` names, or that is compromised; `done` where its product only warns',
  'destination-confirmed': 'the challenge of an AWS IoT rule\'s HTTP destination was answered, or was not',
  'device-reset': 'an operator ended the certificate and gave a new registration token',
  'device-revoked': 'an operator revoked the device and its certificate',
  'key-compromised': 'an operator revoked a device whose key is compromised: the key is never certified again',
  'device-disabled': 'an operator paused the device',
  'device-enabled': 'an operator ended the pause',
  'device-decommissioned': 'an operator ended the device for ever',
  'authority-registered': 'an operator registered a CA, or was to',
  'authority-changed': 'an operator changed what an authority may do; `changed` says in what, and to which state',
  'authority-deleted': 'an operator deleted an authority',
  'shadow-changed': 'an operator, or an old client itself, set what is wanted of a device in its shadow',
  'shadow-refused': 'an old client was refused at `/shadow`; `code` says why, and the serial number is there where there is such a device',
  'device-reconciled': 'reconcile finished or undid what was left of a device; `step` says what',
  'orphans-searched': 'reconcile could not look through all recent certificates in one run: `later` where the next run goes on, `done` where it was the last',
  'late-call-undone': 'AWS IoT carried out a call after an operator had disabled or enabled the device; reconcile set the certificate\'s status back by the registry',
  'certificate-disposed': 'reconcile deleted a certificate that was replaced or that nobody has',
  'drift-found': 'AWS IoT and the registry differ about a device; `reason` says in what',
  'drift-repaired': 'such a difference was repaired as the product of the device says, or could not be; `reason` says how',
  'drift-accepted': 'an operator accepted such a difference, or was to',
  'reconcile-requested': 'an operator had reconcile run',
  'access-refused': 'somebody was refused at a route for people; `reason` says why'
} as const

/** The name of a security event. */
export type AuditEvent = keyof typeof AUDIT_EVENTS

/**
 * How it ended: `unchanged` where it was so already, `resumed` where an earlier request had begun it, `refused` where the caller must
 * change something, `failed` where the service could not, `later` where reconcile comes back to it.
 */
type AuditOutcome = 'done' | 'unchanged' | 'resumed' | 'refused' | 'failed' | 'later'

/** One security event. No member may hold a credential, a token, a key or a URL. */
export interface AuditRecord {
  event: AuditEvent
  outcome: AuditOutcome
  requestId: string
  /** Who did it, and the role that allowed it; a refused caller's roles. */
  actor?: string | undefined
  role?: string | undefined
  serialNumber?: string | undefined
  certificateId?: string | undefined
  product?: string | undefined
  /** The other device whose key it is. */
  keyOwner?: string | undefined
  /** The authority that it is about. */
  caCertificateId?: string | undefined
  /** What is different now: the names of settings, and states. */
  changed?: string | undefined
  /** How the device came to its certificate. */
  way?: Way | undefined
  /** What reconcile did. */
  step?: string | undefined
  /** Why, in the operator's words or by a stable name. */
  reason?: string | undefined
  /** The failure's code. */
  code?: string | undefined
  method?: string | undefined
  /** The route's pattern. */
  route?: string | undefined
  address?: string | undefined
}

/** Writes a security event to the log. With the failure that it is about, so that this one is not logged a second time. */
export type Audit = (record: AuditRecord, failure?: Error) => void

/** What may be written of a record; anything else that a caller's object carries is left out. */
const MEMBERS = [
  'event', 'outcome', 'requestId', 'actor', 'role', 'serialNumber', 'certificateId', 'product', 'keyOwner', 'caCertificateId', 'changed', 'way', 'step', 'reason', 'code', 'method', 'route', 'address'
] as const satisfies readonly (keyof AuditRecord)[]

/** A record as it is logged: the members of the allow-list that it has, in one order. */
export function auditLine (record: AuditRecord): { audit: AuditRecord } {
  const members = MEMBERS.filter(name => record[name] !== undefined).map(name => [name, record[name]])
  return { audit: Object.fromEntries(members) as unknown as AuditRecord }
}
