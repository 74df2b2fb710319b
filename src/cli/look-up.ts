import { untilAnswered } from './back-off.ts'
import type { Service } from './client.ts'
import { EXIT, Failure, printable } from './failure.ts'
import { isReaderGone } from './output.ts'
import { connect } from './settings.ts'
import type { ConnectionOptions } from './settings.ts'
import { facts, table } from './table.ts'

export interface LookUpOptions extends ConnectionOptions { json?: boolean }

export interface ListOptions extends LookUpOptions {
  state?: string
  product?: string
  limit: number
  all?: boolean
  quarantined?: boolean
  drifted?: boolean
  accepted?: boolean
}

type Row = Record<string, unknown>

const PATIENCE = { timeoutMs: 120_000 }
const LONGEST_PAGE = 500

/** Prints devices, as many as asked for: page after page, as JSON lines while they come or as one table. Throws a `Failure`. */
export async function list (options: ListOptions): Promise<void> {
  if (options.quarantined === true && (options.state ?? options.product) !== undefined) {
    throw new Failure(EXIT.usage, '--quarantined goes with neither --state nor --product: what cannot be read has neither')
  }
  if (options.drifted === true && (options.state ?? options.product ?? options.quarantined) !== undefined) {
    throw new Failure(EXIT.usage, '--drifted goes with neither --state, --product nor --quarantined')
  }
  if (options.accepted === true && options.drifted !== true) throw new Failure(EXIT.usage, '--accepted needs --drifted')
  const service = await connect(options)
  const most = options.all === true ? Infinity : options.limit
  const devices: Row[] = []
  let count = 0
  let cursor: string | undefined
  do {
    const page = await pageOf(service, options, Math.min(LONGEST_PAGE, most - count), cursor)
    count += page.devices.length
    if (options.json === true) page.devices.forEach(printJson)
    else devices.push(...page.devices)
    cursor = page.nextCursor
  } while (cursor !== undefined && count < most && !isReaderGone())
  if (options.json !== true) print(tableOf(options)(devices))
  if (cursor !== undefined) process.stderr.write(`${count} devices shown; there are more: --all shows them\n`)
}

function tableOf ({ quarantined, drifted }: ListOptions): (devices: readonly Row[]) => string {
  if (quarantined === true) return faultTable
  return drifted === true ? driftTable : deviceTable
}

function driftTable (findings: readonly Row[]): string {
  return table(['SERIAL NUMBER', 'KIND', 'REGISTRY', 'AWS IOT', 'CERTIFICATE', 'SINCE', 'ACCEPTED'], findings.map(finding => {
    const { serialNumber, kind, registry, awsIot, certificateId, foundAt, accepted } = finding
    const { actor, reason } = (accepted ?? {}) as Row
    return [serialNumber, kind, registry, awsIot, certificateId, foundAt, accepted === undefined ? undefined : `${String(actor)}: ${String(reason)}`]
  }))
}

function deviceTable (devices: readonly Row[]): string {
  return table(['SERIAL NUMBER', 'PRODUCT', 'STATE', 'CERTIFICATE', 'NOT AFTER'],
    devices.map(({ serialNumber, product, state, certificateId, notAfter }) => [serialNumber, product, state, certificateId, notAfter]))
}

function faultTable (devices: readonly Row[]): string {
  return table(['SERIAL NUMBER', 'ATTRIBUTE', 'WHAT IS WRONG'], devices.map(({ serialNumber, attribute, detail }) => [serialNumber, attribute, detail]))
}

/** Prints a device: what it is now, and what happened to it. Throws a `Failure`. */
export async function show (serial: string, options: LookUpOptions): Promise<void> {
  const { device, revision } = await find(serial, options)
  if (options.json === true) return print(`${JSON.stringify(revision === undefined ? device : { ...device, revision }, null, 2)}\n`)
  print(facts([
    ['serial number', device.serialNumber],
    ['product', device.product],
    ['state', device.state],
    ['revision', revision],
    ['thing', device.thingName],
    ['certificate', device.certificateId],
    ['certificate ARN', device.certificateArn],
    ['valid until', device.notAfter],
    ['came by', device.way],
    ['authority', device.caCertificateId],
    ['token valid until', device.tokenExpiresAt],
    ['claimed until', device.claimExpiresAt],
    ['being ended', device.retiring]
  ]))
  const drift = rowsOf(device.drift)
  if (drift.length > 0) print(`\n${driftTable(drift)}`)
  print(`\n${story(device)}`)
}

/** Prints the device's history alone. Throws a `Failure`. */
export async function audit (serial: string, options: LookUpOptions): Promise<void> {
  const { device } = await find(serial, options)
  if (options.json === true) rowsOf(device.history).forEach(printJson)
  else print(story(device))
}

/** Prints a certificate and whose it is. Throws a `Failure`. */
export async function certificate (id: string, options: LookUpOptions): Promise<void> {
  const { body } = await untilAnswered(await connect(options), { path: `v1/certificates/${encodeURIComponent(id)}` }, PATIENCE)
  if (options.json === true) return print(`${JSON.stringify(body, null, 2)}\n`)
  print(facts([
    ['certificate', body.certificateId],
    ['certificate ARN', body.certificateArn],
    ['serial number', body.serialNumber],
    ['product', body.product],
    ['thing', body.thingName],
    ['state of device', body.state],
    ['issued at', body.issuedAt],
    ['valid until', body.notAfter]
  ]))
  if (typeof body.certificatePem === 'string') print(['', ...body.certificatePem.trim().split('\n').map(printable), ''].join('\n'))
}

async function find (serial: string, options: LookUpOptions): Promise<{ device: Row, revision: number | undefined }> {
  const { body, etag } = await untilAnswered(await connect(options), { path: `v1/devices/${encodeURIComponent(serial)}` }, PATIENCE)
  const revision = /^(?:W\/)?"(\d{1,15})"$/.exec(etag ?? '')?.[1]
  return { device: body, revision: revision === undefined ? undefined : Number(revision) }
}

async function pageOf (service: Service, options: ListOptions, limit: number, cursor: string | undefined) {
  const { state, product, quarantined, drifted, accepted } = options
  const query = new URLSearchParams({ limit: String(limit) })
  const path = quarantined === true ? 'quarantined-devices' : drifted === true ? 'drifted-devices' : 'devices'
  const members = { state, product, cursor, accepted: accepted === true ? 'true' : undefined }
  for (const [name, value] of Object.entries(members)) if (value !== undefined) query.set(name, value)
  const { body } = await untilAnswered(service, { path: `v1/${path}?${query}` }, PATIENCE)
  if (!Array.isArray(body.devices)) throw new Failure(EXIT.failed, 'the answer of the service holds no list of devices', { remedy: 'Check --url' })
  return { devices: rowsOf(body.devices), nextCursor: typeof body.nextCursor === 'string' ? body.nextCursor : undefined }
}

function story (device: Row): string {
  const rows = rowsOf(device.history)
    .map(({ at, event, actor, requestId, certificateId, reason }) => [at, event, actor, requestId, certificateId, reason])
  return table(['WHEN', 'EVENT', 'WHO', 'REQUEST', 'CERTIFICATE', 'REASON'], rows)
}

function rowsOf (value: unknown): Row[] {
  return Array.isArray(value) ? value as Row[] : []
}

function printJson (value: object): void {
  print(`${JSON.stringify(value)}\n`)
}

function print (text: string): void {
  process.stdout.write(text)
}
