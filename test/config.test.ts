// The environment as one schema: every fault at once, by name and with what is allowed, and never a secret.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { openssl } from './fixtures/openssl.ts'
import { newKey } from './fixtures/vending.ts'
import { ConfigError, readConfig } from '../src/config.ts'
import { SETTINGS, allowed } from '../src/settings.ts'

type Env = Record<string, string | undefined>
interface Schema { type?: string, minimum?: number, maximum?: number, enum?: readonly string[] }

const PEPPER = Buffer.alloc(32, 7).toString('base64')
const PRODUCTION = { NODE_ENV: 'production', TOKEN_PEPPER: PEPPER }
const dir = mkdtempSync(join(tmpdir(), 'cvm-config-'))
t.teardown(() => rmSync(dir, { recursive: true, force: true }))
const file = join(dir, 'file.pem')
writeFileSync(file, 'x')
const empty = join(dir, 'empty.pem')
writeFileSync(empty, '')
const [cert, key, otherKey] = [join(dir, 'cert.pem'), join(dir, 'key.pem'), join(dir, 'other-key.pem')]
await openssl(['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-keyout', key, '-out', cert, '-subj', '/CN=localhost'])
writeFileSync(otherKey, newKey())

function faultsOf (env: Env): readonly string[] {
  try {
    readConfig(env)
    return []
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error
    return error.faults
  }
}

/** Asserts that these settings, and no others, are at fault, each named once. */
function isFaulty (t: Test, env: Env, ...expected: readonly RegExp[]): void {
  const faults = faultsOf(env)
  t.equal(faults.length, expected.length, JSON.stringify(env), { faults })
  for (const pattern of expected) t.ok(faults.some(fault => pattern.test(fault)), `${pattern}`, { faults })
}

await t.test('nothing set is a laptop', async t => {
  const config = readConfig({})
  t.match(config, { CVM_LOCAL: true, CREATE_TABLES: true, CVM_LOCAL_DIR: '.cvm', HOST: '127.0.0.1', LOG_LEVEL: 'info' })
  t.match(config, { PORT: 8443, OPS_PORT: 9464, LOCAL_IOT_PORT: 8001, LOCAL_DYNAMODB_PORT: 8000, LOCAL_MQTT_PORT: 8883 }, 'the ports of DESIGN section 7')
  t.match(config, { AWS_REGION: 'us-east-1', DEVICE_TABLE: 'iot-cvm-device-info', IOT_POLICY_NAME: 'cvm-device-policy' })
  t.ok(config.CLAIM_LIFETIME_MS > config.VEND_DEADLINE_MS && config.VEND_DEADLINE_MS > config.AWS_CALL_TIMEOUT_MS)
  t.strictSame(config.TRUST_PROXY_CIDRS, [])
  t.ok(config.TOKEN_PEPPER.length >= 32)
  t.strictSame(readConfig({ CVM_LOCAL: undefined, UNKNOWN: '1', PATH: '/bin' }), config, 'what is no setting does not matter')
})

await t.test('the Region is named, and by the name that the service reads', t => {
  isFaulty(t, { AWS_REGION: '' }, /^AWS_REGION must name an AWS Region, such as eu-central-1$/)
  isFaulty(t, { ...PRODUCTION, AWS_DEFAULT_REGION: 'eu-west-1' }, /^AWS_REGION must be set: AWS_DEFAULT_REGION/)
  isFaulty(t, { ...PRODUCTION, AWS_DEFAULT_REGION: 'eu-west-1', AWS_REGION: '' }, /^AWS_REGION must name/)
  t.equal(readConfig({ ...PRODUCTION, AWS_DEFAULT_REGION: 'eu-west-1', AWS_REGION: 'eu-central-1' }).AWS_REGION, 'eu-central-1')
  t.equal(readConfig({ AWS_DEFAULT_REGION: 'eu-west-1' }).AWS_REGION, 'us-east-1', 'local mode has a Region of its own')
  t.end()
})

await t.test('the end of what old clients use is a date', t => {
  t.match(readConfig({}), { LEGACY_CVM: false, LEGACY_CVM_SUNSET: '' })
  t.match(readConfig({ LEGACY_CVM: 'true', LEGACY_CVM_SUNSET: '2028-02-29' }), { LEGACY_CVM: true })
  for (const date of ['soon', '2027-02-29', '2027-2-1', '2027-01-01T00:00:00Z', '2027-13-01']) isFaulty(t, { LEGACY_CVM_SUNSET: date }, /^LEGACY_CVM_SUNSET must be a date/)
  isFaulty(t, { LEGACY_CVM: 'yes' }, /^LEGACY_CVM must be true or false/)
  t.end()
})

await t.test('production', async t => {
  const config = readConfig(PRODUCTION)
  t.match(config, { CVM_LOCAL: false, CREATE_TABLES: false, HOST: '0.0.0.0' })
  t.strictSame(config.TOKEN_PEPPER, Buffer.alloc(32, 7))
  t.match(readConfig({ CVM_LOCAL: 'false', TOKEN_PEPPER: PEPPER }), { CVM_LOCAL: false, CREATE_TABLES: false, HOST: '0.0.0.0' }, 'also by CVM_LOCAL')
  t.match(readConfig({ ...PRODUCTION, HOST: '10.0.0.1', CREATE_TABLES: 'true' }), { HOST: '10.0.0.1', CREATE_TABLES: true })
  isFaulty(t, { ...PRODUCTION, CVM_LOCAL: 'true' }, /^CVM_LOCAL .*production/)
  isFaulty(t, { NODE_ENV: 'production' }, /^TOKEN_PEPPER .*32/)
  isFaulty(t, { CVM_LOCAL: 'false' }, /^TOKEN_PEPPER .*32/)
  isFaulty(t, { NODE_ENV: 'production', CVM_LOCAL: 'true' }, /^CVM_LOCAL /)
})

await t.test('the pepper', async t => {
  const peppers = {
    empty: '',
    short: Buffer.alloc(31, 1).toString('base64'),
    'not base64': 'p'.repeat(32) + '!!!!',
    'a pass phrase': 'correct horse battery staple correct horse battery staple',
    base64url: Buffer.alloc(33, 0xff).toString('base64url'),
    'without padding': PEPPER.replace(/=+$/, ''),
    'white space': `${PEPPER}\n`
  }
  for (const [what, pepper] of Object.entries(peppers)) {
    const faults = faultsOf({ ...PRODUCTION, TOKEN_PEPPER: pepper })
    t.match(faults, [/^TOKEN_PEPPER must be the base64 of at least 32 random bytes/], what)
    if (pepper) t.notOk(faults.join('\n').includes(pepper.slice(0, 12)), `${what}: not echoed`)
  }
  isFaulty(t, { TOKEN_PEPPER: 'short' }, /^TOKEN_PEPPER /)
  const faults = faultsOf({ ...PRODUCTION, PORT: 'x', TOKEN_PEPPER: 'a-secret-that-is-too-short' })
  t.notMatch(faults.join('\n'), 'a-secret', 'nor beside other faults')
})

await t.test('each setting by its type', async t => {
  for (const [name, schema] of Object.entries<Schema>(SETTINGS.properties)) {
    const wrong = schema.type === 'number'
      ? ['', 'x', '-1', `${schema.maximum! + 1}`, 'NaN', 'Infinity', '0x10', '1e3', '.5', ' 1']
      : schema.type === 'integer'
        ? ['', 'x', '1.5', `${schema.minimum! - 1}`, `${schema.maximum! + 1}`, 'NaN', 'Infinity', '-Infinity', '1,000', '10s', '0x10', '1e3', ' 1']
        : schema.type === 'boolean'
          ? ['', 'yes', 'TRUE', 'on', '2']
          : schema.enum ? ['', 'verbose', 'INFO'] : []
    for (const value of wrong) {
      const faults = faultsOf({ [name]: value })
      t.ok(faults.includes(`${name} must be ${allowed(name)}, not ${JSON.stringify(value)}`), `${name}=${value}`, { faults })
    }
    const edges = schema.type === 'integer' ? [schema.minimum, schema.maximum] : schema.enum ?? []
    for (const value of edges) t.notOk(faultsOf({ [name]: String(value) }).some(fault => fault.startsWith(`${name} must be ${allowed(name)}`)), `${name}=${value}`)
  }
})

await t.test('rules between settings', async t => {
  isFaulty(t, { TLS_CERT_FILE: file }, /^TLS_CERT_FILE and TLS_KEY_FILE must be set together/)
  isFaulty(t, { TLS_KEY_FILE: file }, /^TLS_CERT_FILE and TLS_KEY_FILE must be set together/)
  isFaulty(t, { TLS_CERT_FILE: join(dir, 'nope'), TLS_KEY_FILE: file }, /^TLS_CERT_FILE must name a file that can be read/)
  const pepper = { CVM_LOCAL: 'false', TOKEN_PEPPER: Buffer.alloc(32).toString('base64') }
  isFaulty(t, { TLS_SELF_SIGNED: 'true', ...pepper })
  isFaulty(t, { TLS_SELF_SIGNED: 'true', ...pepper, TLS_CERT_FILE: cert, TLS_KEY_FILE: key }, /^TLS_SELF_SIGNED must not be true where TLS_CERT_FILE names/)
  isFaulty(t, { TLS_SELF_SIGNED: 'true' }, /^TLS_SELF_SIGNED must not be true in local mode/)
  isFaulty(t, { ROOT_CA_FILE: dir }, /^ROOT_CA_FILE must name a file/)
  for (const CRL_DIR of [file, join(dir, 'nope')]) isFaulty(t, { CRL_DIR }, /^CRL_DIR must name a folder/)
  isFaulty(t, { CRL_DIR: dir })
  isFaulty(t, { ROOT_CA_FILE: empty }, /^ROOT_CA_FILE must name a file/)
  isFaulty(t, { TLS_CERT_FILE: cert, TLS_KEY_FILE: key, ROOT_CA_FILE: file })
  const pair = /^TLS_CERT_FILE and TLS_KEY_FILE must hold a certificate and its unencrypted private key/
  for (const [wrongCert, wrongKey] of [[key, cert], [cert, otherKey], [cert, file], [file, key]] as const) {
    isFaulty(t, { TLS_CERT_FILE: wrongCert, TLS_KEY_FILE: wrongKey }, pair)
  }
  isFaulty(t, { VEND_DEADLINE_MS: '30000' }, /^CLAIM_LIFETIME_MS must be greater than VEND_DEADLINE_MS/)
  isFaulty(t, { CLAIM_LIFETIME_MS: '20000' }, /^CLAIM_LIFETIME_MS must be greater than VEND_DEADLINE_MS/)
  isFaulty(t, { CLAIM_LIFETIME_MS: '20001' })
})

await t.test('API keys', async t => {
  const hash = 'ab'.repeat(32)
  t.strictSame(readConfig({}).API_KEYS, [])
  t.strictSame(readConfig({ API_KEYS: ` ops.1:operator:${hash} , line-7:line:${hash},a:auditor:${hash},` }).API_KEYS, [
    { name: 'ops.1', role: 'operator', hash }, { name: 'line-7', role: 'line', hash }, { name: 'a', role: 'auditor', hash }
  ])
  const wrong = ['secret-key-itself', `a:root:${hash}`, `:operator:${hash}`, `a:operator:${hash}00`, `a:operator:${hash.toUpperCase()}`, `a b:operator:${hash}`]
  for (const entry of wrong) {
    const faults = faultsOf({ API_KEYS: `a:operator:${hash},${entry}` })
    t.match(faults, [/^API_KEYS must hold entries name:role:hash/])
    t.notOk(faults.join('').includes(entry), 'what may be a key is not echoed')
  }
})

await t.test('the identity provider', async t => {
  const OIDC = { OIDC_ISSUER: 'https://id.example.com/realms/cvm', OIDC_AUDIENCE: 'cvm' }
  t.match(readConfig({}), { OIDC_ISSUER: '', OIDC_ALGORITHMS: ['RS256', 'ES256'], OIDC_AUDIENCE_CLAIM: 'aud', OIDC_ROLE_CLAIM: 'roles', OIDC_NAME_CLAIM: 'sub' })
  t.match(readConfig({ ...OIDC, OIDC_ALGORITHMS: ' PS256, EdDSA,' }), { ...OIDC, OIDC_JWKS_URL: '', OIDC_ALGORITHMS: ['PS256', 'EdDSA'] })
  for (const issuer of ['http://localhost:8080/x', 'http://127.0.0.1', 'http://[::1]:1', 'https://tenant.example/']) isFaulty(t, { ...OIDC, OIDC_ISSUER: issuer })
  for (const issuer of ['http://id.example.com', 'http://localhost.example.com', 'http://127.0.0.1.example.com', 'id.example.com', 'ftp://localhost', 'https://a?b', 'https://a#b', 'https://u:p@a']) {
    isFaulty(t, { ...OIDC, OIDC_ISSUER: issuer }, /^OIDC_ISSUER must be an https:\/\/ URL/)
  }
  isFaulty(t, { ...OIDC, OIDC_JWKS_URL: 'https://id.example.com/keys?v=2' })
  isFaulty(t, { ...OIDC, OIDC_JWKS_URL: 'http://id.example.com/keys' }, /^OIDC_JWKS_URL must be/)
  isFaulty(t, { OIDC_ISSUER: OIDC.OIDC_ISSUER }, /^OIDC_AUDIENCE must be set/)
  isFaulty(t, { OIDC_AUDIENCE: 'cvm' }, /^OIDC_ISSUER must be set/)
  isFaulty(t, { OIDC_JWKS_URL: 'https://id.example.com/keys' }, /^OIDC_ISSUER must be set/)
  for (const algorithms of ['none', 'HS256', 'RS256,HS256', 'rs256', ',', '']) isFaulty(t, { OIDC_ALGORITHMS: algorithms }, /^OIDC_ALGORITHMS must be some of RS256,/)
  for (const claim of ['realm_access.roles', 'https://example.com/roles', 'cognito:groups']) isFaulty(t, { OIDC_ROLE_CLAIM: claim, OIDC_NAME_CLAIM: claim, OIDC_AUDIENCE_CLAIM: claim })
  for (const claim of ['', '.a', 'a.', 'a..b', 'a b', 'x'.repeat(257)]) {
    isFaulty(t, { OIDC_AUDIENCE_CLAIM: claim, OIDC_ROLE_CLAIM: claim, OIDC_NAME_CLAIM: claim }, /^OIDC_AUDIENCE_CLAIM must name/, /^OIDC_ROLE_CLAIM must name/, /^OIDC_NAME_CLAIM must name/)
  }
})

await t.test('quotas of AWS IoT', async t => {
  t.equal(readConfig({}).AWS_IOT_QUOTA_FACTOR, 0, 'the local AWS has none')
  t.equal(readConfig(PRODUCTION).AWS_IOT_QUOTA_FACTOR, 1)
  t.equal(readConfig({ AWS_IOT_QUOTA_FACTOR: '2.5' }).AWS_IOT_QUOTA_FACTOR, 2.5)
  t.equal(allowed('AWS_IOT_QUOTA_FACTOR'), 'a number from 0 to 1000')
  t.strictSame(readConfig({}).AWS_IOT_QUOTAS, {})
  t.strictSame(readConfig({ AWS_IOT_QUOTAS: ' CreateCertificateFromCsr=30 , UpdateCertificate=0.5,' }).AWS_IOT_QUOTAS, { CreateCertificateFromCsr: 30, UpdateCertificate: 0.5 })
  for (const wrong of ['UpdateCertificates=30', 'UpdateCertificate', 'UpdateCertificate=', 'UpdateCertificate=0', 'UpdateCertificate=-1', 'UpdateCertificate=1e3', '=3']) {
    isFaulty(t, { AWS_IOT_QUOTAS: `AttachPolicy=30,${wrong}` }, new RegExp(`^AWS_IOT_QUOTAS must hold .*, not "${wrong}"`))
  }
})

await t.test('trusted networks', async t => {
  t.strictSame(readConfig({ TRUST_PROXY_CIDRS: ' 10.0.0.0/16 , 192.0.2.7,fd00::/8,::1 ,' }).TRUST_PROXY_CIDRS, ['10.0.0.0/16', '192.0.2.7', 'fd00::/8', '::1'])
  for (const wrong of ['10.0.0.0/33', '10.0.0.0/', '10.0.0/8', 'fd00::/129', 'loopback', 'true', '1', '10.0.0.0/8/8', '10.0.0.0/-1', 'example.com', '*']) {
    isFaulty(t, { TRUST_PROXY_CIDRS: `10.0.0.0/8,${wrong}` }, new RegExp(`^TRUST_PROXY_CIDRS must hold networks such as 10.0.0.0/16, not "${wrong.replace(/[*./]/g, '\\$&')}"`))
  }
  t.equal(readConfig({}).ALB_MTLS, 'off')
  t.equal(readConfig({ ALB_MTLS: 'passthrough', TRUST_PROXY_CIDRS: '10.0.0.0/16' }).ALB_MTLS, 'passthrough')
  for (const nobody of ['', ' , ']) isFaulty(t, { ALB_MTLS: 'passthrough', TRUST_PROXY_CIDRS: nobody }, /^ALB_MTLS=passthrough needs TRUST_PROXY_CIDRS/)
  isFaulty(t, { ALB_MTLS: 'verify' }, /^ALB_MTLS must be one of off, passthrough/)
})

await t.test('addresses of other services', async t => {
  for (const name of ['AWS_ENDPOINT_URL_DYNAMODB', 'AWS_ENDPOINT_URL_IOT']) {
    for (const wrong of ['localhost:8000', 'not a URL', '/path', 'ftp://host', 'http://']) isFaulty(t, { [name]: wrong }, new RegExp(`^${name} must be .*http`))
    for (const right of ['http://localhost:8000', 'https://iot.eu-central-1.amazonaws.com', 'http://[::1]:1/']) isFaulty(t, { [name]: right })
  }
})

await t.test('all faults at once', async t => {
  const env = {
    NODE_ENV: 'production',
    CVM_LOCAL: 'maybe',
    PORT: 'high',
    OPS_PORT: '70000',
    LOG_LEVEL: 'loud',
    TLS_KEY_FILE: join(dir, 'nope'),
    TRUST_PROXY_CIDRS: 'all',
    CLAIM_LIFETIME_MS: '5',
    TOKEN_PEPPER: 'hunter2hunter2hunter2',
    ROOT_CA_FILE: dir,
    OIDC_ISSUER: 'http://id.example.com',
    OIDC_ALGORITHMS: 'HS256'
  }
  isFaulty(t, env, /^CVM_LOCAL must be true or false, not "maybe"/, /^PORT must be a whole number from 0 to 65535, not "high"/, /^OPS_PORT must .* not "70000"/,
    /^LOG_LEVEL must be one of fatal, .*silent, not "loud"/, /^TLS_CERT_FILE and TLS_KEY_FILE/, /^TLS_KEY_FILE must name/, /^TRUST_PROXY_CIDRS/,
    /^CLAIM_LIFETIME_MS must be greater/, /^TOKEN_PEPPER/, /^ROOT_CA_FILE/, /^OIDC_ISSUER/, /^OIDC_AUDIENCE/, /^OIDC_ALGORITHMS/)
  const error = t.throws(() => readConfig(env), ConfigError) as unknown as Error
  t.match(error.message, /^the configuration has 13 faults:\n {2}[A-Z_]+ /)
  t.notMatch(error.message, 'hunter2')
  t.throws(() => readConfig({ PORT: 'x' }), { message: /^the configuration has 1 fault:\n/ })
})

await t.test('every setting says what it is for', async t => {
  for (const [name, schema] of Object.entries(SETTINGS.properties)) t.match(schema, { description: /\w/ }, name)
  t.equal(allowed('LOG_LEVEL'), 'one of fatal, error, warn, info, debug, trace, silent')
  t.equal(allowed('PORT'), 'a whole number from 0 to 65535')
  t.equal(allowed('RATE_LIMIT_SERIAL_MAX'), 'a whole number from 1')
  t.equal(allowed('CVM_LOCAL'), 'true or false')
  t.equal(allowed('HOST'), 'text')
})
