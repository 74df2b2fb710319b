import { readFileSync } from 'node:fs'
import { isIP } from 'node:net'
import { createSecureContext } from 'node:tls'
import * as iot from '@aws-sdk/client-iot'
import { type Static, Type } from 'typebox'
import envSchema from 'env-schema'

const port = (initial: number, description: string) => Type.Integer({ minimum: 0, maximum: 65_535, default: initial, description })
const positive = (initial: number, description: string) =>
  Type.Integer({ minimum: 1, maximum: Number.MAX_SAFE_INTEGER, default: initial, description })
/** Short enough for a timer, in milliseconds. */
const timer = (initial: number, description: string) => Type.Integer({ minimum: 1, maximum: 600_000, default: initial, description })
const text = (initial: string, description: string) => Type.String({ default: initial, description })

/** Asymmetric ones only: whoever can check a token must not be able to make one. */
const ALGORITHMS = ['RS256', 'RS384', 'RS512', 'PS256', 'PS384', 'PS512', 'ES256', 'ES384', 'ES512', 'EdDSA', 'Ed25519']

/** Every setting of the service: environment variable, type, default and meaning. The README's table is checked against it. */
export const SETTINGS = Type.Object({
  NODE_ENV: text('', '`production` turns local mode off for good'),
  CVM_LOCAL: Type.Optional(Type.Boolean({ description: 'local mode: AWS stand-ins in this process; on unless `NODE_ENV=production`' })),
  CVM_LOCAL_DIR: text('.cvm', 'where local mode keeps its files; empty: in memory'),
  LOCAL_IOT_PORT: port(8001, 'local mode: port of the AWS IoT API'),
  LOCAL_DYNAMODB_PORT: port(8000, 'local mode: port of DynamoDB'),
  LOCAL_MQTT_PORT: port(8883, 'local mode: port of the MQTT broker'),
  HOST: text('', 'address to listen on; default `127.0.0.1` in local mode, `0.0.0.0` otherwise'),
  PORT: port(8443, 'port of the service'),
  OPS_PORT: port(9464, 'port of `/livez`, `/readyz`, `/healthz`, `/metrics`'),
  LOG_LEVEL: Type.Enum(['fatal', 'error', 'warn', 'info', 'debug', 'trace', 'silent'], { default: 'info', description: 'least level that is logged; security events are at any but `silent`' }),
  TLS_CERT_FILE: text('', 'certificate chain (PEM) when TLS ends here; with `TLS_KEY_FILE`'),
  TLS_KEY_FILE: text('', 'private key (PEM) when TLS ends here; with `TLS_CERT_FILE`'),
  TRUST_PROXY_CIDRS: text('', 'networks of the load balancer, comma-separated; whose `X-Forwarded-For` is believed'),
  AWS_REGION: text('us-east-1', 'region of AWS IoT and DynamoDB'),
  AWS_ENDPOINT_URL_DYNAMODB: text('', 'another DynamoDB endpoint; local mode then starts none of its own'),
  AWS_ENDPOINT_URL_IOT: text('', 'another AWS IoT endpoint'),
  DEVICE_TABLE: text('iot-cvm-device-info', 'table of the device registry'),
  CREATE_TABLES: Type.Optional(Type.Boolean({ description: 'create missing tables at start; on in local mode only' })),
  IOT_POLICY_NAME: text('cvm-device-policy', 'AWS IoT policy that every certificate gets'),
  IOT_ENDPOINT: text('', 'endpoint that devices are told; asked of AWS IoT when empty'),
  PRODUCTS_FILE: text('', 'settings of kinds of devices (JSON); only the product `default` when empty'),
  ROOT_CA_FILE: text('', 'root certificates that devices are told (PEM); Amazon Root CA 1 and 3 when empty'),
  TOKEN_PEPPER: text('', 'base64 of at least 32 random bytes that key the hashes of registration tokens; required outside local mode'),
  API_KEYS: text('', 'who may use the operator\'s routes: `name:role:hash` entries, comma-separated, as `cvm keys create` prints them'),
  OIDC_ISSUER: text('', 'identity provider whose tokens are taken beside API keys, as their `iss` names it (https); empty: none are'),
  OIDC_AUDIENCE: text('', 'what `aud` must hold; required with `OIDC_ISSUER`'),
  OIDC_JWKS_URL: text('', 'the provider\'s keys; asked of `<issuer>/.well-known/openid-configuration` when empty'),
  OIDC_ALGORITHMS: text('RS256,ES256', `signature algorithms that are taken, comma-separated: ${ALGORITHMS.join(', ')}`),
  OIDC_ROLE_CLAIM: text('roles', 'claim with a role or a list of roles, such as `realm_access.roles`; other values in it do not matter'),
  OIDC_NAME_CLAIM: text('sub', 'claim with the caller\'s name for audit records'),
  CLAIM_LIFETIME_MS: timer(30_000, 'how long a worker may hold a device; longer than `VEND_DEADLINE_MS`'),
  VEND_DEADLINE_MS: timer(20_000, 'how long one vend may take'),
  REPLAY_WINDOW_MS: positive(30 * 24 * 3_600_000, 'how long after a vend the same request gets the same certificate'),
  RENEW_AFTER_MS: positive(365 * 24 * 3_600_000, 'age at which devices are told to renew'),
  AWS_CALL_TIMEOUT_MS: timer(5_000, 'time for one attempt of one AWS call'),
  AWS_IOT_QUOTA_FACTOR: Type.Optional(Type.Number({
    minimum: 0, maximum: 1_000, description: 'how many times AWS\'s default quotas the account has for calls to AWS IoT; 0: no pacing; 1, in local mode 0, when not set'
  })),
  AWS_IOT_QUOTAS: text('', 'calls a second by operation where they differ from that, such as `CreateCertificateFromCsr=30,UpdateCertificate=20`'),
  QUEUE_WAIT_DEVICE_MS: timer(5_000, 'longest wait for a turn at AWS IoT that a device\'s request begins with; longer is answered 503 at once'),
  QUEUE_WAIT_BULK_MS: timer(15_000, 'the same for batches and reconcile, which wait behind devices'),
  BATCH_AT_ONCE: Type.Integer({ minimum: 1, maximum: 1_000, default: 64, description: 'most lines of one batch that are worked on at once; fewer where the pace is slow' }),
  RECONCILE_INTERVAL_MS: timer(30_000, 'time between two runs of reconcile, in all replicas together'),
  RECONCILE_BATCH: Type.Integer({ minimum: 1, maximum: 1_000, default: 200, description: 'most unfinished devices in one run' }),
  RECONCILE_MAX_PAGES: positive(40, 'most pages of AWS IoT\'s list of certificates (250 each) in one run'),
  RATE_LIMIT_ADDRESS_MAX: positive(600, 'requests per address and window'),
  RATE_LIMIT_SERIAL_MAX: positive(10, 'vend requests per serial number and window'),
  RATE_LIMIT_WINDOW_MS: positive(60_000, 'the window of both limits'),
  API_DOCS: Type.Boolean({ default: true, description: '`/docs` and `/openapi.json` on the service\'s port' }),
  MAX_IN_FLIGHT: positive(512, 'requests worked on at once; more are answered 503'),
  MAX_EVENT_LOOP_DELAY_MS: timer(1_000, 'mean delay of the event loop above which requests are answered 503'),
  SHUTDOWN_TIMEOUT_MS: timer(8_000, 'time for requests in flight after SIGTERM'),
  DRAIN_DELAY_MS: Type.Integer({ minimum: 0, maximum: 60_000, default: 0, description: 'time between unready and closed after SIGTERM, for balancers that poll' })
})

type Settings = Static<typeof SETTINGS>

/** The settings, checked and completed. */
export interface Config extends Omit<Settings, 'API_KEYS' | 'AWS_IOT_QUOTA_FACTOR' | 'AWS_IOT_QUOTAS' | 'CVM_LOCAL' | 'CREATE_TABLES' | 'OIDC_ALGORITHMS' | 'TOKEN_PEPPER' | 'TRUST_PROXY_CIDRS'> {
  API_KEYS: ApiKey[]
  AWS_IOT_QUOTA_FACTOR: number
  AWS_IOT_QUOTAS: Record<string, number>
  CVM_LOCAL: boolean
  CREATE_TABLES: boolean
  OIDC_ALGORITHMS: string[]
  TOKEN_PEPPER: Buffer
  TRUST_PROXY_CIDRS: string[]
}

/** Who may use the routes for people: by the SHA-256 of a key, which is random enough for a plain hash. */
export interface ApiKey { name: string, role: Role, hash: string }

/** The roles of API keys. */
const ROLES = ['operator', 'line', 'auditor'] as const
type Role = typeof ROLES[number]

const API_KEY = new RegExp(`^[A-Za-z0-9._-]{1,64}:(${ROLES.join('|')}):[0-9a-f]{64}$`)

/** Names of members, with dots between them; a claim may also be called by a URL. */
const CLAIM = /^(?!\.)(?!.*\.\.)[!-~]{1,256}(?<!\.)$/

/** The settings are not usable; `faults` names each one and what it allows. */
export class ConfigError extends Error {
  readonly faults: readonly string[]
  constructor (faults: readonly string[]) {
    super(`the configuration has ${faults.length} ${faults.length === 1 ? 'fault' : 'faults'}:\n${faults.map(fault => `  ${fault}`).join('\n')}`)
    this.name = 'ConfigError'
    this.faults = faults
  }
}

const LOCAL_PEPPER = Buffer.alloc(32, 'local mode only')

/**
 * Reads the environment. Raises {@link ConfigError} with every fault at once, never with a secret's value; `faultsOfFiles` adds those
 * of what the settings name.
 */
export function readConfig (
  env: Readonly<Record<string, string | undefined>>, faultsOfFiles: (settings: Settings) => readonly string[] = () => []
): Config {
  const { settings, faults } = readSettings(env)
  const isProduction = settings.NODE_ENV === 'production'
  const local = settings.CVM_LOCAL ?? !isProduction
  const pepper = Buffer.from(settings.TOKEN_PEPPER, 'base64')
  const cidrs = entriesOf(settings.TRUST_PROXY_CIDRS)
  const keys = entriesOf(settings.API_KEYS)
  const quotas = entriesOf(settings.AWS_IOT_QUOTAS)
  const expect = (holds: boolean, fault: string) => { if (!holds) faults.push(fault) }

  expect(!(local && isProduction), 'CVM_LOCAL must not be true when NODE_ENV is production')
  if (!local || settings.TOKEN_PEPPER) {
    expect(pepper.length >= 32 && pepper.toString('base64') === settings.TOKEN_PEPPER,
      'TOKEN_PEPPER must be the base64 of at least 32 random bytes, such as `openssl rand -base64 32` prints')
  }
  expect(Boolean(settings.TLS_CERT_FILE) === Boolean(settings.TLS_KEY_FILE), 'TLS_CERT_FILE and TLS_KEY_FILE must be set together')
  for (const name of ['TLS_CERT_FILE', 'TLS_KEY_FILE', 'ROOT_CA_FILE', 'PRODUCTS_FILE'] as const) {
    expect(!settings[name] || isReadable(settings[name]), `${name} must name a file that can be read`)
  }
  for (const name of ['AWS_ENDPOINT_URL_DYNAMODB', 'AWS_ENDPOINT_URL_IOT'] as const) {
    expect(!settings[name] || isHttpUrl(settings[name]), `${name} must be an http:// or https:// URL`)
  }
  expect(isPair(settings), 'TLS_CERT_FILE and TLS_KEY_FILE must hold a certificate and its unencrypted private key, in PEM')
  for (const cidr of cidrs) expect(isCidr(cidr), `TRUST_PROXY_CIDRS must hold networks such as 10.0.0.0/16, not ${JSON.stringify(cidr)}`)
  for (const entry of keys) expect(API_KEY.test(entry), 'API_KEYS must hold entries name:role:hash as `cvm keys create` prints them')
  faults.push(...oidcFaults(settings))
  for (const entry of quotas) expect(isQuota(entry), `AWS_IOT_QUOTAS must hold AWS IoT operations and calls a second, such as AttachPolicy=30, not ${JSON.stringify(entry)}`)
  expect(settings.CLAIM_LIFETIME_MS > settings.VEND_DEADLINE_MS, 'CLAIM_LIFETIME_MS must be greater than VEND_DEADLINE_MS')
  faults.push(...faultsOfFiles(settings))
  if (faults.length > 0) throw new ConfigError(faults)

  return {
    ...settings,
    API_KEYS: keys.map(apiKeyOf),
    AWS_IOT_QUOTA_FACTOR: settings.AWS_IOT_QUOTA_FACTOR ?? (local ? 0 : 1),
    AWS_IOT_QUOTAS: Object.fromEntries(quotas.map(quotaOf)),
    CVM_LOCAL: local,
    CREATE_TABLES: settings.CREATE_TABLES ?? local,
    OIDC_ALGORITHMS: entriesOf(settings.OIDC_ALGORITHMS),
    HOST: settings.HOST || (local ? '127.0.0.1' : '0.0.0.0'),
    TOKEN_PEPPER: settings.TOKEN_PEPPER ? pepper : LOCAL_PEPPER,
    TRUST_PROXY_CIDRS: cidrs
  }
}

/** The settings by type; those at fault stand at their defaults, so that the rest can be checked too. */
function readSettings (env: Readonly<Record<string, string | undefined>>): { settings: Settings, faults: string[] } {
  const data = Object.fromEntries(Object.keys(SETTINGS.properties).filter(name => env[name] !== undefined).map(name => [name, env[name]]))
  const read = (given: Record<string, string | undefined>) =>
    envSchema<Settings>({ schema: structuredClone(SETTINGS), data: given as Record<string, string>, env: false })
  // Ajv would take `0x10`, and `Infinity` past every maximum.
  const isNumeral = (name: string) => (allowed(name).startsWith('a whole') ? /^\d+$/ : /^\d+(\.\d+)?$/).test(data[name] ?? '')
  const names = Object.keys(data).filter(name => allowed(name).includes('number from') && !isNumeral(name))
  const sound = () => Object.fromEntries(Object.entries(data).filter(([name]) => !names.includes(name)))
  const faults = () => names.map(name => `${name} must be ${allowed(name)}, not ${JSON.stringify(data[name])}`)
  try {
    return { settings: read(sound()), faults: faults() }
  } catch (cause) {
    const { errors } = cause as { errors?: { instancePath: string }[] }
    if (!errors) throw cause
    names.push(...new Set(errors.map(error => error.instancePath.slice(1))))
    return { settings: read(sound()), faults: faults() }
  }
}

function entriesOf (list: string): string[] {
  return list.split(',').map(entry => entry.trim()).filter(Boolean)
}

function oidcFaults ({ OIDC_ISSUER: issuer, OIDC_AUDIENCE: audience, OIDC_JWKS_URL: jwksUrl, ...others }: Settings): string[] {
  const algorithms = entriesOf(others.OIDC_ALGORITHMS)
  const wrong = algorithms.filter(algorithm => !ALGORITHMS.includes(algorithm))
  const rules: [boolean, string][] = [
    [!issuer || (isSafeUrl(issuer) && !/[?#]/.test(issuer)), 'OIDC_ISSUER must be an https:// URL without query (http:// on this machine only)'],
    [!jwksUrl || isSafeUrl(jwksUrl), 'OIDC_JWKS_URL must be an https:// URL (http:// on this machine only)'],
    [!issuer || Boolean(audience), 'OIDC_AUDIENCE must be set together with OIDC_ISSUER'],
    [Boolean(issuer) || !(audience || jwksUrl), 'OIDC_ISSUER must be set together with OIDC_AUDIENCE and OIDC_JWKS_URL'],
    [algorithms.length > 0 && wrong.length === 0, `OIDC_ALGORITHMS must be some of ${ALGORITHMS.join(', ')}, not ${JSON.stringify(others.OIDC_ALGORITHMS)}`],
    ...(['OIDC_ROLE_CLAIM', 'OIDC_NAME_CLAIM'] as const).map((name): [boolean, string] =>
      [CLAIM.test(others[name]), `${name} must name a claim, or a path to one with dots`])
  ]
  return rules.filter(([holds]) => !holds).map(([, fault]) => fault)
}

function apiKeyOf (entry: string): ApiKey {
  const [name = '', role, hash = ''] = entry.split(':')
  return { name, role: role as Role, hash }
}

/** Names are the SDK's, so that a slip of the pen does not silently leave an operation at another pace. */
function isQuota (entry: string): boolean {
  const [, operation, perSecond] = /^([A-Za-z]+)=(\d{1,6}(?:\.\d+)?)$/.exec(entry) ?? []
  return operation !== undefined && `${operation}Command` in iot && Number(perSecond) >= 0.1
}

function quotaOf (entry: string): [string, number] {
  const [operation = '', perSecond] = entry.split('=')
  return [operation, Number(perSecond)]
}

/** What a setting allows, in words. */
export function allowed (name: string): string {
  const schema: { type?: string, enum?: readonly string[], minimum?: number, maximum?: number } =
    SETTINGS.properties[name as keyof Settings]
  if (schema.enum) return `one of ${schema.enum.join(', ')}`
  if (schema.type === 'boolean') return 'true or false'
  if (schema.type !== 'integer' && schema.type !== 'number') return 'text'
  const upTo = schema.maximum === Number.MAX_SAFE_INTEGER ? '' : ` to ${schema.maximum}`
  return `a ${schema.type === 'integer' ? 'whole ' : ''}number from ${schema.minimum}${upTo}`
}

function isReadable (file: string): boolean {
  try {
    return readFileSync(file).length > 0
  } catch {
    return false
  }
}

/** Nobody on the way can change what it answers. */
function isSafeUrl (url: string): boolean {
  if (!URL.canParse(url)) return false
  const { protocol, hostname, username, password } = new URL(url)
  const isLoopback = /^(localhost|127(\.\d+){3}|\[::1\])$/.test(hostname)
  return (protocol === 'https:' || (protocol === 'http:' && isLoopback)) && !username && !password
}

function isHttpUrl (url: string): boolean {
  return /^https?:\/\//.test(url) && URL.canParse(url)
}

/** Whether the TLS files are usable together; not judged where they are not both readable, which is a fault of its own. */
function isPair ({ TLS_CERT_FILE: cert, TLS_KEY_FILE: key }: Settings): boolean {
  if (!cert || !key || !isReadable(cert) || !isReadable(key)) return true
  try {
    createSecureContext({ cert: readFileSync(cert), key: readFileSync(key) })
    return true
  } catch {
    return false
  }
}

function isCidr (cidr: string): boolean {
  const [address = '', bits, ...rest] = cidr.split('/')
  const version = isIP(address)
  return version !== 0 && rest.length === 0 && (bits === undefined || (/^\d{1,3}$/.test(bits) && Number(bits) <= (version === 4 ? 32 : 128)))
}
