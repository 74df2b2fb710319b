import { Counter, Gauge, Histogram, Registry, collectDefaultMetrics } from '@prometheus-io/client'
import fp from 'fastify-plugin'
import { FINDING_KINDS } from '../vending/drift-findings.ts'
import { RECONCILE_STEPS } from '../vending/reconcile-run.ts'

/** Every metric of the service. Labels take few values each: never a serial number, certificate id, URL or message. */
export type Metrics = ReturnType<typeof createMetrics>

const SECONDS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20]

/** A registry of its own for each service in a process, so that tests can run several. */
export function createMetrics (build: { version: string, node: string }) {
  const register = new Registry()
  const registers = [register]
  collectDefaultMetrics({ register })
  const metrics = {
    register,
    vends: new Counter({ name: 'cvm_vends_total', help: 'Vend requests by way and outcome', labelNames: ['way', 'outcome'], registers }),
    batchLines: new Counter({ name: 'cvm_batch_lines_total', help: 'Lines of batches by what became of them', labelNames: ['status'], registers }),
    renewals: new Counter({ name: 'cvm_renewals_total', help: 'Requests to renew and to confirm, by step and outcome', labelNames: ['step', 'outcome'], registers }),
    adoptions: new Counter({
      name: 'cvm_adoptions_total', help: 'Certificates that were made elsewhere, by way (`registered`, `jitr`) and what became of them', labelNames: ['way', 'outcome'], registers
    }),
    pendingActivation: new Gauge({
      name: 'cvm_pending_activation_certificates', help: 'Certificates that wait for their activation, by how long, up to one batch', labelNames: ['age'], registers
    }),
    repairs: new Counter({
      name: 'cvm_signatures_repaired_total',
      help: 'Signatures that were not written as their standard says, and verified once they were: of a `csr` (`raw`, `integers`) or of a `proof` (`der`)',
      labelNames: ['what', 'kind'],
      registers
    }),
    keyReuse: new Counter({
      name: 'cvm_key_reuse_total', help: 'Requests for a key that is another device\'s or compromised, by code and what the product does then', labelNames: ['code', 'then'], registers
    }),
    refusals: new Counter({ name: 'cvm_refusals_total', help: 'Error answers by code', labelNames: ['code'], registers }),
    stepSeconds: new Histogram({
      name: 'cvm_vend_step_duration_seconds', help: 'Time of each step of a vend', labelNames: ['step', 'result'], buckets: SECONDS, registers
    }),
    awsCalls: new Counter({
      name: 'cvm_aws_calls_total', help: 'Calls to AWS, each attempt by its result', labelNames: ['service', 'operation', 'result'], registers
    }),
    awsSeconds: new Histogram({
      name: 'cvm_aws_call_duration_seconds', help: 'Time of calls to AWS, of each attempt', labelNames: ['service', 'operation'], buckets: SECONDS, registers
    }),
    queueLength: new Gauge({
      name: 'cvm_aws_iot_queue_length', help: 'Calls to AWS IoT that wait for their turn', labelNames: ['operation', 'class'], registers
    }),
    queueSeconds: new Histogram({
      name: 'cvm_aws_iot_queue_wait_seconds', help: 'How long calls to AWS IoT waited for their turn', labelNames: ['operation', 'class'], buckets: SECONDS, registers
    }),
    queueRefusals: new Counter({
      name: 'cvm_aws_iot_queue_refusals_total', help: 'Calls to AWS IoT not made because they would have waited too long', labelNames: ['operation', 'class'], registers
    }),
    pace: new Gauge({ name: 'cvm_aws_iot_pace', help: 'Calls a second that this replica allows itself', labelNames: ['operation'], registers }),
    throttles: new Counter({ name: 'cvm_aws_iot_throttles_total', help: 'Calls that AWS IoT throttled', labelNames: ['operation'], registers }),
    leftovers: new Counter({ name: 'cvm_leftovers_total', help: 'Clean-ups that failed and are left to reconcile', labelNames: ['what'], registers }),
    reconcileActions: new Counter({
      name: 'cvm_reconcile_actions_total', help: 'What reconcile did, by step and outcome', labelNames: ['step', 'outcome'], registers
    }),
    reconcileBacklog: new Gauge({ name: 'cvm_reconcile_backlog', help: 'Unfinished devices after the last run, up to one batch', registers }),
    reconcileLastRun: new Gauge({ name: 'cvm_reconcile_last_run_timestamp_seconds', help: 'When this replica last ran reconcile', registers }),
    drift: new Gauge({
      name: 'cvm_drift', help: 'Differences between AWS IoT and the registry that are neither repaired nor accepted; 0 expected', registers
    }),
    driftFindings: new Gauge({ name: 'cvm_drift_findings', help: 'The same by kind', labelNames: ['kind'], registers }),
    driftLooked: new Counter({ name: 'cvm_drift_certificates_total', help: 'Certificates of the account that the sweep for drift looked at', registers }),
    driftLastPass: new Gauge({
      name: 'cvm_drift_last_pass_timestamp_seconds', help: 'When the last full pass of the sweep ended; the beginning of the first one until it ends', registers
    }),
    driftPassSeconds: new Gauge({ name: 'cvm_drift_pass_duration_seconds', help: 'How long that pass took', registers }),
    driftInterval: new Gauge({ name: 'cvm_drift_sweep_interval_seconds', help: 'Time from pass to pass as it is set; 0: there is no sweep', registers }),
    quarantined: new Gauge({ name: 'cvm_quarantined_devices', help: 'Devices whose rows cannot be read, after the last run of reconcile; 0 expected', registers }),
    quarantines: new Counter({ name: 'cvm_quarantines_total', help: 'Rows that this replica put into quarantine because they cannot be read', registers }),
    rateLimited: new Counter({ name: 'cvm_rate_limited_total', help: 'Requests refused by a rate limit', labelNames: ['limit'], registers }),
    rateLimitFallbacks: new Counter({
      name: 'cvm_rate_limit_fallbacks_total', help: 'Requests counted in this replica\'s memory because the shared store was away', registers
    }),
    crlFetches: new Counter({ name: 'cvm_crl_fetches_total', help: 'Fetches of CRLs: `fetched`, `unchanged`, or why there is none', labelNames: ['result'], registers }),
    crlUnavailable: new Counter({
      name: 'cvm_crl_unavailable_total', help: 'Certificates that no CRL said anything about, by what became of them', labelNames: ['then'], registers
    }),
    crlNextUpdate: new Gauge({
      name: 'cvm_crl_next_update_timestamp_seconds', help: 'When the first of the CRLs in use ends; only once there is one', registers
    }),
    inFlight: new Gauge({ name: 'cvm_http_requests_in_flight', help: 'Requests being worked on', registers }),
    requestSeconds: new Histogram({
      name: 'cvm_http_request_duration_seconds', help: 'Time of requests', labelNames: ['method', 'route', 'status'], buckets: SECONDS, registers
    }),
    dependencyUp: new Gauge({ name: 'cvm_dependency_up', help: '1 when the last call or check of a dependency succeeded', labelNames: ['dependency'], registers }),
    setupFaults: new Gauge({
      name: 'cvm_setup_faults', help: 'What is missing in AWS, by part: tables, keys, indexes, TTL, policies; 0 expected', labelNames: ['part'], registers
    }),
    tlsNotAfter: new Gauge({
      name: 'cvm_tls_certificate_not_after_timestamp_seconds', help: 'When the certificate of the service expires; only where TLS ends here', registers
    })
  }
  // A gauge without labels begins at 0, which would be a certificate that expired in 1970.
  metrics.tlsNotAfter.remove()
  metrics.crlNextUpdate.remove()
  metrics.driftLastPass.remove()
  metrics.driftPassSeconds.remove()
  new Gauge({ name: 'cvm_build_info', help: 'Always 1; version and runtime as labels', labelNames: ['version', 'node'], registers }).set(build, 1)
  for (const limit of ['address', 'serial']) metrics.rateLimited.inc({ limit }, 0)
  for (const status of ['vended', 'replayed', 'refused', 'failed']) metrics.batchLines.inc({ status }, 0)
  for (const what of ['certificate', 'claim']) metrics.leftovers.inc({ what }, 0)
  for (const step of ['renew', 'confirm']) metrics.renewals.inc({ step, outcome: 'renewed' }, 0)
  for (const step of RECONCILE_STEPS) {
    for (const outcome of ['done', 'later', 'failed']) metrics.reconcileActions.inc({ step, outcome }, 0)
  }
  for (const kind of FINDING_KINDS) metrics.driftFindings.set({ kind }, 0)
  for (const result of ['fetched', 'unchanged']) metrics.crlFetches.inc({ result }, 0)
  for (const then of ['refuse', 'accept']) metrics.crlUnavailable.inc({ then }, 0)
  for (const then of ['refuse', 'warn']) metrics.keyReuse.inc({ code: 'key-in-use', then }, 0)
  metrics.keyReuse.inc({ code: 'key-compromised', then: 'refuse' }, 0)
  for (const way of ['registered', 'jitr']) metrics.adoptions.inc({ way, outcome: 'adopted' }, 0)
  for (const [what, kind] of [['csr', 'raw'], ['csr', 'integers'], ['proof', 'der']] as const) metrics.repairs.inc({ what, kind }, 0)
  for (const way of ['csr', 'keys']) metrics.vends.inc({ way, outcome: 'vended' }, 0)
  return metrics
}

/** Watches the queues before AWS IoT. Counters begin at 0 with their queue, so that a first throttle shows as a rise. */
export function paceObserver (metrics: Metrics) {
  return {
    queue (operation: string, priority: string, length: number) {
      metrics.queueLength.set({ operation, class: priority }, length)
      metrics.queueRefusals.inc({ operation, class: priority }, 0)
    },
    waited (operation: string, priority: string, waitMs: number) {
      metrics.queueSeconds.observe({ operation, class: priority }, waitMs / 1000)
    },
    refused: (operation: string, priority: string) => metrics.queueRefusals.inc({ operation, class: priority }),
    throttled: (operation: string) => metrics.throttles.inc({ operation }),
    pace (operation: string, perSecond: number) {
      metrics.pace.set({ operation }, perSecond)
      metrics.throttles.inc({ operation }, 0)
    }
  }
}

/** Measures every request by its route's pattern, and logs it from an allow-list: a URL may hold a secret, a pattern cannot. */
export const requestMetrics = fp<{ metrics: Metrics }>(async (app, { metrics }) => {
  app.addHook('onResponse', async (request, reply) => {
    const { url: route = 'unknown' } = request.routeOptions
    const { statusCode: status, elapsedTime } = reply
    metrics.requestSeconds.observe({ method: request.method, route, status }, elapsedTime / 1000)
    request.log.info({ method: request.method, route, status, durationMs: Math.round(elapsedTime), address: request.ip }, 'answered')
  })
}, { name: 'request-metrics' })
