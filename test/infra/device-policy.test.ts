// One device policy: what infra/ applies is what local mode makes. test/readme.test.ts compares the README's.
import { readFileSync } from 'node:fs'
import t from 'tap'
import { devicePolicy } from '../../src/local/device-policy.ts'

const ARN = 'arn:aws:iot:eu-central-1:111122223333'
const read = (file: string): string => readFileSync(new URL(`../../infra/${file}`, import.meta.url), 'utf8')

/** What Terraform's `templatefile` makes of a template whose only expressions are these variables. */
function rendered (template: string, variables: Record<string, string>): string {
  return template.replace(/\$\$\{|\$\{(\w+)\}/g, (found, name?: string) => {
    if (name === undefined) return '${'
    const value = variables[name]
    if (value === undefined) throw new Error(`the template names ${found}, which it is not given`)
    return value
  })
}

await t.test('infra/device-policy.json is the policy of local mode', async t => {
  for (const topics of ['devices', 'fleet/eu']) {
    t.strictSame(JSON.parse(rendered(read('device-policy.json'), { arn: ARN, topics })), devicePolicy(ARN, topics))
  }
})

await t.test('infra/iot.tf applies that file, and writes no device policy of its own', async t => {
  const iot = read('iot.tf')
  t.match(iot, /resource "aws_iot_policy" "device" \{\n {2}name = var\.device_policy_name\n {2}policy = jsonencode\(jsondecode\(templatefile\("\$\{path\.module\}\/device-policy\.json", \{\n {4}arn {4}= local\.iot_arn\n {4}topics = var\.device_topics\n/)
  t.notMatch(iot, 'iot:Connection')
})
