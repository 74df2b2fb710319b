import path from 'node:path'
import { Account } from './account.ts'
import { serverCertificate, serverRoot, type Credentials } from './ca.ts'
import { devicePolicy } from './device-policy.ts'
import { startDynamodb } from './dynamodb.ts'
import type { FaultPlan } from './faults.ts'
import { lockFolder } from './folder-lock.ts'
import { startIot } from './iot.ts'
import { DeviceIssuer } from './issuer.ts'
import { startListeners } from './listeners.ts'
import type { Log } from './log.ts'
import { startMqttBroker } from './mqtt-broker.ts'
import type { Queued } from './queues.ts'
import { Quotas } from './quotas.ts'
import { StateFile } from './state.ts'

/** The port clients assume for MQTT over TLS; only another one has to be told. */
const MQTT_PORT = 8883

/** What the local AWS is started with. Port 0 takes any free one. */
export interface LocalSettings {
  host: string
  iotPort: number
  mqttPort: number
  dynamodbPort: number
  /** A DynamoDB that runs elsewhere; given, none is started here. */
  dynamodbUrl?: string
  /** Where the CA, the state of AWS IoT and the tables are kept; '' keeps everything in memory. */
  dir: string
  /** The device policy made at the start, limited to the device's own topics and shadows. */
  policyName: string
  /** Names besides localhost that the servers answer to. */
  serverNames?: string[]
  /** The AWS Region that ARNs name; us-east-1 unless given. */
  region?: string
  /** AWS's default request quotas times this; 0 or absent, there are none. */
  quotas?: number
  /** Faults to inject, which also opens the door to change them at run time (faults.ts); absent, there is none of it. */
  faults?: FaultPlan | undefined
  /** How long a rule's http action may take, all tries together; AWS's 3000 ms unless given. */
  ruleTimeoutMs?: number
  log: Log
}

/** A running local AWS: its addresses, and what a server needs to present a certificate its root vouches for. */
export interface LocalAws {
  iotUrl: string
  mqttUrl: string
  dynamodbUrl: string
  rootCaPem: string
  serverTls: Credentials
  /** What rules have sent to SQS, of which there is none here. */
  queued (): readonly Queued[]
  close (): Promise<void>
}

interface Part { close: () => Promise<void> }

/**
 * Starts AWS IoT Core (control plane, MQTT broker), a CA and DynamoDB on this machine. All or nothing: when a port cannot be had it
 * rejects with PortUnavailableError, which names the setting, and leaves nothing running.
 */
export async function startLocal (settings: LocalSettings): Promise<LocalAws> {
  const { dir, host, log } = settings
  const region = settings.region ?? 'us-east-1'
  const parts: Part[] = []
  const started = async <T extends Part>(part: Promise<T>): Promise<T> => {
    const running = await part
    parts.unshift(running)
    return running
  }
  // Last started is first closed, so that the state is written when nothing changes it any more; one part that fails to close must
  // not keep the others open.
  const close = async (): Promise<void> => {
    const failures: unknown[] = []
    for (const part of parts.splice(0)) await part.close().catch((error: unknown) => failures.push(error))
    if (failures.length > 0) throw failures[0]
  }
  try {
    if (dir !== '') await started(lockFolder(dir))
    const root = await serverRoot(dir)
    const serverTls = await serverCertificate(root, settings.serverNames ?? [])
    const state = dir === '' ? undefined : await started(StateFile.read(dir, region, log))
    const account = new Account(region, await DeviceIssuer.create(), new Quotas(settings.quotas))
    if (state !== undefined) {
      state.restore(account.stores)
      account.state = state
    }
    const { policies, tags } = account
    if (policies.find(settings.policyName) === undefined) {
      tags.create(policies.create(settings.policyName, JSON.stringify(devicePolicy(account.arnPrefix), null, 2)).arn)
    }
    account.touch()
    await state?.settled()

    const tables = dir === '' ? '' : path.join(dir, 'dynamodb')
    const dynamodbUrl = settings.dynamodbUrl ?? (await started(startDynamodb(host, settings.dynamodbPort, tables))).url
    const mqtt = await started(startMqttBroker(account, serverTls, host, settings.mqttPort, log))
    account.endpoint = mqtt.port === MQTT_PORT ? 'localhost' : `localhost:${mqtt.port}`
    const iot = await started(startIot(account, host, settings.iotPort, log, settings.faults))
    account.apiUrl = iot.url
    const listeners = startListeners(account, root.cert, settings.ruleTimeoutMs, log)
    parts.unshift(listeners)
    return { iotUrl: iot.url, mqttUrl: mqtt.url, dynamodbUrl, rootCaPem: root.cert, serverTls, queued: listeners.queued, close }
  } catch (error) {
    await close()
    throw error
  }
}
