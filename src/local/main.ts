import process from 'node:process'
import closeWithGrace from 'close-with-grace'
import pino from 'pino'
import { faultPlan, type FaultPlan } from './faults.ts'
import { startLocal, type LocalSettings } from './start.ts'

const STOP_MS = 1500

// stdout carries the addresses for people and scripts, so the log goes to stderr.
const log = pino({ level: process.env['LOG_LEVEL'] ?? 'info' }, pino.destination(2))

try {
  const local = await startLocal(settingsFrom(process.env))
  closeWithGrace({ delay: STOP_MS, logger: false }, async ({ err }) => {
    if (err !== undefined) log.error({ err }, 'local AWS failed')
    await local.close()
  })
  process.stdout.write(`AWS IoT API  ${local.iotUrl}\nMQTT         ${local.mqttUrl}\nDynamoDB     ${local.dynamodbUrl}\n`)
} catch (error) {
  process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n`)
  process.exitCode = 1
}

/** Reads the environment; one error tells all faults. */
function settingsFrom (env: NodeJS.ProcessEnv): LocalSettings {
  const faults: string[] = []
  const port = (name: string, fallback: number): number => {
    const value = env[name] ?? ''
    if (value === '') return fallback
    if (!/^\d{1,5}$/.test(value) || Number(value) > 65535) faults.push(`${name} must be a port, 0 to 65535, not "${value}"`)
    return Number(value)
  }
  if (env['NODE_ENV'] === 'production') faults.push('The local AWS does not start when NODE_ENV=production: every key gets in')
  const number = (name: string): number => {
    const value = Number(env[name] ?? '')
    if (!(value >= 0)) faults.push(`${name} must be a number, 0 or more, not "${env[name]}"`)
    return value
  }
  const injected = (name: string): FaultPlan | undefined => {
    try {
      return (env[name] ?? '') === '' ? undefined : faultPlan(JSON.parse(env[name] ?? ''))
    } catch (error) {
      faults.push(`${name}: ${(error as Error).message}`)
      return undefined
    }
  }
  const elsewhere = env['AWS_ENDPOINT_URL_DYNAMODB'] ?? ''
  const off = env['LOCAL_DYNAMODB_PORT'] === 'off'
  const settings: LocalSettings = {
    host: env['LOCAL_HOST'] ?? '127.0.0.1',
    iotPort: port('LOCAL_IOT_PORT', 8001),
    mqttPort: port('LOCAL_MQTT_PORT', 8883),
    dynamodbPort: off ? 0 : port('LOCAL_DYNAMODB_PORT', 8000),
    ...(off || elsewhere !== '' ? { dynamodbUrl: elsewhere === '' ? 'off' : elsewhere } : {}),
    dir: env['CVM_LOCAL_DIR'] ?? '.cvm',
    policyName: env['IOT_POLICY_NAME'] ?? 'cvm-device-policy',
    serverNames: (env['LOCAL_SERVER_NAMES'] ?? '').split(',').map(name => name.trim()).filter(name => name !== ''),
    region: env['AWS_REGION'] ?? 'us-east-1',
    quotas: number('LOCAL_QUOTAS'),
    faults: injected('LOCAL_FAULTS'),
    log
  }
  if (faults.length > 0) throw new Error(faults.join('\n'))
  return settings
}
