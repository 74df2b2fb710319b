import { randomUUID } from 'node:crypto'
import { readFileSync } from 'node:fs'
import helmet from '@fastify/helmet'
import { DynamoDBDocumentClient } from '@aws-sdk/lib-dynamodb'
import Fastify, { type FastifyInstance, type FastifyServerOptions, LogController } from 'fastify'
import type { Logger } from 'pino'
import { type AwsSettings, countingClient, dynamodbClient, iotDataClient } from './adapters/aws-clients.ts'
import { CrlFilesAndUrls } from './adapters/crl-source.ts'
import type { OnQuarantined } from './adapters/device-rows.ts'
import { deviceTable, ensureDeviceTable } from './adapters/device-table.ts'
import { DynamoDbAuthoritySettings } from './adapters/dynamodb-authority-settings.ts'
import { DynamoDbAdoptions } from './adapters/dynamodb-adoptions.ts'
import { DynamoDbCertificateHolds } from './adapters/dynamodb-certificate-holds.ts'
import { DynamoDbDeviceCatalog } from './adapters/dynamodb-device-catalog.ts'
import { DynamoDbDriftFindings } from './adapters/dynamodb-drift-findings.ts'
import { DynamoDbDeviceRegistry } from './adapters/dynamodb-device-registry.ts'
import { RATE_LIMIT_TTL, dynamoDbRateStore, ensureRateLimitTable, rateLimitTable } from './adapters/dynamodb-rate-store.ts'
import { DynamoDbKeyOwners } from './adapters/dynamodb-key-owners.ts'
import { DynamoDbOldDevices } from './adapters/dynamodb-old-devices.ts'
import { DynamoDbRenewals } from './adapters/dynamodb-renewals.ts'
import { DynamoDbUnfinishedDevices } from './adapters/dynamodb-unfinished-devices.ts'
import { IotDataPlane } from './adapters/iot-data-plane.ts'
import { pacedControlPlanes } from './adapters/paced-control-plane.ts'
import { type WantedTable, tableChecks } from './adapters/table-setup.ts'
import { amazonRootCas } from './adapters/trust-anchors.ts'
import type { Config } from './config.ts'
import { auditLog } from './observed/audit-log.ts'
import { observedFallbacks } from './observed/rate-store.ts'
import { SetupWatch } from './observed/setup.ts'
import { observedUseCases } from './observed/use-cases.ts'
import { buildOps } from './ops.ts'
import { apiDocs } from './plugins/api-docs.ts'
import { authenticate } from './plugins/authenticate.ts'
import { callerGone } from './plugins/caller-gone.ts'
import { clientCertificate } from './plugins/client-certificate.ts'
import { canonicalHeaders } from './plugins/canonical-headers.ts'
import { driftSweeper } from './plugins/drift-sweeper.ts'
import { drain } from './plugins/drain.ts'
import { answerUnreadable, errorFacts, errorHandler, sendFrameworkError } from './plugins/error-handler.ts'
import { forwardedPorts } from './plugins/forwarded-ports.ts'
import { framing } from './plugins/framing.ts'
import { connectionsAllowed, httpServer } from './plugins/http-server.ts'
import { items } from './plugins/items.ts'
import { createMetrics, paceObserver, requestMetrics } from './plugins/metrics.ts'
import { isReadAtOwnPace, ndjson } from './plugins/ndjson.ts'
import { oidcCallers } from './plugins/oidc.ts'
import { overload } from './plugins/overload.ts'
import { unread } from './plugins/unread.ts'
import { rateLimits } from './plugins/rate-limit.ts'
import { reconciler } from './plugins/reconciler.ts'
import { strictInput } from './plugins/strict-input.ts'
import { readProducts } from './products.ts'
import { authorityRoutes } from './routes/authorities.ts'
import { batchRoutes } from './routes/batches.ts'
import { catalogRoutes } from './routes/catalog.ts'
import { deviceRoutes } from './routes/devices.ts'
import { driftRoutes } from './routes/drift.ts'
import { estRoutes } from './routes/est.ts'
import { legacyCvmRoutes } from './routes/legacy-cvm.ts'
import { migrationRoutes } from './routes/migration.ts'
import { reconcileRoutes } from './routes/reconcile.ts'
import { jitrRoutes } from './routes/jitr.ts'
import { registerCertificateRoutes } from './routes/register-certificate.ts'
import { registrationRoutes } from './routes/registration.ts'
import { renewRoutes } from './routes/renew.ts'
import { shadowRoutes } from './routes/shadows.ts'
import { vendRoutes } from './routes/vend.ts'
import type { DeviceRegistry } from './vending/device-registry.ts'
import { timesOf } from './vending/product.ts'
import { type TokenHasher, tokenHasher } from './vending/registration-token.ts'
import { renewAfter } from './vending/renewal-time.ts'
import type { Certificate } from './vending/device.ts'
import { firstExpiry } from './x509/expiry.ts'

/** Nothing here is a page. */
const NO_CONTENT = { useDefaults: false, directives: { defaultSrc: ["'none'"], frameAncestors: ["'none'"] } }

/** What one request with many items may bring: some hours of a line's work. A line is as long as another body may be. */
const LINE_LIMITS = { maxLines: 100_000, maxLineBytes: 16_384, maxBytes: 268_435_456, idleMs: 15_000 }

/** Few enough items at once to leave the table to the vends; an array is answered before anybody gives up waiting. */
const ITEMS = { atOnce: 16, arrayMs: 20_000 }

/** How calls fail where what they need is missing; a query of an index that is not there is a ValidationException. */
const MISSING: ReadonlySet<string> = new Set(['ResourceNotFoundException', 'ValidationException'])

/** What is around the service: given by the environment in production, by local mode on a laptop. */
export interface Surroundings {
  log: Logger
  version: string
  tls?: { cert: string, key: string }
  rootCaPem?: string
  credentials?: { accessKeyId: string, secretAccessKey: string }
}

export interface App {
  service: FastifyInstance
  ops: FastifyInstance
  registry: DeviceRegistry
  hashToken: TokenHasher
  /** Looks at what the service needs in AWS; to be started before anything listens. */
  setup: SetupWatch
  /** Ends the connections to AWS; call after both listeners are closed. */
  release: () => void
}

/** Joins the parts, in the order in which they depend on each other. Nothing listens yet. */
export async function buildApp (config: Config, surroundings: Surroundings): Promise<App> {
  const { log, version } = surroundings
  const products = readProducts(config)
  const metrics = createMetrics({ version, node: process.version })
  if (surroundings.tls) metrics.tlsNotAfter.set(firstExpiry(surroundings.tls.cert) / 1000)

  const aws: AwsSettings = {
    region: config.AWS_REGION,
    dynamodbEndpoint: config.AWS_ENDPOINT_URL_DYNAMODB || undefined,
    iotEndpoint: config.AWS_ENDPOINT_URL_IOT || undefined,
    callTimeoutMs: config.AWS_CALL_TIMEOUT_MS,
    credentials: surroundings.credentials,
    observe (service, operation, result, durationMs) {
      metrics.awsCalls.inc({ service, operation, result })
      const dependency = service.replace('iot', 'aws-iot')
      metrics.dependencyUp.set({ dependency }, isAnswer(result) && !setup.isUnusable(dependency) ? 1 : 0)
      if (MISSING.has(result)) setup.suspect()
      metrics.awsSeconds.observe({ service, operation }, durationMs / 1000)
    }
  }
  const dynamodb = dynamodbClient(aws)
  const counters = config.RATE_LIMIT_STORE === 'dynamodb' ? countingClient({ ...aws, callTimeoutMs: config.RATE_LIMIT_TIMEOUT_MS }) : undefined
  const documents = DynamoDBDocumentClient.from(dynamodb)
  const onQuarantined: OnQuarantined = fault => {
    metrics.quarantines.inc()
    log.error(fault, 'quarantined: the record of the device cannot be read')
  }
  const registry = new DynamoDbDeviceRegistry(documents, config.DEVICE_TABLE, onQuarantined)
  const renewals = new DynamoDbRenewals(documents, config.DEVICE_TABLE, onQuarantined)
  const devices = new DynamoDbUnfinishedDevices(documents, config.DEVICE_TABLE, onQuarantined)
  const oldDevices = new DynamoDbOldDevices(documents, config.DEVICE_TABLE, onQuarantined)
  const catalog = new DynamoDbDeviceCatalog(documents, config.DEVICE_TABLE, [...products.keys()], onQuarantined)
  const adoptions = new DynamoDbAdoptions(documents, config.DEVICE_TABLE, onQuarantined)
  const certificateHolds = new DynamoDbCertificateHolds(documents, config.DEVICE_TABLE)
  const findings = new DynamoDbDriftFindings(documents, config.DEVICE_TABLE)
  const keyOwners = new DynamoDbKeyOwners(documents, config.DEVICE_TABLE)
  const iot = { endpoint: config.IOT_ENDPOINT || undefined }
  const { release: releaseIot, accountEndpoint, policyChecks, ...controlPlanes } = pacedControlPlanes(aws, iot, {
    quotaFactor: config.AWS_IOT_QUOTA_FACTOR,
    quotas: config.AWS_IOT_QUOTAS,
    maxWaitMs: { device: config.QUEUE_WAIT_DEVICE_MS, bulk: config.QUEUE_WAIT_BULK_MS, sweep: config.QUEUE_WAIT_BULK_MS },
    clock: { now: () => performance.now(), later (delayMs, work) { setTimeout(work, delayMs) } },
    observer: paceObserver(metrics)
  })
  const setup = new SetupWatch({
    checks: [
      ...tablesOf(config).flatMap(table => tableChecks(dynamodb, table, config.AWS_REGION)),
      ...policyChecks(products, config.AWS_REGION)
    ],
    metrics,
    log,
    intervalMs: config.SETUP_CHECK_INTERVAL_MS
  })
  if (config.CREATE_TABLES) {
    await ensureDeviceTable(dynamodb, config.DEVICE_TABLE)
    if (counters) await ensureRateLimitTable(dynamodb, config.RATE_LIMIT_TABLE)
  }
  const iotData = iotDataClient(aws, async () => config.AWS_ENDPOINT_URL_IOT_DATA_PLANE || `https://${await accountEndpoint()}`)
  const hashToken = tokenHasher(config.TOKEN_PEPPER)
  const rootCaPem = surroundings.rootCaPem ?? (config.ROOT_CA_FILE ? readFileSync(config.ROOT_CA_FILE, 'utf8') : amazonRootCas())

  const { audit, isAudited } = auditLog(log)
  const authoritySettings = new DynamoDbAuthoritySettings(documents, config.DEVICE_TABLE)
  const crlSource = new CrlFilesAndUrls({ dir: config.CRL_DIR, timeoutMs: config.CRL_TIMEOUT_MS, maxBytes: config.CRL_MAX_BYTES })
  const stored = { registry, renewals, devices, oldDevices, catalog, adoptions, certificateHolds, keyOwners, findings, authoritySettings }
  const ports = { ...stored, crlSource, shadows: new IotDataPlane(iotData), ...controlPlanes }
  const useCases = observedUseCases({ config, log, audit, metrics, ...ports, hashToken, products })

  const service = Fastify(serverOptions(config, surroundings))
  service.addHook('onRequest', async (request, reply) => { reply.header('x-request-id', request.id) })
  await service.register(canonicalHeaders)
  if (config.TRUST_PROXY_CIDRS.length > 0) await service.register(forwardedPorts)
  await service.register(clientCertificate, { from: config.ALB_MTLS === 'passthrough' ? 'balancer' : 'socket', proxies: config.TRUST_PROXY_CIDRS })
  await service.register(drain)
  await service.register(callerGone)
  await service.register(requestMetrics, { metrics })
  // A browser keeps HSTS for every port of localhost, so that one look at /docs would break whatever else is served there.
  await service.register(helmet, { contentSecurityPolicy: NO_CONTENT, strictTransportSecurity: !config.CVM_LOCAL })
  await service.register(rateLimits, {
    addressMax: config.RATE_LIMIT_ADDRESS_MAX,
    serialMax: config.RATE_LIMIT_SERIAL_MAX,
    windowMs: config.RATE_LIMIT_WINDOW_MS,
    serialStore: counters && dynamoDbRateStore({
      client: counters, tableName: config.RATE_LIMIT_TABLE, decisionMs: config.RATE_LIMIT_TIMEOUT_MS
    }),
    onLimited: limit => metrics.rateLimited.inc({ limit }),
    onFallback: observedFallbacks(metrics, log)
  })
  await service.register(errorHandler, { onFailure: code => metrics.refusals.inc({ code }), isAudited })
  await service.register(unread)
  const limitAddress = service.rateLimit()
  await service.register(overload, {
    maxInFlight: config.MAX_IN_FLIGHT,
    maxOfAddress: config.MAX_IN_FLIGHT_ADDRESS,
    maxBatchesOfCaller: config.MAX_BATCHES,
    limitAddress: (request, reply) => limitAddress.call(service, request, reply),
    maxEventLoopDelayMs: config.MAX_EVENT_LOOP_DELAY_MS,
    onInFlight: count => metrics.inFlight.set(count)
  })
  await service.register(framing)
  await service.register(strictInput)
  await service.register(ndjson, LINE_LIMITS)
  await service.register(items, { ...ITEMS, isAudited, onFailure: code => metrics.refusals.inc({ code }) })
  await service.register(authenticate, { apiKeys: config.API_KEYS, callerOfToken: callersByToken(config), audit })
  if (config.API_DOCS) await service.register(apiDocs, { version })
  await service.register(reconciler, { intervalMs: config.RECONCILE_INTERVAL_MS, devices, reconcile: useCases.reconcile, log })

  metrics.driftInterval.set(config.DRIFT_SWEEP_INTERVAL_MS / 1000)
  await service.register(driftSweeper, { intervalMs: config.DRIFT_SWEEP_INTERVAL_MS, devices, ...useCases.drift, log })

  const { forDevices } = controlPlanes
  const vended = {
    connection: async () => ({ endpoint: await forDevices.endpoint(), rootCaPem }),
    renewAfter: ({ certificate, product }: { certificate: Certificate, product: string }) =>
      renewAfter(certificate, timesOf(product, products).renewAfterMs)
  }
  await service.register(vendRoutes, { ...vended, vend: useCases.vend })
  await service.register(renewRoutes, { ...vended, renew: useCases.renew, confirm: useCases.confirm })
  await service.register(registerCertificateRoutes, { ...vended, registerCertificate: useCases.registerCertificate })
  await service.register(estRoutes, {
    vend: useCases.vend,
    renew: useCases.renew,
    findByCertificate: certificateId => catalog.findByCertificate(certificateId),
    find: serialNumber => registry.find(serialNumber),
    products,
    rootCaPem
  })
  await service.register(batchRoutes, {
    ...vended, open: useCases.openBatch, atOnce: config.BATCH_AT_ONCE, onLine: status => metrics.batchLines.inc({ status })
  })
  await service.register(registrationRoutes, { register: useCases.register })
  await service.register(deviceRoutes, { registry, findings, operate: useCases.operate })
  await service.register(driftRoutes, { findings, accept: useCases.drift.accept })
  await service.register(shadowRoutes, useCases.shadows)
  await service.register(catalogRoutes, { catalog, devices })
  await service.register(authorityRoutes, useCases.authorities)
  await service.register(reconcileRoutes, { reconcile: useCases.reconcile, sweepNow: useCases.drift.sweepNow })
  if (config.JITR_SECRET) {
    const { activate, confirmDestination } = useCases
    const from = { secret: config.JITR_SECRET, accountId: config.AWS_ACCOUNT_ID, region: config.AWS_REGION }
    await service.register(jitrRoutes, { ...from, activate, confirmDestination, onRefused: service.auditRefusal })
  }
  await service.register(migrationRoutes, { migrate: useCases.migrate })
  if (config.LEGACY_CVM) {
    const { showOwn: showOwnShadow, changeOwn: changeOwnShadow } = useCases.shadows
    const sunset = config.LEGACY_CVM_SUNSET ? Date.parse(config.LEGACY_CVM_SUNSET) : undefined
    await service.register(legacyCvmRoutes, { vend: useCases.vend, showOwnShadow, changeOwnShadow, rootCaPem, sunset })
  }
  service.refuseOtherMethods()
  await service.ready()

  const ops = buildOps({
    metrics,
    unready: () => service.isDraining() ? 'draining' : service.isOverloaded() ? 'overloaded' : undefined,
    setup,
    dependencies: { dynamodb: () => registry.find('healthz'), 'aws-iot': () => forDevices.checkReachable() },
    now: Date.now
  })
  const release = (): void => { setup.stop(); dynamodb.destroy(); counters?.destroy(); releaseIot(); iotData.destroy() }
  return { service, ops, registry, hashToken, setup, release }
}

/** The tables, and what the service is without each of them. */
function tablesOf ({ DEVICE_TABLE, RATE_LIMIT_TABLE, RATE_LIMIT_STORE }: Config): WantedTable[] {
  const devices: WantedTable = {
    wanted: deviceTable(DEVICE_TABLE),
    setting: 'DEVICE_TABLE',
    resource: 'aws_dynamodb_table.devices',
    isNeeded: true,
    without: 'nothing can be vended'
  }
  const rateLimits: WantedTable = {
    wanted: rateLimitTable(RATE_LIMIT_TABLE),
    setting: 'RATE_LIMIT_TABLE',
    resource: 'aws_dynamodb_table.rate_limits',
    isNeeded: false,
    without: 'each replica counts serial numbers for itself',
    ttl: RATE_LIMIT_TTL
  }
  return RATE_LIMIT_STORE === 'dynamodb' ? [devices, rateLimits] : [devices]
}

function callersByToken (config: Config) {
  return config.OIDC_ISSUER === ''
    ? undefined
    : oidcCallers({
      issuer: config.OIDC_ISSUER,
      audience: config.OIDC_AUDIENCE,
      jwksUrl: config.OIDC_JWKS_URL,
      audienceClaim: config.OIDC_AUDIENCE_CLAIM,
      algorithms: config.OIDC_ALGORITHMS,
      roleClaim: config.OIDC_ROLE_CLAIM,
      nameClaim: config.OIDC_NAME_CLAIM
    })
}

function serverOptions (config: Config, { log, tls }: Surroundings): FastifyServerOptions {
  const proxies = config.TRUST_PROXY_CIDRS
  return {
    loggerInstance: log,
    logController: new LogController({ disableRequestLogging: true, requestIdLogLabel: 'requestId' }),
    childLoggerFactory: (parent, bindings, options) => parent.child(bindings, { ...options, serializers: { err: errorFacts } }),
    serverFactory: handle => httpServer({ tls, proxies, log, maxConnections: connectionsAllowed() }, handle),
    // Fastify reads the scheme of the address that it listens on from here.
    ...(tls && { https: tls }),
    bodyLimit: 16_384,
    return503OnClosing: false,
    trustProxy: config.TRUST_PROXY_CIDRS.length > 0 ? config.TRUST_PROXY_CIDRS : false,
    genReqId: ({ headers }) => requestIdOf(headers['x-request-id']),
    ajv: { customOptions: { coerceTypes: false, removeAdditional: false, useDefaults: false, allErrors: true } },
    clientErrorHandler: (error, socket) => { if (!isReadAtOwnPace(error, socket)) answerUnreadable(error, socket, log) },
    frameworkErrors: sendFrameworkError
  } as FastifyServerOptions
}

/** Whether a call's result shows that the dependency works, even where it refused the call. */
function isAnswer (result: string): boolean {
  return result === 'ok' || (/Exception$/.test(result) && !/Internal|Unavailable/.test(result))
}

/** The caller's request id where it is a plain one, so that its logs and ours can be joined; else a new one. */
function requestIdOf (given: string | string[] | undefined): string {
  return typeof given === 'string' && /^[A-Za-z0-9._:-]{8,64}$/.test(given) ? given : randomUUID()
}
