import { ConditionalCheckFailedException } from '@aws-sdk/client-dynamodb'
import { type DynamoDBDocumentClient, GetCommand, QueryCommand, UpdateCommand } from '@aws-sdk/lib-dynamodb'
import type { CertificateHolds, Hold, PendingCertificate, Purpose, Taking } from '../vending/certificate-holds.ts'
import { all, orUnavailable, unavailable } from './device-rows.ts'
import { UNFINISHED_INDEX } from './device-table.ts'

/** Rows of the table that are no devices have a character in their key that no serial number has. */
const PREFIX = '#certificate/'

/** The partition of the sparse index beside that of unfinished devices. */
const PENDING = 'pending-activation'

interface HoldRow { holder?: string, holdId?: string, holdExpiresAt?: number, seenAt?: number }

/** Holds on certificates, in the registry's table. */
export class DynamoDbCertificateHolds implements CertificateHolds {
  readonly #client: DynamoDBDocumentClient
  readonly #tableName: string

  constructor (client: DynamoDBDocumentClient, tableName: string) {
    this.#client = client
    this.#tableName = tableName
  }

  async take ({ certificateId, holdId, now, expiresAt }: Hold, { serialNumber, insteadOf, isPending }: Purpose): Promise<Taking> {
    const isFree = ['NOT holdExpiresAt > :now', 'holdId = :holdId']
    const isOurs = ['attribute_not_exists(holder)', 'holder = :holder', ...insteadOf === undefined ? [] : ['holder = :insteadOf']]
    const conditions = serialNumber === undefined ? isFree : isFree.flatMap(free => isOurs.map(ours => all(free, ours)))
    const applied = await this.#change(certificateId, {
      ConditionExpression: conditions.join(' OR '),
      UpdateExpression: 'SET holdId = :holdId, holdExpiresAt = :expiresAt, seenAt = if_not_exists(seenAt, :now)' +
        (serialNumber === undefined ? '' : ', holder = :holder') + (isPending ? ', unfinished = :pending, claimExpiresAt = :expiresAt' : ''),
      ExpressionAttributeValues: {
        ':holdId': holdId,
        ':now': now,
        ':expiresAt': expiresAt,
        ...serialNumber !== undefined && { ':holder': serialNumber },
        ...serialNumber !== undefined && insteadOf !== undefined && { ':insteadOf': insteadOf },
        ...isPending && { ':pending': PENDING }
      }
    })
    if (applied) return { taken: true }
    const row = await this.#find(certificateId)
    return { taken: false, isHeld: row.holdId !== holdId && (row.holdExpiresAt ?? 0) > now, serialNumber: row.holder }
  }

  async release ({ certificateId, holdId, now }: Hold, isDecided: boolean): Promise<void> {
    await this.#change(certificateId, {
      ConditionExpression: 'holdId = :holdId',
      UpdateExpression: isDecided
        ? 'SET holdExpiresAt = :now REMOVE unfinished, claimExpiresAt'
        : 'SET holdExpiresAt = :now, claimExpiresAt = :now',
      ExpressionAttributeValues: { ':holdId': holdId, ':now': now }
    })
  }

  async list (now: number, limit: number): Promise<PendingCertificate[]> {
    const { Items = [] } = await orUnavailable(this.#client.send(new QueryCommand({
      TableName: this.#tableName,
      IndexName: UNFINISHED_INDEX,
      KeyConditionExpression: 'unfinished = :pending AND claimExpiresAt <= :now',
      ExpressionAttributeValues: { ':pending': PENDING, ':now': now },
      Limit: limit
    })))
    const ids = Items.map(({ serialNumber }) => (serialNumber as string).slice(PREFIX.length))
    return Promise.all(ids.map(async certificateId => ({ certificateId, seenAt: (await this.#find(certificateId)).seenAt ?? now })))
  }

  async #find (certificateId: string): Promise<HoldRow> {
    const get = new GetCommand({ TableName: this.#tableName, Key: { serialNumber: PREFIX + certificateId }, ConsistentRead: true })
    return ((await orUnavailable(this.#client.send(get))).Item ?? {}) as HoldRow
  }

  async #change (certificateId: string, change: Omit<ConstructorParameters<typeof UpdateCommand>[0], 'TableName' | 'Key'>): Promise<boolean> {
    try {
      await this.#client.send(new UpdateCommand({ TableName: this.#tableName, Key: { serialNumber: PREFIX + certificateId }, ...change }))
      return true
    } catch (cause) {
      if (cause instanceof ConditionalCheckFailedException) return false
      throw unavailable(cause)
    }
  }
}
