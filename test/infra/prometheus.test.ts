// Prometheus' rules: promtool takes them and their tests, every alert fires and stays silent in a test and has its runbook, and what
// they read is what the service says.
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { parse } from 'yaml'
import { createMetrics } from '../../src/plugins/metrics.ts'
import { RECONCILE_STEPS } from '../../src/vending/reconcile-run.ts'
import { ROOT } from '../acceptance/processes.ts'
import { hasTool, tool } from '../acceptance/tools.ts'
import { accessRows } from '../fixtures/access.ts'
import { groupingsOf, recordedIn, selectorsOf } from '../fixtures/promql.ts'
import { readme } from '../fixtures/readme.ts'

interface Rule { alert?: string, record?: string, expr: string, labels?: Record<string, string>, annotations?: Record<string, string> }
interface RuleFile { groups: { name: string, rules: Rule[] }[] }
interface AlertTest { alert_rule_test?: { alertname: string, exp_alerts?: object[] }[] }

const FOLDER = join(ROOT, 'infra/prometheus')
const TESTS = ['alerts.test.yml', 'alerts-of-days.test.yml']
/** Labels that Prometheus or a rule gives; the rest are the metric's own. */
const TARGET_LABELS = ['job', 'instance', 'le']

const read = <T>(file: string) => parse(readFileSync(join(FOLDER, file), 'utf8')) as T
const rules = ['recording-rules.yml', 'alerts.yml'].flatMap(file => read<RuleFile>(file).groups).flatMap(group => group.rules)
const alerts = rules.filter(({ alert }) => alert !== undefined)
const names = [...new Set(alerts.map(({ alert = '' }) => alert))]
const { register } = createMetrics({ version: '0', node: '0' })

await t.test('promtool takes them, and its tests pass', async t => {
  if (!await hasTool(t, ['promtool', '--version'], 'Debian: prometheus', 'whether each alert fires and stays silent')) return
  const check = await tool('promtool', ['check', 'config', 'prometheus.yml'], '', { cwd: FOLDER })
  t.equal(check.code, 0, check.stdout + check.stderr)
  const tests = await tool('promtool', ['test', 'rules', ...TESTS], '', { cwd: FOLDER })
  t.equal(tests.code, 0, tests.stdout + tests.stderr)
})

await t.test('every alert fires in one test and stays silent in another', async t => {
  const expectations = TESTS.flatMap(file => read<{ tests: AlertTest[] }>(file).tests).flatMap(test => test.alert_rule_test ?? [])
  for (const name of names) {
    const of = expectations.filter(({ alertname }) => alertname === name).map(({ exp_alerts: expected = [] }) => expected.length)
    t.ok(of.some(count => count > 0), `${name} fires`)
    t.ok(of.some(count => count === 0), `${name} stays silent`)
  }
  for (const { alertname } of expectations) t.ok(names.includes(alertname), `${alertname} is an alert`)
})

await t.test('every alert says how bad it is, what happened and where its runbook is', async t => {
  for (const { alert = '', labels = {}, annotations = {} } of alerts) {
    t.match(labels['severity'], /^(critical|warning)$/, `${alert}: severity`)
    t.strictSame(Object.keys(annotations).sort(), ['description', 'runbook_url', 'summary'], alert)
    t.equal(annotations['runbook_url'], `{{ $externalLabels.runbooks }}#${alert.toLowerCase()}`, `${alert}: the heading's anchor`)
  }
})

await t.test('every alert has a runbook, and every runbook an alert', async t => {
  const [, part = ''] = /\n### Runbooks\n([^]*?)\n## /.exec(readme()) ?? []
  const runbooks = [...part.matchAll(/^#### (\w+)\n([^]*?)(?=^#### |$(?![^]))/gm)].map(([, name = '', text = '']) => ({ name, text }))
  t.strictSame(runbooks.map(({ name }) => name).sort(), [...names].sort())
  for (const { name, text } of runbooks) {
    t.strictSame([...text.matchAll(/^- \*\*(.+?):\*\*/gm)].map(([, what]) => what), ['Means', 'Look first', 'Do', 'Over when'], name)
    for (const [, anchor] of text.matchAll(/\]\(#([\w-]+)\)/g)) {
      t.ok(readme().split('\n').some(line => /^#+ /.test(line) && anchorOf(line) === anchor), `${name}: #${anchor} is there`)
    }
  }
})

await t.test('they read what the service says', async t => {
  const recorded = rules.flatMap(({ record = [] }) => record)
  for (const { alert, record, expr } of rules) {
    const what = alert ?? record
    for (const { metric, labels } of selectorsOf(expr).filter(({ metric }) => metric !== 'up')) {
      const known = labelsOf(metric)
      t.ok(known, `${what}: ${metric} is a metric`)
      for (const { name, value } of labels) {
        t.ok([...known ?? [], ...TARGET_LABELS].includes(name), `${what}: ${metric} has the label ${name}`)
        if (name === 'step' && metric === 'cvm_reconcile_actions_total') t.ok((RECONCILE_STEPS as readonly string[]).includes(value), `${what}: ${value} is a step`)
      }
      for (const name of groupingsOf(expr)) t.ok([...known ?? [], ...TARGET_LABELS].includes(name), `${what}: ${metric} can be grouped by ${name}`)
    }
    for (const name of recordedIn(expr)) t.ok(recorded.includes(name), `${what}: ${name} is recorded`)
    t.ok(selectorsOf(expr).length + recordedIn(expr).length > 0, `${what} reads something`)
  }
})

await t.test('the objective is about what devices ask, and nothing else', async t => {
  const patterns = rules.flatMap(({ expr }) => [...expr.matchAll(/route=~"(.+?)"/g)].map(([, pattern = '']) => pattern))
  const [pattern = ''] = patterns
  t.strictSame(new Set(patterns), new Set([pattern]), 'wherever it stands')
  const route = new RegExp(`^(${pattern.replaceAll('\\\\', '\\')})$`)
  for (const [, path = '', who = ''] of await accessRows()) t.equal(route.test(path.replaceAll('`', '')), who === 'device', `${path} is for ${who}`)
})

function labelsOf (series: string): string[] | undefined {
  const metric = register.getSingleMetric(series) ?? register.getSingleMetric(series.replace(/_(bucket|sum|count)$/, ''))
  return (metric as { labelNames?: string[] } | undefined)?.labelNames
}

/** As GitHub makes it of a heading. */
function anchorOf (heading: string): string {
  return heading.replace(/^#+ /, '').toLowerCase().replaceAll(/[^\w\- ]/g, '').replaceAll(' ', '-')
}
