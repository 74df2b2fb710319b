import {
  type CreateTableCommandInput, DescribeTableCommand, DescribeTimeToLiveCommand, type DynamoDBClient, type GlobalSecondaryIndexDescription,
  type KeySchemaElement, type Projection, type TableDescription
} from '@aws-sdk/client-dynamodb'
import type { SetupCheck, SetupFault } from '../vending/setup.ts'

/** What a table must be, and what that means to the service. */
export interface WantedTable {
  /** As the table is created where that is the service's task. */
  wanted: CreateTableCommandInput
  /** The setting that names the table. */
  setting: string
  /** Where Terraform makes it. */
  resource: string
  /** Whether the service cannot work without it. */
  isNeeded: boolean
  /** What becomes of the service without it, in words. */
  without: string
  /** The attribute by which DynamoDB deletes old rows. */
  ttl?: string
}

/** A table in such a state cannot be used, and will not come back by itself. */
const LOST: ReadonlySet<string> = new Set(['DELETING', 'INACCESSIBLE_ENCRYPTION_CREDENTIALS', 'ARCHIVING', 'ARCHIVED'])

/**
 * The checks of one table: that it is there, with its keys and indexes (`DescribeTable`), and with its TTL (`DescribeTimeToLive`). More
 * than what is needed is no fault: further indexes, and wider projections. `region` is for the texts.
 */
export function tableChecks (client: DynamoDBClient, table: WantedTable, region: string): SetupCheck[] {
  const { TableName = '' } = table.wanted
  const subject = `the table ${TableName} in ${region}`
  const about = { subject, dependency: 'dynamodb' } as const
  const describe: SetupCheck = {
    ...about,
    action: 'dynamodb:DescribeTable',
    async look (signal) {
      try {
        const { Table } = await client.send(new DescribeTableCommand({ TableName }), { abortSignal: signal })
        if (!Table) throw new Error('DynamoDB sent no description')
        return faultsOf(Table, table, subject)
      } catch (cause) {
        if ((cause as Error).name !== 'ResourceNotFoundException') throw cause
        return [fault('table', table, `${subject} does not exist: ${table.without}. ${mend(table)}, or let ${table.setting} name the right one and AWS_REGION its Region.`)]
      }
    }
  }
  const { ttl } = table
  return ttl === undefined ? [describe] : [describe, { ...about, action: 'dynamodb:DescribeTimeToLive', look: signal => lookAtTtl(client, table, ttl, signal) }]
}

function faultsOf ({ TableStatus = 'ACTIVE', KeySchema, AttributeDefinitions, GlobalSecondaryIndexes = [] }: TableDescription, table: WantedTable, subject: string): SetupFault[] {
  const { wanted } = table
  if (LOST.has(TableStatus)) return [fault('table', table, `${subject} is ${TableStatus}: ${table.without}. ${mend(table)}.`)]
  if (TableStatus === 'CREATING') return [passing('table', `${subject} is still being created.`)]
  const types = new Map(AttributeDefinitions?.map(({ AttributeName, AttributeType }) => [AttributeName, AttributeType]))
  const keyOf = (schema: readonly KeySchemaElement[] = [], typeOf: (name: string) => string | undefined = name => types.get(name)) =>
    schema.map(({ AttributeName = '', KeyType = '' }) => `${AttributeName} (${KeyType}, ${typeOf(AttributeName) ?? 'no type'})`).join(' and ') || 'none'
  const wantedKey = (schema: readonly KeySchemaElement[] | undefined) =>
    keyOf(schema, name => wanted.AttributeDefinitions?.find(({ AttributeName }) => AttributeName === name)?.AttributeType)

  if (keyOf(KeySchema) !== wantedKey(wanted.KeySchema)) {
    const text = `${subject} has the key ${keyOf(KeySchema)}, and must have ${wantedKey(wanted.KeySchema)}: ${table.without}. A key cannot be changed: make another table (infra/registry.tf, ${table.resource}) and let ${table.setting} name it.`
    return [fault('key', table, text)]
  }
  return (wanted.GlobalSecondaryIndexes ?? []).flatMap(index => {
    const { IndexName, KeySchema, Projection } = index
    const needed = `the key ${wantedKey(KeySchema)} and the projection ${projectionOf(Projection)}`
    const found = GlobalSecondaryIndexes.find(each => each.IndexName === IndexName)
    const name = `the index ${IndexName} of ${subject}`
    if (!found || found.IndexStatus === 'DELETING') return fault('index', table, `${name} ${found ? 'is being deleted' : 'does not exist'}. It needs ${needed}. ${mend(table)}.`)
    if (keyOf(found.KeySchema) !== wantedKey(KeySchema) || !holds(found, Projection)) {
      const has = `the key ${keyOf(found.KeySchema)} and the projection ${projectionOf(found.Projection)}`
      return fault('index', table, `${name} has ${has}, and must have ${needed}. An index cannot be changed: delete it, then apply infra/registry.tf (${table.resource}).`)
    }
    return found.IndexStatus === 'CREATING' ? passing('index', `${name} is still being built; lists and reconcile fail until then.`) : []
  })
}

async function lookAtTtl (client: DynamoDBClient, table: WantedTable, ttl: string, signal: AbortSignal): Promise<SetupFault[]> {
  const { TableName = '' } = table.wanted
  try {
    const { TimeToLiveDescription: told } = await client.send(new DescribeTimeToLiveCommand({ TableName }), { abortSignal: signal })
    const isOn = told?.TimeToLiveStatus === 'ENABLED' || told?.TimeToLiveStatus === 'ENABLING'
    if (isOn && told.AttributeName === ttl) return []
    const has = isOn ? `by the attribute ${told.AttributeName}` : 'off'
    const text = `The TTL of the table ${TableName} is ${has}, and must be by ${ttl}: old rows stay and are paid for. ${mend(table)}, or: aws dynamodb update-time-to-live --table-name ${TableName} --time-to-live-specification Enabled=true,AttributeName=${ttl}`
    return [{ ...fault('ttl', table, text), isFatal: false }]
  } catch (cause) {
    // A table that is not there is the other check's affair; the local DynamoDB has no TTL.
    if (['ResourceNotFoundException', 'UnknownOperationException'].includes((cause as Error).name)) return []
    throw cause
  }
}

/** Whether an index holds at least what is wanted of it. */
function holds ({ Projection: found }: GlobalSecondaryIndexDescription, wanted: Projection | undefined): boolean {
  if (found?.ProjectionType === 'ALL') return true
  return wanted?.ProjectionType !== 'ALL' && (wanted?.NonKeyAttributes ?? []).every(name => found?.NonKeyAttributes?.includes(name))
}

function projectionOf ({ ProjectionType, NonKeyAttributes = [] }: Projection = {}): string {
  return [ProjectionType ?? 'none', ...NonKeyAttributes].join(' ')
}

function mend ({ resource }: WantedTable): string {
  return `Apply infra/registry.tf (${resource})`
}

function fault (part: SetupFault['part'], { isNeeded }: WantedTable, text: string): SetupFault {
  return { part, dependency: 'dynamodb', isFatal: isNeeded, text: capital(text) }
}

/** Faults that end by themselves. */
function passing (part: SetupFault['part'], text: string): SetupFault {
  return { part, dependency: 'dynamodb', isFatal: false, text: capital(text) }
}

function capital (text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1)
}
