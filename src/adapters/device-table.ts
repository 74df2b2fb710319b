import { type CreateTableCommandInput, CreateTableCommand, type DynamoDBClient, ResourceInUseException } from '@aws-sdk/client-dynamodb'

/** The sparse index of unfinished rows, in the order in which their claims expire. */
export const UNFINISHED_INDEX = 'unfinished'

/** Finds the device that has a certificate. */
export const CERTIFICATE_INDEX = 'certificate'

/** Lists the devices of a product, by state. */
export const PRODUCT_INDEX = 'product'

/** The registry's table, as Terraform makes it in production. */
export function deviceTable (tableName: string): CreateTableCommandInput {
  return {
    TableName: tableName,
    BillingMode: 'PAY_PER_REQUEST',
    AttributeDefinitions: [
      { AttributeName: 'serialNumber', AttributeType: 'S' },
      { AttributeName: 'unfinished', AttributeType: 'S' },
      { AttributeName: 'claimExpiresAt', AttributeType: 'N' },
      { AttributeName: 'certificateId', AttributeType: 'S' },
      { AttributeName: 'product', AttributeType: 'S' },
      { AttributeName: 'listing', AttributeType: 'S' }
    ],
    KeySchema: [{ AttributeName: 'serialNumber', KeyType: 'HASH' }],
    GlobalSecondaryIndexes: [{
      IndexName: UNFINISHED_INDEX,
      KeySchema: [{ AttributeName: 'unfinished', KeyType: 'HASH' }, { AttributeName: 'claimExpiresAt', KeyType: 'RANGE' }],
      Projection: { ProjectionType: 'KEYS_ONLY' }
    }, {
      IndexName: CERTIFICATE_INDEX,
      KeySchema: [{ AttributeName: 'certificateId', KeyType: 'HASH' }],
      Projection: { ProjectionType: 'KEYS_ONLY' }
    }, {
      IndexName: PRODUCT_INDEX,
      KeySchema: [{ AttributeName: 'product', KeyType: 'HASH' }, { AttributeName: 'listing', KeyType: 'RANGE' }],
      Projection: { ProjectionType: 'INCLUDE', NonKeyAttributes: ['certificateId', 'notAfter'] }
    }]
  }
}

/** Creates the registry's table where there is none: for laptops and tests, never in production. */
export async function ensureDeviceTable (client: DynamoDBClient, tableName: string): Promise<void> {
  try {
    await client.send(new CreateTableCommand(deviceTable(tableName)))
  } catch (cause) {
    if (!(cause instanceof ResourceInUseException)) throw cause
  }
}
