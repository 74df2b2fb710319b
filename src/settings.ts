import { type Static, Type } from 'typebox'

const port = (initial: number, description: string) => Type.Integer({ minimum: 0, maximum: 65_535, default: initial, description })
const positive = (initial: number, description: string) =>
  Type.Integer({ minimum: 1, maximum: Number.MAX_SAFE_INTEGER, default: initial, description })
/** Short enough for a timer, in milliseconds. */
const timer = (initial: number, description: string) => Type.Integer({ minimum: 1, maximum: 600_000, default: initial, description })
const text = (initial: string, description: string) => Type.String({ default: initial, description })

/** Asymmetric ones only: whoever can check a token must not be able to make one. */
export const ALGORITHMS = ['RS256', 'RS384', 'RS512', 'PS256', 'PS384', 'PS512', 'ES256', 'ES384', 'ES512', 'EdDSA', 'Ed25519']

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
  TLS_SELF_SIGNED: Type.Boolean({ default: false, description: 'TLS with a key and certificate that the process makes for itself, for a load balancer that speaks TLS with it and does not check certificates' }),
  TRUST_PROXY_CIDRS: text('', 'networks of the load balancer, comma-separated; whose `X-Forwarded-For` is believed'),
  ALB_MTLS: Type.Enum(['off', 'passthrough'], { default: 'off', description: 'where TLS client certificates (EST) come from: the TLS that ends here, or the load balancer in passthrough mode, by its header; with `TRUST_PROXY_CIDRS`' }),
  AWS_REGION: text('us-east-1', 'region of AWS IoT and DynamoDB'),
  AWS_ENDPOINT_URL_DYNAMODB: text('', 'another DynamoDB endpoint; local mode then starts none of its own'),
  AWS_ENDPOINT_URL_IOT: text('', 'another AWS IoT endpoint'),
  AWS_ENDPOINT_URL_IOT_DATA_PLANE: text('', 'another endpoint for shadows; the account\'s own when empty'),
  DEVICE_TABLE: text('iot-cvm-device-info', 'table of the device registry'),
  CREATE_TABLES: Type.Optional(Type.Boolean({ description: 'create missing tables at start; on in local mode only' })),
  IOT_POLICY_NAME: text('cvm-device-policy', 'AWS IoT policy that every certificate gets'),
  IOT_ENDPOINT: text('', 'endpoint that devices are told; asked of AWS IoT when empty'),
  PRODUCTS_FILE: text('', 'settings of kinds of devices (JSON); only the product `default` when empty'),
  ROOT_CA_FILE: text('', 'root certificates that devices are told (PEM); Amazon Root CA 1 and 3 when empty'),
  TOKEN_PEPPER: text('', 'base64 of at least 32 random bytes that key the hashes of registration tokens; required outside local mode'),
  API_KEYS: text('', 'who may use the operator\'s routes: `name:role:hash` entries, comma-separated, as `cvm keys create` prints them'),
  OIDC_ISSUER: text('', 'identity provider whose tokens are taken beside API keys, as their `iss` names it (https); empty: none are. While it is away, the keys that it had stay good for 24 hours'),
  OIDC_AUDIENCE: text('', 'what the audience claim must hold; required with `OIDC_ISSUER`'),
  OIDC_AUDIENCE_CLAIM: text('aud', 'claim with the audience; `client_id` for access tokens of Amazon Cognito, which have no `aud`'),
  OIDC_JWKS_URL: text('', 'the provider\'s keys; asked of `<issuer>/.well-known/openid-configuration` when empty'),
  OIDC_ALGORITHMS: text('RS256,ES256', `signature algorithms that are taken, comma-separated: ${ALGORITHMS.join(', ')}`),
  OIDC_ROLE_CLAIM: text('roles', 'claim with a role or a list of roles, such as `realm_access.roles`; other values in it do not matter'),
  OIDC_NAME_CLAIM: text('sub', 'claim with the caller\'s name for audit records'),
  CLAIM_LIFETIME_MS: timer(30_000, 'how long a worker may hold a device; longer than `VEND_DEADLINE_MS`'),
  VEND_DEADLINE_MS: timer(20_000, 'how long one vend may take'),
  REPLAY_WINDOW_MS: positive(30 * 24 * 3_600_000, 'how long after a vend the same request gets the same certificate'),
  RENEW_AFTER_MS: positive(365 * 24 * 3_600_000, 'age at which devices are told to renew'),
  RENEWAL_AUDIENCE: text('', 'what `aud` of a proof of renewal must be; the endpoint that devices are told when empty'),
  RENEWAL_PROOF_WINDOW_MS: timer(300_000, 'how far `iat` of a proof may be from the time here, either way'),
  RENEWAL_CONFIRM_WITHIN_MS: positive(24 * 3_600_000, 'how long a renewal waits for its device to confirm'),
  CRL_DIR: text('', 'folder of the CRLs that authorities name as files; empty: only URLs are taken'),
  CRL_TIMEOUT_MS: timer(2_000, 'longest fetch of a CRL'),
  CRL_MAX_BYTES: Type.Integer({ minimum: 1, maximum: 16_777_216, default: 16_777_216, description: 'largest CRL that is read' }),
  CRL_MAX_AGE_MS: positive(3_600_000, 'age at which a newer CRL is looked for, also before the old one ends'),
  AWS_CALL_TIMEOUT_MS: timer(5_000, 'time for one attempt of one AWS call'),
  AWS_IOT_QUOTA_FACTOR: Type.Optional(Type.Number({
    minimum: 0, maximum: 1_000, description: 'how many times AWS\'s default quotas the account has for calls to AWS IoT; 0: no pacing; 1, in local mode 0, when not set'
  })),
  AWS_IOT_QUOTAS: text('', 'calls a second by operation where they differ from that, such as `CreateCertificateFromCsr=30,UpdateCertificate=20`'),
  QUEUE_WAIT_DEVICE_MS: timer(5_000, 'longest wait for a turn at AWS IoT that a device\'s request begins with; longer is answered 503 at once'),
  QUEUE_WAIT_BULK_MS: timer(15_000, 'the same for batches and reconcile, which wait behind devices, and for the sweep for drift, which waits behind all'),
  BATCH_AT_ONCE: Type.Integer({ minimum: 1, maximum: 1_000, default: 64, description: 'most lines of one batch that are worked on at once; fewer where the pace is slow' }),
  RECONCILE_INTERVAL_MS: timer(30_000, 'time between two runs of reconcile, in all replicas together'),
  RECONCILE_BATCH: Type.Integer({ minimum: 1, maximum: 1_000, default: 200, description: 'most unfinished devices in one run' }),
  RECONCILE_MAX_PAGES: positive(40, 'most pages of AWS IoT\'s list of certificates (250 each) in one run'),
  DRIFT_SWEEP_INTERVAL_MS: Type.Integer({
    minimum: 0, maximum: 31 * 24 * 3_600_000, default: 24 * 3_600_000, description: 'time in which each certificate is compared with AWS IoT at least once; 0: never'
  }),
  SETUP_CHECK_INTERVAL_MS: timer(60_000, 'time between two looks at tables, indexes, TTL and policies; at most 10 s while something is missing'),
  RATE_LIMIT_ADDRESS_MAX: positive(600, 'requests per address and window'),
  RATE_LIMIT_SERIAL_MAX: positive(10, 'vend requests per serial number and window'),
  RATE_LIMIT_WINDOW_MS: positive(60_000, 'the window of both limits'),
  RATE_LIMIT_STORE: Type.Enum(['memory', 'dynamodb'], { default: 'memory', description: 'where serial numbers are counted: by each replica for itself, or in DynamoDB for all together' }),
  RATE_LIMIT_TABLE: text('iot-cvm-rate-limits', 'table of the counters with `RATE_LIMIT_STORE=dynamodb`'),
  RATE_LIMIT_TIMEOUT_MS: timer(500, 'longest that a request waits to be counted there; then its replica counts for itself'),
  JITR_SECRET: text('', 'what the AWS IoT rule of just-in-time registration sends as `X-Jitr-Secret`, 32 characters or more; empty: no events are taken'),
  AWS_ACCOUNT_ID: text('', 'the account whose events and destinations are taken; required with `JITR_SECRET` outside local mode'),
  LEGACY_CVM: Type.Boolean({ default: false, description: '`GET /getcert` and `GET|PUT /shadow` for the firmware of earlier certificate vending machines' }),
  LEGACY_CVM_SUNSET: text('', 'date, such as 2030-01-31, after which these may be gone; told in their `Sunset` header'),
  API_DOCS: Type.Boolean({ default: true, description: '`/docs` and `/openapi.json` on the service\'s port' }),
  MAX_IN_FLIGHT: positive(512, 'requests worked on at once; more are answered 503'),
  MAX_IN_FLIGHT_ADDRESS: positive(128, 'of these, the most of one address; more are answered 429'),
  MAX_BATCHES: positive(16, 'requests with many items of one API key or token at once; more are answered 429'),
  MAX_EVENT_LOOP_DELAY_MS: timer(1_000, 'mean delay of the event loop above which requests are answered 503; from a fortieth of it on, fewer are worked on at once'),
  SHUTDOWN_TIMEOUT_MS: timer(8_000, 'time for requests in flight after SIGTERM'),
  DRAIN_DELAY_MS: Type.Integer({ minimum: 0, maximum: 60_000, default: 0, description: 'time between unready and closed after SIGTERM, for balancers that poll' })
})

/** The settings by type, as they were given. */
export type Settings = Static<typeof SETTINGS>

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
