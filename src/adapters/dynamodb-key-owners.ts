import { ConditionalCheckFailedException } from '@aws-sdk/client-dynamodb'
import { type DynamoDBDocumentClient, GetCommand, UpdateCommand } from '@aws-sdk/lib-dynamodb'
import type { KeyOwners, KeyTaking, OwnedKey } from '../vending/key-owners.ts'
import { all, orUnavailable, unavailable } from './device-rows.ts'

/** Rows of the table that are no devices have a character in their key that no serial number has. */
const PREFIX = '#key/'

const IS_NOT_COMPROMISED = 'attribute_not_exists(compromisedAt)'

interface KeyRow { holder: string, takenAt: number, compromisedAt?: number }

/** Owners of public keys, in the registry's table: one small row a key, in none of its indexes. */
export class DynamoDbKeyOwners implements KeyOwners {
  readonly #client: DynamoDBDocumentClient
  readonly #tableName: string

  constructor (client: DynamoDBDocumentClient, tableName: string) {
    this.#client = client
    this.#tableName = tableName
  }

  async take (publicKeyFingerprint: string, serialNumber: string, now: number, abandoned?: OwnedKey): Promise<KeyTaking> {
    const isFree = ['attribute_not_exists(holder)', 'holder = :holder', ...abandoned ? [all('holder = :abandonedBy', 'takenAt = :seen')] : []]
    try {
      await this.#client.send(new UpdateCommand({
        ...this.#rowOf(publicKeyFingerprint),
        ConditionExpression: isFree.map(free => all(IS_NOT_COMPROMISED, free)).join(' OR '),
        UpdateExpression: 'SET holder = :holder, takenAt = :now',
        ExpressionAttributeValues: {
          ':holder': serialNumber, ':now': now, ...abandoned && { ':abandonedBy': abandoned.serialNumber, ':seen': abandoned.takenAt }
        }
      }))
      return { taken: true }
    } catch (cause) {
      if (!(cause instanceof ConditionalCheckFailedException)) throw unavailable(cause)
      const key = await this.find(publicKeyFingerprint)
      // No row is ever deleted.
      if (!key) throw unavailable(cause)
      return { taken: false, key }
    }
  }

  async find (publicKeyFingerprint: string): Promise<OwnedKey | undefined> {
    const { Item } = await orUnavailable(this.#client.send(new GetCommand({ ...this.#rowOf(publicKeyFingerprint), ConsistentRead: true })))
    if (!Item) return undefined
    const { holder, takenAt, compromisedAt } = Item as KeyRow
    return { serialNumber: holder, takenAt, isCompromised: compromisedAt !== undefined }
  }

  async block (publicKeyFingerprint: string, serialNumber: string, now: number): Promise<void> {
    await orUnavailable(this.#client.send(new UpdateCommand({
      ...this.#rowOf(publicKeyFingerprint),
      UpdateExpression: 'SET compromisedAt = if_not_exists(compromisedAt, :now), ' +
        'holder = if_not_exists(holder, :holder), takenAt = if_not_exists(takenAt, :now)',
      ExpressionAttributeValues: { ':holder': serialNumber, ':now': now }
    })))
  }

  #rowOf (publicKeyFingerprint: string) {
    return { TableName: this.#tableName, Key: { serialNumber: PREFIX + publicKeyFingerprint } }
  }
}
