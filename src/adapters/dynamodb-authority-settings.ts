import { ConditionalCheckFailedException } from '@aws-sdk/client-dynamodb'
import { type DynamoDBDocumentClient, GetCommand, UpdateCommand } from '@aws-sdk/lib-dynamodb'
import { type AuthoritySettings, DEFAULT_SETTINGS } from '../vending/authority.ts'
import type { AuthoritySettingsStore, KeptSettings } from '../vending/authority-registry.ts'
import { orUnavailable, unavailable } from './device-rows.ts'

/** Rows of the table that are no devices have a character in their key that no serial number has. */
const PREFIX = 'authority#'

const MEMBERS = ['intermediatesPem', 'crls', 'whenCrlUnavailable', 'products'] as const satisfies readonly (keyof AuthoritySettings)[]

type Row = Partial<KeptSettings>

/** The settings of authorities, each in a row of the registry's table. No row is ever deleted, so that no revision comes twice. */
export class DynamoDbAuthoritySettings implements AuthoritySettingsStore {
  readonly #client: DynamoDBDocumentClient
  readonly #tableName: string

  constructor (client: DynamoDBDocumentClient, tableName: string) {
    this.#client = client
    this.#tableName = tableName
  }

  async find (caCertificateIds: readonly string[]): Promise<ReadonlyMap<string, KeptSettings>> {
    const found = await Promise.all(caCertificateIds.map(async id => [id, await this.#get(id)] as const))
    return new Map(found)
  }

  async put (caCertificateId: string, settings: AuthoritySettings, revision: number) {
    const given = MEMBERS.filter(name => settings[name] !== undefined)
    const absent = MEMBERS.filter(name => settings[name] === undefined)
    const sets = ['revision = :next', ...given.map(name => `${name} = :${name}`)]
    try {
      await this.#update(caCertificateId, {
        ConditionExpression: revision === 0 ? 'attribute_not_exists(revision)' : 'revision = :revision',
        UpdateExpression: `SET ${sets.join(', ')}${absent.length > 0 ? ` REMOVE ${absent.join(', ')}` : ''}`,
        ExpressionAttributeValues: {
          ':next': revision + 1,
          ...revision > 0 && { ':revision': revision },
          ...Object.fromEntries(given.map(name => [`:${name}`, settings[name]]))
        }
      })
      return { applied: true, settings: { ...settings, revision: revision + 1 } }
    } catch (cause) {
      if (!(cause instanceof ConditionalCheckFailedException)) throw unavailable(cause)
      return { applied: false, settings: await this.#get(caCertificateId) }
    }
  }

  async reset (caCertificateId: string): Promise<void> {
    try {
      await this.#update(caCertificateId, {
        ConditionExpression: 'attribute_exists(revision)',
        UpdateExpression: `SET revision = revision + :one REMOVE ${MEMBERS.join(', ')}`,
        ExpressionAttributeValues: { ':one': 1 }
      })
    } catch (cause) {
      if (!(cause instanceof ConditionalCheckFailedException)) throw unavailable(cause)
    }
  }

  async #get (caCertificateId: string): Promise<KeptSettings> {
    const get = new GetCommand({ TableName: this.#tableName, Key: keyOf(caCertificateId), ConsistentRead: true })
    const { Item = {} } = await orUnavailable(this.#client.send(get))
    const { intermediatesPem, crls, whenCrlUnavailable, products, revision = 0 } = Item as Row
    return {
      intermediatesPem,
      crls: crls ?? DEFAULT_SETTINGS.crls,
      // Whatever else stands there fails closed.
      whenCrlUnavailable: whenCrlUnavailable === 'accept' ? 'accept' : DEFAULT_SETTINGS.whenCrlUnavailable,
      products,
      revision
    }
  }

  #update (caCertificateId: string, update: Omit<UpdateCommand['input'], 'TableName' | 'Key'>) {
    return this.#client.send(new UpdateCommand({ TableName: this.#tableName, Key: keyOf(caCertificateId), ...update }))
  }
}

function keyOf (caCertificateId: string) {
  return { serialNumber: PREFIX + caCertificateId }
}
