import { readFileSync, statSync } from 'node:fs'
import { isIP } from 'node:net'
import { createSecureContext } from 'node:tls'
import * as iot from '@aws-sdk/client-iot'
import envSchema from 'env-schema'
import { ALGORITHMS, SETTINGS, type Settings, allowed } from './settings.ts'

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

/** A copy, because env-schema changes what it is given; one, because Ajv compiles each object anew. */
const SCHEMA = structuredClone(SETTINGS)

/** The account of local mode's AWS IoT Core. */
const LOCAL_ACCOUNT_ID = '000000000000'

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

  expect(settings.AWS_REGION !== '', 'AWS_REGION must name an AWS Region, such as eu-central-1')
  expect(local || !(env['AWS_DEFAULT_REGION'] && env['AWS_REGION'] === undefined), 'AWS_REGION must be set: AWS_DEFAULT_REGION, which is set, is for the AWS CLI alone')
  expect(!(local && isProduction), 'CVM_LOCAL must not be true when NODE_ENV is production')
  if (!local || settings.TOKEN_PEPPER) {
    expect(pepper.length >= 32 && pepper.toString('base64') === settings.TOKEN_PEPPER,
      'TOKEN_PEPPER must be the base64 of at least 32 random bytes, such as `openssl rand -base64 32` prints')
  }
  expect(Boolean(settings.TLS_CERT_FILE) === Boolean(settings.TLS_KEY_FILE), 'TLS_CERT_FILE and TLS_KEY_FILE must be set together')
  expect(!(settings.TLS_SELF_SIGNED && settings.TLS_CERT_FILE), 'TLS_SELF_SIGNED must not be true where TLS_CERT_FILE names a certificate')
  expect(!(settings.TLS_SELF_SIGNED && local), 'TLS_SELF_SIGNED must not be true in local mode, which has a certificate of its own authority')
  for (const name of ['TLS_CERT_FILE', 'TLS_KEY_FILE', 'ROOT_CA_FILE', 'PRODUCTS_FILE'] as const) {
    expect(!settings[name] || isReadable(settings[name]), `${name} must name a file that can be read`)
  }
  expect(!settings.CRL_DIR || isFolder(settings.CRL_DIR), 'CRL_DIR must name a folder')
  for (const name of ['AWS_ENDPOINT_URL_DYNAMODB', 'AWS_ENDPOINT_URL_IOT', 'AWS_ENDPOINT_URL_IOT_DATA_PLANE'] as const) {
    expect(!settings[name] || isHttpUrl(settings[name]), `${name} must be an http:// or https:// URL`)
  }
  expect(isPair(settings), 'TLS_CERT_FILE and TLS_KEY_FILE must hold a certificate and its unencrypted private key, in PEM')
  for (const cidr of cidrs) expect(isCidr(cidr), `TRUST_PROXY_CIDRS must hold networks such as 10.0.0.0/16, not ${JSON.stringify(cidr)}`)
  expect(settings.ALB_MTLS === 'off' || cidrs.length > 0, 'ALB_MTLS=passthrough needs TRUST_PROXY_CIDRS: the header of client certificates is believed from there alone')
  expect(settings.ALB_MTLS === 'off' || !settings.TLS_CERT_FILE, 'ALB_MTLS=passthrough is for where the load balancer ends TLS, not TLS_CERT_FILE')
  for (const entry of keys) expect(API_KEY.test(entry), 'API_KEYS must hold entries name:role:hash as `cvm keys create` prints them')
  faults.push(...oidcFaults(settings))
  for (const entry of quotas) expect(isQuota(entry), `AWS_IOT_QUOTAS must hold AWS IoT operations and calls a second, such as AttachPolicy=30, not ${JSON.stringify(entry)}`)
  expect(!settings.JITR_SECRET || /^[!-~]{32,256}$/.test(settings.JITR_SECRET), 'JITR_SECRET must have 32 to 256 printable ASCII characters without spaces, such as `openssl rand -hex 32` prints')
  expect(settings.AWS_ACCOUNT_ID === '' ? local || !settings.JITR_SECRET : /^\d{12}$/.test(settings.AWS_ACCOUNT_ID), 'AWS_ACCOUNT_ID must be the 12 digits of the account, and is required with JITR_SECRET')
  expect(!settings.LEGACY_CVM_SUNSET || isDate(settings.LEGACY_CVM_SUNSET), 'LEGACY_CVM_SUNSET must be a date, such as 2030-01-31')
  expect(settings.CLAIM_LIFETIME_MS > settings.VEND_DEADLINE_MS, 'CLAIM_LIFETIME_MS must be greater than VEND_DEADLINE_MS')
  faults.push(...faultsOfFiles(settings))
  if (faults.length > 0) throw new ConfigError(faults)

  return {
    ...settings,
    API_KEYS: keys.map(apiKeyOf),
    AWS_ACCOUNT_ID: settings.AWS_ACCOUNT_ID || (local ? LOCAL_ACCOUNT_ID : ''),
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
    envSchema<Settings>({ schema: SCHEMA, data: given as Record<string, string>, env: false })
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
    ...(['OIDC_AUDIENCE_CLAIM', 'OIDC_ROLE_CLAIM', 'OIDC_NAME_CLAIM'] as const).map((name): [boolean, string] =>
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

function isReadable (file: string): boolean {
  try {
    return readFileSync(file).length > 0
  } catch {
    return false
  }
}

function isFolder (path: string): boolean {
  return statSync(path, { throwIfNoEntry: false })?.isDirectory() ?? false
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

function isDate (text: string): boolean {
  return /^\d{4}-\d\d-\d\d$/.test(text) && new Date(text).toJSON()?.startsWith(text) === true
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
