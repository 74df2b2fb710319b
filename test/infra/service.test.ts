// The Terraform of the service: formatted, valid, with the security properties that its own tests name, and in step with the code.
import { cpSync, readFileSync, readdirSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import type { CreateTableCommandInput, DynamoDBClient, UpdateTimeToLiveCommandInput } from '@aws-sdk/client-dynamodb'
import t from 'tap'
import { ensureDeviceTable } from '../../src/adapters/device-table.ts'
import { ensureRateLimitTable } from '../../src/adapters/dynamodb-rate-store.ts'
import { SETTINGS } from '../../src/settings.ts'
import { findMirror, mirrorSettings, terraform } from '../fixtures/terraform.ts'

const ROOT = path.join(import.meta.dirname, '../..')
const ADAPTERS = path.join(ROOT, 'src/adapters')
const INFRA = path.join(ROOT, 'infra')

/** Never called on AWS, where Terraform makes the tables. */
const ON_LAPTOPS_ONLY = ['dynamodb:CreateTable', 'dynamodb:UpdateTimeToLive']

/** Settings that the container must get once the service has them: without them a variable of Terraform does nothing. */
const GIVEN_WHERE_KNOWN = ['RATE_LIMIT_STORE', 'RATE_LIMIT_TABLE', 'ALB_MTLS', 'JITR_SECRET']

/** What SDK clients for documents call the operations of DynamoDB. */
const DOCUMENT_COMMANDS: Record<string, string> = { Get: 'GetItem', Put: 'PutItem', Update: 'UpdateItem', Delete: 'DeleteItem' }

/** The IAM actions of the SDK's commands and paginators that a file imports. */
function actionsOf (source: string): string[] {
  return [...source.matchAll(/import \{([^}]*)\} from '@aws-sdk\/(client-iot|client-iot-data-plane|client-dynamodb|lib-dynamodb)'/g)].flatMap(([, names = '', library = '']) =>
    [...names.matchAll(/(type )?\b(?:paginate(\w+)|(\w+)Command)\b/g)].filter(([, type]) => type === undefined).map(([, , paginated, command = '']) => {
      const operation = paginated ?? command
      return library.includes('iot') ? `iot:${operation}` : `dynamodb:${library === 'lib-dynamodb' ? DOCUMENT_COMMANDS[operation] ?? operation : operation}`
    }))
}

/** What the code needs, as checks of Terraform on its own plan. Messages are expressions, which say what differs. */
async function checksFromCode (): Promise<string> {
  const files = readdirSync(ADAPTERS, { recursive: true, encoding: 'utf8' }).filter(file => file.endsWith('.ts'))
  const sources = files.map(file => readFileSync(path.join(ADAPTERS, file), 'utf8'))
  const actions = JSON.stringify([...new Set(sources.flatMap(actionsOf))].filter(action => !ON_LAPTOPS_ONLY.includes(action)))
  const granted = 'toset(flatten([for each in jsondecode(aws_iam_role_policy.task.policy).Statement : each.Action]))'
  const names = Object.keys(SETTINGS.properties)
  const [settings, wanted] = [JSON.stringify(names), JSON.stringify(GIVEN_WHERE_KNOWN.filter(name => names.includes(name)))]
  const container = 'jsondecode(aws_ecs_task_definition.this.container_definitions)[0]'
  const given = `toset(concat(${container}.environment[*].name, ${container}.secrets[*].name))`
  const index = '[each.name, each.hash_key, each.range_key, each.projection_type, sort(coalesce(each.non_key_attributes, []))]'
  const nothing = (message: string, difference: string): [string, string] => [`length(${difference}) == 0`, `${JSON.stringify(message).slice(0, -1)} \${join(", ", ${difference})}"`]
  const checks: [string, string][] = [
    nothing('src/adapters calls what the task role may not:', `setsubtract(${actions}, ${granted})`),
    nothing('The task role may do what src/adapters does not call:', `setsubtract(${granted}, ${actions})`),
    nothing('Not among the settings of src/settings.ts:', `setsubtract(setunion(${given}, local.managed_settings), ${settings})`),
    nothing('The container does not get:', `setsubtract(${wanted}, ${given})`),
    ...Object.entries(await tablesOfCode()).map(([name, { key, billingMode, attributes, indexes, ttl }]): [string, string] => {
      const table = `aws_dynamodb_table.${name}`
      const isAsInCode = [
        `${table}.hash_key == ${JSON.stringify(key)}`,
        `${table}.billing_mode == ${JSON.stringify(billingMode)}`,
        `{ for each in ${table}.attribute : each.name => each.type } == ${JSON.stringify(attributes)}`,
        `jsonencode([for each in ${table}.global_secondary_index : ${index}]) == ${JSON.stringify(JSON.stringify(indexes))}`,
        `one(${table}.ttl[*].attribute_name) == ${JSON.stringify(ttl)}`
      ]
      return [isAsInCode.join(' && '), `"The table ${name} has other keys, indexes or TTL than the one that the code makes on a laptop."`]
    })
  ]
  return checks.map(([condition, message]) => `  assert {\n    condition = ${condition}\n    error_message = ${message}\n  }\n`).join('')
}

/** The tables that the code makes on a laptop. */
async function tablesOfCode () {
  const made = async (ensure: typeof ensureDeviceTable) => {
    const inputs: (CreateTableCommandInput & UpdateTimeToLiveCommandInput)[] = []
    await ensure({ send: async ({ input }: { input: typeof inputs[0] }) => { inputs.push(input) } } as unknown as DynamoDBClient, 'any')
    const { AttributeDefinitions = [], KeySchema = [], GlobalSecondaryIndexes = [], BillingMode } = inputs[0] ?? {}
    return {
      key: keyOf(KeySchema, 'HASH'),
      billingMode: BillingMode,
      attributes: Object.fromEntries(AttributeDefinitions.map(({ AttributeName, AttributeType }) => [AttributeName, AttributeType])),
      indexes: GlobalSecondaryIndexes.map(({ IndexName, KeySchema, Projection }) => [
        IndexName, keyOf(KeySchema, 'HASH'), keyOf(KeySchema, 'RANGE'), Projection?.ProjectionType, [...Projection?.NonKeyAttributes ?? []].sort()
      ]).sort(),
      ttl: inputs[1]?.TimeToLiveSpecification?.AttributeName ?? null
    }
  }
  return { devices: await made(ensureDeviceTable), rate_limits: await made(ensureRateLimitTable) }
}

function keyOf (schema: readonly { AttributeName?: string | undefined, KeyType?: string | undefined }[] = [], type: string): string | null {
  return schema.find(({ KeyType }) => KeyType === type)?.AttributeName ?? null
}

await t.test('the calls of the code are found', async t => {
  t.strictSame(actionsOf('import {\n  AttachPolicyCommand, type IoTClient, type UpdateThingCommand, paginateListThings\n} from \'@aws-sdk/client-iot\''), ['iot:AttachPolicy', 'iot:ListThings'])
  t.strictSame(actionsOf('import { GetCommand, QueryCommand } from \'@aws-sdk/lib-dynamodb\''), ['dynamodb:GetItem', 'dynamodb:Query'])
})

await t.test('no validation of a variable is without a test', async t => {
  const variables = readFileSync(path.join(INFRA, 'variables.tf'), 'utf8').split(/^variable /m).slice(1)
  const tests = readFileSync(path.join(INFRA, 'tests/variables.tftest.hcl'), 'utf8')
  const expected = [...tests.matchAll(/expect_failures = \[([^\]]*)\]/g)].map(([, names = '']) => names)
  t.ok(variables.length > 30, 'the variables are found')
  for (const each of variables) {
    const name = /^"(\w+)"/.exec(each)?.[1] ?? ''
    const validations = each.split('validation {').length - 1
    t.ok(expected.filter(names => new RegExp(`\\bvar\\.${name}\\b`).test(names)).length >= validations, `${name}: ${validations}`)
  }
})

const found = findMirror()
t.setTimeout(900_000)
await t.test('formatted, valid, secure, and as the code says', { skip: 'missing' in found ? found.missing : false }, async t => {
  if ('missing' in found) return
  const folder = t.testdir({ 'terraform.rc': mirrorSettings(found.folder) })
  cpSync(INFRA, folder, { recursive: true, filter: source => !path.basename(source).startsWith('.terraform') })
  const tests = path.join(folder, 'tests/security.tftest.hcl')
  writeFileSync(tests, readFileSync(tests, 'utf8').replace('run "everything" {\n', `$&${await checksFromCode()}`))
  const succeeds = async (...args: string[]): Promise<string> => {
    const { code, output } = await terraform(folder, args)
    t.equal(code, 0, `terraform ${args.join(' ')}${code === 0 ? '' : `\n${output}`}`)
    return output
  }
  t.equal(await succeeds('fmt', '-check', '-recursive', '-diff', INFRA), '', 'all files are formatted')
  await succeeds('init', '-input=false')
  await succeeds('validate')
  const output = await succeeds('test')
  t.match(output, /^Success! [1-9]\d* passed, 0 failed\.$/m)
})
