// The README's tables are the code's: each is made here from what the code says, and must stand in the README word for word.
// To renew them after a change: UPDATE_README=1 npm test -- test/readme.test.ts
import { readFileSync } from 'node:fs'
import t from 'tap'
import { ERRORS } from '../src/errors.ts'
import { devicePolicy } from '../src/local/device-policy.ts'
import { FROM_ENVIRONMENT, INITIAL, PRODUCT } from '../src/products.ts'
import { createMetrics } from '../src/plugins/metrics.ts'
import { SETTINGS, allowed } from '../src/settings.ts'
import { AUDIT_EVENTS } from '../src/vending/audit.ts'
import { CANDIDATE_REFUSALS } from '../src/vending/activation-candidate.ts'
import { AUTHORITY_REFUSALS } from '../src/vending/authority-rules.ts'
import { FOREIGN_REFUSALS } from '../src/vending/foreign-certificate.ts'
import { REMEDIES, REPAIRS } from '../src/vending/drift-repair.ts'
import { MIGRATION_NOTES } from '../src/vending/migrate.ts'
import type { Result } from './bench/harness.ts'
import { HEAD, rowOf } from './bench/rows.ts'
import { accessRows } from './fixtures/access.ts'
import { variableRows } from './fixtures/infra-variables.ts'
import { isInReadme, readme, table } from './fixtures/readme.ts'
import { CERTIFICATE_REFUSALS, CHAIN_REFUSALS, CSR_REFUSALS } from '../src/x509/refusals.ts'

interface MetricInfo { name: string, help: string, type: string, values: { labels: object }[] }

/** What `npm run bench -- --write` has measured. */
function benched (): Record<string, Result[]> {
  return (JSON.parse(readFileSync(new URL('bench/results.json', import.meta.url), 'utf8')) as { results: Record<string, Result[]> }).results
}

const tables: Record<string, string> = {
  configuration: table(['setting', 'default', 'allowed', 'meaning'], Object.entries(SETTINGS.properties).map(([name, schema]) => {
    const { default: initial, description = '' } = schema as { default?: string | number, description?: string }
    return [`\`${name}\``, initial === undefined || initial === '' ? '' : `\`${initial}\``, allowed(name), description]
  })),
  errors: table(['status', 'code', 'means', 'what to do'], Object.entries(ERRORS).map(([code, { status, title, remedy }]) =>
    [String(status), `\`${code}\``, title, remedy])),
  products: table(['member', 'default', 'allowed', 'meaning'], Object.entries(PRODUCT.properties).map(([member, schema]) => {
    const { allowed = '', description = '' } = schema as { allowed?: string, description?: string }
    return [`\`${member}\``, initialOf(member), allowed, description]
  })),
  'csr-refusals': table(['reason', 'rule'], Object.entries(CSR_REFUSALS).map(([reason, rule]) => [`\`${reason}\``, rule])),
  'certificate-refusals': table(['code', 'reason', 'rule'], [
    ...Object.entries(CERTIFICATE_REFUSALS).filter(([reason]) => !(reason in CSR_REFUSALS) || reason.startsWith('pem-')).map(([reason, rule]) => ['`certificate-rejected`', `\`${reason}\``, rule]),
    ...Object.entries(CHAIN_REFUSALS).map(([reason, rule]) => ['`certificate-not-trusted`', `\`${reason}\``, rule])
  ]),
  'migration-notes': table(['note', 'meaning'], Object.entries(MIGRATION_NOTES).map(([note, meaning]) => [`\`${note}\``, meaning])),
  'foreign-refusals': table(['reason', 'rule'], Object.entries({ ...FOREIGN_REFUSALS, ...CANDIDATE_REFUSALS }).map(([reason, rule]) => [`\`${reason}\``, rule])),
  'authority-refusals': table(['reason', 'rule'], Object.entries(AUTHORITY_REFUSALS).map(([reason, rule]) => [`\`${reason}\``, rule])),
  'device-policy': `\`\`\`json\n${JSON.stringify(devicePolicy('arn:aws:iot:REGION:ACCOUNT'), null, 2)}\n\`\`\``,
  bench: table(HEAD, Object.values(benched()).flat().map(rowOf)),
  access: table(['method', 'route', 'who'], await accessRows()),
  repairs: table(['finding', 'the device is', 'its certificate is', '`registry`', '`aws`'], REPAIRS.map(({ kind, states, statuses, registry, aws }) => [
    `\`${kind}\``, states?.join(' or ') ?? 'any', statuses?.join(' or ') ?? '', registry ? REMEDIES[registry] : '', aws ? REMEDIES[aws] : ''
  ])),
  infrastructure: table(['variable', 'default', 'meaning'], variableRows()),
  audit: table(['event', 'says'], Object.entries(AUDIT_EVENTS).map(([event, meaning]) => [`\`${event}\``, meaning])),
  metrics: table(['metric', 'type', 'labels', 'what it says'], (await ownMetrics()).map(({ name, type, labels, help }) =>
    [`\`${name}\``, type, labels.map(label => `\`${label}\``).join(', '), help]))
}

for (const [name, expected] of Object.entries(tables)) {
  await t.test(`the table of ${name} is the code's`, async t => isInReadme(t, name, expected))
}

await t.test('every npm script that the README names exists', async t => {
  const { scripts } = JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8')) as { scripts: Record<string, string> }
  const named = [...readme().matchAll(/npm run (?:--silent |-s )?([a-z:]+)/g)].map(match => match[1] as string)
  t.ok(named.length > 0)
  for (const name of named) t.ok(scripts[name], name)
})

async function ownMetrics () {
  const { register } = createMetrics({ version: '0', node: '0' })
  const all = await register.getMetricsAsJSON() as unknown as MetricInfo[]
  return all.filter(({ name }) => name.startsWith('cvm_')).map(({ name, help, type }) => {
    const { labelNames } = register.getSingleMetric(name) as unknown as { labelNames: string[] }
    return { name, help, type: String(type), labels: labelNames.filter(label => label !== 'le') }
  })
}

/** What a member of a product is without being told. */
function initialOf (member: string): string {
  if (member in FROM_ENVIRONMENT) return `\`${FROM_ENVIRONMENT[member as keyof typeof FROM_ENVIRONMENT]}\``
  const initial = INITIAL[member as keyof typeof INITIAL]
  const isEmpty = initial === undefined || (typeof initial === 'object' && Object.keys(initial).length === 0)
  return isEmpty ? '' : `\`${[initial].flat().join(', ')}\``
}
