import { untilAnswered } from './back-off.ts'
import type { Service } from './client.ts'
import { EXIT, Failure, printable } from './failure.ts'
import type { LookUpOptions } from './look-up.ts'
import { connect } from './settings.ts'
import { facts, table } from './table.ts'

type Row = Record<string, unknown>

interface CertificateOptions extends LookUpOptions { limit: number, all?: boolean }

const PATIENCE = { timeoutMs: 120_000 }

/** The longest pages that the service gives. */
const LONGEST = { authorities: 50, certificates: 250 }

/** Prints the authorities, all of them. Throws a `Failure`. */
export async function list (options: LookUpOptions): Promise<void> {
  const { rows } = await read(await connect(options), 'v1/authorities', 'authorities', Infinity)
  if (options.json) return rows.forEach(printJson)
  process.stdout.write(table(['AUTHORITY', 'STATUS', 'AUTO-REGISTRATION', 'SUBJECT', 'NOT AFTER'],
    rows.map(({ caCertificateId, status, autoRegistration, subject, notAfter }) => [caCertificateId, status, autoRegistration === true ? 'on' : 'off', subject, notAfter])))
}

/** Prints an authority and its settings. Throws a `Failure`. */
export async function show (id: string, options: LookUpOptions): Promise<void> {
  const { body, etag } = await untilAnswered(await connect(options), { path: pathOf(id) }, PATIENCE)
  const revision = /^(?:W\/)?"(\d{1,15})"$/.exec(etag ?? '')?.[1]
  if (options.json) return process.stdout.write(`${JSON.stringify({ ...body, ...revision !== undefined && { revision: Number(revision) } }, null, 2)}\n`) as never
  process.stdout.write(facts([
    ['authority', body.caCertificateId],
    ['ARN', body.caCertificateArn],
    ['subject', body.subject],
    ['status', body.status],
    ['auto-registration', body.autoRegistration === true ? 'on' : 'off'],
    ['mode', body.mode],
    ['registered at', body.createdAt],
    ['valid from', body.notBefore],
    ['valid until', body.notAfter],
    ['CRLs', body.crls],
    ['without CRL', body.whenCrlUnavailable],
    ['products', body.products ?? 'all'],
    ['intermediates', certificatesIn(body.intermediatesPem)],
    ['revision', revision]
  ]))
  if (typeof body.caCertificatePem === 'string') process.stdout.write(['', ...body.caCertificatePem.trim().split('\n').map(printable), ''].join('\n'))
}

/** Prints the certificates of an authority, as many as asked for. Throws a `Failure`. */
export async function certificates (id: string, options: CertificateOptions): Promise<void> {
  const { rows, hasMore } = await read(await connect(options), `${pathOf(id)}/certificates`, 'certificates', options.all ? Infinity : options.limit)
  if (options.json) rows.forEach(printJson)
  else {
    process.stdout.write(table(['CERTIFICATE', 'STATUS', 'REGISTERED AT'],
      rows.map(({ certificateId, status, registeredAt }) => [certificateId, status, registeredAt])))
  }
  if (hasMore) process.stderr.write(`${rows.length} certificates shown; there are more: --all shows them\n`)
}

/** Page after page, up to `most` rows. */
async function read (service: Service, path: string, member: keyof typeof LONGEST, most: number) {
  const rows: Row[] = []
  let cursor: string | undefined
  do {
    const limit = String(Math.min(LONGEST[member], most - rows.length))
    const query = new URLSearchParams({ limit, ...cursor !== undefined && { cursor } })
    const { body } = await untilAnswered(service, { path: `${path}?${query}` }, PATIENCE)
    if (!Array.isArray(body[member])) throw new Failure(EXIT.failed, `the answer of the service holds no list of ${member}`, { remedy: 'Check --url' })
    rows.push(...body[member] as Row[])
    cursor = typeof body.nextCursor === 'string' ? body.nextCursor : undefined
  } while (cursor !== undefined && rows.length < most)
  return { rows, hasMore: cursor !== undefined }
}

function certificatesIn (pem: unknown): number | undefined {
  return typeof pem === 'string' ? pem.split('-----BEGIN ').length - 1 : undefined
}

function pathOf (id: string): string {
  return `v1/authorities/${encodeURIComponent(id)}`
}

function printJson (value: object): void {
  process.stdout.write(`${JSON.stringify(value)}\n`)
}
