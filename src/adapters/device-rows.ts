import { ConditionalCheckFailedException, UpdateItemCommand } from '@aws-sdk/client-dynamodb'
import { type DynamoDBDocumentClient, GetCommand, UpdateCommand } from '@aws-sdk/lib-dynamodb'
import { marshall, unmarshall } from '@aws-sdk/util-dynamodb'
import { CvmError } from '../errors.ts'
import { DEFAULT_PRODUCT, type Device, type HistoryEntry, withHistory } from '../vending/device.ts'
import type { WriteResult } from '../vending/device-registry.ts'
import { type RowFault, UnreadableDevice } from '../vending/unreadable-device.ts'
import { QUARANTINED, deviceOf, listingOf } from './device-row.ts'
import { NO_END } from './row-faults.ts'

/** The parts of conditions, each a sentence about the row. `NOT x <= y` is also true where there is no `x`. */
export const IS_REGISTERED = '#state = :registered'
export const IS_ISSUING = '#state = :issuing'
export const IS_ISSUED = '#state = :issued'
export const CLAIM_HAS_EXPIRED = 'claimExpiresAt <= :now'
export const CLAIM_IS_OURS = 'claimId = :claimId'
export const CERTIFICATE_IS_THE_ONE_SEEN = 'certificateId = :certificateId'

export const NO_WISH_IS_PENDING = 'attribute_not_exists(pending)'

export const END_SUSPICION = 'suspectClaimId, suspectSince, suspectUntil, suspects'

/** What a row that has no certificate is without. */
export const NO_CERTIFICATE = 'certificateId, certificateArn, certificatePem, caCertificateId, certificateMode, publicKeyFingerprint, thingName, issuedAt, notAfter'

/** The claim, or its absence, as it was seen. */
export function claimAsSeen ({ claim }: Device): string {
  return claim ? CLAIM_IS_OURS : 'attribute_not_exists(claimId)'
}

/** The values that {@link claimAsSeen} needs. */
export function claimSeen ({ claim }: Device): Record<string, unknown> {
  return claim ? { ':claimId': claim.claimId } : {}
}

/** The renewal, or its absence, as it was seen. */
export function renewalAsSeen ({ renewal }: Device): string {
  return renewal ? 'renewal.claimId = :renewalClaimId AND renewal.phase = :renewalPhase' : 'attribute_not_exists(renewal)'
}

/** The values that {@link renewalAsSeen} needs. */
export function renewalSeen ({ renewal }: Device): Record<string, unknown> {
  return renewal ? { ':renewalClaimId': renewal.claimId, ':renewalPhase': renewal.phase } : {}
}

/** Joins parts of a condition. Without brackets, which dynalite's parser takes exponentially long for. */
export function all (...parts: readonly string[]): string {
  return parts.join(' AND ')
}

/** One conditional write. */
export interface Change { serialNumber: string, condition: string, update: string, values: Record<string, unknown> }

/** Told of a row that was put into quarantine just now. */
export type OnQuarantined = (fault: RowFault) => void

/** The rows of the registry's table: reads, and single-item conditional writes that say what was in their way. */
export class DeviceRows {
  readonly client: DynamoDBDocumentClient
  readonly tableName: string
  readonly #onQuarantined: OnQuarantined
  #sendsOldItems = false

  constructor (client: DynamoDBDocumentClient, tableName: string, onQuarantined: OnQuarantined = () => {}) {
    this.client = client
    this.tableName = tableName
    this.#onQuarantined = onQuarantined
  }

  async find (serialNumber: string): Promise<Device | undefined> {
    const get = new GetCommand({ TableName: this.tableName, Key: { serialNumber }, ConsistentRead: true })
    const { Item } = await orUnavailable(this.client.send(get))
    return Item && await this.#read(Item)
  }

  async change (change: Change): Promise<WriteResult> {
    const { serialNumber, condition, update, values } = kept(change)
    const expressions = `${condition} ${update}`
    const names = Object.fromEntries(['state', 'history'].filter(name => expressions.includes(`#${name}`)).map(name => [`#${name}`, name]))
    // Marshalled here and not by the document client, whose commands cost more, at each of a vend's three writes to the device's row.
    const command = new UpdateItemCommand({
      TableName: this.tableName,
      Key: { serialNumber: { S: serialNumber } },
      ConditionExpression: condition,
      UpdateExpression: update,
      ...(Object.keys(names).length > 0 && { ExpressionAttributeNames: names }),
      ...(Object.keys(values).length > 0 && { ExpressionAttributeValues: marshall(values) }),
      ReturnValues: 'ALL_NEW',
      ReturnValuesOnConditionCheckFailure: 'ALL_OLD'
    })
    try {
      const { Attributes } = await this.client.send(command)
      return { applied: true, device: await this.#read(unmarshall(Attributes!)) }
    } catch (cause) {
      if (cause instanceof UnreadableDevice) throw cause
      if (cause instanceof ConditionalCheckFailedException) return { applied: false, device: await this.#inTheWay(serialNumber, cause) }
      // DynamoDB refuses an update that does not fit an attribute's type: then the row is at fault, and the read says so.
      if ((cause as Error).name === 'ValidationException') await this.find(serialNumber)
      throw unavailable(cause)
    }
  }

  /**
   * Some stand-ins for DynamoDB send no old item; there a read right after decides as well, only later. Once an engine has sent one, an
   * item that is missing means that there is none: a read for unknown devices alone would tell them from wrong tokens (G7).
   */
  async #inTheWay (serialNumber: string, { Item }: ConditionalCheckFailedException): Promise<Device | undefined> {
    this.#sendsOldItems ||= Item !== undefined
    if (Item) return await this.#read(unmarshall(Item))
    return this.#sendsOldItems ? undefined : this.find(serialNumber)
  }

  /** A row that cannot be read goes into quarantine before its fault is thrown. */
  async #read (item: Record<string, unknown>): Promise<Device> {
    try {
      return deviceOf(item)
    } catch (cause) {
      if (cause instanceof UnreadableDevice && item['unfinished'] !== QUARANTINED) await this.#quarantine(cause.fault)
      throw cause
    }
  }

  /** Moves the row to another partition of the sparse index. Where this fails, the next reader of the row does it. */
  async #quarantine (fault: RowFault): Promise<void> {
    try {
      await this.client.send(new UpdateCommand({
        TableName: this.tableName,
        Key: { serialNumber: fault.serialNumber },
        ConditionExpression: 'attribute_exists(serialNumber) AND NOT unfinished = :quarantined',
        UpdateExpression: 'SET unfinished = :quarantined, claimExpiresAt = if_not_exists(claimExpiresAt, :noEnd)',
        ExpressionAttributeValues: { ':quarantined': QUARANTINED, ':noEnd': NO_END }
      }))
    } catch {
      return
    }
    this.#onQuarantined(fault)
  }
}

/** Adds what every change of a row keeps in step: its revision, and its place in the index of devices by product and state. */
function kept ({ update, values, ...change }: Change): Change {
  const state = values[/#state = (:\w+)/.exec(update)?.[1] ?? ''] as string | undefined
  const steps = ['revision = if_not_exists(revision, :zero) + :one']
  if (state) steps.push('listing = :listing', ...update.includes('product = ') ? [] : ['product = if_not_exists(product, :defaultProduct)'])
  const rest = update.startsWith('SET ') ? `, ${update.slice(4)}` : ` ${update}`
  const listing = state && { ':listing': listingOf(state, change.serialNumber), ...!update.includes('product = ') && { ':defaultProduct': DEFAULT_PRODUCT } }
  return { ...change, update: `SET ${steps.join(', ')}${rest}`, values: { ':zero': 0, ':one': 1, ...listing, ...values } }
}

/** The device's history with one line more. */
export function story (
  device: Device, { now, requestId }: { now: number, requestId: string }, event: HistoryEntry['event'], more: Partial<HistoryEntry> = {}
) {
  return withHistory(device, { at: now, event, requestId, ...more })
}

/** Passes a call on; its failure becomes `CvmError('registry-unavailable')`. */
export async function orUnavailable<T> (call: Promise<T>): Promise<T> {
  try {
    return await call
  } catch (cause) {
    throw unavailable(cause)
  }
}

/** A failure of DynamoDB, after which nobody can tell whether a write applied. */
export function unavailable (cause: unknown): CvmError {
  return new CvmError('registry-unavailable', { retryAfterMs: 2_000, cause })
}
