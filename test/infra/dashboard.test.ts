// Grafana's dashboard: well formed, and each of its queries asked of a Prometheus that scraped the built service; none empty, none wrong.
import { randomBytes } from 'node:crypto'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { parse } from 'yaml'
import { apiKey } from '../acceptance/fleet.ts'
import { ROOT, folder, start } from '../acceptance/processes.ts'
import { type Device, startLocalAws, startProduction } from '../acceptance/service-process.ts'
import { curl, hasTool, keyAndCsr, vendBody } from '../acceptance/tools.ts'
import { DASHBOARD, QUERIES, overlap } from '../fixtures/dashboard.ts'
import { openssl } from '../fixtures/openssl.ts'
import { until } from '../fixtures/until.ts'

t.setTimeout(900_000)

const PROMETHEUS = join(ROOT, 'infra/prometheus')
const PATIENCE_MS = 600_000
/** What Grafana would put there. */
const VARIABLES: Record<string, string> = { $job: 'cvm', $instance: '.*', $__rate_interval: '1m' }

await t.test('the dashboard is well formed', async t => {
  const { panels, schemaVersion, templating } = DASHBOARD
  t.ok(Number.isInteger(schemaVersion) && schemaVersion >= 36)
  t.equal(new Set(panels.map(({ id }) => id)).size, panels.length, 'each panel has an id of its own')
  t.strictSame(templating.list.map(({ name, type }) => [name, type]), [['datasource', 'datasource'], ['job', 'query'], ['instance', 'query']])
  for (const [n, panel] of panels.entries()) {
    const { title, description, gridPos, type, datasource, fieldConfig, targets = [] } = panel
    t.ok(gridPos.x >= 0 && gridPos.x + gridPos.w <= 24, `${title} is on the grid`)
    for (const other of panels.slice(n + 1)) t.notOk(overlap(gridPos, other.gridPos), `${title} and ${other.title} lie side by side`)
    if (type === 'row') continue
    t.ok(description && fieldConfig?.defaults.unit && targets.length > 0, `${title} says what it shows, in which unit`)
    t.strictSame(new Set([datasource?.uid, ...targets.map(target => target.datasource.uid)]), new Set(['${datasource}']), `${title} asks the chosen Prometheus`) // eslint-disable-line no-template-curly-in-string
    t.equal(new Set(targets.map(({ refId }) => refId)).size, targets.length, `${title}: each query has a name of its own`)
  }
})

await t.test('Grafana is told where its dashboard and Prometheus are', async t => {
  const read = (file: string) => parse(readFileSync(join(ROOT, 'infra/grafana/provisioning', file), 'utf8')) as Record<string, { type: string, url?: string }[]>
  t.match(read('datasources/prometheus.yml')['datasources'], [{ type: 'prometheus', url: 'http://prometheus:9090' }])
  t.match(read('dashboards/cvm.yml')['providers'], [{ type: 'file', options: { path: '/var/lib/grafana/dashboards' } }])
})

await t.test('each query finds something in a Prometheus that scraped the service, and each rule can be evaluated', async t => {
  if (!await hasTool(t, ['prometheus', '--version'], 'Debian: prometheus', 'what the dashboard shows')) return
  const { opsUrl, traffic } = await startWatched(t)
  const prometheus = await startPrometheus(t, opsUrl)
  const seconds = (moment: number) => (moment / 1000).toFixed(3)
  // Of a selector alone: the time of a computed value is that of the question.
  const scrapedSince = async (moment: number) =>
    (await prometheus<Instant>('query', { query: `timestamp(up{job="cvm"}) > ${seconds(moment)} and up{job="cvm"} == 1` })).data.result.length > 0

  // Twice, with a scrape in between: a counter's first value is no rise.
  t.ok(await until(() => scrapedSince(0), PATIENCE_MS), 'Prometheus scrapes the service')
  await traffic(t)
  const between = Date.now()
  t.ok(await until(() => scrapedSince(between), PATIENCE_MS), 'and again')
  await traffic(t)

  const valuesOf = async (expr: string): Promise<number[]> => {
    const query = Object.entries(VARIABLES).reduce((text, [name, value]) => text.replaceAll(name, value), expr)
    const now = Date.now()
    const answer = await prometheus<Range>('query_range', { query, start: seconds(now - 60_000), end: seconds(now), step: '1' })
    if (answer.status !== 'success') throw new Error(`${query}: ${answer.error}`)
    return answer.data.result.flatMap(({ values }) => values.map(([, value]) => Number(value))).filter(Number.isFinite)
  }
  for (const { name, expr } of QUERIES) t.ok(await until(async () => (await valuesOf(expr)).length > 0, PATIENCE_MS), `${name} shows something: ${expr}`)
  // A line at the bottom shows nothing of what happened, so where something did, more than that; AWS IoT throttles as it likes.
  for (const title of ['Vends A', 'Refusals by code A', 'Lines of batches A', 'Rate limits A', 'Throttled and turned away A', 'Requests by status A']) {
    const { expr = '' } = QUERIES.find(({ name }) => name === title) ?? {}
    const isRisen = async () => (await valuesOf(expr)).some(value => value > 0)
    t.ok(await until(async () => await isRisen() || traffic(t).then(() => false), PATIENCE_MS), `${title} rises`)
  }

  const { data: { groups } } = await prometheus<{ data: { groups: { rules: { name: string, health: string, lastError?: string }[] }[] } }>('rules', {})
  const rules = groups.flatMap(({ rules }) => rules)
  t.ok(rules.length > 20, 'the rules are loaded')
  // Whether an alert fires depends on the machine: what raises it is asked by infra/prometheus's own tests.
  for (const { name, health, lastError } of rules) t.strictSame([health, lastError], ['ok', undefined], name)
})

interface Instant { data: { result: unknown[] } }
interface Range { status: string, error?: string, data: { result: { values: [number, string][] }[] } }

/** The service as in production, at an AWS IoT that throttles now and then; `traffic` is a bit of everything. */
async function startWatched (t: Test) {
  const dir = folder(t)
  const [cert, certKey] = [join(dir, 'tls.crt'), join(dir, 'tls.key')]
  const made = await openssl(['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-keyout', certKey, '-out', cert,
    '-days', '90', '-subj', '/CN=localhost', '-addext', 'subjectAltName=DNS:localhost,IP:127.0.0.1'])
  t.ok(made.ok, made.stderr)
  const aws = await startLocalAws(t, { name: 'dynalite' }, { LOCAL_FAULTS: '[{"operation":"AttachPolicy","kind":"throttle","probability":0.3}]' })
  const [key, lineKey] = [randomBytes(24).toString('base64url'), randomBytes(24).toString('base64url')]
  const { serviceUrl, opsUrl } = await startProduction(t, aws, {
    TLS_CERT_FILE: cert,
    TLS_KEY_FILE: certKey,
    TOKEN_PEPPER: randomBytes(32).toString('base64'),
    API_KEYS: `${apiKey('operator', key)},${apiKey('line', lineKey)}`,
    AWS_IOT_QUOTA_FACTOR: '10',
    RATE_LIMIT_SERIAL_MAX: '3',
    RATE_LIMIT_WINDOW_MS: '600000',
    RECONCILE_INTERVAL_MS: '1000'
  })
  const post = (path: string, body: string, bearer?: string) =>
    curl(serviceUrl + path, { ca: cert, body, ...bearer && { headers: { authorization: `Bearer ${bearer}` } } })
  const vend = async (device: Device) => vendBody(device, (await keyAndCsr(dir, device.serialNumber)).csr)
  return {
    opsUrl,
    async traffic (t: Test) {
      const [device, ofLine] = [await aws.register(), await aws.register()]
      const body = await vend(device)
      const statuses = []
      for (const sent of [body, body, await vend({ ...device, registrationToken: 'not-the-token-of-it' }), body]) statuses.push((await post('/v1/certificates', sent)).status)
      t.strictSame(statuses, [201, 200, 401, 429], 'vended, replayed, refused, and one too many')
      t.equal((await post('/v1/batches', `[${await vend(ofLine)}]`, lineKey)).status, 200)
      t.equal((await post('/v1/reconcile', '{}', key)).status, 200)
    }
  }
}

/** Prometheus with the rules, which looks often; the answers of its API. */
async function startPrometheus (t: Test, opsUrl: string) {
  const dir = folder(t)
  writeFileSync(join(dir, 'prometheus.yml'), JSON.stringify({
    global: { scrape_interval: '1s', scrape_timeout: '1s', evaluation_interval: '1s' },
    rule_files: ['recording-rules.yml', 'alerts.yml'].map(file => join(PROMETHEUS, file)),
    scrape_configs: [{ job_name: 'cvm', static_configs: [{ targets: [new URL(opsUrl).host] }] }]
  }))
  const args = [`--config.file=${join(dir, 'prometheus.yml')}`, `--storage.tsdb.path=${join(dir, 'data')}`, '--web.listen-address=127.0.0.1:0']
  const { said } = start(t, 'prometheus', args, {})
  const [, address = ''] = await said(output => /msg="Listening on" address=(\S+)/.exec(output) ?? undefined)
  if (!await until(async () => (await fetch(`http://${address}/-/ready`)).ok, PATIENCE_MS)) throw new Error('Prometheus does not become ready')
  return async <T>(path: string, parameters: Record<string, string>): Promise<T> =>
    await (await fetch(`http://${address}/api/v1/${path}?${new URLSearchParams(parameters)}`)).json() as T
}
