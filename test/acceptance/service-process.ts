// The built service as a process of its own, and its two neighbours as an operator sees them: its table and AWS IoT.
import { randomBytes, randomUUID } from 'node:crypto'
import { existsSync, readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { DeleteTableCommand, DynamoDBClient, PutItemCommand, paginateScan } from '@aws-sdk/client-dynamodb'
import { type Certificate, IoTClient, paginateListCertificates } from '@aws-sdk/client-iot'
import { IoTDataPlaneClient } from '@aws-sdk/client-iot-data-plane'
import type { Test } from 'tap'
import { DYNAMODB_LOCAL_URL } from '../fixtures/dynamodb-local.ts'
import { LOCAL_AWS, type RunningProcess, SERVER, folder, start } from './processes.ts'

/** A DynamoDB to run a story on; without a url the service starts dynalite. */
export interface Engine { readonly name: string, readonly url?: string }

export type Endpoints = Readonly<Record<'serviceUrl' | 'opsUrl' | 'iotUrl' | 'dynamodbUrl' | 'mqttUrl', string>>

export interface Device { readonly serialNumber: string, readonly registrationToken: string }

/** The two services of AWS that the CVM works with, asked by clients of AWS's own. */
export interface Aws {
  readonly dynamodb: DynamoDBClient
  readonly iot: IoTClient
  readonly iotData: IoTDataPlaneClient
  readonly tableName: string
  /** Registers devices as the operator of the old services does: a row with a plain token. */
  readonly register: (device?: Partial<Device>) => Promise<Device>
  /** Every row of the table. */
  readonly rows: () => Promise<object[]>
  /** Every certificate that AWS IoT holds. */
  readonly certificates: () => Promise<Certificate[]>
}

/** The local AWS without the service. */
export interface LocalAws extends RunningProcess, Aws, Pick<Endpoints, 'iotUrl' | 'dynamodbUrl' | 'mqttUrl'> { readonly rootCa: string }

export interface ServiceProcess extends Endpoints, RunningProcess, Aws {
  /** CVM_LOCAL_DIR. */
  readonly dir: string
  /** File with the root that vouches for the service's own certificate. */
  readonly rootCa: string
}

/** Any key gets into the local AWS, but the SDKs want one. */
export const AWS_ENV = { AWS_ACCESS_KEY_ID: 'test', AWS_SECRET_ACCESS_KEY: 'test', AWS_REGION: 'us-east-1' }
const AWS_CLIENT = { region: AWS_ENV.AWS_REGION, credentials: { accessKeyId: 'test', secretAccessKey: 'test' } }

export const FREE_PORTS = { PORT: '0', OPS_PORT: '0', LOCAL_IOT_PORT: '0', LOCAL_MQTT_PORT: '0', LOCAL_DYNAMODB_PORT: '0' }

/** A busy machine answers late, and must be waited for. */
const PATIENT = { MAX_EVENT_LOOP_DELAY_MS: '600000', AWS_CALL_TIMEOUT_MS: '60000', SHUTDOWN_TIMEOUT_MS: '600000' }

/** The engines of this machine: dynalite always, DynamoDB Local where `npm test` found or was told one. */
const ENGINES: readonly Engine[] = [{ name: 'dynalite' }, ...DYNAMODB_LOCAL_URL ? [{ name: 'DynamoDB Local', url: DYNAMODB_LOCAL_URL }] : []]

/** Tells a story once on each engine. */
export async function onEachEngine (t: Test, story: (t: Test, engine: Engine) => Promise<void>): Promise<void> {
  if (!DYNAMODB_LOCAL_URL) t.comment('not tested on DynamoDB Local, because npm test could not start one')
  for (const engine of ENGINES) await t.test(`on ${engine.name}`, async t => await story(t, engine))
}

/** Tells a story once, on the best engine of this machine: one in which the registry plays no part of its own. */
export async function onBestEngine (t: Test, story: (t: Test, engine: Engine) => Promise<void>): Promise<void> {
  const engine = ENGINES.at(-1) as Engine
  await t.test(`on ${engine.name}`, async t => await story(t, engine))
}

/** Starts the service in local mode on free ports, with a folder and a table of its own, and waits until it is ready. */
export async function startService (t: Test, engine: Engine, env: Record<string, string> = {}): Promise<ServiceProcess> {
  const dir = env['CVM_LOCAL_DIR'] ?? folder(t)
  const tableName = `acceptance-${randomUUID()}`
  const file = join(dir, 'endpoints.json')
  rmSync(file, { force: true })
  const settings = {
    ...FREE_PORTS,
    ...PATIENT,
    DEVICE_TABLE: tableName,
    CVM_LOCAL_DIR: dir,
    ...engine.url && { AWS_ENDPOINT_URL_DYNAMODB: engine.url },
    ...env
  }
  const service = start(t, process.execPath, [SERVER], settings)
  // It greets once the file is complete.
  await service.said(output => (output.includes('Ctrl-C stops it') && existsSync(file)) || undefined)
  const endpoints = JSON.parse(readFileSync(file, 'utf8')) as Endpoints
  await mustBeReady(endpoints.opsUrl)
  return { ...service, ...endpoints, ...aws(t, endpoints, settings.DEVICE_TABLE), dir, rootCa: join(dir, 'root-ca.pem') }
}

/** Starts the local AWS alone, as `docker-compose.yml` does. */
export async function startLocalAws (t: Test, engine: Engine, env: Record<string, string> = {}): Promise<LocalAws> {
  const dir = env['CVM_LOCAL_DIR'] ?? folder(t)
  const settings = { ...FREE_PORTS, CVM_LOCAL_DIR: dir, ...engine.url && { AWS_ENDPOINT_URL_DYNAMODB: engine.url }, ...env }
  const local = start(t, process.execPath, [LOCAL_AWS], settings)
  const [, iotUrl, mqttUrl, dynamodbUrl] = await local.said(output =>
    /AWS IoT API +(\S+)\nMQTT +(\S+)\nDynamoDB +(\S+)\n/.exec(output) ?? undefined) as unknown as [string, string, string, string]
  const endpoints = { iotUrl, mqttUrl, dynamodbUrl }
  return { ...local, ...endpoints, ...aws(t, endpoints, `acceptance-${randomUUID()}`), rootCa: join(dir, 'root-ca.pem') }
}

/** Starts the service as production does, on AWS endpoints that are there already, and waits until it is ready. */
export async function startProduction (t: Test, on: LocalAws, env: Record<string, string>, program = SERVER) {
  const service = start(t, process.execPath, [program], {
    ...AWS_ENV,
    ...PATIENT,
    NODE_ENV: 'production',
    HOST: '127.0.0.1',
    PORT: '0',
    OPS_PORT: '0',
    AWS_ENDPOINT_URL_IOT: on.iotUrl,
    AWS_ENDPOINT_URL_IOT_DATA_PLANE: on.iotUrl,
    // The local AWS has no quotas unless asked.
    AWS_IOT_QUOTA_FACTOR: '0',
    AWS_ENDPOINT_URL_DYNAMODB: on.dynamodbUrl,
    DEVICE_TABLE: on.tableName,
    CREATE_TABLES: 'true',
    ROOT_CA_FILE: on.rootCa,
    ...env
  })
  const line = await service.said(output => output.split('\n').find(line => line.includes('"msg":"listening"') && line.endsWith('}')))
  const { serviceUrl, opsUrl } = JSON.parse(line) as Pick<Endpoints, 'serviceUrl' | 'opsUrl'>
  await mustBeReady(opsUrl)
  return { ...service, serviceUrl, opsUrl }
}

/** On a machine so busy that its event loop stood still, a service may say for a moment that it is overloaded. */
async function mustBeReady (opsUrl: string): Promise<void> {
  for (const deadline = Date.now() + 120_000; ;) {
    const response = await fetch(`${opsUrl}/readyz`)
    if (response.status === 200) return
    const why = await response.text()
    if (Date.now() > deadline) throw new Error(`the service listens, but /readyz says ${response.status} ${why}`)
    await delay(50)
  }
}

function aws (t: Test, { dynamodbUrl, iotUrl }: Pick<Endpoints, 'dynamodbUrl' | 'iotUrl'>, tableName: string): Aws {
  const dynamodb = new DynamoDBClient({ ...AWS_CLIENT, endpoint: dynamodbUrl })
  const iot = new IoTClient({ ...AWS_CLIENT, endpoint: iotUrl })
  const iotData = new IoTDataPlaneClient({ ...AWS_CLIENT, endpoint: iotUrl })
  t.teardown(async () => {
    // An engine that serves other tests too must not keep our table; one that has gone with the service has none.
    if (dynamodbUrl === DYNAMODB_LOCAL_URL) await dynamodb.send(new DeleteTableCommand({ TableName: tableName })).catch(() => {})
    dynamodb.destroy()
    iot.destroy()
    iotData.destroy()
  })
  return {
    dynamodb,
    iot,
    iotData,
    tableName,
    async register ({ serialNumber = `sn-${randomUUID()}`, registrationToken = randomBytes(32).toString('base64url') } = {}) {
      const row = { deviceToken: { S: registrationToken }, serialNumber: { S: serialNumber } }
      await dynamodb.send(new PutItemCommand({ TableName: tableName, Item: row }))
      return { serialNumber, registrationToken }
    },
    async rows () {
      const rows: object[] = []
      const pages = paginateScan({ client: dynamodb }, { TableName: tableName, ConsistentRead: true })
      for await (const { Items = [] } of pages) rows.push(...Items)
      return rows
    },
    async certificates () {
      const certificates: Certificate[] = []
      for await (const page of paginateListCertificates({ client: iot, pageSize: 50 }, {})) certificates.push(...page.certificates ?? [])
      return certificates
    }
  }
}
