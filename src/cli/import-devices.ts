import { randomBytes } from 'node:crypto'
import { postUntilAnswered } from './back-off.ts'
import type { Patience } from './back-off.ts'
import type { Service } from './client.ts'
import { readDevices } from './device-list.ts'
import type { ListedDevice } from './device-list.ts'
import { EXIT, Failure } from './failure.ts'
import type { Result, ResultFile, Status } from './result-file.ts'

/** How many lines ended how; `skipped` are those that an earlier run had done. Grows while the import runs. */
export interface Tally { registered: number, unchanged: number, refused: number, failed: number, skipped: number }

export interface Import {
  readonly service: Service
  readonly file: string
  readonly results: ResultFile
  /** For lines that name none. */
  readonly product?: string
  readonly chunk: number
  readonly patience: Patience
  readonly tally: Tally
  readonly advance: (count: number) => void
  /** Told of each line that was refused or failed. */
  readonly onFault: (line: number, result: Result) => void
}

interface Item {
  readonly listed: ListedDevice
  /** What is sent for it. */
  readonly message: { serialNumber: string, registrationToken: string, product?: string, tokenExpiresAt?: string }
  /** Made by an earlier run, which may have sent it. */
  readonly remembered: string | undefined
  /** Not the file's own. */
  readonly generated: string | undefined
}

/**
 * Registers the devices of a file, chunk after chunk. Tokens are made here and are on disk before they are sent, and results before the
 * next chunk is sent: whatever is killed or lost when, the same command again goes on and every token is known. Throws a `Failure` when
 * it cannot go on.
 */
export async function importDevices (order: Import): Promise<void> {
  const { service, results, patience, tally, advance, onFault } = order
  let skipped = 0
  for await (const items of chunks(order)) {
    await results.append(items.filter(({ remembered, generated }) => generated !== remembered)
      .map(({ message, generated }) => resultOf(message, 'pending', generated)))
    const { body } = await postUntilAnswered(service, 'v1/devices', items.map(({ message }) => message), patience).catch(explainSize)
    const ended = judge(items, body.results)
    await results.append(ended)
    ended.forEach((result, index) => {
      tally[result.status as keyof Tally]++
      if (result.status === 'refused' || result.status === 'failed') onFault(items[index]!.listed.line, result)
    })
    advance(items.length + tally.skipped - skipped)
    skipped = tally.skipped
  }
  if (tally.skipped > skipped) advance(tally.skipped - skipped)
}

async function * chunks ({ file, results, product, chunk, tally }: Import): AsyncGenerator<Item[]> {
  let items: Item[] = []
  for await (const listed of readDevices(file)) {
    if (results.isDone(listed.serialNumber)) {
      tally.skipped++
      continue
    }
    items.push(itemOf(listed, results.tokenOf(listed.serialNumber), product))
    if (items.length < chunk) continue
    yield items
    items = []
  }
  if (items.length > 0) yield items
}

function itemOf (listed: ListedDevice, remembered: string | undefined, product: string | undefined): Item {
  const { line, ...device } = listed
  const generated = device.registrationToken === undefined ? remembered ?? newToken() : undefined
  const registrationToken = device.registrationToken ?? generated as string
  return { listed, message: { ...product !== undefined && { product }, ...device, registrationToken }, remembered, generated }
}

/** 256 bits. A spreadsheet would take a dash at the start for a formula. */
function newToken (): string {
  const token = randomBytes(32).toString('base64url')
  return /^[A-Za-z0-9]/.test(token) ? token : newToken()
}

/** Answers are matched by line number; a line that was not answered has failed, and is sent again by the next run. */
function judge (items: readonly Item[], answers: unknown): Result[] {
  if (!Array.isArray(answers)) throw new Failure(EXIT.failed, 'the answer of the service holds no results', { remedy: 'Check --url' })
  const byLine = new Map((answers as Record<string, unknown>[]).map(answer => [answer?.line, answer]))
  return items.map(({ message, remembered, generated }, index) => {
    const { status, serialNumber, product, code, detail, remedy } = byLine.get(index + 1) ?? {}
    if (serialNumber !== undefined && serialNumber !== message.serialNumber) return resultOf(message, 'failed', generated ?? remembered, 'wrong-answer')
    if (status === 'registered' || status === 'unchanged') return { ...resultOf(message, status, generated), ...text({ product }) }
    // A token of an earlier run may be the one that stands in the registry, whatever is refused now.
    if (status === 'refused') return { ...resultOf(message, status, remembered), ...text({ code, detail: [detail, remedy].filter(Boolean).join('. ') }) }
    return resultOf(message, 'failed', generated ?? remembered, 'no-answer')
  })
}

function resultOf ({ serialNumber, product }: Item['message'], status: Status, registrationToken?: string, code?: string): Result {
  return { serialNumber, status, product, registrationToken, code }
}

function text (members: Record<string, unknown>): Record<string, string> {
  return Object.fromEntries(Object.entries(members).filter((member): member is [string, string] => typeof member[1] === 'string'))
}

function explainSize (error: unknown): never {
  if (!(error instanceof Failure) || error.problem.code !== 'body-too-large') throw error
  throw new Failure(error.exitCode, error.message, { ...error.problem, remedy: 'Run the same command again with a smaller --chunk' }, error)
}
