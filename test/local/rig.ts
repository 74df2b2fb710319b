import { execFileSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { IoTClient } from '@aws-sdk/client-iot'
import mqtt, { type IClientOptions, type MqttClient } from 'mqtt'
import { startLocal, type LocalAws, type LocalSettings } from '../../src/local/start.ts'

const silent = { debug: () => {}, info: () => {}, warn: () => {}, error: () => {} }

/** The local AWS on free ports, and the real SDK client that talks to it. */
export async function startRig (
  settings: Partial<LocalSettings> = {}, { dynamodb = false } = {}
): Promise<{ local: LocalAws, iot: IoTClient, close: () => Promise<void> }> {
  const local = await startLocal({
    host: '127.0.0.1',
    iotPort: 0,
    mqttPort: 0,
    dynamodbPort: 0,
    ...(dynamodb ? {} : { dynamodbUrl: 'http://not.used' }),
    dir: '',
    policyName: 'device-policy',
    log: silent,
    ...settings
  })
  const iot = sdkClient(local.iotUrl)
  return { local, iot, close: async () => { iot.destroy(); await local.close() } }
}

export function sdkClient (endpoint: string): IoTClient {
  return new IoTClient({ endpoint, region: 'us-east-1', credentials: { accessKeyId: 'any', secretAccessKey: 'key' }, maxAttempts: 1 })
}

/** Key, CSR and a self-signed certificate made by openssl; `kind` is what `-newkey` takes. */
export function opensslCsr (
  kind: readonly string[], subject = '/CN=dev-1', extra: readonly string[] = []
): { key: string, csr: string, foreign: string } {
  const dir = mkdtempSync(path.join(tmpdir(), 'csr-'))
  try {
    openssl(['req', '-new', '-newkey', ...kind, '-nodes', '-subj', subject, '-keyout', 'k', '-out', 'r', ...extra], { cwd: dir })
    openssl(['req', '-x509', '-in', 'r', '-key', 'k', '-days', '1', '-out', 'c'], { cwd: dir })
    const [key = '', csr = '', foreign = ''] = ['k', 'r', 'c'].map(name => readFileSync(path.join(dir, name), 'utf8'))
    return { key, csr, foreign }
  } finally {
    rmSync(dir, { recursive: true })
  }
}

export const P256 = ['ec', '-pkeyopt', 'ec_paramgen_curve:P-256']

export function openssl (args: readonly string[], options: { input?: string | Buffer, cwd?: string } = {}): string {
  return execFileSync('openssl', args, { stdio: ['pipe', 'pipe', 'pipe'], encoding: 'utf8', ...options })
}

/** One try to connect; resolves connected, rejects when refused. */
export async function connect (local: LocalAws, options: IClientOptions): Promise<MqttClient> {
  return await mqtt.connectAsync(local.mqttUrl, {
    ca: local.rootCaPem, servername: 'localhost', reconnectPeriod: 0, connectTimeout: 120_000, ...options
  }, false)
}
