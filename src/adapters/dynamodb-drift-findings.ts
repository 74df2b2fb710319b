import { ConditionalCheckFailedException } from '@aws-sdk/client-dynamodb'
import { type DynamoDBDocumentClient, GetCommand, QueryCommand, UpdateCommand } from '@aws-sdk/lib-dynamodb'
import {
  type Acceptance, type Difference, type DriftFindings, FINDING_KINDS, type Finding, type FindingKind, type FindingPage, type Reported,
  type SweepPosition, noFindings
} from '../vending/drift-findings.ts'
import { all, orUnavailable, unavailable } from './device-rows.ts'
import { UNFINISHED_INDEX } from './device-table.ts'
import { cursorOf, keyIn } from './index-cursor.ts'

/** Rows of the table that are no devices have a character in their key that no serial number has. */
const PREFIX = '#drift/'
const POSITION = '#sweep/drift'

/** The partitions of the sparse index for findings that are open, and for those that were accepted. */
const OPEN = 'drift'
const ACCEPTED = 'drift-accepted'

/** A finding as DynamoDB holds it. Once it has ended it is in neither partition, and its row stays as a trace. */
interface FindingRow {
  device: string
  kind: FindingKind
  product: string
  about?: string
  registry: string
  aws: string
  unfinished?: typeof OPEN | typeof ACCEPTED
  /** When it was found: the sort key of the sparse index. */
  claimExpiresAt?: number
  accepted?: Acceptance
}

const AS_SEEN = all('registry = :registry', 'aws = :aws', 'about = :about', 'attribute_exists(unfinished)')

/** Findings of drift and the sweep's position, in the registry's table: one small row each, listed by the sparse index. */
export class DynamoDbDriftFindings implements DriftFindings {
  readonly #client: DynamoDBDocumentClient
  readonly #tableName: string

  constructor (client: DynamoDBDocumentClient, tableName: string) {
    this.#client = client
    this.#tableName = tableName
  }

  async report (difference: Difference, now: number): Promise<Reported> {
    const { serialNumber, kind, product } = difference
    const before = await this.#change(keyOf(serialNumber, kind), {
      ConditionExpression: 'attribute_not_exists(unfinished) OR NOT registry = :registry OR NOT aws = :aws OR NOT about = :about',
      UpdateExpression: 'SET device = :device, kind = :kind, product = :product, about = :about, registry = :registry, aws = :aws, ' +
        'unfinished = :open, claimExpiresAt = :now REMOVE accepted, endedAt',
      ExpressionAttributeValues: { ...seen(difference), ':device': serialNumber, ':kind': kind, ':product': product, ':open': OPEN, ':now': now }
    })
    if (!before) return 'known'
    return before['unfinished'] === undefined ? 'new' : 'changed'
  }

  async end (serialNumber: string, kind: FindingKind, now: number): Promise<boolean> {
    return await this.#change(keyOf(serialNumber, kind), {
      ConditionExpression: 'attribute_exists(unfinished)',
      UpdateExpression: 'SET endedAt = :now REMOVE unfinished, claimExpiresAt',
      ExpressionAttributeValues: { ':now': now }
    }) !== undefined
  }

  async accept (finding: Finding, acceptance: Acceptance): Promise<boolean> {
    return await this.#change(keyOf(finding.serialNumber, finding.kind), {
      ConditionExpression: AS_SEEN,
      UpdateExpression: 'SET unfinished = :accepted, accepted = :acceptance',
      ExpressionAttributeValues: { ...seen(finding), ':accepted': ACCEPTED, ':acceptance': acceptance }
    }) !== undefined
  }

  async of (serialNumber: string): Promise<Finding[]> {
    const rows = await Promise.all(FINDING_KINDS.map(kind => this.#find(keyOf(serialNumber, kind))))
    return rows.flatMap(findingOf)
  }

  async list (isAccepted: boolean, limit: number, cursor?: string): Promise<FindingPage> {
    const partition = isAccepted ? ACCEPTED : OPEN
    const start = cursor === undefined ? undefined : keyIn(cursor, partition)
    const { Items = [], LastEvaluatedKey } = await this.#query(partition, start, limit)
    const rows = await Promise.all(Items.map(({ serialNumber }) => this.#find(serialNumber as string)))
    // The index may lag behind a row that has ended or moved since.
    const findings = rows.filter(row => row?.unfinished === partition).flatMap(findingOf)
    return { findings, ...(LastEvaluatedKey && { nextCursor: cursorOf(LastEvaluatedKey) }) }
  }

  async count (): Promise<Record<FindingKind, number>> {
    const counts = noFindings()
    let start: Record<string, unknown> | undefined
    do {
      const { Items = [], LastEvaluatedKey } = await this.#query(OPEN, start)
      for (const { serialNumber } of Items) {
        const kind = (serialNumber as string).slice(PREFIX.length).split('/', 1)[0] as FindingKind
        if (kind in counts) counts[kind] += 1
      }
      start = LastEvaluatedKey
    } while (start)
    return counts
  }

  async position (): Promise<SweepPosition | undefined> {
    const get = new GetCommand({ TableName: this.#tableName, Key: { serialNumber: POSITION }, ConsistentRead: true })
    const { Item } = await orUnavailable(this.#client.send(get))
    return Item?.['position'] as SweepPosition | undefined
  }

  async move (position: SweepPosition): Promise<SweepPosition | undefined> {
    const next = { ...position, revision: position.revision + 1 }
    const applied = await this.#change(POSITION, {
      ConditionExpression: position.revision === 0 ? 'attribute_not_exists(#position)' : '#position.revision = :seen',
      UpdateExpression: 'SET #position = :position',
      ExpressionAttributeNames: { '#position': 'position' },
      ExpressionAttributeValues: { ':position': next, ...position.revision > 0 && { ':seen': position.revision } }
    })
    return applied && next
  }

  async #find (key: string): Promise<FindingRow | undefined> {
    const get = new GetCommand({ TableName: this.#tableName, Key: { serialNumber: key }, ConsistentRead: true })
    return (await orUnavailable(this.#client.send(get))).Item as FindingRow | undefined
  }

  #query (partition: string, start: Record<string, unknown> | undefined, limit?: number) {
    return orUnavailable(this.#client.send(new QueryCommand({
      TableName: this.#tableName,
      IndexName: UNFINISHED_INDEX,
      KeyConditionExpression: 'unfinished = :partition',
      ExpressionAttributeValues: { ':partition': partition },
      ...(limit !== undefined && { Limit: limit }),
      ...(start && { ExclusiveStartKey: start })
    })))
  }

  /** The row before the change; undefined where its condition does not hold. */
  async #change (
    key: string, change: Omit<ConstructorParameters<typeof UpdateCommand>[0], 'TableName' | 'Key'>
  ): Promise<Record<string, unknown> | undefined> {
    const command = new UpdateCommand({ TableName: this.#tableName, Key: { serialNumber: key }, ReturnValues: 'ALL_OLD', ...change })
    try {
      return (await this.#client.send(command)).Attributes ?? {}
    } catch (cause) {
      if (cause instanceof ConditionalCheckFailedException) return undefined
      throw unavailable(cause)
    }
  }
}

function keyOf (serialNumber: string, kind: FindingKind): string {
  return `${PREFIX}${kind}/${serialNumber}`
}

function seen ({ registry, aws, certificateId = '' }: Difference): Record<string, unknown> {
  return { ':registry': registry, ':aws': aws, ':about': certificateId }
}

function findingOf (row: FindingRow | undefined): Finding[] {
  if (row?.unfinished === undefined) return []
  const { device: serialNumber, kind, product, about, registry, aws, claimExpiresAt: foundAt = 0, accepted } = row
  return [{ serialNumber, kind, product, ...(about && { certificateId: about }), registry, aws, foundAt, ...(accepted && { accepted }) }]
}
