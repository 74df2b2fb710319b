// The service as it is, but for the SDK: what it sends is answered in the same turn, so that all the CPU time of this process is its own
// code's.
// The answers are those of one device that is vended again and again.
import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { type AttributeValue, DynamoDBClient } from '@aws-sdk/client-dynamodb'
import { IoTClient } from '@aws-sdk/client-iot'
import { DynamoDBDocumentClient } from '@aws-sdk/lib-dynamodb'
import { pino } from 'pino'
import { buildApp } from '../../src/app.ts'
import { readConfig } from '../../src/config.ts'

interface Sent {
  readonly constructor: { readonly name: string }
  readonly input: { Key?: object, UpdateExpression?: string, ExpressionAttributeValues?: Record<string, AttributeValue> }
}
interface Device { readonly serialNumber: string, readonly certificatePem: string, readonly registrationToken: string }

const [device] = JSON.parse(process.argv[2] ?? '[]') as [Device]
const der = Buffer.from(device.certificatePem.replace(/-----[A-Z ]+-----|\s/g, ''), 'base64')
const certificateId = createHash('sha256').update(der).digest('hex')
const certificateArn = `arn:aws:iot:us-east-1:000000000000:cert/${certificateId}`
const ISSUED = { certificateId, certificateArn, certificatePem: device.certificatePem }
const rows = new Map<string | undefined, object>()

const expressions = new Map<string, { sets: [name: string, value: string][], removes: string[] }>()

function read (expression: string) {
  const known = expressions.get(expression)
  if (known) return known
  const sets = [...expression.matchAll(/([#\w]+) = (:\w+)/g)].map(([, name, value]): [string, string] => [name!.replace('#', ''), value!])
  const made = { sets, removes: /REMOVE (.*)$/.exec(expression)?.[1]?.split(', ') ?? [] }
  expressions.set(expression, made)
  return made
}

/** The row after a change, as DynamoDB would send it: what the expression sets, by the names of its values. */
function changed ({ UpdateExpression = '', ExpressionAttributeValues: values = {} }: Sent['input']): object {
  const claimId = values[':claimId']?.S
  const row: Record<string, unknown> = { serialNumber: { S: device.serialNumber }, ...rows.get(claimId) }
  const { sets, removes } = read(UpdateExpression)
  for (const [name, value] of sets) row[name] = values[value]
  for (const name of removes) delete row[name]
  if (row['claimId']) rows.set(claimId, row)
  else rows.delete(claimId)
  return row
}

DynamoDBDocumentClient.prototype.send = (async ({ input }: Sent) => ({ Attributes: changed(input) })) as never
DynamoDBClient.prototype.send = (async () => ({})) as never
IoTClient.prototype.send = (async ({ constructor: { name } }: Sent) => name === 'CreateCertificateFromCsrCommand' ? ISSUED : {}) as never

const config = readConfig({
  NODE_ENV: 'production',
  TOKEN_PEPPER: Buffer.alloc(32, 1).toString('base64'),
  IOT_ENDPOINT: 'bench.iot.us-east-1.amazonaws.com',
  AWS_IOT_QUOTA_FACTOR: '0',
  CREATE_TABLES: 'false',
  RATE_LIMIT_ADDRESS_MAX: '1000000000',
  RATE_LIMIT_SERIAL_MAX: '1000000000',
  RECONCILE_INTERVAL_MS: '600000',
  MAX_EVENT_LOOP_DELAY_MS: '600000'
})
const { version } = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8')) as { version: string }
const app = await buildApp(config, { log: pino({ level: config.LOG_LEVEL }, pino.destination('/dev/null')), version, rootCaPem: device.certificatePem })
process.on('message', message => {
  if (message === 'collect') globalThis.gc!()
  process.send!(process.memoryUsage().heapUsed)
})
process.send!(await app.service.listen({ host: '127.0.0.1', port: 0 }))
process.on('disconnect', () => process.exit())
