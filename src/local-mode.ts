import { createHash, randomBytes } from 'node:crypto'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Logger } from 'pino'
import type { App, Surroundings } from './app.ts'
import { type ApiKey, type Config, ConfigError } from './config.ts'
import { startLocal } from './local/start.ts'
import { DEFAULT_PRODUCT } from './vending/device.ts'

/** Local mode as the process sees it: what replaces settings and surroundings, and what to say once everything listens. */
export interface LocalMode {
  settings: Pick<Config, 'API_KEYS' | 'JITR_SECRET' | 'AWS_ENDPOINT_URL_DYNAMODB' | 'AWS_ENDPOINT_URL_IOT' | 'AWS_ENDPOINT_URL_IOT_DATA_PLANE'>
  surroundings: Pick<Surroundings, 'tls' | 'rootCaPem' | 'credentials'>
  /** Registers the sample device, leaves the addresses in the local folder and prints what to try. */
  welcome: (app: App, urls: { serviceUrl: string, opsUrl: string }) => Promise<void>
  close: () => Promise<void>
}

/** Starts the stand-ins for AWS (DESIGN section 7). Rejects with an error that names the setting when a port is taken. */
export async function startLocalMode (config: Config, log: Logger): Promise<LocalMode> {
  const dir = config.CVM_LOCAL_DIR
  if (dir) mkdirSync(dir, { recursive: true, mode: 0o700 })
  const aws = await startLocal({
    host: config.HOST,
    iotPort: config.LOCAL_IOT_PORT,
    mqttPort: config.LOCAL_MQTT_PORT,
    dynamodbPort: config.LOCAL_DYNAMODB_PORT,
    ...(config.AWS_ENDPOINT_URL_DYNAMODB && { dynamodbUrl: config.AWS_ENDPOINT_URL_DYNAMODB }),
    dir,
    policyName: config.IOT_POLICY_NAME,
    region: config.AWS_REGION,
    log: log.child({ part: 'local' })
  }).catch((error: Error) => {
    const isAddress = (error.cause as NodeJS.ErrnoException | undefined)?.code === 'EADDRNOTAVAIL'
    throw isAddress ? new ConfigError([`HOST ${config.HOST} is no address of this machine`]) : error
  })
  return {
    settings: {
      API_KEYS: dir ? [...config.API_KEYS, keyOf(dir, 'operator'), keyOf(dir, 'line')] : config.API_KEYS,
      JITR_SECRET: config.JITR_SECRET || (dir && secretOf(dir)),
      AWS_ENDPOINT_URL_DYNAMODB: aws.dynamodbUrl,
      AWS_ENDPOINT_URL_IOT: aws.iotUrl,
      AWS_ENDPOINT_URL_IOT_DATA_PLANE: aws.iotUrl
    },
    surroundings: { tls: aws.serverTls, rootCaPem: aws.rootCaPem, credentials: { accessKeyId: 'local', secretAccessKey: 'local' } },
    async welcome (app, { serviceUrl, opsUrl }) {
      const { dynamodbUrl, iotUrl, mqttUrl } = aws
      if (dir) {
        const device = await sampleDevice(app, join(dir, 'demo-device.json'))
        keep(join(dir, 'root-ca.pem'), aws.rootCaPem)
        // Last, because its presence says that everything above is there.
        keep(join(dir, 'endpoints.json'), JSON.stringify({ serviceUrl, opsUrl, iotUrl, dynamodbUrl, mqttUrl }, null, 2))
        console.log(toTry(dir, device.serialNumber, { serviceUrl, opsUrl, mqttUrl, iotUrl }))
      }
    },
    close: () => aws.close()
  }
}

interface SampleDevice { serialNumber: string, registrationToken: string }

/** The device of the last start where its file is still there, else a new one; registered unless it is already. */
async function sampleDevice ({ registry, hashToken }: App, file: string): Promise<SampleDevice> {
  const device = readDevice(file) ?? {
    serialNumber: `demo-${randomBytes(3).toString('hex')}`,
    registrationToken: randomBytes(32).toString('base64url')
  }
  const tokenHash = hashToken(device.serialNumber, device.registrationToken)
  const { serialNumber } = device
  await registry.register({ serialNumber, product: DEFAULT_PRODUCT, tokenHash, tokenExpiresAt: undefined }, { now: Date.now(), requestId: 'local-mode' })
  keep(file, JSON.stringify(device, null, 2))
  return device
}

/** An API key of its own for this folder; the service knows its hash, as in production. */
function keyOf (dir: string, role: 'operator' | 'line'): ApiKey {
  const file = join(dir, `${role}.key`)
  const key = readKept(file) ?? `cvm_${randomBytes(32).toString('base64url')}`
  keep(file, key)
  return { name: 'local', role, hash: createHash('sha256').update(key.trim()).digest('hex') }
}

/** What a rule of the local AWS IoT Core is to send along with events of just-in-time registration. */
function secretOf (dir: string): string {
  const file = join(dir, 'jitr.secret')
  const secret = (readKept(file) ?? randomBytes(32).toString('hex')).trim()
  keep(file, secret)
  return secret
}

function readDevice (file: string): SampleDevice | undefined {
  const kept = readKept(file)
  return kept === undefined ? undefined : JSON.parse(kept) as SampleDevice
}

function readKept (file: string): string | undefined {
  try {
    return readFileSync(file, 'utf8')
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw cause
  }
}

function keep (file: string, content: string): void {
  writeFileSync(file, `${content.trimEnd()}\n`, { mode: 0o600 })
}

function toTry (dir: string, serialNumber: string, urls: Record<'serviceUrl' | 'opsUrl' | 'mqttUrl' | 'iotUrl', string>): string {
  return `
The Certificate Vending Machine runs in local mode: no AWS account, nothing outside this machine.

  service  ${urls.serviceUrl}    health and metrics  ${urls.opsUrl}
  MQTT     ${urls.mqttUrl}    AWS IoT API         ${urls.iotUrl}

A sample device is registered: ${serialNumber} (its token is in ${join(dir, 'demo-device.json')}). To try, in another terminal:

  npm run cvm -- device enroll --device-file ${join(dir, 'demo-device.json')} --out my-device
  npm run cvm -- device connect --dir my-device
  npm run cvm -- verify my-device/iot-certificate.pem.crt
  npm run cvm -- operator show ${serialNumber}

Or with curl and openssl: see README.md. Ctrl-C stops it.
`
}
