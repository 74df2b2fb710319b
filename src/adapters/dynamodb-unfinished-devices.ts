import { ConditionalCheckFailedException } from '@aws-sdk/client-dynamodb'
import { DeleteCommand, type DynamoDBDocumentClient, GetCommand, PutCommand, QueryCommand, UpdateCommand } from '@aws-sdk/lib-dynamodb'
import type { Turn } from '../vending/deferrals.ts'
import { type Device, isAdopted, owesRecheck, waitsUntil } from '../vending/device.ts'
import type { WriteResult } from '../vending/device-registry.ts'
import type { Author, OrphanSearch, QuarantinePage, UnfinishedDevices } from '../vending/unfinished-devices.ts'
import { findOrFault } from '../vending/unreadable-device.ts'
import { QUARANTINED, UNFINISHED } from './device-row.ts'
import {
  CERTIFICATE_IS_THE_ONE_SEEN, CLAIM_HAS_EXPIRED, DeviceRows, END_SUSPICION, type OnQuarantined,
  IS_ISSUED, IS_ISSUING, NO_CERTIFICATE, all, claimAsSeen, claimSeen, orUnavailable, renewalAsSeen, renewalSeen, story, unavailable
} from './device-rows.ts'
import { UNFINISHED_INDEX } from './device-table.ts'
import { cursorOf, keyIn } from './index-cursor.ts'

/** Rows of the table that are no devices have a character in their key that no serial number has. */
const LEASE_PREFIX = '#lease/'
const SEARCH_KEY = { serialNumber: '#search/orphans' } as const

/** Keys that one list looks at: 64 KB of the index for a thousand. */
const MOST_KEYS = 20_000

/** The unfinished devices in the registry's table, by its sparse index. */
export class DynamoDbUnfinishedDevices implements UnfinishedDevices {
  readonly #rows: DeviceRows

  constructor (client: DynamoDBDocumentClient, tableName: string, onQuarantined?: OnQuarantined) {
    this.#rows = new DeviceRows(client, tableName, onQuarantined)
  }

  async list (now: number, limit: number, turnOf: (serialNumber: string) => Turn = () => 'first'): Promise<Device[]> {
    const keys = await this.#keysByTurn(now, limit, turnOf)
    const found = await Promise.all(keys.map(serialNumber => findOrFault(this.#rows, serialNumber)))
    // A row that cannot be read went into quarantine as it was read.
    return found.map(({ device }) => device).filter(device => device !== undefined)
  }

  async quarantined (limit: number, cursor?: string): Promise<QuarantinePage> {
    const { Items = [], LastEvaluatedKey } = await orUnavailable(this.#rows.client.send(new QueryCommand({
      TableName: this.#rows.tableName,
      IndexName: UNFINISHED_INDEX,
      KeyConditionExpression: 'unfinished = :quarantined',
      ExpressionAttributeValues: { ':quarantined': QUARANTINED },
      Limit: limit,
      ...(cursor !== undefined && { ExclusiveStartKey: keyIn(cursor, QUARANTINED) })
    })))
    const found = await Promise.all(Items.map(({ serialNumber }) => findOrFault(this.#rows, serialNumber as string)))
    return {
      faults: found.flatMap(({ unreadable }) => unreadable ? [unreadable.fault] : []),
      readable: found.flatMap(({ device }) => device ? [device] : []),
      ...(LastEvaluatedKey && { nextCursor: cursorOf(LastEvaluatedKey) })
    }
  }

  readmit (device: Device): Promise<WriteResult> {
    return this.#rows.change({
      serialNumber: device.serialNumber,
      condition: 'unfinished = :quarantined',
      update: 'SET unfinished = :unfinished',
      values: { ':quarantined': QUARANTINED, ':unfinished': UNFINISHED }
    })
  }

  find (serialNumber: string): Promise<Device | undefined> {
    return this.#rows.find(serialNumber)
  }

  async count (now: number, limit: number): Promise<number> {
    const { Count = 0 } = await orUnavailable(this.#rows.client.send(new QueryCommand({ ...this.#waiting(now), Limit: limit, Select: 'COUNT' })))
    return Count
  }

  free (device: Device, author: Author): Promise<WriteResult> {
    return this.#rows.change({
      serialNumber: device.serialNumber,
      condition: all(IS_ISSUING, claimAsSeen(device), CLAIM_HAS_EXPIRED),
      update: 'SET #state = :registered, #history = :history REMOVE claimId, way, publicKeyFingerprint',
      values: {
        ':issuing': 'ISSUING',
        ':registered': 'REGISTERED',
        ...claimSeen(device),
        ':now': author.now,
        ':history': story(device, author, 'freed')
      }
    })
  }

  abandon (device: Device, author: Author): Promise<WriteResult> {
    const { certificateId = '', way = 'csr' } = device.certificate ?? {}
    const retires = !isAdopted(way)
    return this.#rows.change({
      serialNumber: device.serialNumber,
      condition: all(IS_ISSUED, claimAsSeen(device), CLAIM_HAS_EXPIRED, CERTIFICATE_IS_THE_ONE_SEEN),
      update: `SET #state = :registered, #history = :history${retires ? ' ADD retiring :abandoned' : ''} REMOVE claimId, way, ${NO_CERTIFICATE}`,
      values: {
        ':issued': 'ISSUED',
        ':registered': 'REGISTERED',
        ...claimSeen(device),
        ':now': author.now,
        ':certificateId': certificateId,
        ...retires && { ':abandoned': new Set([certificateId]) },
        ':history': story(device, author, 'abandoned', { certificateId })
      }
    })
  }

  revoked (device: Device, author: Author): Promise<WriteResult> {
    const { certificateId = '' } = device.certificate ?? {}
    return this.#rows.change({
      serialNumber: device.serialNumber,
      condition: all(CERTIFICATE_IS_THE_ONE_SEEN, '#state IN (:issued, :active, :disabled)', 'NOT renewal.phase = :swapping'),
      update: 'SET #state = :revoked, #history = :history REMOVE claimId',
      values: {
        ':issued': 'ISSUED',
        ':active': 'ACTIVE',
        ':disabled': 'DISABLED',
        ':revoked': 'REVOKED',
        ':swapping': 'swapping',
        ':certificateId': certificateId,
        ':history': story(device, author, 'revoked', { certificateId })
      }
    })
  }

  clearSuspicion (device: Device): Promise<WriteResult> {
    // Any change since may be an attempt that has begun, and even ended: only the revision tells.
    const { serialNumber, revision, suspicion } = device
    return this.#rows.change({
      serialNumber,
      condition: all('suspectClaimId = :suspectClaimId', revision > 0 ? 'revision = :seen' : 'attribute_not_exists(revision)'),
      update: `REMOVE ${END_SUSPICION}`,
      values: { ':suspectClaimId': suspicion?.claimId, ...(revision > 0 && { ':seen': revision }) }
    })
  }

  postpone ({ serialNumber, revision }: Device, until: number): Promise<WriteResult> {
    return this.#rows.change({
      serialNumber,
      condition: all(revision > 0 ? 'revision = :seen' : 'attribute_not_exists(revision)', 'NOT #state IN (:issuing, :issued)'),
      update: 'SET claimExpiresAt = :until',
      values: { ':until': until, ':issuing': 'ISSUING', ':issued': 'ISSUED', ...(revision > 0 && { ':seen': revision }) }
    })
  }

  async orphanSearch (): Promise<OrphanSearch | undefined> {
    const { client, tableName } = this.#rows
    const get = new GetCommand({ TableName: tableName, Key: SEARCH_KEY, ConsistentRead: true })
    const { Item } = await orUnavailable(client.send(get))
    return (Item as { search?: OrphanSearch } | undefined)?.search
  }

  async keepOrphanSearch (search: OrphanSearch | undefined): Promise<void> {
    const { client, tableName } = this.#rows
    await orUnavailable(search === undefined
      ? client.send(new DeleteCommand({ TableName: tableName, Key: SEARCH_KEY }))
      : client.send(new PutCommand({ TableName: tableName, Item: { ...SEARCH_KEY, search } })))
  }

  disposed (device: Device, certificateId: string, author: Author): Promise<WriteResult> {
    return this.#rows.change({
      serialNumber: device.serialNumber,
      condition: 'contains(retiring, :certificateId)',
      update: 'SET #history = list_append(#history, :entry) DELETE retiring :disposed',
      values: {
        ':certificateId': certificateId,
        ':disposed': new Set([certificateId]),
        ':entry': [{ at: author.now, event: 'disposed', requestId: author.requestId, certificateId }]
      }
    })
  }

  settle (device: Device, comparedAt: number): Promise<WriteResult> {
    const { recheckAt, renewal } = device
    const until = waitsUntil(device, comparedAt)
    const conditions = ['NOT #state IN (:issuing, :issued)', 'attribute_not_exists(retiring)', 'attribute_not_exists(suspectClaimId)',
      'attribute_not_exists(pending)', renewal?.phase === 'issued' ? renewalAsSeen(device) : 'attribute_not_exists(renewal)',
      recheckAt === undefined ? 'attribute_not_exists(recheckAt)' : 'recheckAt = :recheckAt']
    return this.#rows.change({
      serialNumber: device.serialNumber,
      condition: all(...conditions),
      update: [
        until === undefined ? 'REMOVE unfinished, claimExpiresAt' : 'SET claimExpiresAt = :until',
        ...recheckAt === undefined || owesRecheck(device, comparedAt) ? [] : [until === undefined ? ', recheckAt' : ' REMOVE recheckAt']
      ].join(''),
      values: {
        ':issuing': 'ISSUING',
        ':issued': 'ISSUED',
        ...(until !== undefined && { ':until': until }),
        ...(renewal?.phase === 'issued' && renewalSeen(device)),
        ...(recheckAt !== undefined && { ':recheckAt': recheckAt })
      }
    })
  }

  async lease (name: string, owner: string, now: number, expiresAt: number): Promise<boolean> {
    try {
      await this.#rows.client.send(new UpdateCommand({
        TableName: this.#rows.tableName,
        Key: { serialNumber: LEASE_PREFIX + name },
        ConditionExpression: 'attribute_not_exists(leaseOwner) OR leaseOwner = :owner OR leaseExpiresAt <= :now',
        UpdateExpression: 'SET leaseOwner = :owner, leaseExpiresAt = :expiresAt',
        ExpressionAttributeValues: { ':owner': owner, ':now': now, ':expiresAt': expiresAt }
      }))
      return true
    } catch (cause) {
      if (cause instanceof ConditionalCheckFailedException) return false
      throw unavailable(cause)
    }
  }

  /** Up to `limit`, the first ones first; looks on behind those that have had their turn, up to a bound. */
  async #keysByTurn (now: number, limit: number, turnOf: (serialNumber: string) => Turn): Promise<string[]> {
    const keys: Record<Turn, string[]> = { first: [], last: [], 'not-yet': [] }
    let start: Record<string, unknown> | undefined
    let looked = 0
    do {
      const { Items = [], LastEvaluatedKey } = await orUnavailable(this.#rows.client.send(new QueryCommand({
        ...this.#waiting(now), Limit: limit, ...(start && { ExclusiveStartKey: start })
      })))
      for (const { serialNumber } of Items) keys[turnOf(serialNumber as string)].push(serialNumber as string)
      looked += Items.length
      start = LastEvaluatedKey
    } while (start && keys.first.length < limit && looked < MOST_KEYS)
    return [...keys.first, ...keys.last].slice(0, limit)
  }

  #waiting (now: number) {
    return {
      TableName: this.#rows.tableName,
      IndexName: UNFINISHED_INDEX,
      KeyConditionExpression: 'unfinished = :unfinished AND claimExpiresAt <= :now',
      ExpressionAttributeValues: { ':unfinished': UNFINISHED, ':now': now }
    }
  }
}
